package reader

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/internal/clock"
)

var epoch = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

func TestBreakerOpensProbesAndCloses(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(epoch)
	b := newBreaker(c, 3, time.Second, 4*time.Second)
	var changes []bool
	b.changed = func(open bool) { changes = append(changes, open) }
	call := func(v verdict) bool {
		p, ok := b.allow()
		if ok {
			b.done(p, v)
		}
		return ok
	}
	call(sick)
	call(sick)
	call(healthy) // not in a row any more
	call(sick)
	call(sick)
	if b.state() != BreakerClosed {
		t.Fatal("opened after two failures in a row, want three")
	}
	call(sick)
	if b.state() != BreakerOpen || call(healthy) {
		t.Fatal("closed after three failures in a row")
	}
	for _, seconds := range []int{1, 2, 4, 4} { // doubles up to the longest
		c.Advance(time.Duration(seconds)*time.Second - 1)
		if call(healthy) {
			t.Fatalf("a call passed before the pause of %ds was over", seconds)
		}
		c.Advance(1)
		p, ok := b.allow()
		if !ok {
			t.Fatalf("no probe after %ds", seconds)
		}
		if _, second := b.allow(); second {
			t.Fatal("two probes at once")
		}
		b.done(p, sick)
	}
	c.Advance(4 * time.Second)
	p, _ := b.allow()
	b.done(p, neutral) // the caller gave up: the probe is free again and nothing is known
	if b.state() != BreakerHalfOpen || !call(healthy) || b.state() != BreakerClosed {
		t.Fatal("a healthy probe did not close it")
	}
	if len(changes) != 2 || !changes[0] || changes[1] {
		t.Errorf("changes told: %v, want open, closed", changes)
	}
}

// A verdict of a call that began before the breaker opened neither closes nor prolongs.
func TestBreakerIgnoresLateVerdicts(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(epoch)
	b := newBreaker(c, 1, time.Second, time.Minute)
	early, _ := b.allow()
	late, _ := b.allow()
	b.done(early, sick)
	b.done(late, healthy)
	if b.state() != BreakerOpen {
		t.Error("a late success closed the breaker")
	}
	c.Advance(time.Second)
	p, ok := b.allow()
	if !ok {
		t.Fatal("no probe")
	}
	b.done(late, sick)
	if _, ok := b.allow(); ok {
		t.Error("a late failure freed the probe's place")
	}
	b.done(p, healthy)
	if b.state() != BreakerClosed {
		t.Error("the probe did not close the breaker")
	}
}

// No second ever sees more calls than the cap, whatever the pattern of demand, and demand
// that goes on gets nearly all of it. Seen red with the rate not lowered by the burst.
func TestLimiterKeepsEverySecond(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 1000).Draw(t, "limit")
		l := newLimiter(limit)
		now := epoch
		var taken []time.Time
		for range rapid.IntRange(100, 3000).Draw(t, "tries") {
			now = now.Add(time.Duration(rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 5_000_000), rapid.IntRange(0, 2_000_000_000)).Draw(t, "gap")))
			if l.take(now) == 0 {
				taken = append(taken, now)
			}
		}
		for i := range taken {
			if i+limit < len(taken) && taken[i+limit].Sub(taken[i]) < time.Second {
				t.Fatalf("%d calls within %s, the cap is %d", limit+1, taken[i+limit].Sub(taken[i]), limit)
			}
		}
	})
	l, n := newLimiter(500), 0
	for now := epoch; now.Before(epoch.Add(10 * time.Second)); {
		if wait := l.take(now); wait > 0 {
			now = now.Add(wait)
		} else {
			n++
		}
	}
	if n < 4400 {
		t.Errorf("%d calls in 10 s of steady demand, the cap allows 5000", n)
	}
}
