// Package pace slows work down: a token bucket for rates that a person sets, and a window
// that adapts the number of calls in flight to how the other side feels. Both take their
// time from a clock, so tests step it.
package pace

import (
	"context"
	"sync"
	"time"

	"github.com/hearthstore/hearth/internal/clock"
)

// Bucket limits a rate. It lends: a taker may take more than is there and pays by waiting,
// so that work whose price is known only afterwards (a scan page) keeps the average rate.
// A nil *Bucket does not limit. It is safe for concurrent use; takers wait in the order in
// which they came.
type Bucket struct {
	clock clock.Clock
	burst float64 // most that an idle bucket saves up

	mu      sync.Mutex
	rate    float64 // units per second
	balance float64
	at      time.Time // when balance was computed
}

// NewBucket returns a bucket of rate units per second that saves up at most burst units
// while idle; burst <= 0 means a tenth of a second's worth. rate <= 0 returns nil: no
// limit. A nil clock is the machine's.
func NewBucket(c clock.Clock, rate, burst float64) *Bucket {
	if rate <= 0 {
		return nil
	}
	if burst <= 0 {
		burst = rate / 10
	}
	if c == nil {
		c = clock.System
	}
	return &Bucket{clock: c, rate: rate, burst: burst, at: c.Now()}
}

// Wait takes n units and returns when the bucket is no longer in debt for them. When ctx
// ends first the units go back.
func (b *Bucket) Wait(ctx context.Context, n float64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b == nil {
		return nil
	}
	b.mu.Lock()
	b.refill()
	b.balance -= n
	debt, rate := -b.balance, b.rate
	b.mu.Unlock()
	if debt <= 0 {
		return nil
	}
	// Rounded up to a microsecond, the resolution that timers have at best.
	wait := time.Duration(debt/rate*1e9) + time.Microsecond
	if err := b.clock.Sleep(ctx, wait); err != nil {
		b.Spend(-n)
		return err
	}
	return nil
}

// Spend corrects an estimate after the fact: n more units were used than were waited for
// (fewer, when negative). It never waits; the next taker pays.
func (b *Bucket) Spend(n float64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill()
	b.balance = min(b.balance-n, b.burst)
}

// Rate is the limit in units per second; 0 for none.
func (b *Bucket) Rate() float64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rate
}

// SetRate changes the limit, which must be above 0. Who waits already waits as long as was
// said.
func (b *Bucket) SetRate(rate float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill()
	b.rate = rate
}

// refill credits the time that has passed. A clock that was set back credits nothing.
func (b *Bucket) refill() {
	now := b.clock.Now()
	if passed := now.Sub(b.at); passed > 0 {
		b.balance = min(b.balance+passed.Seconds()*b.rate, b.burst)
	}
	b.at = now
}
