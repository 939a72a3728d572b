package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recordingClock remembers how long it was asked to sleep.
type recordingClock struct {
	*clock.Fake
	pauses []string
}

func (c *recordingClock) Sleep(ctx context.Context, d time.Duration) error {
	c.pauses = append(c.pauses, d.String())
	return c.Fake.Sleep(ctx, d)
}

func TestExecuteRecordsTheRun(t *testing.T) {
	t.Parallel()
	s, fake := newStore(), clock.NewFake(epoch)
	r := newTestRunner(t, s, fake)
	type detail struct {
		Rows int `json:"rows"`
	}
	due := epoch.Add(-time.Minute)
	out, err := r.Execute(testCtx(t), Spec{Job: "hourly", Kind: "materialize", Due: due, Holder: "a", ConfigDigest: "d"}, func(ctx context.Context, run uint64) (Result, error) {
		if s.held() != 1 || run != 1 {
			t.Errorf("%d leases held, run %d", s.held(), run)
		}
		fake.Advance(90 * time.Second)
		return Result{Detail: detail{Rows: 7}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"run":1,"job":"hourly","kind":"materialize","due":"2026-11-20T09:59:00Z","started":"2026-11-20T10:00:00Z","finished":"2026-11-20T10:01:30Z",` +
		`"seconds":90,"status":"done","holder":"a","attempts":1,"detail":{"rows":7}}`
	if string(doc) != want {
		t.Errorf("document\n%s, want\n%s", doc, want)
	}
	rec := s.runs[0]
	if rec.Status != StatusDone || string(rec.Detail) != `{"rows":7}` || rec.ConfigDigest != "d" || !rec.Due.Equal(due) || rec.Error != "" {
		t.Errorf("ledger: %+v", rec)
	}
	if s.held() != 0 {
		t.Error("the lease is still held")
	}
}

// TestExecuteStatuses: how a run ends is what the ledger says. Red when a panic is not
// recovered, and when the end is written with the run's own context.
func TestExecuteStatuses(t *testing.T) {
	t.Parallel()
	partial := &feature.PartialError{Op: "put", Done: 3, Failed: 1, Err: errFlaky}
	for name, c := range map[string]struct {
		fn     Func
		status string
		is     error
		holds  string
	}{
		"done":            {func(context.Context, uint64) (Result, error) { return Result{}, nil }, StatusDone, nil, ""},
		"nothing":         {func(context.Context, uint64) (Result, error) { return Result{Status: StatusNothing}, nil }, StatusNothing, nil, ""},
		"partial":         {func(context.Context, uint64) (Result, error) { return Result{Status: StatusPartial}, nil }, StatusPartial, nil, ""},
		"partial error":   {func(context.Context, uint64) (Result, error) { return Result{}, partial }, StatusPartial, errFlaky, "3 done, 1 failed"},
		"failed":          {func(context.Context, uint64) (Result, error) { return Result{}, errFlaky }, StatusFailed, errFlaky, "run 1 of job j"},
		"panic":           {func(context.Context, uint64) (Result, error) { panic("index out of range") }, StatusFailed, nil, "panic: index out of range"},
		"no JSON":         {func(context.Context, uint64) (Result, error) { return Result{Detail: func() {}}, nil }, StatusDone, nil, ""},
		"detail of error": {func(context.Context, uint64) (Result, error) { return Result{Detail: 5}, errFlaky }, StatusFailed, errFlaky, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore()
			out, err := newTestRunner(t, s, clock.NewFake(epoch)).Execute(testCtx(t), Spec{Job: "j"}, c.fn)
			if out.Status != c.status || s.runs[0].Status != c.status || s.runs[0].Finished == nil {
				t.Errorf("status %q, ledger %+v; want %q", out.Status, s.runs[0], c.status)
			}
			if (err != nil) != (c.is != nil || c.holds != "") || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error %v", err)
			}
			if c.holds != "" && (!strings.Contains(err.Error(), c.holds) || !strings.Contains(s.runs[0].Error, c.holds)) {
				t.Errorf("error %v and ledger %q do not say %q", err, s.runs[0].Error, c.holds)
			}
			if s.held() != 0 {
				t.Error("the lease is still held")
			}
		})
	}
}

// TestExecuteRetries: attempts follow with growing pauses of the injected clock, each is
// in the ledger, and only what can help is tried again. Red when worthRetrying is always
// true, and when the pause does not grow.
func TestExecuteRetries(t *testing.T) {
	t.Parallel()
	ctx, s := testCtx(t), newStore()
	fake := &recordingClock{Fake: clock.NewFake(epoch)}
	r := newTestRunner(t, s, fake)
	var starts []string
	done := make(chan Outcome, 1)
	go func() {
		out, err := r.Execute(ctx, Spec{Job: "j", Retries: 3}, func(context.Context, uint64) (Result, error) {
			starts = append(starts, fake.Now().Format("04:05"))
			if len(starts) < 4 {
				return Result{}, errFlaky
			}
			return Result{}, nil
		})
		if err != nil {
			t.Errorf("after retries: %v", err)
		}
		done <- out
	}()
	for _, pause := range []time.Duration{10 * time.Second, 20 * time.Second, 25 * time.Second} {
		if err := fake.WaitForWaiters(ctx, 1); err != nil {
			t.Fatal(err)
		}
		fake.Advance(pause)
	}
	out := <-done
	if out.Attempts != 4 || out.Status != StatusDone {
		t.Errorf("outcome %+v", out)
	}
	equal(t, "pauses", fake.pauses, []string{"10s", "20s", "25s"})
	equal(t, "starts", starts, []string{"00:00", "00:10", "00:30", "00:55"})
	equal(t, "ledger", s.log, []string{"start j#1 attempt 1 running", "start j#1 attempt 2 running", "start j#1 attempt 3 running", "start j#1 attempt 4 running", "finish j#1 attempt 4 done"})

	for _, final := range []error{feature.ErrInvalid, feature.ErrDenied, feature.ErrLeaseHeld, feature.ErrLeaseLost, feature.ErrNotApplied} {
		if out, err := r.Execute(ctx, Spec{Job: "j", Retries: 3}, func(context.Context, uint64) (Result, error) { return Result{}, final }); out.Attempts != 1 || out.Status != StatusFailed || !errors.Is(err, final) {
			t.Errorf("%v: %d attempts, %v", final, out.Attempts, err)
		}
	}
	if out, _ := r.Execute(ctx, Spec{Job: "j", Retries: 3}, func(context.Context, uint64) (Result, error) { panic("x") }); out.Attempts != 1 {
		t.Errorf("a panic was tried %d times", out.Attempts)
	}
}

// TestExecuteTimeout: the time bounds the run with its retries, by the injected clock.
func TestExecuteTimeout(t *testing.T) {
	t.Parallel()
	ctx, s, fake := testCtx(t), newStore(), clock.NewFake(epoch)
	r := newTestRunner(t, s, fake)
	go func() {
		if fake.WaitForWaiters(ctx, 1) == nil {
			fake.Advance(time.Minute)
		}
	}()
	out, err := r.Execute(ctx, Spec{Job: "j", Timeout: time.Minute, Retries: 5}, func(ctx context.Context, _ uint64) (Result, error) {
		<-ctx.Done()
		return Result{}, ctx.Err()
	})
	if out.Status != StatusFailed || !errors.Is(err, ErrTimeout) || out.Attempts != 1 || !strings.Contains(out.Error, "1m0s") {
		t.Errorf("outcome %+v, %v", out, err)
	}
}

// TestExecuteInterrupted: when the caller's context ends, the run ends as interrupted and
// that is recorded all the same. Red when finish uses the run's context.
func TestExecuteInterrupted(t *testing.T) {
	t.Parallel()
	s := newStore()
	ctx, cancel := context.WithCancel(testCtx(t))
	out, err := newTestRunner(t, s, clock.NewFake(epoch)).Execute(ctx, Spec{Job: "j", Retries: 5}, func(ctx context.Context, _ uint64) (Result, error) {
		cancel()
		<-ctx.Done()
		return Result{Detail: "as far as it got"}, ctx.Err()
	})
	if out.Status != StatusInterrupted || !errors.Is(err, context.Canceled) || s.runs[0].Status != StatusInterrupted || s.held() != 0 {
		t.Errorf("outcome %+v, %v; ledger %+v", out, err, s.runs)
	}
	if string(s.runs[0].Detail) != `"as far as it got"` {
		t.Errorf("detail %s", s.runs[0].Detail)
	}
}

// TestExecuteLeaseLost: a run whose lease went to another stops, and says why. Red when
// the work runs under the caller's context instead of the lease's.
func TestExecuteLeaseLost(t *testing.T) {
	t.Parallel()
	s := newStore()
	out, err := newTestRunner(t, s, clock.NewFake(epoch)).Execute(testCtx(t), Spec{Job: "j", Leases: []string{"view:b", "view:a"}, Retries: 5}, func(ctx context.Context, _ uint64) (Result, error) {
		s.steal("view:a")
		<-ctx.Done()
		return Result{}, ctx.Err()
	})
	if !errors.Is(err, feature.ErrLeaseLost) || out.Status != StatusInterrupted || out.Attempts != 1 || s.held() != 0 {
		t.Errorf("outcome %+v, %v, %d leases held", out, err, s.held())
	}
}

// TestExecuteLeaseHeld: nothing is done and nothing is written, and the leases that were
// already taken are given back.
func TestExecuteLeaseHeld(t *testing.T) {
	t.Parallel()
	ctx, s := testCtx(t), newStore()
	_, release, err := s.Hold(ctx, "view:b", "other")
	if err != nil {
		t.Fatal(err)
	}
	r := newTestRunner(t, s, clock.NewFake(epoch))
	fn := func(context.Context, uint64) (Result, error) { t.Error("fn was called"); return Result{}, nil }
	out, err := r.Execute(ctx, Spec{Job: "j", Leases: []string{"view:c", "view:a", "view:b"}}, fn)
	if !errors.Is(err, feature.ErrLeaseHeld) || out.Run != 0 || len(s.runs) != 0 || s.next != 0 || s.held() != 1 {
		t.Errorf("outcome %+v, %v, runs %v, %d held", out, err, s.runs, s.held())
	}
	if err := release(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestExecuteDueTaken: a due time runs once. Red when ClaimDue's error is ignored, and
// when the last due time is not looked at.
func TestExecuteDueTaken(t *testing.T) {
	t.Parallel()
	ctx, s := testCtx(t), newStore()
	r := newTestRunner(t, s, clock.NewFake(epoch))
	n := 0
	fn := func(context.Context, uint64) (Result, error) { n++; return Result{}, nil }
	if _, err := r.Execute(ctx, Spec{Job: "j", Due: epoch}, fn); err != nil {
		t.Fatal(err)
	}
	for _, due := range []time.Time{epoch, epoch.Add(-time.Hour)} {
		if _, err := r.Execute(ctx, Spec{Job: "j", Due: due}, fn); !errors.Is(err, ErrDueTaken) || !errors.Is(err, feature.ErrConflict) {
			t.Errorf("due %v again: %v", due, err)
		}
	}
	if n != 1 || len(s.runs) != 1 {
		t.Errorf("%d calls, ledger %v", n, s.runs)
	}
	// The race: claimed between the look and the claim.
	s.setFail("claim", feature.ErrConflict)
	if _, err := r.Execute(ctx, Spec{Job: "j", Due: epoch.Add(time.Hour)}, fn); !errors.Is(err, ErrDueTaken) || n != 1 {
		t.Errorf("lost race: %v, %d calls", err, n)
	}
	if last := s.runs[len(s.runs)-1]; last.Status != StatusNothing || last.Due != nil {
		t.Errorf("lost race in the ledger: %+v", last)
	}
	s.setFail("claim", errFlaky)
	if _, err := r.Execute(ctx, Spec{Job: "j", Due: epoch.Add(2 * time.Hour)}, fn); !errors.Is(err, errFlaky) || errors.Is(err, ErrDueTaken) || n != 1 {
		t.Errorf("claim that failed: %v, %d calls", err, n)
	}
}

// TestExecuteWhenTheLedgerFails: without a record nothing runs; a run that cannot record
// its end says so and never passes for success.
func TestExecuteWhenTheLedgerFails(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"hold", "next", "start"} {
		s := newStore()
		s.setFail(op, errFlaky)
		_, err := newTestRunner(t, s, clock.NewFake(epoch)).Execute(testCtx(t), Spec{Job: "j"}, func(context.Context, uint64) (Result, error) {
			t.Errorf("%s failed and the job ran", op)
			return Result{}, nil
		})
		if !errors.Is(err, errFlaky) || s.held() != 0 {
			t.Errorf("%s: %v", op, err)
		}
	}
	s := newStore()
	s.setFail("finish", errFlaky)
	out, err := newTestRunner(t, s, clock.NewFake(epoch)).Execute(testCtx(t), Spec{Job: "j"}, func(context.Context, uint64) (Result, error) { return Result{}, nil })
	if !errors.Is(err, errFlaky) || out.Status != StatusDone || !strings.Contains(err.Error(), "run 1 of job j is done, but") {
		t.Errorf("outcome %+v, %v", out, err)
	}
}

// TestDeadRunsAreClosed: the entry of a process that died says running until the next run
// of the job, which holds the lease and therefore knows better.
func TestDeadRunsAreClosed(t *testing.T) {
	t.Parallel()
	ctx, s := testCtx(t), newStore()
	started := epoch.Add(-time.Hour)
	s.next = 2
	s.runs = []Run{{Number: 1, Job: "j", Status: StatusDone, Started: &started, Finished: &started}, {Number: 2, Job: "j", Status: StatusRunning, Started: &started}}
	if _, err := newTestRunner(t, s, clock.NewFake(epoch)).Execute(ctx, Spec{Job: "j"}, func(context.Context, uint64) (Result, error) { return Result{}, nil }); err != nil {
		t.Fatal(err)
	}
	if r := s.runs[1]; r.Status != StatusInterrupted || r.Finished == nil || r.Error == "" || !r.Started.Equal(started) {
		t.Errorf("the dead run is %+v", r)
	}
	if s.runs[0].Status != StatusDone || s.runs[2].Status != StatusDone {
		t.Errorf("ledger %+v", s.runs)
	}
}
