// Package breaker stops calls to something that failed several times in a row, and probes
// it with one call at a time. The reader has one per tier, the Redis tier one per node.
//
// It is our own because the pause must run on the injected clock, and because a late
// Verdict of a call from before the breaker opened must neither close it nor prolong it.
package breaker

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// ErrOpen is why something was not called. It matches feature.ErrUnreachable.
var ErrOpen = fmt.Errorf("%w: its breaker is open", feature.ErrUnreachable)

// Verdict is what one call said about the health of what it called.
type Verdict uint8

// The verdicts.
const (
	Neutral Verdict = iota // the caller gave up; nothing is known
	Healthy
	Sick
)

// The states.
const (
	Closed   = "closed"    // calls pass
	Open     = "open"      // calls are not made
	HalfOpen = "half-open" // one call at a time probes
)

// Config bounds a breaker. Fields left zero take their default.
type Config struct {
	// Failures is how many failed calls in a row stop the calls. Defaults to 5.
	Failures int
	// Pause is how long calls stop before one of them probes. It doubles with each failed
	// probe. Defaults to 500 ms.
	Pause time.Duration
	// MaxPause bounds the doubling. Defaults to 15 s.
	MaxPause time.Duration
}

// WithDefaults fills in what is zero.
func (c Config) WithDefaults() Config {
	if c.Failures == 0 {
		c.Failures = 5
	}
	if c.Pause == 0 {
		c.Pause = 500 * time.Millisecond
	}
	if c.MaxPause == 0 {
		c.MaxPause = max(c.Pause, 15*time.Second)
	}
	return c
}

// Node is the breaker of one server of a tier that has several.
type Node struct {
	Addr    string `json:"addr"`
	Breaker string `json:"breaker"` // one of the states
}

// Breaker stops calls to something that failed several times in a row, and lets one call
// at a time through when its pause is over. Each failed probe doubles the pause. It is safe
// for concurrent use.
type Breaker struct {
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

// New makes a closed breaker. changed, which may be nil, is told when it opens and closes.
func New(c clock.Clock, cfg Config, changed func(open bool)) *Breaker {
	cfg = cfg.WithDefaults()
	b := &Breaker{clock: c, after: cfg.Failures, pause: cfg.Pause, longest: cfg.MaxPause, current: cfg.Pause, changed: changed}
	b.clean.Store(true)
	return b
}

// Permit is the right to make one call; give it back with Done.
type Permit struct {
	epoch uint64
	probe bool
}

// Allow asks for a call. Without a permit it must not be made.
func (b *Breaker) Allow() (Permit, bool) {
	if b.clean.Load() {
		return Permit{}, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return Permit{epoch: b.epoch}, true
	}
	if b.probing || b.clock.Now().Before(b.until) {
		return Permit{}, false
	}
	b.probing = true
	return Permit{epoch: b.epoch, probe: true}, true
}

// Refusing reports whether Allow would refuse; it takes no permit.
func (b *Breaker) Refusing() bool {
	if b.clean.Load() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open && (b.probing || b.clock.Now().Before(b.until))
}

// Done gives a permit back and says what the call showed.
func (b *Breaker) Done(p Permit, v Verdict) {
	if v == Healthy && !p.probe && b.clean.Load() {
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

func (b *Breaker) settle(p Permit, v Verdict) {
	if p.epoch != b.epoch {
		// A call from before the last change of state, or one that went the path without the
		// lock: only its failure still says something, and only while closed.
		if b.open || v != Sick {
			return
		}
	} else if p.probe {
		b.probing = false
	}
	switch v {
	case Healthy:
		b.fails = 0
		if b.open {
			b.open, b.current = false, b.pause
			b.epoch++
		}
		b.clean.Store(true)
	case Sick:
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

// State is one of Closed, Open and HalfOpen.
func (b *Breaker) State() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		return Closed
	case b.probing || !b.clock.Now().Before(b.until):
		return HalfOpen
	}
	return Open
}
