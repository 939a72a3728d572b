package rewarm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// The ways to sample.
const (
	// SampleKeys takes each key with the same chance, by a hash of its name: the strictest
	// bound per key compared, and the whole table is read.
	SampleKeys = "keys"
	// SampleSegments reads only a share of very many small segments. Entities are spread
	// over segments by hash, so every key has the same chance, but those of one segment
	// come together: the bound counts segments, not keys. It costs a share of the reads.
	SampleSegments = "segments"
)

// VerifyRequest asks for a comparison of the tiers.
type VerifyRequest struct {
	// Fraction of the keys to compare; 1 compares all, and also looks for keys that only
	// the online tier has.
	Fraction float64
	// Seed chooses the sample: equal seeds take equal keys.
	Seed uint64
	// Views bounds the comparison. Defaults to all declared ones.
	Views []feature.ViewID
	// Repair puts what is missing or older, and removes what should not be there where the
	// online tier can remove (see [Deleter]).
	Repair bool
	// Sampling is SampleKeys or SampleSegments. Defaults to keys, and to segments when the
	// table has over 4 GB and Fraction is at most a half.
	Sampling string
	// Segments is the number of parts of the scan. Defaults to 0: by the table's size.
	Segments int
	// MaxReadRate is the most read units per second; 0 for no bound.
	MaxReadRate float64

	first int // only the first so many segments; 0 for all
}

// Deleter is an online tier that can remove values whatever their version; results are
// aligned. Verify uses it, if Online has it, to repair what no put can.
type Deleter interface {
	Delete(ctx context.Context, refs []feature.Ref) ([]error, error)
}

const (
	maxExamples  = 100
	maxPending   = 5_000   // suspects that are looked at again together
	bigTable     = 4 << 30 // from here on a small sample reads segments
	clusterItems = 16      // wanted per sampled segment
	verifyBatch  = 500     // keys per read of the online tier
	looks        = 3       // at a suspect, after the first
	maxLooks     = 8       // when it keeps changing
)

// verifier is one comparison.
type verifier struct {
	r       *Rewarmer
	req     VerifyRequest
	views   viewSet
	scanner *scanner
	deleter Deleter // may be nil
	all     bool
	mode    string
	of      int // segments of the table

	mu      sync.Mutex
	rep     *VerifyReport
	pending []suspect
	known   *keyHashes // of the table; nil for a sample
	bad     map[int]bool
	total   int64
}

// Verify compares the tiers. A difference is reported only when it is still there after
// three more looks: writers go to the table first and to the online tier a moment later.
func (r *Rewarmer) Verify(ctx context.Context, req VerifyRequest) (*VerifyReport, error) {
	rep := &VerifyReport{Fraction: req.Fraction, Examples: []Difference{}, UpperBound95: 1}
	views, err := r.check(Request{Views: req.Views, Segments: req.Segments, MaxReadRate: req.MaxReadRate, Verify: req.Fraction})
	if err != nil {
		return rep, fmt.Errorf("verify: %w", err)
	}
	if req.Fraction == 0 {
		return rep, fmt.Errorf("verify: %w: the fraction of keys must be above 0, at most 1", feature.ErrInvalid)
	}
	began := r.cfg.Clock.Now()
	if _, err := r.warmth(ctx); err != nil {
		return rep, err
	}
	table, err := r.cfg.Backing.Table(ctx)
	if err != nil {
		return rep, fmt.Errorf("verify: describe the backing tier: %w", err)
	}
	v := &verifier{r: r, req: req, views: views, scanner: r.newScanner(req.MaxReadRate, r.cfg.Workers), all: req.Fraction == 1, rep: rep, bad: map[int]bool{}}
	v.deleter, _ = r.cfg.Online.(Deleter)
	if err := v.choose(table); err != nil {
		return rep, err
	}
	err = v.run(ctx)
	rep.Seconds = r.cfg.Clock.Now().Sub(began).Seconds()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return rep, fmt.Errorf("verify: after %d keys: %w", rep.Compared, err)
	}
	return rep, nil
}

// choose decides how to sample and how finely to cut the table.
func (v *verifier) choose(t Table) error {
	v.mode = v.req.Sampling
	switch v.mode {
	case "":
		v.mode = SampleKeys
		if t.Bytes > bigTable && v.req.Fraction <= 0.5 {
			v.mode = SampleSegments
		}
	case SampleKeys, SampleSegments:
	default:
		return fmt.Errorf("verify: %w: unknown sampling %q; use %s or %s", feature.ErrInvalid, v.mode, SampleKeys, SampleSegments)
	}
	if v.all {
		v.mode, v.known = SampleKeys, &keyHashes{}
	}
	v.of = v.req.Segments
	if v.of == 0 {
		v.of = segmentsFor(t)
		if v.mode == SampleSegments {
			v.of = int(min(max(t.Items/clusterItems, 1000), 1_000_000))
		}
	}
	v.total = int64(float64(t.Items) * v.req.Fraction)
	v.rep.Sampling, v.rep.SegmentsOf = v.mode, v.of
	return nil
}

// chance turns a hash into a number in [0, 1).
func chance(h uint64) float64 { return float64(h>>11) / (1 << 53) }

// takesKey is the sample by keys.
func (v *verifier) takesKey(ref feature.Ref) bool {
	return v.all || v.mode == SampleSegments || chance(refHash(ref, v.req.Seed)) < v.req.Fraction
}

func refHash(ref feature.Ref, seed uint64) uint64 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], seed)
	binary.LittleEndian.PutUint64(b[8:], uint64(ref.View.Version))
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(b[:])
	_, _ = d.WriteString(ref.View.Name)
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(string(ref.Key))
	return d.Sum64()
}

// sampleOf lists the segments to read.
func (v *verifier) sampleOf() []int {
	segments := make([]int, 0, v.of)
	for i := range v.of {
		if v.req.first > 0 && i >= v.req.first {
			break
		}
		if v.mode == SampleSegments {
			var b [16]byte
			binary.LittleEndian.PutUint64(b[:8], v.req.Seed)
			binary.LittleEndian.PutUint64(b[8:], uint64(i))
			if chance(xxhash.Sum64(b[:])) >= v.req.Fraction {
				continue
			}
		}
		segments = append(segments, i)
	}
	return segments
}

func (v *verifier) run(ctx context.Context) error {
	segments := v.sampleOf()
	v.rep.Segments = len(segments)
	work := make(chan int)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		for _, s := range segments {
			select {
			case <-gctx.Done():
				return nil
			case work <- s:
			}
		}
		return nil
	})
	for range min(v.r.cfg.Workers, max(len(segments), 1)) {
		g.Go(func() error {
			var page feature.ScanPage
			for s := range work {
				if err := v.segment(gctx, s, &page); err != nil {
					return fmt.Errorf("segment %d of %d: %w", s, v.of, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := v.drain(ctx, 1); err != nil {
		return err
	}
	v.bound()
	if !v.all {
		return nil
	}
	return v.extras(ctx)
}

// bound computes the upper bound from what the sample found. Keys that are only in the
// online tier are no part of the population.
func (v *verifier) bound() {
	differ := v.rep.Differences()
	switch {
	case v.rep.Compared == 0:
		v.rep.UpperBound95 = 1
	case v.all:
		v.rep.UpperBound95 = float64(differ) / float64(v.rep.Compared)
	case v.mode == SampleSegments:
		v.rep.UpperBound95 = upperBound95(int64(len(v.bad)), int64(v.rep.Segments))
	default:
		v.rep.UpperBound95 = upperBound95(differ, v.rep.Compared)
	}
}

func (v *verifier) segment(ctx context.Context, segment int, page *feature.ScanPage) error {
	req := feature.ScanRequest{Segment: segment, Segments: v.of, Views: v.views.ids()}
	for {
		if err := v.scanner.scan(ctx, req, page); err != nil {
			return err
		}
		next := slices.Clone(page.Next)
		if err := v.page(ctx, segment, page); err != nil {
			return err
		}
		if err := v.drain(ctx, maxPending); err != nil {
			return err
		}
		if page.Next == nil {
			return nil
		}
		req.Cursor = next
	}
}

// page compares the sampled records of a page.
func (v *verifier) page(ctx context.Context, segment int, page *feature.ScanPage) error {
	v.known.add(page.Records)
	keep := page.Records
	if !v.all && v.mode != SampleSegments { // a slice of its own: the page's records keep their memory
		keep = nil
		for _, rec := range page.Records {
			if v.takesKey(rec.Ref) {
				keep = append(keep, rec)
			}
		}
	}
	var refs []feature.Ref
	for len(keep) > 0 {
		n := min(len(keep), verifyBatch)
		refs = refs[:0]
		for i := range keep[:n] {
			refs = append(refs, keep[i].Ref)
		}
		got, err := v.r.getAll(ctx, v.r.cfg.Online, refs)
		if err != nil {
			return fmt.Errorf("get %d records from the online tier: %w", n, err)
		}
		v.compare(segment, keep[:n], got)
		keep = keep[n:]
	}
	v.mu.Lock()
	v.rep.ReadUnits += page.ReadUnits
	v.r.cfg.Progress.Report(telemetry.Progress{Stage: "verify", Unit: "keys", Done: v.rep.Sampled, Total: max(v.total, v.rep.Sampled)})
	v.mu.Unlock()
	return nil
}

// drain looks at the pending suspects again when there are at least n.
func (v *verifier) drain(ctx context.Context, n int) error {
	v.mu.Lock()
	if len(v.pending) < n {
		v.mu.Unlock()
		return nil
	}
	suspects := v.pending
	v.pending = nil
	v.rep.Rechecked += int64(len(suspects))
	v.mu.Unlock()
	for i := 0; i < maxLooks && len(suspects) > 0; i++ {
		wait := v.r.cfg.RecheckDelay << min(i, looks)
		if err := v.r.cfg.Clock.Sleep(ctx, wait); err != nil {
			return err
		}
		var err error
		if suspects, err = v.again(ctx, suspects); err != nil {
			return err
		}
	}
	return nil
}

// errNoDeleter explains what a put cannot repair.
var errNoDeleter = errors.New("this needs a removal, which the online tier does not offer")

// repair makes the online tier as the table is, and says whether it worked.
func (v *verifier) repair(ctx context.Context, s *suspect) (bool, error) {
	switch s.kind {
	case Ahead:
		return false, errors.New("online is newer than the table: find the writer that does not write to the table first; a push or materialize of the key settles it")
	case Extra:
		return v.remove(ctx, s.ref)
	}
	rec, err := feature.NewRecord(v.views.byID[s.ref.View], s.ref.Key, s.table)
	if err != nil {
		return false, err
	}
	res, err := v.putOne(ctx, rec)
	if err == nil && s.kind == Different && res.Outcome != feature.Written {
		// This tier does not replace a version by itself: make room for it.
		if done, err := v.remove(ctx, s.ref); !done {
			return false, err
		}
		_, err = v.putOne(ctx, rec)
	}
	return err == nil, err
}

func (v *verifier) putOne(ctx context.Context, rec feature.Record) (res feature.PutResult, err error) {
	err = v.r.patiently(ctx, func() error {
		results, err := v.r.cfg.Online.Put(ctx, []feature.Record{rec})
		if err != nil {
			return err
		}
		res = results[0]
		return res.Err
	})
	return res, err
}

func (v *verifier) remove(ctx context.Context, ref feature.Ref) (bool, error) {
	if v.deleter == nil {
		return false, errNoDeleter
	}
	errs, err := v.deleter.Delete(ctx, []feature.Ref{ref})
	if err == nil && len(errs) > 0 {
		err = errs[0]
	}
	return err == nil, err
}
