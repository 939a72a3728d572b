package rewarm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/pace"
)

const (
	backoffBase  = 50 * time.Millisecond
	backoffLimit = 5 * time.Second
)

// errStale says that a page has become too old to be put.
var errStale = errors.New("page is too old")

// worthRetry tells errors that pass by themselves. Wrong rights, an absent table and bad
// input do not.
func worthRetry(err error) bool {
	switch {
	case errors.Is(err, feature.ErrDenied), errors.Is(err, feature.ErrNotApplied), errors.Is(err, feature.ErrInvalid),
		errors.Is(err, feature.ErrFull), errors.Is(err, feature.ErrConflict), errors.Is(err, feature.ErrNotFound), errors.Is(err, feature.ErrCorrupt),
		errors.Is(err, feature.ErrUnknownFormat), errors.Is(err, context.Canceled):
		return false
	}
	return true
}

// patiently repeats a call that fails for a passing reason: Attempts times, or until
// StallTimeout when the store refuses for its rate.
func (r *Rewarmer) patiently(ctx context.Context, call func() error) error {
	began := r.cfg.Clock.Now()
	for n, failures := 0, 0; ; n++ {
		err := call()
		if err == nil || !worthRetry(err) || ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, feature.ErrThrottled) {
			if failures++; failures >= r.cfg.Attempts {
				return err
			}
		}
		if r.cfg.Clock.Now().Sub(began) > r.cfg.StallTimeout {
			return err
		}
		if r.cfg.Clock.Sleep(ctx, pace.Backoff(n, backoffBase, backoffLimit)) != nil {
			return err
		}
	}
}

// put sends the records of one page in batches and returns when each is acknowledged or
// given up. Records that cannot be put for a reason of their own go to failed; an error
// means that the tier as a whole does not take them (or ctx ended, or the page is stale)
// and the page must not be checkpointed.
func (p *pass) put(ctx context.Context, recs []feature.Record, read time.Time, c *Counts, failed *[]failedRef, seen func(*feature.Record)) error {
	for len(recs) > 0 {
		n := p.room.take(min(len(recs), p.batchSize()))
		if n == 0 {
			return errNoRoom
		}
		before := c.Written
		err := p.putBatch(ctx, recs[:n], read, c, failed, seen)
		p.room.give(n - int(c.Written-before)) // what was there already, or failed, took none
		if err != nil {
			return err
		}
		recs = recs[n:]
	}
	return nil
}

func (p *pass) putBatch(ctx context.Context, recs []feature.Record, read time.Time, c *Counts, failed *[]failedRef, seen func(*feature.Record)) error {
	cfg := &p.r.cfg
	if err := p.writes.Wait(ctx, float64(len(recs))); err != nil {
		return err
	}
	began := cfg.Clock.Now()
	failures := 0
	for n := 0; ; n++ {
		if cfg.Clock.Now().Sub(read) > cfg.MaxPageAge {
			return errStale
		}
		var (
			results []feature.PutResult
			err     error
		)
		if wait := p.window.Do(ctx, func() bool {
			results, err = cfg.Online.Put(ctx, recs)
			return err != nil || anyLoaded(results)
		}); wait != nil {
			return wait
		}
		if err != nil && len(results) != len(recs) {
			results = make([]feature.PutResult, len(recs))
			for i := range results {
				results[i].Err = err
			}
		}
		left, first := p.settle(recs, results, c, seen)
		if len(left) < len(recs) {
			p.acked.reset(cfg.Clock.Now())
		}
		if len(left) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		recs = left
		if errors.Is(first, feature.ErrFull) { // no record's own fault
			if p.room != nil { // there was less room than planned
				return errNoRoom
			}
			return fmt.Errorf("put %d records (first %s) into the online tier: %w", len(recs), recs[0].Ref, first)
		}
		throttled := errors.Is(first, feature.ErrThrottled)
		if throttled {
			p.throttled.Add(1)
		} else {
			failures++
		}
		now := cfg.Clock.Now()
		if now.Sub(read) > cfg.MaxPageAge {
			return errStale // the machine slept: that is no stall
		}
		stalled := p.acked.since(began, now) > cfg.StallTimeout
		if !worthRetry(first) || failures >= cfg.Attempts || stalled {
			if errors.Is(first, feature.ErrUnreachable) || errors.Is(first, feature.ErrDenied) || throttled {
				return fmt.Errorf("put %d records (first %s) into the online tier: %w", len(recs), recs[0].Ref, first)
			}
			return p.giveUp(ctx, recs, c, failed, seen)
		}
		if err := cfg.Clock.Sleep(ctx, pace.Backoff(n, backoffBase, backoffLimit)); err != nil {
			return err
		}
	}
}

func anyLoaded(results []feature.PutResult) bool {
	for i := range results {
		if r := &results[i]; r.Outcome == feature.Failed &&
			(errors.Is(r.Err, feature.ErrThrottled) || errors.Is(r.Err, feature.ErrUnreachable)) {
			return true
		}
	}
	return false
}

// settle counts what was acknowledged and returns the rest, at the front of recs, with the
// error to decide by: the first that is worth another try, else the first.
func (p *pass) settle(recs []feature.Record, results []feature.PutResult, c *Counts, seen func(*feature.Record)) (left []feature.Record, first error) {
	left = recs[:0]
	for i := range recs {
		rec := &recs[i]
		switch results[i].Outcome {
		case feature.Written, feature.Unchanged, feature.Older:
			p.acknowledged(rec, results[i].Outcome, c)
			if seen != nil {
				seen(rec)
			}
		case feature.Expired:
			c.Expired++
		default:
			err := results[i].Err
			if err == nil {
				err = errors.New("the online tier gave no reason")
			}
			if first == nil || !worthRetry(first) && worthRetry(err) {
				first = err
			}
			left = append(left, *rec)
		}
	}
	return left, first
}

func (p *pass) acknowledged(rec *feature.Record, outcome feature.Outcome, c *Counts) {
	switch {
	case rec.Tombstone():
		c.Deleted++
		c.Skipped++
	case outcome == feature.Written:
		c.Written++
		c.Bytes += int64(len(rec.Payload))
	default:
		c.AlreadyNewer++
	}
}

// giveUp tries what is left one by one, so that a record that the tier cannot take does
// not keep its neighbours out, and lists those that still fail.
func (p *pass) giveUp(ctx context.Context, recs []feature.Record, c *Counts, failed *[]failedRef, seen func(*feature.Record)) error {
	for i := range recs {
		results, err := p.r.cfg.Online.Put(ctx, recs[i:i+1])
		if err != nil && len(results) != 1 {
			return fmt.Errorf("put %s into the online tier: %w", recs[i].Ref, err)
		}
		left, first := p.settle(recs[i:i+1], results, c, seen)
		if len(left) == 0 {
			continue
		}
		if errors.Is(first, feature.ErrUnreachable) || errors.Is(first, feature.ErrDenied) || ctx.Err() != nil {
			return fmt.Errorf("put %s into the online tier: %w", left[0].Ref, first)
		}
		if err := fail(failed, c, left[0].Ref, first); err != nil {
			return err
		}
	}
	return nil
}

// fail lists a record that cannot be put. Too many mean that not the records are at fault.
func fail(failed *[]failedRef, c *Counts, ref feature.Ref, reason error) error {
	if len(*failed) >= maxFailedKeys {
		return fmt.Errorf("more than %d records of one segment cannot be put; the last was %s: %w", maxFailedKeys, ref, reason)
	}
	*failed = append(*failed, failedRef{View: ref.View, Key: ref.Key, Reason: reason.Error()})
	c.Failed++
	return nil
}
