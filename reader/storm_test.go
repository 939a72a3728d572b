package reader_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
)

// 10,000 goroutines ask for 100 keys of a Redis that has just lost everything: the
// backing tier is read once per key. Seen red with the look into fetcher.flights skipped
// (tens of thousands of reads).
func TestStampedeReadsEachKeyOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const keys, readers = 100, 10_000
	for id := range keys {
		b.backing.set(stats(t, b.project, id, start, 1, float64(id)))
	}
	release := make(chan struct{})
	b.backing.faults(func(context.Context, []feature.Ref) error { <-release; return nil }, nil)
	var wg sync.WaitGroup
	var wrong atomic.Int64
	for g := range readers {
		wg.Go(func() {
			// Each reader wants ten of the keys, in an order of its own.
			ids := make([]int, 10)
			for i := range ids {
				ids[i] = (g + i*7) % keys
			}
			resp := b.get(ids...)
			for i, id := range ids {
				it := resp.Row(i).At(0)
				if it.Status != feature.Present || it.Value.Float() != float64(id) || it.EventTime != feature.MicrosOf(start) {
					wrong.Add(1)
				}
			}
		})
	}
	// Every reader waits for the backing tier before it may answer: nobody is late enough to
	// find the cache filled, so the cache does not help here.
	if err := b.clock.WaitForWaiters(t.Context(), readers); err != nil {
		t.Fatal(err)
	}
	close(release)
	wg.Wait()
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d wrong answers", n)
	}
	for ref, n := range b.backing.readCounts() {
		if n != 1 {
			t.Errorf("%s read %d times from the backing tier", ref, n)
		}
	}
	s := b.reader.Stats()
	if s.Backing.Shared != readers*10-keys {
		t.Errorf("%d keys joined a lookup of another request, want %d", s.Backing.Shared, readers*10-keys)
	}
}

// I11: with Redis down, the calls of the backing tier stay under the cap in every second,
// the keys over it are labelled and not called absent, and neither the return of Redis nor
// its emptiness brings a second spike. Seen red with limiter.take returning 0, and (the
// recovery) with breaker.allow letting everyone probe.
func TestOutageStaysUnderCap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit, drivers = 20, 5000
		b := newBundle(t, func(c *reader.Config) {
			c.Clock, c.MaxBackingRPS, c.MaxBackingInFlight = clock.System, limit, 4
			c.BackingTimeout = 300 * time.Millisecond
			c.Cache.MaxEntries, c.Cache.NegativeEntries = -1, -1 // each read goes to the tiers
			c.Breaker = reader.BreakerConfig{Failures: 3, Pause: time.Second, MaxPause: 4 * time.Second}
		})
		b.online.clock, b.backing.clock = clock.System, clock.System
		now := time.Now()
		for id := range drivers {
			b.backing.set(stats(t, b.project, id, now, 1, float64(id)))
		}
		b.online.faults(refused, nil)
		var present, unknown atomic.Int64
		var wg sync.WaitGroup
		next := 0
		// Each step of 10 ms brings 30 readers with one key each: 3,000 keys a second.
		second := func() {
			for range 100 {
				for range 30 {
					id := next % drivers
					next++
					wg.Go(func() {
						switch it := b.get(id).Row(0).At(0); it.Status {
						case feature.Present:
							present.Add(1)
						case feature.Unknown:
							unknown.Add(1)
						default:
							t.Errorf("driver %d: %s", id, it.Status)
						}
					})
				}
				if err := clock.System.Sleep(t.Context(), 10*time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 3 {
			second()
		}
		checkRate(t, b.backing.callLog(), limit)
		// 20 calls of up to 100 keys a second carry 2,000 of the 3,000 keys; the first calls
		// leave with few keys.
		if n := present.Load(); n < 2500 {
			t.Errorf("%d values served in 3 s of outage", n)
		}
		if unknown.Load() == 0 {
			t.Error("3,000 keys a second fitted under the cap: the test shows nothing")
		}
		if n := b.online.callCount(); n > 40 {
			t.Errorf("a refused online tier was called %d times", n)
		}
		s := b.reader.Stats()
		if s.Online.Breaker == reader.BreakerClosed || s.Online.Skipped == 0 {
			t.Errorf("the breaker of the online tier is %s after %d skipped requests", s.Online.Breaker, s.Online.Skipped)
		}

		// Redis is back, and empty.
		b.online.faults(nil, nil)
		for range 6 {
			second()
		}
		wg.Wait()
		checkRate(t, b.backing.callLog(), limit)
		s = b.reader.Stats()
		if s.Online.Breaker != reader.BreakerClosed {
			t.Errorf("the breaker is %s after the recovery", s.Online.Breaker)
		}
		if s.Repairs.Written == 0 {
			t.Error("nothing was written up to the empty online tier")
		}
		if probes := b.online.callCount(); probes < 3000 {
			t.Errorf("the online tier was called %d times: traffic did not return to it", probes)
		}
	})
}

// checkRate fails if more than limit calls began in any second.
func checkRate(t *testing.T, calls []call, limit int) {
	t.Helper()
	for i := range calls {
		if i+limit < len(calls) && calls[i+limit].at.Sub(calls[i].at) < time.Second {
			t.Fatalf("%d calls within %s, the cap is %d a second", limit+1, calls[i+limit].at.Sub(calls[i].at), limit)
		}
	}
}

// Under the cap requests share calls: keys that wait leave together.
func TestQueuedKeysShareCalls(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *reader.Config) { c.MaxBackingRPS = 1 })
	for id := range 100 {
		b.backing.set(stats(t, b.project, id, start, 1, float64(id)))
	}
	b.get(0)
	var wg sync.WaitGroup
	for id := range 50 {
		wg.Go(func() {
			if it := b.get(id + 1).Row(0).At(0); it.Status != feature.Present {
				t.Errorf("driver %d: %s", id+1, it.Status)
			}
		})
	}
	if err := b.clock.WaitForWaiters(t.Context(), 52); err != nil {
		t.Fatal(err)
	}
	b.clock.Advance(time.Second)
	wg.Wait()
	if calls := b.backing.callLog(); len(calls) != 2 || len(calls[1].refs) != 50 {
		t.Errorf("%d calls, want 2: the second with the 50 keys that waited", len(calls))
	}
}

// What does not fit into the queue is labelled at once: an outage does not grow memory.
func TestFullQueueIsCapped(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *reader.Config) { c.MaxBackingQueue, c.MaxBackingRPS = 2, 1 })
	for id := range 10 {
		b.backing.set(stats(t, b.project, id, start, 1, float64(id)))
	}
	resp := b.get(1, 2, 3)
	if it := resp.Row(2).At(0); it.Status != feature.Unknown {
		t.Errorf("the key over the queue is %s", it.Status)
	}
	if len(resp.Unreachable) != 1 || resp.Unreachable[0].Reason != reader.ReasonCapped {
		t.Errorf("unreachable: %+v", resp.Unreachable)
	}
	if s := b.reader.Stats(); s.Backing.Capped != 1 {
		t.Errorf("%d keys counted as capped, want 1", s.Backing.Capped)
	}
}

// 250 keys are three calls of at most 100.
func TestBatchesOfHundred(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	ids := make([]int, 0, 253)
	for i := range 250 {
		ids = append(ids, i)
	}
	b.get(append(ids, 1, 2, 3)...) // some twice
	calls := b.backing.callLog()
	if len(calls) != 3 {
		t.Fatalf("%d calls, want 3", len(calls))
	}
	total := 0
	for _, c := range calls {
		total += len(c.refs)
		if len(c.refs) > 100 {
			t.Errorf("a call of %d keys", len(c.refs))
		}
	}
	if total != 250 {
		t.Errorf("%d keys asked, want 250", total)
	}
	if online := b.online.callLog(); len(online) != 1 || len(online[0].refs) != 250 {
		t.Errorf("online: %d calls", len(online))
	}
}
