package rewarm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/pace"
)

// scanner reads pages at the pace that is asked for. It is shared by the workers.
type scanner struct {
	r         *Rewarmer
	reads     *pace.Bucket
	window    *pace.Window // scans in flight
	fetches   *pace.Window // fetches in flight
	throttled atomic.Int64
	moved     stopwatch

	mu    sync.Mutex
	units float64 // mean read units of a page
}

func (r *Rewarmer) newScanner(maxReadRate float64, workers int) *scanner {
	return &scanner{
		r:       r,
		reads:   pace.NewBucket(r.cfg.Clock, maxReadRate, 0),
		window:  pace.NewWindow(pace.WindowConfig{Clock: r.cfg.Clock, Max: workers}),
		fetches: pace.NewWindow(pace.WindowConfig{Clock: r.cfg.Clock, Max: workers * hotReaders}),
	}
}

// scan reads a page. It waits as long as the table refuses for its rate (up to
// StallTimeout), and tries Attempts times when it fails for a reason that may pass.
func (s *scanner) scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error {
	cfg := &s.r.cfg
	tries := tries{s: s, began: cfg.Clock.Now()}
	for {
		estimate := s.expected()
		if err := s.reads.Wait(ctx, estimate); err != nil {
			return err
		}
		var err error
		if wait := s.window.Do(ctx, func() bool {
			err = cfg.Backing.Scan(ctx, req, page)
			return errors.Is(err, feature.ErrThrottled)
		}); wait != nil {
			return wait
		}
		if err == nil {
			s.reads.Spend(page.ReadUnits - estimate)
			s.saw(page.ReadUnits)
			s.moved.reset(cfg.Clock.Now())
			return nil
		}
		s.reads.Spend(-estimate)
		if err := tries.again(ctx, "scan the backing tier", err); err != nil {
			return err
		}
	}
}

// tries counts how often one read of the table did not succeed.
type tries struct {
	s        *scanner
	began    time.Time
	failures int // other than throttles
	waits    int // since something was read
}

// again waits before the next try after err, or returns why there is none: the context
// ended, the failure will not pass or came Attempts times, or nothing moves any more.
func (t *tries) again(ctx context.Context, what string, err error) error {
	cfg := &t.s.r.cfg
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, feature.ErrThrottled) {
		t.s.throttled.Add(1)
	} else if t.failures++; t.failures >= cfg.Attempts || !worthRetry(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if t.s.moved.since(t.began, cfg.Clock.Now()) > cfg.StallTimeout {
		return fmt.Errorf("%s: no progress for %s: %w", what, cfg.StallTimeout, err)
	}
	t.waits++
	return cfg.Clock.Sleep(ctx, pace.Backoff(t.waits-1, backoffBase, backoffLimit))
}

// get reads single values. The table charges half a unit per value of up to 4 KB; Get does
// not report it. Values that are not readable come as errors of their own; any other
// failure is an error of the whole.
func (s *scanner) get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	all := make([]feature.GetResult, 0, len(refs))
	for len(refs) > 0 {
		n := min(len(refs), hotBatch)
		if err := s.reads.Wait(ctx, float64(n)/2); err != nil {
			return nil, err
		}
		results, err := s.r.getAll(ctx, s.r.cfg.Backing, refs[:n])
		if err != nil {
			return nil, fmt.Errorf("get %d records from the backing tier: %w", n, err)
		}
		all = append(all, results...)
		refs = refs[n:]
	}
	return all, nil
}

// stopwatch tells how long nothing has moved. Workers share it: under heavy throttling one
// may wait long for its turn while the others get through, and that is no stall.
type stopwatch struct{ last atomic.Int64 }

func (w *stopwatch) reset(now time.Time) { w.last.Store(now.UnixMicro()) }

// since is the time from the last move, or from began if that is later, until now.
func (w *stopwatch) since(began, now time.Time) time.Duration {
	if last := time.UnixMicro(w.last.Load()); last.After(began) {
		began = last
	}
	return now.Sub(began)
}

// getter is what both tiers can do.
type getter interface {
	Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error)
}

// getAll gets refs until every one is answered, by a value, by nothing, or by bytes that
// are not readable.
func (r *Rewarmer) getAll(ctx context.Context, tier getter, refs []feature.Ref) ([]feature.GetResult, error) {
	var results []feature.GetResult
	err := r.patiently(ctx, func() (err error) {
		if results, err = tier.Get(ctx, refs); err != nil {
			return err
		}
		for i := range results {
			if err := results[i].Err; err != nil && !unreadable(err) {
				return fmt.Errorf("%s: %w", refs[i], err)
			}
		}
		return nil
	})
	return results, err
}

// unreadable says that there is something, but not what.
func unreadable(err error) bool {
	return errors.Is(err, feature.ErrCorrupt) || errors.Is(err, feature.ErrUnknownFormat)
}

func (s *scanner) expected() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.units
}

func (s *scanner) saw(units float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units == 0 {
		s.units = units
	}
	s.units += (units - s.units) / 8
}
