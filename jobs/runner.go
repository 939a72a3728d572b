package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// The states of a run in the ledger.
const (
	StatusRunning     = "running"
	StatusDone        = "done"
	StatusPartial     = "partial"
	StatusFailed      = "failed"
	StatusNothing     = "nothing"     // there was nothing to do
	StatusInterrupted = "interrupted" // stopped from outside; what it saved is resumed
)

// ErrTimeout is the cause with which a run's context ends when its time is over.
var ErrTimeout = errors.New("run timed out")

// ErrDueTaken marks a due time that another run has already claimed. It matches
// feature.ErrConflict.
var ErrDueTaken = fmt.Errorf("due time taken by another run: %w", feature.ErrConflict)

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

// Leases keeps work to one run at a time.
type Leases interface {
	// Hold takes the lease or fails at once with an error matching feature.ErrLeaseHeld.
	// It keeps the lease until release is called; leaseCtx ends with the cause
	// feature.ErrLeaseLost when it can no longer be kept. release is idempotent.
	Hold(ctx context.Context, name, holder string) (leaseCtx context.Context, release func(context.Context) error, err error)
}

// Ledger is the record of runs, shared by all machines.
type Ledger interface {
	// NextRun returns a number greater than any it returned before, to anyone.
	NextRun(ctx context.Context) (uint64, error)
	// Start records a run that begins; again for the same unfinished run it replaces the entry.
	Start(ctx context.Context, r Run) error
	// Finish records the end. It is idempotent.
	Finish(ctx context.Context, r Run) error
	// List returns the newest runs of a job, newest first.
	List(ctx context.Context, job string, limit int) ([]Run, error)
	// LastDue returns the latest due time of a job that was claimed.
	LastDue(ctx context.Context, job string) (due time.Time, ok bool, err error)
	// ClaimDue takes a due time for a run. One claim of a due time succeeds; the others get
	// an error matching feature.ErrConflict.
	ClaimDue(ctx context.Context, job string, due time.Time, run uint64) error
}

// Result is what a run says about itself when it ends without an error.
type Result struct {
	Status string // done, partial or nothing; "" is done
	Detail any    // a JSON document for the ledger; nil for none
}

// Func is the work of a job. It stops soon after ctx ends.
type Func func(ctx context.Context, run uint64) (Result, error)

// Spec describes one run.
type Spec struct {
	Job  string // name in the ledger. Required
	Kind string // materialize, dataset, rewarm, …
	// Due is the scheduled time that this run is for. Zero when it was started by hand.
	Due time.Time
	// Leases are held for the whole run. Defaults to the lease of the job, see [JobLease].
	Leases []string
	Holder string // who runs it: host, process
	// Timeout bounds the run with all its attempts. Defaults to 0, no bound.
	Timeout time.Duration
	// Retries is how many attempts may follow a failed one. Defaults to 0.
	Retries int
	// ConfigDigest is recorded in the ledger. Defaults to "".
	ConfigDigest string
}

// JobLease is the lease that keeps a job to one run at a time.
func JobLease(job string) string { return "job:" + job }

// Outcome is how a run ended. It is the JSON document that `hearth jobs run` prints.
type Outcome struct {
	Run      uint64     `json:"run"`
	Job      string     `json:"job"`
	Kind     string     `json:"kind"`
	Due      *time.Time `json:"due"` // null: not started by a schedule
	Started  time.Time  `json:"started"`
	Finished time.Time  `json:"finished"`
	Seconds  float64    `json:"seconds"`
	Status   string     `json:"status"`
	Holder   string     `json:"holder"`
	Attempts int        `json:"attempts"`
	Error    string     `json:"error,omitempty"`
	Detail   any        `json:"detail,omitempty"`
}

// RunnerConfig configures a [Runner].
type RunnerConfig struct {
	Leases Leases // required
	Ledger Ledger // required
	// Backoff is the pause before the first retry; it doubles up to MaxBackoff. Half of
	// each pause is random. Defaults to 5s.
	Backoff time.Duration
	// MaxBackoff defaults to 5m.
	MaxBackoff time.Duration
	// CleanUp bounds what is written after a run ended or was interrupted: the ledger entry
	// and the release of leases. Defaults to 15s.
	CleanUp time.Duration
	// Random returns a number in [0, 1). Defaults to math/rand/v2.
	Random func() float64
	Clock  clock.Clock  // defaults to clock.System
	Logger *slog.Logger // defaults to discarding
}

// Runner executes runs. It is safe for concurrent use.
type Runner struct{ cfg RunnerConfig }

// NewRunner checks the configuration and fills in its defaults.
func NewRunner(cfg RunnerConfig) (*Runner, error) {
	if cfg.Leases == nil || cfg.Ledger == nil {
		return nil, fmt.Errorf("jobs runner: %w: leases and a ledger are required", feature.ErrInvalid)
	}
	if cfg.Backoff <= 0 {
		cfg.Backoff = 5 * time.Second
	}
	if cfg.MaxBackoff <= 0 {
		cfg.MaxBackoff = 5 * time.Minute
	}
	if cfg.CleanUp <= 0 {
		cfg.CleanUp = 15 * time.Second
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Runner{cfg: cfg}, nil
}

// Execute runs fn as one run of a job: it takes the leases, draws a run number, claims the
// due time, records the start, calls fn until it succeeds or the attempts are used up, and
// records the end.
//
// The error is that of the last attempt; a status of done or nothing always comes with
// none. A lease that another run holds is an error matching feature.ErrLeaseHeld, a due time that another run
// took one matching [ErrDueTaken]; fn was not called then, and the Outcome is zero.
func (r *Runner) Execute(ctx context.Context, spec Spec, fn Func) (Outcome, error) {
	if spec.Job == "" {
		return Outcome{}, fmt.Errorf("execute: %w: a run belongs to a job", feature.ErrInvalid)
	}
	names := spec.Leases
	if len(names) == 0 {
		names = []string{JobLease(spec.Job)}
	}
	held, release, err := r.hold(ctx, names, spec.Holder)
	if err != nil {
		return Outcome{}, fmt.Errorf("job %s: %w", spec.Job, err)
	}
	defer release()
	if slices.Contains(names, JobLease(spec.Job)) {
		r.closeDeadRuns(held, spec.Job)
	}
	run, err := r.begin(held, spec)
	if err != nil {
		return Outcome{}, fmt.Errorf("job %s: %w", spec.Job, err)
	}
	return r.execute(held, spec, run, fn)
}

// hold takes every lease or none.
func (r *Runner) hold(ctx context.Context, names []string, holder string) (context.Context, func(), error) {
	sorted := slices.Compact(slices.Sorted(slices.Values(names)))
	var releases []func(context.Context) error
	release := func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.CleanUp)
		defer cancel()
		for _, rel := range slices.Backward(releases) {
			if err := rel(clean); err != nil {
				r.cfg.Logger.Warn("lease not released; it ends by itself", "error", err)
			}
		}
	}
	held := ctx
	for _, name := range sorted {
		next, rel, err := r.cfg.Leases.Hold(held, name, holder)
		if err != nil {
			release()
			return nil, nil, err
		}
		held, releases = next, append(releases, rel)
	}
	return held, release, nil
}

// closeDeadRuns: whoever holds the job's lease knows that no other run of it is alive, so
// entries that still say so belong to processes that died. That is worth a line in the
// history, not worth failing for.
func (r *Runner) closeDeadRuns(ctx context.Context, job string) {
	runs, err := r.cfg.Ledger.List(ctx, job, 20)
	if err != nil {
		r.cfg.Logger.Warn("history of the job not read", "job", job, "error", err)
		return
	}
	for _, old := range runs {
		if old.Status != StatusRunning {
			continue
		}
		now := r.cfg.Clock.Now().UTC()
		old.Status, old.Finished, old.Error = StatusInterrupted, &now, "the process that ran it ended without recording how"
		if err := r.cfg.Ledger.Finish(ctx, old); err != nil {
			r.cfg.Logger.Warn("dead run not closed", "job", job, "run", old.Number, "error", err)
		}
	}
}

// begin draws the run number, records the start and claims the due time. The start comes
// first: a process that dies in between leaves an entry of a run that did nothing and a
// due time that is done again, rather than a due time that nobody ran.
func (r *Runner) begin(ctx context.Context, spec Spec) (Run, error) {
	if !spec.Due.IsZero() {
		last, ok, err := r.cfg.Ledger.LastDue(ctx, spec.Job)
		if err != nil {
			return Run{}, fmt.Errorf("read last due time: %w", err)
		}
		if ok && !last.Before(spec.Due) {
			return Run{}, fmt.Errorf("due %s: %w", spec.Due.UTC().Format(time.RFC3339), ErrDueTaken)
		}
	}
	number, err := r.cfg.Ledger.NextRun(ctx)
	if err != nil {
		return Run{}, fmt.Errorf("draw a run number: %w", err)
	}
	now := r.cfg.Clock.Now().UTC()
	run := Run{Number: number, Job: spec.Job, Kind: spec.Kind, Started: &now, Status: StatusRunning, Holder: spec.Holder, Attempts: 1, ConfigDigest: spec.ConfigDigest}
	if !spec.Due.IsZero() {
		due := spec.Due.UTC()
		run.Due = &due
	}
	if err := r.cfg.Ledger.Start(ctx, run); err != nil {
		return Run{}, fmt.Errorf("record start of run %d: %w", number, err)
	}
	if run.Due == nil {
		return run, nil
	}
	err = r.cfg.Ledger.ClaimDue(ctx, spec.Job, *run.Due, number)
	if err == nil {
		return run, nil
	}
	taken := errors.Is(err, feature.ErrConflict)
	run.Status, run.Due, run.Error = StatusNothing, nil, "another run has this due time"
	if !taken {
		run.Status, run.Error = StatusFailed, "claim due time: "+err.Error()
		err = fmt.Errorf("claim due time: %w", err)
	} else {
		err = fmt.Errorf("due %s: %w", spec.Due.UTC().Format(time.RFC3339), ErrDueTaken)
	}
	if finishErr := r.finish(ctx, run); finishErr != nil {
		r.cfg.Logger.Warn("run not closed", "job", spec.Job, "run", number, "error", finishErr)
	}
	return Run{}, err
}

func (r *Runner) finish(ctx context.Context, run Run) error {
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.CleanUp)
	defer cancel()
	if run.Finished == nil {
		now := r.cfg.Clock.Now().UTC()
		run.Finished = &now
	}
	return r.cfg.Ledger.Finish(clean, run)
}

func (r *Runner) execute(ctx context.Context, spec Spec, run Run, fn Func) (Outcome, error) {
	log := r.cfg.Logger.With("job", spec.Job, "run", run.Number)
	if spec.Due.IsZero() {
		log.Info("run started", "kind", spec.Kind)
	} else {
		log.Info("run started", "kind", spec.Kind, "due", spec.Due.UTC())
	}
	workCtx, stop := r.withTimeout(ctx, spec.Timeout)
	result, err := r.attempts(workCtx, spec, &run, fn, log)
	cause := context.Cause(workCtx)
	stop()

	run.Status = statusOf(ctx, result, err)
	if err != nil {
		if cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		if errors.Is(cause, ErrTimeout) {
			err = fmt.Errorf("%w after %v; what it saved is kept, the next run goes on from there", err, spec.Timeout)
		}
		err = fmt.Errorf("run %d of job %s: %w", run.Number, spec.Job, err)
		run.Error = err.Error()
	}
	if result.Detail != nil {
		detail, jsonErr := json.Marshal(result.Detail)
		if jsonErr != nil {
			log.Warn("detail of the run cannot be recorded", "error", jsonErr)
		} else {
			run.Detail = detail
		}
	}
	now := r.cfg.Clock.Now().UTC()
	run.Finished = &now
	if finishErr := r.finish(ctx, run); finishErr != nil {
		err = errors.Join(err, fmt.Errorf("run %d of job %s is %s, but the ledger could not be told: %w", run.Number, spec.Job, run.Status, finishErr))
	}
	out := outcomeOf(run, result.Detail)
	log.Info("run finished", "status", out.Status, "seconds", out.Seconds, "attempts", out.Attempts, "error", out.Error)
	return out, err
}

func outcomeOf(run Run, detail any) Outcome {
	return Outcome{Run: run.Number, Job: run.Job, Kind: run.Kind, Due: run.Due, Started: *run.Started, Finished: *run.Finished,
		Seconds: run.Finished.Sub(*run.Started).Seconds(), Status: run.Status, Holder: run.Holder, Attempts: run.Attempts,
		Error: run.Error, Detail: detail}
}

// statusOf judges how a run ended; ctx is the run's without its own timeout.
func statusOf(ctx context.Context, result Result, err error) string {
	var partial *feature.PartialError
	switch {
	case err == nil && result.Status == "":
		return StatusDone
	case err == nil:
		return result.Status
	case ctx.Err() != nil:
		return StatusInterrupted
	case errors.As(err, &partial), result.Status == StatusPartial:
		return StatusPartial
	}
	return StatusFailed
}

// attempts calls fn until it succeeds, must not be tried again, or may not.
func (r *Runner) attempts(ctx context.Context, spec Spec, run *Run, fn Func, log *slog.Logger) (Result, error) {
	for {
		result, err := r.attempt(ctx, run.Number, fn, log)
		if err == nil || ctx.Err() != nil || run.Attempts > spec.Retries || !worthRetrying(err) {
			return result, err
		}
		pause := r.backoff(run.Attempts)
		log.Warn("attempt failed, trying again", "attempt", run.Attempts, "pause", pause, "error", err)
		if r.cfg.Clock.Sleep(ctx, pause) != nil {
			return result, err
		}
		run.Attempts++
		if startErr := r.cfg.Ledger.Start(ctx, *run); startErr != nil {
			log.Warn("attempt not recorded", "attempt", run.Attempts, "error", startErr)
		}
	}
}

// panicError is a fault of the program: trying again would meet it again.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

func (r *Runner) attempt(ctx context.Context, number uint64, fn Func, log *slog.Logger) (result Result, err error) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("run panicked", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			result, err = Result{}, &panicError{value: v}
		}
	}()
	return fn(ctx, number)
}

func worthRetrying(err error) bool {
	var fault *panicError
	return !errors.Is(err, feature.ErrInvalid) && !errors.Is(err, feature.ErrDenied) && !errors.Is(err, feature.ErrLeaseHeld) &&
		!errors.Is(err, feature.ErrLeaseLost) && !errors.Is(err, feature.ErrNotApplied) && !errors.As(err, &fault)
}

// backoff is the pause after the n-th attempt: between half of and the whole doubled step.
func (r *Runner) backoff(n int) time.Duration {
	step := r.cfg.MaxBackoff
	if n < 30 {
		step = min(r.cfg.Backoff<<(n-1), r.cfg.MaxBackoff)
	}
	return step/2 + time.Duration(r.cfg.Random()*float64(step/2))
}

// withTimeout is context.WithTimeoutCause on the injected clock.
func (r *Runner) withTimeout(ctx context.Context, d time.Duration) (context.Context, func()) {
	if d <= 0 {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	over := r.cfg.Clock.After(d)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-over:
			cancel(ErrTimeout)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}
