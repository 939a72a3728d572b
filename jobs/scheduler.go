package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// CatchUp says what happens to due times that passed while the job could not run: no
// scheduler was up, or the run before took longer than the interval.
type CatchUp string

// What can happen to missed due times.
const (
	CatchUpSkip CatchUp = "skip" // none of them runs
	CatchUpLast CatchUp = "last" // only the newest runs
	CatchUpAll  CatchUp = "all"  // each runs, oldest first
)

// Job is one job that the scheduler knows.
type Job struct {
	Name     string
	Kind     string
	Schedule Schedule // zero: only by name
	CatchUp  CatchUp  // defaults to CatchUpLast
	Leases   []string // besides the job's own. Defaults to none
	Timeout  time.Duration
	Retries  int
	Run      Func
}

// SchedulerConfig configures a [Scheduler].
type SchedulerConfig struct {
	Jobs   []Job
	Runner *Runner // required
	Ledger Ledger  // required; the one of the Runner
	Holder string  // who runs the jobs: host, process
	// ConfigDigest is recorded with every run. Defaults to "".
	ConfigDigest string
	// Grace is how long runs may go on after Run's context ended, before theirs ends too.
	// Defaults to 30s.
	Grace time.Duration
	// Poll is how often a job looks again when another machine holds its lease or the state
	// store does not answer, and the most that a job sleeps without looking at the clock (so
	// that a clock that is set is noticed). Defaults to 15s.
	Poll time.Duration
	// Observe is told of every run that ended, for metrics. It must return quickly.
	// Defaults to nobody.
	Observe func(Outcome)
	Clock   clock.Clock  // defaults to clock.System
	Logger  *slog.Logger // defaults to discarding
}

// Scheduler runs jobs when they are due. Several may run over one ledger: each due time
// runs once.
type Scheduler struct {
	cfg  SchedulerConfig
	jobs map[string]*Job
}

// NewScheduler checks the configuration and fills in its defaults.
func NewScheduler(cfg SchedulerConfig) (*Scheduler, error) {
	if cfg.Runner == nil || cfg.Ledger == nil {
		return nil, fmt.Errorf("scheduler: %w: a runner and a ledger are required", feature.ErrInvalid)
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 30 * time.Second
	}
	if cfg.Poll <= 0 {
		cfg.Poll = 15 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Scheduler{cfg: cfg, jobs: make(map[string]*Job, len(cfg.Jobs))}
	for i := range cfg.Jobs {
		j := cfg.Jobs[i]
		if j.CatchUp == "" {
			j.CatchUp = CatchUpLast
		}
		switch {
		case j.Name == "" || j.Run == nil:
			return nil, fmt.Errorf("scheduler: %w: job %q needs a name and something to run", feature.ErrInvalid, j.Name)
		case s.jobs[j.Name] != nil:
			return nil, fmt.Errorf("scheduler: %w: two jobs are named %q", feature.ErrInvalid, j.Name)
		case j.CatchUp != CatchUpSkip && j.CatchUp != CatchUpLast && j.CatchUp != CatchUpAll:
			return nil, fmt.Errorf("scheduler: %w: job %q: catch-up %q; use skip, last or all", feature.ErrInvalid, j.Name, j.CatchUp)
		}
		s.jobs[j.Name] = &j
	}
	return s, nil
}

// Run runs the jobs until ctx ends. Then no new run starts, and those that go on get the
// grace period before their context ends too; Run returns when the last one has recorded
// its end. It returns nil: what failed is in the ledger and in the log.
func (s *Scheduler) Run(ctx context.Context) error {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var jobs sync.WaitGroup
	for _, j := range s.jobs {
		if !j.Schedule.IsZero() {
			jobs.Go(func() { s.keep(ctx, work, j) })
		}
	}
	drained := make(chan struct{})
	go func() { jobs.Wait(); close(drained) }()
	<-ctx.Done()
	select {
	case <-drained:
		return nil
	default:
	}
	select {
	case <-drained:
	case <-s.cfg.Clock.After(s.cfg.Grace):
		s.cfg.Logger.Warn("grace period is over, interrupting the runs", "grace", s.cfg.Grace)
		cancel(fmt.Errorf("scheduler stops: %w", context.Canceled))
		<-drained
	}
	return nil
}

// RunOnce runs one job now, whatever its schedule says. An unknown name is an error
// matching feature.ErrNotFound.
func (s *Scheduler) RunOnce(ctx context.Context, name string) (Outcome, error) {
	j, ok := s.jobs[name]
	if !ok {
		return Outcome{}, fmt.Errorf("job %q: %w", name, feature.ErrNotFound)
	}
	return s.execute(ctx, j, time.Time{})
}

// Next returns when a job is due next after t; the zero time for a job without a schedule
// or an unknown one.
func (s *Scheduler) Next(name string, t time.Time) time.Time {
	if j, ok := s.jobs[name]; ok {
		return j.Schedule.Next(t)
	}
	return time.Time{}
}

func (s *Scheduler) execute(ctx context.Context, j *Job, due time.Time) (Outcome, error) {
	out, err := s.cfg.Runner.Execute(ctx, Spec{
		Job: j.Name, Kind: j.Kind, Due: due, Leases: append([]string{JobLease(j.Name)}, j.Leases...), Holder: s.cfg.Holder,
		Timeout: j.Timeout, Retries: j.Retries, ConfigDigest: s.cfg.ConfigDigest,
	}, j.Run)
	if out.Run != 0 && s.cfg.Observe != nil {
		s.cfg.Observe(out)
	}
	return out, err
}

// keep runs one job at its due times. ctx ends the waiting, work ends a run.
func (s *Scheduler) keep(ctx, work context.Context, j *Job) {
	log := s.cfg.Logger.With("job", j.Name)
	last, ok := s.begin(ctx, j, log)
	if !ok {
		return
	}
	free := s.cfg.Clock.Now() // since when this scheduler could have run the job
	for {
		due, ok := pick(j, last, free, s.cfg.Clock.Now(), log)
		if !ok {
			if s.wait(ctx, j, last) != nil {
				return
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		var taken bool
		last, taken = s.runDue(ctx, work, j, due, last, log)
		if taken {
			free = s.cfg.Clock.Now()
		}
	}
}

// begin finds the due time to go on from: the last that was claimed by anyone. A job that
// nobody ever scheduled begins now, and says so in the ledger, so that a restart before
// its first run knows what was missed.
func (s *Scheduler) begin(ctx context.Context, j *Job, log *slog.Logger) (time.Time, bool) {
	now := s.cfg.Clock.Now()
	for {
		last, ok, err := s.cfg.Ledger.LastDue(ctx, j.Name)
		if err == nil && !ok {
			last = now
			if err = s.cfg.Ledger.ClaimDue(ctx, j.Name, now, 0); errors.Is(err, feature.ErrConflict) {
				err = nil
			}
		}
		if err == nil {
			return last, true
		}
		log.Warn("ledger does not answer, trying again", "error", err)
		if s.cfg.Clock.Sleep(ctx, s.cfg.Poll) != nil {
			return time.Time{}, false
		}
	}
}

// pick chooses the due time to run now among those after last and not after now.
func pick(j *Job, last, free, now time.Time, log *slog.Logger) (time.Time, bool) {
	if j.CatchUp == CatchUpAll {
		due := j.Schedule.Next(last)
		return due, !due.IsZero() && !due.After(now)
	}
	after := last
	if j.CatchUp == CatchUpSkip && free.After(last) {
		after = free
	}
	due, ok := j.Schedule.Last(after, now)
	if ok {
		if first := j.Schedule.Next(last); first.Before(due) {
			log.Warn("due times were missed", "from", first, "to", due, "catch_up", string(j.CatchUp))
		}
	}
	return due, ok
}

// wait sleeps until the job may be due. It wakes now and then to look at the clock, which
// may have been set or have stood still with the machine.
func (s *Scheduler) wait(ctx context.Context, j *Job, last time.Time) error {
	now := s.cfg.Clock.Now()
	from := last
	if now.After(last) {
		from = now
	}
	d := s.cfg.Poll
	if next := j.Schedule.Next(from); !next.IsZero() {
		d = min(d, next.Sub(now))
	}
	return s.cfg.Clock.Sleep(ctx, d)
}

// runDue runs one due time, or finds that another machine does. It returns the due time to
// go on from, and whether this one is settled.
func (s *Scheduler) runDue(ctx, work context.Context, j *Job, due, last time.Time, log *slog.Logger) (time.Time, bool) {
	_, err := s.execute(work, j, due)
	switch {
	case errors.Is(err, ErrDueTaken):
		return due, true
	case errors.Is(err, feature.ErrLeaseHeld):
		if j.CatchUp == CatchUpSkip {
			log.Info("job is still running elsewhere, due time skipped", "due", due)
			return due, true
		}
		log.Debug("job is running elsewhere, looking again later", "due", due)
	case err != nil:
		if claimed, ok, ledgerErr := s.cfg.Ledger.LastDue(ctx, j.Name); ledgerErr == nil && ok && !claimed.Before(due) {
			return due, true // it ran and failed; its end is recorded and logged
		}
		log.Warn("run did not start, trying again later", "due", due, "error", err)
	default:
		return due, true
	}
	if s.cfg.Clock.Sleep(ctx, s.cfg.Poll) != nil {
		return last, false
	}
	if claimed, ok, err := s.cfg.Ledger.LastDue(ctx, j.Name); err == nil && ok && claimed.After(last) {
		return claimed, true
	}
	return last, false
}
