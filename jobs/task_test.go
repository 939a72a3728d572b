package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// machine is a state machine that waits for token "t".
type machine struct {
	mu    sync.Mutex
	calls []string
	beats chan struct{}
	err   error // of heartbeats
	end   error // of reports
}

func (m *machine) note(call string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, call)
}

func (m *machine) Heartbeat(_ context.Context, token string) error {
	m.note("heartbeat " + token)
	m.mu.Lock()
	err := m.err
	m.mu.Unlock()
	if m.beats != nil {
		m.beats <- struct{}{}
	}
	return err
}

func (m *machine) Success(ctx context.Context, token string, output []byte) error {
	m.note(fmt.Sprintf("success %s %s", token, output))
	return errors.Join(m.end, ctx.Err())
}

func (m *machine) Failure(ctx context.Context, token, code, cause string) error {
	m.note(fmt.Sprintf("failure %s %s %s", token, code, cause))
	return errors.Join(m.end, ctx.Err())
}

// TestTaskReports: every end of a run has its word for the state machine; only done and
// nothing are success (I9). Red when partial is reported as success.
func TestTaskReports(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		out  Outcome
		err  error
		want string
	}{
		"done":        {Outcome{Run: 1, Job: "j", Status: StatusDone}, nil, `success t {"run":1,"job":"j"`},
		"nothing":     {Outcome{Run: 1, Job: "j", Status: StatusNothing}, nil, `success t {"run":1`},
		"partial":     {Outcome{Run: 1, Status: StatusPartial}, nil, "failure t Hearth.Partial partial"},
		"failed":      {Outcome{Run: 1, Status: StatusFailed}, errFlaky, "failure t Hearth.Failed " + errFlaky.Error()},
		"interrupted": {Outcome{Run: 1, Status: StatusInterrupted}, context.Canceled, "failure t Hearth.Interrupted context canceled"},
		"lease held":  {Outcome{}, fmt.Errorf("job j: %w", feature.ErrLeaseHeld), "failure t Hearth.LeaseHeld job j"},
		"invalid":     {Outcome{}, feature.Problems{{Message: "no such job"}}, "failure t Hearth.Invalid no such job"},
		"long output": {Outcome{Run: 1, Status: StatusDone, Detail: strings.Repeat("x", maxTaskOutput)}, nil, `success t {"run":1,"job":"","kind":""`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &machine{}
			// A context that has ended must not keep the report from going out.
			ctx, cancel := context.WithCancel(testCtx(t))
			out, err := Task{Callback: m, Token: "t", Clock: clock.NewFake(epoch)}.Run(ctx, func(context.Context) (Outcome, error) {
				cancel()
				return c.out, c.err
			})
			if out.Status != c.out.Status || !errors.Is(err, c.err) && c.err != nil && err.Error() != c.err.Error() || (err == nil) != (c.err == nil) {
				t.Errorf("returned %+v, %v", out, err)
			}
			if len(m.calls) != 1 || !strings.HasPrefix(m.calls[0], c.want) || len(m.calls[0]) > maxTaskOutput {
				t.Errorf("reported %.200q, want %q", m.calls, c.want)
			}
		})
	}
}

// TestTaskHeartbeats: they go out while the work runs, and one that fails does not stop it.
func TestTaskHeartbeats(t *testing.T) {
	t.Parallel()
	ctx, fake := testCtx(t), clock.NewFake(epoch)
	m := &machine{beats: make(chan struct{}), err: errFlaky}
	_, err := Task{Callback: m, Token: "t", Every: time.Minute, Clock: fake}.Run(ctx, func(ctx context.Context) (Outcome, error) {
		for range 3 {
			if err := fake.WaitForWaiters(ctx, 1); err != nil {
				return Outcome{}, err
			}
			fake.Advance(time.Minute)
			<-m.beats
		}
		return Outcome{Run: 1, Status: StatusDone}, nil
	})
	if err != nil || len(m.calls) != 4 || m.calls[2] != "heartbeat t" {
		t.Errorf("%v, calls %q", err, m.calls)
	}
}

// TestTaskGone: when the state machine gave up, the work stops and nothing is reported: a
// successor may be at it. Red when the cause is not looked at.
func TestTaskGone(t *testing.T) {
	t.Parallel()
	ctx, fake := testCtx(t), clock.NewFake(epoch)
	m := &machine{err: fmt.Errorf("task timed out: %w", ErrTaskGone)}
	_, err := Task{Callback: m, Token: "t", Clock: fake}.Run(ctx, func(ctx context.Context) (Outcome, error) {
		if err := fake.WaitForWaiters(ctx, 1); err != nil {
			return Outcome{}, err
		}
		fake.Advance(30 * time.Second)
		<-ctx.Done()
		return Outcome{Run: 1, Status: StatusInterrupted}, context.Cause(ctx)
	})
	if !errors.Is(err, ErrTaskGone) {
		t.Errorf("error %v", err)
	}
	equal(t, "calls", m.calls, []string{"heartbeat t"})
}

func TestTaskReportLost(t *testing.T) {
	t.Parallel()
	m := &machine{end: errFlaky}
	out, err := Task{Callback: m, Token: "t", Clock: clock.NewFake(epoch)}.Run(testCtx(t), func(context.Context) (Outcome, error) {
		return Outcome{Run: 1, Status: StatusDone}, nil
	})
	if !errors.Is(err, errFlaky) || out.Status != StatusDone {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := (Task{}).Run(testCtx(t), nil); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("no callback: %v", err)
	}
}
