package pace

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthstore/hearth/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running returns a fake clock whose time passes as soon as somebody waits for it.
func running(t *testing.T) *clock.Fake {
	t.Helper()
	c := clock.NewFake(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c.WaitForWaiters(ctx, 1) == nil {
			c.Advance(time.Millisecond)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return c
}

// Whatever the sizes and the number of takers, the rate over the whole is kept.
// Seen red with: Wait returning without its sleep; refill forgetting to move b.at.
func TestBucketKeepsTheRate(t *testing.T) {
	t.Parallel()
	for _, takers := range []int{1, 4} {
		c := running(t)
		b := NewBucket(c, 100, 10)
		began := c.Now()
		var wg sync.WaitGroup
		for range takers {
			wg.Go(func() {
				for i := range 20 {
					if err := b.Wait(context.Background(), float64(1+i%5)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		total := float64(takers * 60)
		want := (total - 10) / 100
		if took := c.Now().Sub(began).Seconds(); took < want-0.01 || took > want+0.2 {
			t.Errorf("%d takers: %v units took %.3f s, want %.3f s", takers, total, took, want)
		}
	}
}

// Work that costs more than was waited for is paid by the next taker; less comes back.
// Seen red with: Spend a no-op.
func TestBucketSpend(t *testing.T) {
	t.Parallel()
	c := running(t)
	b := NewBucket(c, 10, 1)
	began := c.Now()
	b.Spend(21) // one is there: 20 in debt
	if err := b.Wait(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	if took := c.Now().Sub(began).Seconds(); took < 2 || took > 2.3 {
		t.Errorf("a debt of 20 at 10/s took %.3f s", took)
	}
	began = c.Now()
	b.Spend(100)
	b.Spend(-100)
	if err := b.Wait(context.Background(), 0); err != nil || c.Now().Sub(began) > 10*time.Millisecond {
		t.Errorf("a corrected estimate was paid: %v %s", err, c.Now().Sub(began))
	}
}

func TestBucketWithoutLimit(t *testing.T) {
	t.Parallel()
	b := NewBucket(nil, 0, 0)
	b.Spend(1e9)
	if err := b.Wait(context.Background(), 1e9); err != nil || b.Rate() != 0 {
		t.Errorf("no limit: %v, rate %v", err, b.Rate())
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := b.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

// A taker that gives up returns what it took.
// Seen red with: the Spend(-n) left out.
func TestBucketGivesBack(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(time.Unix(0, 0))
	b := NewBucket(c, 1, 1)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Wait(ctx, 1000) }()
	if err := c.WaitForWaiters(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	c.Advance(2 * time.Second)
	if err := b.Wait(context.Background(), 1); err != nil { // must not wait: nobody advances the clock
		t.Error(err)
	}
}

// A clock that is set back neither stops the bucket for long nor fills it.
func TestBucketClockStep(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(time.Unix(10_000, 0))
	b := NewBucket(c, 1, 1)
	c.Set(time.Unix(0, 0))
	if err := b.Wait(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Second)
	if err := b.Wait(context.Background(), 1); err != nil {
		t.Error(err)
	}
}

// call takes d of fake time on c.
func call(t *testing.T, c *clock.Fake, w *Window, d time.Duration, loaded bool) {
	t.Helper()
	if err := w.Do(context.Background(), func() bool {
		if d > 0 {
			if err := c.Sleep(context.Background(), d); err != nil {
				t.Error(err)
			}
		}
		return loaded
	}); err != nil {
		t.Fatal(err)
	}
}

// Seen red with: no growth; no shrink on a slow call; the pause left out.
func TestWindowAdapts(t *testing.T) {
	t.Parallel()
	c := running(t)
	w := NewWindow(WindowConfig{Clock: c, Max: 4, Target: 10 * time.Millisecond})
	for range 20 {
		call(t, c, w, time.Millisecond, false)
	}
	if w.Size() != 4 {
		t.Fatalf("after fast calls the window is %v, want 4", w.Size())
	}
	call(t, c, w, 50*time.Millisecond, false)
	if got := w.Size(); got != 4*shrink {
		t.Errorf("after one slow call %v, want %v", got, 4*shrink)
	}
	for range 40 {
		call(t, c, w, 20*time.Millisecond, false)
	}
	if w.Size() > 0.1 {
		t.Errorf("after slow calls %v, want far below 1", w.Size())
	}
	// Now one call costs a long pause before the next.
	began := c.Now()
	call(t, c, w, 20*time.Millisecond, true)
	call(t, c, w, 20*time.Millisecond, true)
	if took := c.Now().Sub(began); took < 500*time.Millisecond {
		t.Errorf("two calls in %s, want a pause between them", took)
	}
	for range 60 {
		call(t, c, w, time.Millisecond, false)
	}
	if w.Size() != 4 {
		t.Errorf("after recovery %v, want 4", w.Size())
	}
}

// Calls in flight at a cut do not cut again: they saw the same trouble.
// Seen red with: the check of began left out.
func TestWindowCutsOncePerRound(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(time.Unix(0, 0))
	w := NewWindow(WindowConfig{Clock: c, Max: 8})
	for range 50 {
		call(t, c, w, 0, false)
	}
	var inside atomic.Int32
	release := make(chan struct{})
	all := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := w.Do(context.Background(), func() bool {
				if inside.Add(1) == 8 {
					close(all)
				}
				<-release
				return true
			}); err != nil {
				t.Error(err)
			}
		})
	}
	<-all
	c.Advance(time.Second)
	close(release)
	wg.Wait()
	if got := w.Size(); got != 8*shrink || w.Cuts() != 1 {
		t.Errorf("window %v after %d cuts, want %v after 1", got, w.Cuts(), 8*shrink)
	}
}

// Never more calls at a time than the window, and a waiter that gives up leaves no trace.
// Seen red with: inflight not counted.
func TestWindowBounds(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(time.Unix(0, 0))
	w := NewWindow(WindowConfig{Clock: c, Max: 3})
	for range 20 {
		call(t, c, w, 0, false)
	}
	var inside, most atomic.Int32
	full, open := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if err := w.Do(context.Background(), func() bool {
				n := inside.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				if n == 3 {
					select {
					case <-full:
					default:
						close(full)
					}
				}
				<-open
				inside.Add(-1)
				return false
			}); err != nil {
				t.Error(err)
			}
		})
	}
	<-full
	for range 1000 { // whoever else could come in comes now
		runtime.Gosched()
	}
	close(open)
	wg.Wait()
	if most.Load() != 3 {
		t.Errorf("%d calls at a time, want 3", most.Load())
	}

	one := NewWindow(WindowConfig{Clock: c, Max: 1})
	ctx, stop := context.WithCancel(context.Background())
	if err := one.Do(context.Background(), func() bool {
		stop()
		if err := one.Do(ctx, func() bool { t.Error("ran beyond the window"); return false }); !errors.Is(err, context.Canceled) {
			t.Errorf("waiter: %v", err)
		}
		return false
	}); err != nil {
		t.Fatal(err)
	}
	call(t, c, one, 0, false)
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	const base, limit = 50 * time.Millisecond, 5 * time.Second
	for n := range 70 {
		want := limit
		if n < 7 {
			want = min(base<<n, limit)
		}
		for range 20 {
			if d := Backoff(n, base, limit); d < want/2 || d > want+1 {
				t.Fatalf("try %d: %s, want %s to %s", n, d, want/2, want)
			}
		}
	}
}
