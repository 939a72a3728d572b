package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// ErrTaskGone marks a task token that nobody waits for any more: the state machine timed
// out, was stopped, or has given the task to another.
var ErrTaskGone = errors.New("the state machine no longer waits for this task")

// TaskCallback tells a state machine about a task that it waits for (Step Functions'
// SendTaskHeartbeat, SendTaskSuccess and SendTaskFailure). Each method returns an error
// matching [ErrTaskGone] when the token is no longer waited for, and is retried by the
// implementation for what passes by itself.
type TaskCallback interface {
	Heartbeat(ctx context.Context, token string) error
	Success(ctx context.Context, token string, output []byte) error
	Failure(ctx context.Context, token, code, cause string) error
}

// The error codes that a state machine can catch.
const (
	TaskFailed      = "Hearth.Failed"
	TaskPartial     = "Hearth.Partial"     // something is behind; a later run catches up
	TaskLeaseHeld   = "Hearth.LeaseHeld"   // another run of the job is going on
	TaskInvalid     = "Hearth.Invalid"     // usage or configuration: retrying is useless
	TaskInterrupted = "Hearth.Interrupted" // stopped from outside; running again resumes
)

// Step Functions refuses more than these many bytes of output and cause.
const (
	maxTaskOutput = 256 << 10
	maxTaskCause  = 32 << 10
)

// Task runs one job for a state machine that waits for a task token. Set HeartbeatSeconds
// of the state to at least three times Every.
type Task struct {
	Callback TaskCallback // required
	Token    string       // required
	// Every is the time between heartbeats. Defaults to 30s.
	Every time.Duration
	// CleanUp bounds the report of the end. Defaults to 15s.
	CleanUp time.Duration
	Clock   clock.Clock  // defaults to clock.System
	Logger  *slog.Logger // defaults to discarding
}

// Run calls fn, sends heartbeats while it runs, and reports how it ended: success for done
// and nothing, a failure with one of the codes above for everything else. fn's context
// ends with the cause [ErrTaskGone] when the state machine gave up; nothing is reported
// then. It returns what fn returned; a report that could not be delivered is joined to it.
func (t Task) Run(ctx context.Context, fn func(context.Context) (Outcome, error)) (Outcome, error) {
	if t.Callback == nil || t.Token == "" {
		return Outcome{}, fmt.Errorf("run task: %w: a callback and a token are required", feature.ErrInvalid)
	}
	if t.Every <= 0 {
		t.Every = 30 * time.Second
	}
	if t.CleanUp <= 0 {
		t.CleanUp = 15 * time.Second
	}
	if t.Clock == nil {
		t.Clock = clock.System
	}
	if t.Logger == nil {
		t.Logger = slog.New(slog.DiscardHandler)
	}
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var beats sync.WaitGroup
	stop := make(chan struct{})
	beats.Go(func() { t.beat(work, cancel, stop) })
	out, err := fn(work)
	close(stop)
	beats.Wait()
	if errors.Is(context.Cause(work), ErrTaskGone) {
		return out, err
	}
	clean, done := context.WithTimeout(context.WithoutCancel(ctx), t.CleanUp)
	defer done()
	if reportErr := t.report(clean, out, err); reportErr != nil {
		err = errors.Join(err, fmt.Errorf("report the end to the state machine: %w", reportErr))
	}
	return out, err
}

// beat sends heartbeats until stop closes. A heartbeat that fails is tried again at the
// next: the state machine allows for a few that are missing.
func (t Task) beat(ctx context.Context, cancel context.CancelCauseFunc, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-t.Clock.After(t.Every):
		}
		err := t.Callback.Heartbeat(ctx, t.Token)
		if errors.Is(err, ErrTaskGone) {
			t.Logger.Warn("the state machine gave up, stopping", "error", err)
			cancel(err)
			return
		}
		if err != nil {
			t.Logger.Warn("heartbeat not delivered", "error", err)
		}
	}
}

func (t Task) report(ctx context.Context, out Outcome, err error) error {
	if err == nil && out.Status != StatusPartial && out.Status != StatusFailed && out.Status != StatusInterrupted {
		doc, jsonErr := json.Marshal(out)
		if jsonErr == nil && len(doc) > maxTaskOutput {
			out.Detail = nil
			doc, jsonErr = json.Marshal(out)
		}
		if jsonErr != nil {
			return fmt.Errorf("encode outcome: %w", jsonErr)
		}
		return t.Callback.Success(ctx, t.Token, doc)
	}
	cause := out.Status
	if err != nil {
		cause = err.Error()
	}
	if len(cause) > maxTaskCause {
		cause = cause[:maxTaskCause]
	}
	return t.Callback.Failure(ctx, t.Token, taskCode(out, err), cause)
}

func taskCode(out Outcome, err error) string {
	switch {
	case errors.Is(err, feature.ErrLeaseHeld) && out.Run == 0:
		return TaskLeaseHeld
	case out.Status == StatusInterrupted:
		return TaskInterrupted
	case out.Status == StatusPartial:
		return TaskPartial
	case errors.Is(err, feature.ErrInvalid):
		return TaskInvalid
	}
	return TaskFailed
}
