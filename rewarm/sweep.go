package rewarm

import (
	"context"
	"errors"
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
	if k == nil {
		return nil
	}
	slices.Sort(k.hashes)
	return k.hashes
}

// mustSweep finds out whether values came from another source since the table last had the
// word: an export knows nothing of what was erased after it.
func (p *pass) mustSweep(ctx context.Context) error {
	if p.r.cfg.Source != "" {
		return nil
	}
	source, err := p.r.attemptNamed(ctx, sourcePrefix+stateAttempt)
	if err != nil || source.ID == "" || source.Swept {
		return err
	}
	p.source = source
	if !p.req.Range { // a range sees too little of the table to remember
		p.known = &keyHashes{}
	}
	return nil
}

// sweep removes what only the online tier has: values that another source brought and that
// the table has erased. Every key that the scan of this run did not show is asked for in the
// table, so that a scan that was resumed, or of a range, costs reads, never a value.
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
		p.rep.Status = StatusPartial // the next run sweeps again
		p.rep.Problems = append(p.rep.Problems, fmt.Sprintf("%s values that the table has not are left in the online tier (%s); run it again", count(left), v.rep.Unrepaired))
		return nil
	}
	if p.views.subset {
		return nil
	}
	p.source.Swept = true
	_, err := p.r.save(ctx, sourcePrefix+stateAttempt, &p.source, p.source.revision)
	if errors.Is(err, feature.ErrConflict) { // somebody brings an export anew: the next run sweeps
		return nil
	}
	return err
}
