package backing

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// The states of a run.
const (
	RunRunning     = "running"
	RunDone        = "done"
	RunPartial     = "partial"
	RunFailed      = "failed"
	RunNothing     = "nothing" // there was nothing to do
	RunInterrupted = "interrupted"
)

// Run is one entry of the ledger.
type Run struct {
	Number       uint64          `json:"run"`
	Job          string          `json:"job"`
	Kind         string          `json:"kind"`
	Due          *time.Time      `json:"due"` // null: not started by a schedule
	Started      *time.Time      `json:"started"`
	Finished     *time.Time      `json:"finished"` // null while it runs
	Status       string          `json:"status"`
	Holder       string          `json:"holder"`
	Attempts     int             `json:"attempts"`
	Error        string          `json:"error,omitempty"`
	Detail       json.RawMessage `json:"detail,omitempty"`
	ConfigDigest string          `json:"config_digest,omitempty"`
}

const (
	kindJob  = "job"  // one item per job that ever ran: what List merges
	kindRuns = "run:" // + job; one item per run, named by its number
	kindDue  = "due:" // + job; one item per claimed due time, named by it

	// Ledger entries may be deleted after this long; claims live longer, so that the last
	// due time of a yearly job is still known.
	runLife = 90 * 24 * time.Hour
	dueLife = 3 * 366 * 24 * time.Hour

	maxErrorBytes = 4 << 10
	// maxDetailBytes leaves room for the rest of the entry within MaxStateBytes.
	maxDetailBytes = 300 << 10
)

// Ledger is the record of runs: what ran, what is running, and which due times are taken.
type Ledger struct {
	state StateStore
	clock clock.Clock
}

// NewLedger makes a ledger over a state store. A nil clock is the machine's.
func NewLedger(state StateStore, c clock.Clock) *Ledger {
	if c == nil {
		c = clock.System
	}
	return &Ledger{state: state, clock: c}
}

// Start records a run that begins. Started defaults to now and Status to running. Starting
// an unfinished run again (a retry) replaces its entry; a finished one is an error matching
// feature.ErrConflict.
func (l *Ledger) Start(ctx context.Context, r Run) error {
	if r.Started == nil {
		now := l.clock.Now().UTC()
		r.Started = &now
	}
	if r.Status == "" {
		r.Status = RunRunning
	}
	return l.put(ctx, r, func(stored Run) error {
		if stored.Finished != nil {
			return fmt.Errorf("start run %d of job %s: %w: it has finished", r.Number, r.Job, feature.ErrConflict)
		}
		return nil
	})
}

// Finish records the end of a run. Finished defaults to now. Fields of the entry that r
// leaves empty (Due, Started, Kind, Holder, ConfigDigest) keep what Start recorded. Finish
// is idempotent: the last one stands.
func (l *Ledger) Finish(ctx context.Context, r Run) error {
	if r.Finished == nil {
		now := l.clock.Now().UTC()
		r.Finished = &now
	}
	return l.put(ctx, r, nil)
}

func (l *Ledger) put(ctx context.Context, r Run, allow func(stored Run) error) error {
	if r.Job == "" || r.Number == 0 {
		return fmt.Errorf("ledger: %w: a run has a job and a number", feature.ErrInvalid)
	}
	if err := l.noteJob(ctx, r.Job); err != nil {
		return err
	}
	r.Error = clip(r.Error, maxErrorBytes)
	if len(r.Detail) > maxDetailBytes {
		r.Detail = json.RawMessage(fmt.Sprintf(`{"omitted":"detail of %d bytes is too long for the ledger"}`, len(r.Detail)))
	}
	kind, name := kindRuns+r.Job, runName(r.Number)
	for {
		var stored Run
		revision, err := LoadJSON(ctx, l.state, kind, name, &stored)
		if err != nil {
			return err
		}
		merged := r
		if revision != 0 {
			if allow != nil {
				if err := allow(stored); err != nil {
					return err
				}
			}
			merged.Kind = cmp.Or(r.Kind, stored.Kind)
			merged.Holder = cmp.Or(r.Holder, stored.Holder)
			merged.ConfigDigest = cmp.Or(r.ConfigDigest, stored.ConfigDigest)
			merged.Attempts = max(r.Attempts, stored.Attempts)
			if r.Due == nil {
				merged.Due = stored.Due
			}
			if r.Started == nil {
				merged.Started = stored.Started
			}
		}
		expire := feature.MicrosOf(l.clock.Now().Add(runLife))
		_, err = saveJSON(ctx, l.state, StateItem{Kind: kind, Name: name, Revision: revision, ExpireAt: expire}, merged)
		if !errors.Is(err, feature.ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("ledger: run %d of job %s: %w", r.Number, r.Job, context.Cause(ctx))
		}
	}
}

// Get returns one run, or an error matching feature.ErrNotFound.
func (l *Ledger) Get(ctx context.Context, job string, number uint64) (Run, error) {
	var r Run
	revision, err := LoadJSON(ctx, l.state, kindRuns+job, runName(number), &r)
	if err == nil && revision == 0 {
		err = fmt.Errorf("run %d of job %s: %w", number, job, feature.ErrNotFound)
	}
	return r, err
}

// List returns the runs of a job, or of all jobs if job is "", newest first: at most limit,
// or all if limit is 0.
func (l *Ledger) List(ctx context.Context, job string, limit int) ([]Run, error) {
	jobs := []string{job}
	if job == "" {
		items, err := l.state.ListState(ctx, kindJob, ListOptions{})
		if err != nil {
			return nil, err
		}
		jobs = jobs[:0]
		for _, item := range items {
			jobs = append(jobs, item.Name)
		}
	}
	var runs []Run
	for _, j := range jobs {
		items, err := l.state.ListState(ctx, kindRuns+j, ListOptions{Limit: limit, Descending: true})
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			var r Run
			if err := json.Unmarshal(item.Value, &r); err != nil {
				return nil, fmt.Errorf("run %s of job %s: %w: %v", item.Name, j, feature.ErrCorrupt, err)
			}
			runs = append(runs, r)
		}
	}
	slices.SortFunc(runs, func(a, b Run) int { return cmp.Compare(b.Number, a.Number) })
	if limit > 0 && len(runs) > limit {
		runs = runs[:limit]
	}
	return runs, nil
}

type claim struct {
	Run uint64    `json:"run"`
	At  time.Time `json:"at"`
}

// ClaimDue takes one due time of a job for a run. Exactly one claim of a due time succeeds,
// on any machine; the others get an error matching feature.ErrConflict. Claiming again for
// the same run is no error.
func (l *Ledger) ClaimDue(ctx context.Context, job string, due time.Time, run uint64) error {
	kind, name := kindDue+job, dueName(due)
	now := l.clock.Now().UTC()
	item := StateItem{Kind: kind, Name: name, ExpireAt: feature.MicrosOf(now.Add(dueLife))}
	_, err := saveJSON(ctx, l.state, item, claim{Run: run, At: now})
	if !errors.Is(err, feature.ErrConflict) {
		return err
	}
	var taken claim
	if _, loadErr := LoadJSON(ctx, l.state, kind, name, &taken); loadErr != nil {
		return loadErr
	}
	if taken.Run == run {
		return nil
	}
	return fmt.Errorf("job %s, due %s: %w: run %d has claimed it", job, due.UTC().Format(time.RFC3339), feature.ErrConflict, taken.Run)
}

// LastDue returns the latest due time of a job that was claimed; ok is false if none was.
func (l *Ledger) LastDue(ctx context.Context, job string) (due time.Time, ok bool, err error) {
	items, err := l.state.ListState(ctx, kindDue+job, ListOptions{Limit: 1, Descending: true})
	if err != nil || len(items) == 0 {
		return time.Time{}, false, err
	}
	due, err = time.Parse(dueLayout, items[0].Name)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("job %s, due time %q: %w: %v", job, items[0].Name, feature.ErrCorrupt, err)
	}
	return due, true, nil
}

func (l *Ledger) noteJob(ctx context.Context, job string) error {
	_, err := l.state.GetState(ctx, kindJob, job)
	if !errors.Is(err, feature.ErrNotFound) {
		return err
	}
	if _, err = SaveJSON(ctx, l.state, kindJob, job, 0, struct{}{}); errors.Is(err, feature.ErrConflict) {
		return nil // another run noted it first
	}
	return err
}

// runName sorts as the number does.
func runName(n uint64) string { return fmt.Sprintf("%020d", n) }

// dueLayout sorts as the instant does: fixed width, UTC.
const dueLayout = "2006-01-02T15:04:05.000000Z"

func dueName(t time.Time) string { return t.UTC().Format(dueLayout) }

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 { // not inside a UTF-8 sequence
		n--
	}
	return s[:n] + "…"
}
