package clock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hearthstore/hearth/internal/clock"
)

var start = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

// Seen red with Advance delivering to everyone.
func TestFakeWakesThoseWhoseTimeHasCome(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(start)
	early, late := c.After(time.Second), c.After(time.Minute)
	c.Advance(time.Second)
	select {
	case at := <-early:
		if !at.Equal(start.Add(time.Second)) {
			t.Errorf("woken at %s", at)
		}
	default:
		t.Error("not woken at its time")
	}
	select {
	case <-late:
		t.Error("woken before its time")
	default:
	}
	c.Set(start.Add(-time.Hour)) // a clock step back wakes nobody
	select {
	case <-late:
		t.Error("woken by a step back")
	default:
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]clock.Clock{"fake": clock.NewFake(start), "system": clock.System} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Sleep(ctx, time.Hour) }()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.Sleep(ctx, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: a sleep under an ended context: %v", name, err)
		}
	}
}
