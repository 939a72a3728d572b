package breaker

import (
	"testing"
	"time"

	"github.com/hearthstore/hearth/internal/clock"
)

var epoch = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

func TestOpensProbesAndCloses(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(epoch)
	var changes []bool
	b := New(c, Config{Failures: 3, Pause: time.Second, MaxPause: 4 * time.Second}, func(open bool) { changes = append(changes, open) })
	call := func(v Verdict) bool {
		p, ok := b.Allow()
		if ok {
			b.Done(p, v)
		}
		return ok
	}
	call(Sick)
	call(Sick)
	call(Healthy) // not in a row any more
	call(Sick)
	call(Sick)
	if b.State() != Closed {
		t.Fatal("opened after two failures in a row, want three")
	}
	call(Sick)
	if b.State() != Open || call(Healthy) {
		t.Fatal("closed after three failures in a row")
	}
	for _, seconds := range []int{1, 2, 4, 4} { // doubles up to the longest
		c.Advance(time.Duration(seconds)*time.Second - 1)
		if call(Healthy) {
			t.Fatalf("a call passed before the pause of %ds was over", seconds)
		}
		c.Advance(1)
		p, ok := b.Allow()
		if !ok {
			t.Fatalf("no probe after %ds", seconds)
		}
		if _, second := b.Allow(); second {
			t.Fatal("two probes at once")
		}
		b.Done(p, Sick)
	}
	c.Advance(4 * time.Second)
	p, _ := b.Allow()
	b.Done(p, Neutral) // the caller gave up: the probe is free again and nothing is known
	if b.State() != HalfOpen || !call(Healthy) || b.State() != Closed {
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
	b := New(c, Config{Failures: 1, Pause: time.Second, MaxPause: time.Minute}, nil)
	early, _ := b.Allow()
	late, _ := b.Allow()
	b.Done(early, Sick)
	b.Done(late, Healthy)
	if b.State() != Open {
		t.Error("a late success closed the breaker")
	}
	c.Advance(time.Second)
	p, ok := b.Allow()
	if !ok {
		t.Fatal("no probe")
	}
	b.Done(late, Sick)
	if _, ok := b.Allow(); ok {
		t.Error("a late failure freed the probe's place")
	}
	b.Done(p, Healthy)
	if b.State() != Closed {
		t.Error("the probe did not close the breaker")
	}
}
