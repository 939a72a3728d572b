package jobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// rig is one scheduler over a store and a fake clock, which tests share and move.
type rig struct {
	t      testing.TB
	ctx    context.Context
	clock  *clock.Fake
	stop   context.CancelFunc
	ended  chan error
	sleeps int // waiters on the clock when everything is idle
}

func start(t testing.TB, s *store, fake *clock.Fake, jobs ...Job) *rig {
	t.Helper()
	ctx := testCtx(t)
	sched, err := NewScheduler(SchedulerConfig{Jobs: jobs, Runner: newTestRunner(t, s, fake), Ledger: s, Holder: "test", Clock: fake, Grace: 30 * time.Second, Poll: 15 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ctx: ctx, clock: fake, ended: make(chan error, 1), sleeps: len(jobs)}
	run, stop := context.WithCancel(ctx)
	r.stop = stop
	go func() { r.ended <- sched.Run(run) }()
	t.Cleanup(func() { stop() })
	return r
}

// idle waits until every job sleeps.
func (r *rig) idle(n int) {
	r.t.Helper()
	if err := r.clock.WaitForWaiters(r.ctx, n); err != nil {
		r.t.Fatalf("the scheduler does not come to rest: %v", err)
	}
}

// pass lets time go by in steps no longer than the scheduler's poll.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	for ; d > 0; d -= 15 * time.Second {
		r.idle(r.sleeps)
		r.clock.Advance(min(d, 15*time.Second))
	}
	r.idle(r.sleeps)
}

func (r *rig) end() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Fatal(err)
		}
	case <-r.ctx.Done():
		r.t.Fatal("the scheduler does not end")
	}
}

func ok(context.Context, uint64) (Result, error) { return Result{}, nil }

func hourly(t testing.TB, catchUp CatchUp, fn Func) Job {
	return Job{Name: "j", Kind: "materialize", Schedule: mustSchedule(t, "5 * * * *", "UTC"), CatchUp: catchUp, Run: fn}
}

// TestDueTimes: each due time runs once, at its time, and stands in the ledger once.
func TestDueTimes(t *testing.T) {
	t.Parallel()
	s, fake := newStore(), clock.NewFake(epoch)
	var mu sync.Mutex
	var at []string
	r := start(t, s, fake, hourly(t, CatchUpLast, func(context.Context, uint64) (Result, error) {
		mu.Lock()
		defer mu.Unlock()
		at = append(at, fake.Now().Format("15:04"))
		return Result{}, nil
	}))
	r.pass(3 * time.Hour)
	r.end()
	equal(t, "ran at", at, []string{"10:05", "11:05", "12:05"})
	equal(t, "ledger", s.history(), []string{"20 10:05 done", "20 11:05 done", "20 12:05 done"})
}

// TestCatchUpAfterRestart: the scheduler is down across three due times. Red when begin
// starts from the clock instead of the ledger.
func TestCatchUpAfterRestart(t *testing.T) {
	t.Parallel()
	for policy, want := range map[CatchUp][]string{
		CatchUpSkip: {"20 10:05 done", "20 14:05 done"},
		CatchUpLast: {"20 10:05 done", "20 13:05 done", "20 14:05 done"},
		CatchUpAll:  {"20 10:05 done", "20 11:05 done", "20 12:05 done", "20 13:05 done", "20 14:05 done"},
	} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			s, fake := newStore(), clock.NewFake(epoch)
			r := start(t, s, fake, hourly(t, policy, ok))
			r.pass(10 * time.Minute)
			r.end()
			fake.Advance(3 * time.Hour) // 13:10
			r = start(t, s, fake, hourly(t, policy, ok))
			r.pass(time.Hour)
			r.end()
			equal(t, "ledger", s.history(), want)
		})
	}
}

// TestFirstDueTimeMissed: a scheduler that died before the first due time of a new job
// still owes it. Red when begin does not record when the job began.
func TestFirstDueTimeMissed(t *testing.T) {
	t.Parallel()
	s, fake := newStore(), clock.NewFake(epoch)
	r := start(t, s, fake, hourly(t, CatchUpLast, ok))
	r.pass(time.Minute)
	r.end()
	fake.Advance(30 * time.Minute)
	r = start(t, s, fake, hourly(t, CatchUpLast, ok))
	r.idle(1)
	r.end()
	equal(t, "ledger", s.history(), []string{"20 10:05 done"})
}

// TestOverrun: a run takes from 10:05 to 12:30. Red when the due times of a busy job are
// run side by side.
func TestOverrun(t *testing.T) {
	t.Parallel()
	for policy, want := range map[CatchUp][]string{
		CatchUpSkip: {"20 10:05 done", "20 13:05 done"},
		CatchUpLast: {"20 10:05 done", "20 12:05 done", "20 13:05 done"},
		CatchUpAll:  {"20 10:05 done", "20 11:05 done", "20 12:05 done", "20 13:05 done"},
	} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			s, fake := newStore(), clock.NewFake(epoch)
			busy, free := make(chan struct{}), make(chan struct{})
			first := true
			r := start(t, s, fake, hourly(t, policy, func(ctx context.Context, _ uint64) (Result, error) {
				if first {
					first = false
					close(busy)
					<-free
				}
				return Result{}, nil
			}))
			r.idle(1)
			fake.Advance(15 * time.Second)
			for range 19 {
				r.idle(1)
				fake.Advance(15 * time.Second)
			}
			<-busy
			fake.Set(epoch.Add(150 * time.Minute))
			close(free)
			r.pass(40 * time.Minute)
			r.end()
			equal(t, "ledger", s.history(), want)
		})
	}
}

// TestTwoSchedulers: two machines, one ledger: each due time runs once. Red when Execute
// neither looks at nor claims the due time.
func TestTwoSchedulers(t *testing.T) {
	t.Parallel()
	s, fake := newStore(), clock.NewFake(epoch)
	jobs := func() []Job {
		var out []Job
		for i := range 3 {
			j := hourly(t, []CatchUp{CatchUpSkip, CatchUpLast, CatchUpAll}[i], ok)
			j.Name, j.Schedule = fmt.Sprint("j", i), mustSchedule(t, "*/5 * * * *", "UTC")
			out = append(out, j)
		}
		return out
	}
	a, b := start(t, s, fake, jobs()...), start(t, s, fake, jobs()...)
	a.sleeps, b.sleeps = 6, 6
	a.pass(2 * time.Hour)
	a.end()
	b.sleeps = 3
	b.pass(time.Hour)
	b.end()
	seen := map[string]int{}
	for _, run := range s.runs {
		if run.Due != nil {
			seen[run.Job+run.Due.Format(" 15:04")]++
		}
	}
	if len(seen) != 3*36 {
		t.Errorf("%d due times ran, want %d", len(seen), 3*36)
	}
	for due, n := range seen {
		if n != 1 {
			t.Errorf("%s ran %d times", due, n)
		}
	}
}

// TestHeldElsewhere: another machine holds the job's lease over a due time. The job waits
// for it, or skips, as its policy says.
func TestHeldElsewhere(t *testing.T) {
	t.Parallel()
	for policy, want := range map[CatchUp][]string{
		CatchUpSkip: {"20 11:05 done"},
		CatchUpLast: {"20 10:05 done", "20 11:05 done"},
	} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			s, fake := newStore(), clock.NewFake(epoch)
			_, release, err := s.Hold(testCtx(t), JobLease("j"), "by hand")
			if err != nil {
				t.Fatal(err)
			}
			r := start(t, s, fake, hourly(t, policy, ok))
			r.pass(20 * time.Minute)
			if err := release(r.ctx); err != nil {
				t.Fatal(err)
			}
			r.pass(time.Hour)
			r.end()
			equal(t, "ledger", s.history(), want)
		})
	}
}

// TestStoreDown: while the state store does not answer nothing runs, and nothing is lost.
func TestStoreDown(t *testing.T) {
	t.Parallel()
	s, fake := newStore(), clock.NewFake(epoch)
	s.setFail("last", errFlaky)
	r := start(t, s, fake, hourly(t, CatchUpAll, ok))
	r.pass(time.Minute)
	s.setFail("last", nil)
	r.pass(time.Minute)
	for _, op := range []string{"hold", "last", "next", "start", "claim"} {
		s.setFail(op, errFlaky)
		r.pass(time.Hour)
		s.setFail(op, nil)
		r.pass(time.Minute)
	}
	r.end()
	want := map[string]int{"20 10:05 done": 1, "20 11:05 done": 1, "20 12:05 done": 1, "20 13:05 done": 1, "20 14:05 done": 1, "20 15:05 done": 1}
	for _, h := range s.history() {
		if want[h] > 0 {
			want[h]--
		} else if h[len(h)-6:] != StatusFailed { // a start whose claim failed is recorded as such
			t.Errorf("ledger has %q", h)
		}
	}
	for h, n := range want {
		if n > 0 {
			t.Errorf("ledger lacks %q: %q", h, s.history())
		}
	}
}

// TestFailedRunIsSettled: a run that failed is in the ledger once and is not started again
// before its next due time.
func TestFailedRunIsSettled(t *testing.T) {
	t.Parallel()
	s, fake := newStore(), clock.NewFake(epoch)
	r := start(t, s, fake, hourly(t, CatchUpLast, func(context.Context, uint64) (Result, error) { return Result{}, feature.ErrDenied }))
	r.pass(2 * time.Hour)
	r.end()
	equal(t, "ledger", s.history(), []string{"20 10:05 failed", "20 11:05 failed"})
}

// TestClockStepsBack: a clock that is set back does not bring a due time a second time.
// Red when wait and pick go by the clock alone.
func TestClockStepsBack(t *testing.T) {
	t.Parallel()
	for _, policy := range []CatchUp{CatchUpSkip, CatchUpLast, CatchUpAll} {
		s, fake := newStore(), clock.NewFake(epoch)
		r := start(t, s, fake, hourly(t, policy, ok))
		r.pass(10 * time.Minute)
		fake.Set(epoch.Add(-30 * time.Minute))
		r.pass(time.Hour)
		fake.Set(epoch.Add(50 * time.Minute)) // and forward again
		r.pass(20 * time.Minute)
		r.end()
		equal(t, "ledger of "+string(policy), s.history(), []string{"20 10:05 done", "20 11:05 done"})
	}
}

// TestDrain: when the scheduler is told to stop, a run may end within the grace period;
// after it the run's context ends, and the run is recorded as interrupted. Red when runs
// get the scheduler's own context.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, patient := range []bool{true, false} {
		s, fake := newStore(), clock.NewFake(epoch)
		busy, free := make(chan struct{}), make(chan struct{})
		r := start(t, s, fake, hourly(t, CatchUpAll, func(ctx context.Context, _ uint64) (Result, error) {
			close(busy)
			select {
			case <-free:
				return Result{}, ctx.Err()
			case <-ctx.Done():
				return Result{}, context.Cause(ctx)
			}
		}))
		for range 20 {
			r.idle(1)
			fake.Advance(15 * time.Second)
		}
		<-busy
		r.stop()
		r.idle(1) // the grace period
		fake.Advance(29 * time.Second)
		want := "20 10:05 done"
		if patient {
			close(free)
		} else {
			fake.Advance(time.Second)
			want = "20 10:05 interrupted"
		}
		r.end()
		equal(t, "ledger", s.history(), []string{want})
	}
}

// TestLeaseLostOnTheWay: the run ends as interrupted and the next due time runs.
func TestLeaseLostOnTheWay(t *testing.T) {
	t.Parallel()
	s, fake := newStore(), clock.NewFake(epoch)
	n := 0
	r := start(t, s, fake, hourly(t, CatchUpLast, func(ctx context.Context, _ uint64) (Result, error) {
		if n++; n == 1 {
			s.steal(JobLease("j"))
			<-ctx.Done()
			return Result{}, ctx.Err()
		}
		return Result{}, nil
	}))
	r.pass(2 * time.Hour)
	r.end()
	equal(t, "ledger", s.history(), []string{"20 10:05 interrupted", "20 11:05 done"})
}

// TestAcrossClockChange: on the day when 02:30 does not exist and on the day when 01:30
// comes twice, a daily job runs once.
func TestAcrossClockChange(t *testing.T) {
	t.Parallel()
	for line, from := range map[string]time.Time{"30 2 * * *": time.Date(2026, 3, 8, 0, 0, 0, 0, time.UTC), "30 1 * * *": time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)} {
		s, fake := newStore(), clock.NewFake(from)
		r := start(t, s, fake, Job{Name: "j", Schedule: mustSchedule(t, line, "America/New_York"), Run: ok})
		r.pass(12 * time.Hour)
		r.end()
		if len(s.history()) != 1 {
			t.Errorf("%q ran %q", line, s.history())
		}
	}
}

func TestRunOnce(t *testing.T) {
	t.Parallel()
	s, fake := newStore(), clock.NewFake(epoch)
	var seen []Outcome
	sched, err := NewScheduler(SchedulerConfig{Runner: newTestRunner(t, s, fake), Ledger: s, Clock: fake, Observe: func(o Outcome) { seen = append(seen, o) },
		Jobs: []Job{{Name: "manual", Run: ok}, hourly(t, "", ok)}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := sched.RunOnce(testCtx(t), "manual")
	if err != nil || out.Status != StatusDone || out.Due != nil || len(seen) != 1 {
		t.Errorf("outcome %+v, %v; observed %d", out, err, len(seen))
	}
	if _, err := sched.RunOnce(testCtx(t), "nope"); !errors.Is(err, feature.ErrNotFound) {
		t.Errorf("unknown job: %v", err)
	}
	if !sched.Next("manual", epoch).IsZero() || !sched.Next("j", epoch).Equal(epoch.Add(5*time.Minute)) {
		t.Error("Next is wrong")
	}
	for _, bad := range [][]Job{{{Name: "a"}}, {{Run: ok}}, {{Name: "a", Run: ok}, {Name: "a", Run: ok}}, {{Name: "a", Run: ok, CatchUp: "some"}}} {
		if _, err := NewScheduler(SchedulerConfig{Runner: newTestRunner(t, s, fake), Ledger: s, Jobs: bad}); !errors.Is(err, feature.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
