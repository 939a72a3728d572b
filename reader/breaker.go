package reader

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthstore/hearth/internal/clock"
)

// verdict is what one call said about the health of its tier.
type verdict uint8

const (
	neutral verdict = iota // the caller gave up; nothing is known
	healthy
	sick
)

// Breaker states, as [TierStats.Breaker] reports them.
const (
	BreakerClosed   = "closed"    // calls pass
	BreakerOpen     = "open"      // calls are not made
	BreakerHalfOpen = "half-open" // one call at a time probes
)

// breaker stops calls to a tier that failed several times in a row, and lets one call at
// a time through when its pause is over. Each failed probe doubles the pause.
//
// It is our own because the pause must run on the injected clock.
type breaker struct {
	clock   clock.Clock
	after   int           // consecutive sick calls that open it
	pause   time.Duration // first pause
	longest time.Duration // longest pause

	// changed is told when the breaker opens and closes, without its lock.
	changed func(open bool)

	clean atomic.Bool // closed with no failure counted: the path without the lock

	mu      sync.Mutex
	fails   int
	open    bool
	until   time.Time // when open: the end of the pause
	current time.Duration
	probing bool
	epoch   uint64 // grows at every change of state; late verdicts are dropped
}

func newBreaker(c clock.Clock, after int, pause, longest time.Duration) *breaker {
	b := &breaker{clock: c, after: after, pause: pause, longest: longest, current: pause}
	b.clean.Store(true)
	return b
}

// permit is the right to make one call; give it back with done.
type permit struct {
	epoch uint64
	probe bool
}

// allow asks for a call. Without a permit the tier must not be called.
func (b *breaker) allow() (permit, bool) {
	if b.clean.Load() {
		return permit{}, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return permit{epoch: b.epoch}, true
	}
	if b.probing || b.clock.Now().Before(b.until) {
		return permit{}, false
	}
	b.probing = true
	return permit{epoch: b.epoch, probe: true}, true
}

// refusing reports whether allow would refuse; it takes no permit.
func (b *breaker) refusing() bool {
	if b.clean.Load() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open && (b.probing || b.clock.Now().Before(b.until))
}

func (b *breaker) done(p permit, v verdict) {
	if v == healthy && !p.probe && b.clean.Load() {
		return
	}
	b.mu.Lock()
	before := b.open
	b.settle(p, v)
	after := b.open
	b.mu.Unlock()
	if before != after && b.changed != nil {
		b.changed(after)
	}
}

func (b *breaker) settle(p permit, v verdict) {
	if p.epoch != b.epoch {
		// A call from before the last change of state, or one that went the path without the
		// lock: only its failure still says something, and only while closed.
		if b.open || v != sick {
			return
		}
	} else if p.probe {
		b.probing = false
	}
	switch v {
	case healthy:
		b.fails = 0
		if b.open {
			b.open, b.current = false, b.pause
			b.epoch++
		}
		b.clean.Store(true)
	case sick:
		b.clean.Store(false)
		if b.open { // a failed probe
			b.current = min(2*b.current, b.longest)
			b.until = b.clock.Now().Add(b.current)
			b.epoch++
			return
		}
		if b.fails++; b.fails >= b.after {
			b.open, b.fails = true, 0
			b.until = b.clock.Now().Add(b.current)
			b.epoch++
		}
	}
}

func (b *breaker) state() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		return BreakerClosed
	case b.probing || !b.clock.Now().Before(b.until):
		return BreakerHalfOpen
	}
	return BreakerOpen
}
