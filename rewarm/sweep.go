package rewarm

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/hearthstore/hearth/feature"
)

// maxKnownKeys bounds the hashes of table keys that are kept to find extras: 512 MB. A
// table with more keys is asked for each key of the online tier instead.
const maxKnownKeys = 64 << 20

// keyHashes remembers which keys a scan of the table showed, in 8 bytes each. It is safe
// for concurrent use; nil remembers nothing.
type keyHashes struct {
	mu      sync.Mutex
	hashes  []uint64
	tooMany bool
}

func (k *keyHashes) add(recs []feature.Record) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tooMany {
		return
	}
	if len(k.hashes)+len(recs) > maxKnownKeys {
		k.tooMany, k.hashes = true, nil
		return
	}
	for i := range recs {
		k.hashes = append(k.hashes, refHash(recs[i].Ref, 0))
	}
}

// sorted is to be called once, when everything has been added.
func (k *keyHashes) sorted() []uint64 {
	slices.Sort(k.hashes)
	return k.hashes
}

// sweep removes what only the online tier has. Every key that the scan of this run did not
// show is asked for in the table, so that a scan that was resumed costs reads, never a value.
func (p *pass) sweep(ctx context.Context) error {
	v := &verifier{
		r: p.r, req: VerifyRequest{Fraction: 1, Repair: true}, views: p.views, scanner: p.scanner, all: true,
		mode: SampleKeys, of: p.attempt.Segments, rep: &VerifyReport{Fraction: 1}, bad: map[int]bool{}, known: p.known,
	}
	v.deleter, _ = p.r.cfg.Online.(Deleter)
	if err := v.extras(ctx); err != nil {
		return fmt.Errorf("everything was put, but what only the online tier has was not removed: %w", err)
	}
	p.rep.Swept += v.rep.Repaired
	if left := v.rep.Differences() - v.rep.Repaired; left > 0 {
		p.rep.Status = StatusPartial
		p.rep.Problems = append(p.rep.Problems, fmt.Sprintf("%s values that the table has not are left in the online tier (%s); hearth verify --repair tries again", count(left), v.rep.Unrepaired))
	}
	return nil
}
