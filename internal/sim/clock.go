package sim

import (
	"context"
	"sync/atomic"
	"time"
)

// Clock is a clock on which waiting takes no time: Sleep moves it on and returns.
type Clock struct{ ns atomic.Int64 }

// NewClock returns a clock that stands at t.
func NewClock(t time.Time) *Clock {
	c := &Clock{}
	c.ns.Store(t.UnixNano())
	return c
}

// Now returns the time.
func (c *Clock) Now() time.Time { return time.Unix(0, c.ns.Load()).UTC() }

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) { c.ns.Add(int64(d)) }

// After moves the clock by d and delivers at once.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	c.Advance(max(d, 0))
	ch := make(chan time.Time, 1)
	ch <- c.Now()
	return ch
}

// Sleep moves the clock by d, unless ctx is done.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.Advance(max(d, 0))
	return nil
}
