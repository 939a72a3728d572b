package materializer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// Guards of a forgotten entity.
const (
	// DefaultGuard is how long the backing tier refuses an erased entity's older rows.
	DefaultGuard = 30 * 24 * time.Hour
	// MinGuard is longer than any writer may hold a value between reading and writing it.
	MinGuard = time.Hour
)

// ForgetRequest names what to erase.
type ForgetRequest struct {
	Run uint64 // as in Request
	// Refs are the entity's values: one per view version, stored or not. A ref whose value is
	// not stored is guarded all the same: its row may be on its way.
	Refs []feature.Ref
	// Guard is how long the deletion stays in the backing tier. Defaults to DefaultGuard; at
	// least MinGuard.
	Guard time.Duration
}

// ForgetReport is what an erasure did. It names no key and no value.
type ForgetReport struct {
	Status     string         `json:"status"`
	GuardUntil time.Time      `json:"guard_until"`
	Views      []ForgetResult `json:"views"` // aligned with ForgetRequest.Refs
}

// ForgetResult is what became of one value.
type ForgetResult struct {
	View feature.ViewID `json:"view"`
	// Backing is erased (a value was there and is gone), absent (none was there), or failed.
	Backing string `json:"backing"`
	// Online is erased (whatever was there is gone), or failed: it may still hold the value.
	Online string `json:"online"`
}

// What became of a value.
const (
	ForgetErased = "erased"
	ForgetAbsent = "absent"
	ForgetFailed = "failed"
)

// forgetTries bounds how often a writer may get between reading and erasing.
const forgetTries = 5

// Forget replaces values by deletions in both tiers, the backing tier first.
//
// A deletion holds no feature, only the key and a version. Its event time is the moment of
// the erasure, so every row about an earlier moment is older than it and refused, whatever
// run brings it and how often: what a materialization, a rewarm or a read repair holds
// already cannot come back. A row about a later moment is a new fact, and is stored. The
// guard ends by itself after Guard: then nothing names the entity any more, and a source
// that still has its rows brings it back.
//
// It is idempotent. The report is nil only for an invalid request; the error is nil exactly
// when the status is done. Errors of the tiers may name the key.
func (m *Materializer) Forget(ctx context.Context, req ForgetRequest) (*ForgetReport, error) {
	if req.Guard == 0 {
		req.Guard = DefaultGuard
	}
	switch {
	case req.Run == 0 || len(req.Refs) == 0:
		return nil, fmt.Errorf("forget: %w: a run number and at least one value are required", feature.ErrInvalid)
	case req.Guard < MinGuard:
		return nil, fmt.Errorf("forget: %w: a guard of %s is shorter than what a writer may hold back; give at least %s", feature.ErrInvalid, req.Guard, MinGuard)
	}
	f := &forget{m: m, req: req, now: feature.MicrosOf(m.clock.Now()), results: make([]ForgetResult, len(req.Refs))}
	f.until = f.now.Add(req.Guard)
	pending := make([]int, len(req.Refs))
	for i, ref := range req.Refs {
		pending[i] = i
		f.results[i] = ForgetResult{View: ref.View, Backing: ForgetFailed, Online: ForgetFailed}
	}
	for try := 0; len(pending) > 0 && try < forgetTries && ctx.Err() == nil; try++ {
		pending = f.erase(ctx, pending)
	}
	r := &ForgetReport{Status: StatusDone, GuardUntil: f.until.Time(), Views: f.results}
	var done, failed int64
	some := false
	for _, v := range f.results {
		some = some || v.Backing != ForgetFailed
		if v.Backing == ForgetFailed || v.Online == ForgetFailed {
			failed++
			continue
		}
		done++
	}
	if failed == 0 {
		return r, nil
	}
	r.Status = StatusPartial
	if !some {
		r.Status = StatusFailed
	}
	if ctx.Err() != nil {
		f.err = context.Cause(ctx)
	}
	return r, &feature.PartialError{Op: "forget", Done: done, Failed: failed, Err: f.err}
}

type forget struct {
	m       *Materializer
	req     ForgetRequest
	now     feature.Micros
	until   feature.Micros
	results []ForgetResult
	err     error // the first cause
}

func (f *forget) note(err error) {
	if f.err == nil && err != nil {
		f.err = err
	}
}

// erase tries the given positions once and returns those whose value changed meanwhile.
func (f *forget) erase(ctx context.Context, at []int) (again []int) {
	refs := make([]feature.Ref, len(at))
	for n, i := range at {
		refs[n] = f.req.Refs[i]
	}
	stored, err := f.m.cfg.Backing.Get(ctx, refs)
	if err == nil && len(stored) != len(refs) {
		err = fmt.Errorf("backing tier returned %d results for %d keys", len(stored), len(refs))
	}
	if err != nil {
		f.note(fmt.Errorf("backing tier: %w", err))
		return nil
	}
	recs, rows := make([]feature.Record, 0, len(at)), make([]int, 0, len(at))
	held := make([]bool, 0, len(at)) // a value was there
	for n, i := range at {
		if stored[n].Err != nil {
			f.note(fmt.Errorf("backing tier: %w", stored[n].Err))
			continue
		}
		recs, rows = append(recs, f.deletion(refs[n], stored[n].Payload)), append(rows, i)
		held = append(held, len(stored[n].Payload) > 0 && stored[n].Payload[0] != feature.FormatTombstone)
	}
	if len(recs) == 0 {
		return nil
	}
	results, err := f.m.cfg.Backing.Put(ctx, recs)
	if len(results) != len(recs) {
		f.note(fmt.Errorf("backing tier: %w", errors.Join(err, fmt.Errorf("%d results for %d records", len(results), len(recs)))))
		return nil
	}
	keep, kept := recs[:0], rows[:0]
	for n, res := range results {
		i := rows[n]
		switch res.Outcome {
		case feature.Written, feature.Unchanged:
			if f.results[i].Backing = ForgetAbsent; held[n] {
				f.results[i].Backing = ForgetErased
			}
			if res.Outcome == feature.Unchanged {
				recs[n].Version = res.Stored
				feature.SetVersion(recs[n].Payload, res.Stored)
			}
			keep, kept = append(keep, recs[n]), append(kept, i)
		case feature.Older: // somebody stored a later moment since it was read
			f.note(fmt.Errorf("backing tier: %w: a newer value was stored meanwhile, %d times", feature.ErrConflict, forgetTries))
			again = append(again, i)
		default:
			f.note(fmt.Errorf("backing tier: %w", res.Err))
		}
	}
	f.online(ctx, keep, kept)
	return again
}

// deletion is newer than everything about the time until now, and than what is stored.
func (f *forget) deletion(ref feature.Ref, stored []byte) feature.Record {
	v := feature.Version{Event: f.now, Created: f.now, Run: f.req.Run}
	if h, _, err := feature.ParsePayload(stored); err == nil && h.Version.Event >= v.Event {
		v.Event = h.Version.Event + 1 // pushed about a time to come
	}
	payload := feature.AppendPayload(nil, feature.Header{Version: v, Tombstone: true}, nil)
	return feature.Record{Ref: ref, Version: v, Payload: payload, Online: feature.NoTime, Retain: f.until}
}

// online puts the markers that the backing tier acknowledged.
func (f *forget) online(ctx context.Context, recs []feature.Record, rows []int) {
	if len(recs) == 0 {
		return
	}
	results, err := f.m.cfg.Online.Put(ctx, recs)
	if len(results) != len(recs) {
		f.note(fmt.Errorf("online tier: %w", errors.Join(err, fmt.Errorf("%d results for %d records", len(results), len(recs)))))
		return
	}
	for n, res := range results {
		switch res.Outcome {
		case feature.Failed:
			f.note(fmt.Errorf("online tier: %w", res.Err))
		default:
			// Older means that something newer than the deletion is there: a new fact.
			f.results[rows[n]].Online = ForgetErased
		}
	}
}
