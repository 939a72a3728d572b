package backing_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a state store whose every call can be made to fail, hang or lose its answer.
type memory struct {
	mu    sync.Mutex
	items map[[2]string]backing.StateItem
	puts  int
	// fault, if set, is asked before each write; lost applies it and loses the answer.
	fault func(ctx context.Context) (lost bool, err error)
}

func newMemory() *memory { return &memory{items: map[[2]string]backing.StateItem{}} }

func (m *memory) setFault(f func(context.Context) (bool, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

func (m *memory) writes() int { m.mu.Lock(); defer m.mu.Unlock(); return m.puts }

func (m *memory) GetState(_ context.Context, kind, name string) (backing.StateItem, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	item, ok := m.items[[2]string{kind, name}]
	if !ok {
		return item, feature.ErrNotFound
	}
	return item, nil
}

func (m *memory) PutState(ctx context.Context, item backing.StateItem) (backing.StateItem, error) {
	m.mu.Lock()
	fault := m.fault
	m.puts++
	m.mu.Unlock()
	lost := false
	if fault != nil {
		var err error
		if lost, err = fault(ctx); err != nil && !lost {
			return item, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	id := [2]string{item.Kind, item.Name}
	if m.items[id].Revision != item.Revision {
		return item, feature.ErrConflict
	}
	revision, err := backing.NewRevision()
	if err != nil {
		return item, err
	}
	item.Revision, item.Value = revision, slices.Clone(item.Value)
	m.items[id] = item
	if lost {
		return item, errors.New("answer lost")
	}
	return item, nil
}

func (m *memory) DeleteState(_ context.Context, kind, name string, revision int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if item, ok := m.items[[2]string{kind, name}]; ok && item.Revision != revision {
		return feature.ErrConflict
	}
	delete(m.items, [2]string{kind, name})
	return nil
}

func (m *memory) ListState(_ context.Context, kind string, opt backing.ListOptions) ([]backing.StateItem, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var items []backing.StateItem
	for id, item := range m.items {
		if id[0] == kind && strings.HasPrefix(id[1], opt.Prefix) {
			items = append(items, item)
		}
	}
	slices.SortFunc(items, func(a, b backing.StateItem) int { return strings.Compare(a.Name, b.Name) })
	return items, nil
}

// stepped is a fake clock that says when somebody waits on it, and for how long.
type stepped struct {
	*clock.Fake
	slept  chan time.Duration // Sleep
	afters chan time.Duration // After
}

func newStepped(now time.Time) *stepped {
	return &stepped{Fake: clock.NewFake(now), slept: make(chan time.Duration, 1000), afters: make(chan time.Duration, 1000)}
}

func (c *stepped) Sleep(ctx context.Context, d time.Duration) error {
	ch := c.Fake.After(d)
	c.slept <- d
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *stepped) After(d time.Duration) <-chan time.Time {
	ch := c.Fake.After(d)
	c.afters <- d
	return ch
}

// patience is how long a test waits for another goroutine before it fails.
const patience = 20 * time.Second

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}

var start = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

func acquire(t *testing.T, ls *backing.Leases, holder string) *backing.Lease {
	t.Helper()
	l, err := ls.Acquire(t.Context(), "job", holder)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func refuse(t *testing.T, ls *backing.Leases, holder string) {
	t.Helper()
	if _, err := ls.Acquire(t.Context(), "job", holder); !errors.Is(err, feature.ErrLeaseHeld) {
		t.Fatalf("acquire by %s: %v, want it refused", holder, err)
	}
}

// A lease that ended is watched before it is taken: with clocks that differ by less than
// Skew nobody takes over from a holder who still believes in its lease, and nobody waits
// for ever. Seen red with `left <= 0` taken as free.
func TestTakeoverWatchesFirst(t *testing.T) {
	state := newMemory()
	holderClock, contenderClock := clock.NewFake(start), newStepped(start.Add(45*time.Second)) // the contender's is ahead
	holders := backing.NewLeases(backing.LeaseConfig{State: state, Clock: holderClock})
	contenders := backing.NewLeases(backing.LeaseConfig{State: state, Clock: contenderClock})
	a := acquire(t, holders, "a")

	// By the contender's clock it ended 15 s ago. It watches, and sees the renewal.
	result := make(chan error, 1)
	go func() { _, err := contenders.Acquire(t.Context(), "job", "b"); result <- err }()
	receive(t, contenderClock.slept)
	holderClock.Advance(10 * time.Second)
	if err := a.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	contenderClock.Advance(5 * time.Second)
	if err := receive(t, result); !errors.Is(err, feature.ErrLeaseHeld) {
		t.Fatalf("acquire of a living lease: %v", err)
	}

	// The holder dies: the contender takes over when it has seen nothing for the TTL.
	began := contenderClock.Now()
	leases := make(chan *backing.Lease, 1)
	go func() {
		b, err := contenders.Acquire(t.Context(), "job", "b")
		result <- err
		leases <- b
	}()
	for done := false; !done; {
		select {
		case d := <-contenderClock.slept:
			contenderClock.Advance(d)
		case err := <-result:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		case <-time.After(patience):
			t.Fatal("the takeover never ended")
		}
	}
	if took := contenderClock.Now().Sub(began); took < 25*time.Second || took > 30*time.Second {
		t.Errorf("the takeover took %s", took)
	}
	if b := <-leases; b.Fence() != a.Fence()+1 {
		t.Errorf("fence %d after %d", b.Fence(), a.Fence())
	}
	if err := a.Renew(t.Context()); !errors.Is(err, feature.ErrLeaseLost) {
		t.Errorf("renewal by the dead: %v", err)
	}
}

// A contender whose clock is far behind is not locked out by a dead holder, and one that
// polls need not watch.
func TestTakeoverWithAClockBehind(t *testing.T) {
	state := newMemory()
	holders := backing.NewLeases(backing.LeaseConfig{State: state, Clock: clock.NewFake(start)})
	acquire(t, holders, "a")
	behind := newStepped(start.Add(-20 * time.Second))
	poller := backing.NewLeases(backing.LeaseConfig{State: state, Clock: behind, TTL: 25 * time.Second})
	// It ends 50 s ahead, which no lease of 30 s can: watched. Another holder's view of it
	// would be alive. Cancelling ends the watch.
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { _, err := poller.Acquire(ctx, "job", "b"); result <- err }()
	receive(t, behind.slept)
	cancel()
	if err := receive(t, result); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled acquire: %v", err)
	}
	behind.Advance(30 * time.Second) // seen unchanged for the TTL since the first look
	acquire(t, poller, "b")
}

func TestTakeoverWithoutWatching(t *testing.T) {
	state, clk := newMemory(), clock.NewFake(start)
	dead := false
	ls := backing.NewLeases(backing.LeaseConfig{State: state, Clock: clk, Dead: func(holder string) bool { return dead && holder == "a" }})
	acquire(t, ls, "a")
	refuse(t, ls, "b")
	dead = true
	b := acquire(t, ls, "b") // a process of this machine that is gone
	refuse(t, ls, "c")
	clk.Advance(30*time.Second + 2*time.Minute + time.Second)
	fresh := backing.NewLeases(backing.LeaseConfig{State: state, Clock: clk}) // a command that has seen nothing yet
	c := acquire(t, fresh, "c")
	if c.Fence() <= b.Fence() {
		t.Errorf("fence %d after %d", c.Fence(), b.Fence())
	}
	if _, err := ls.Acquire(t.Context(), "other", ""); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("no holder: %v", err)
	}
}

// Hold renews at a third of the TTL, and says when the lease went to another. Seen red with
// the renewals left out.
func TestHold(t *testing.T) {
	state, clk := newMemory(), newStepped(start)
	ls := backing.NewLeases(backing.LeaseConfig{State: state, Clock: clk})
	ctx, release, err := ls.Hold(t.Context(), "job", "a")
	if err != nil {
		t.Fatal(err)
	}
	for range 30 { // ten lives
		if d := receive(t, clk.slept); d != 10*time.Second {
			t.Fatalf("the next renewal is in %s", d)
		}
		clk.Advance(10 * time.Second)
	}
	receive(t, clk.slept) // the last renewal is through
	if ctx.Err() != nil {
		t.Fatalf("lost: %v", context.Cause(ctx))
	}
	other := backing.NewLeases(backing.LeaseConfig{State: state, Clock: clk})
	refuse(t, other, "b")
	if err := release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(context.Cause(ctx), context.Canceled) {
		t.Errorf("after the release: %v", context.Cause(ctx))
	}
	acquire(t, other, "b")
}

// A lease that another took, a store that fails until the end, and one that hangs: the work
// is told, by the end of the lease at the latest. Seen red with renewWithin waiting for the
// store only.
func TestHoldLosesTheLease(t *testing.T) {
	for name, breakIt := range map[string]func(state *memory){
		"taken": func(state *memory) {
			state.mu.Lock()
			defer state.mu.Unlock()
			item := state.items[[2]string{"lease", "job"}]
			item.Revision++
			item.Value = []byte(`{"holder":"b","fence":99}`)
			state.items[[2]string{"lease", "job"}] = item
		},
		"failing": func(state *memory) {
			state.setFault(func(context.Context) (bool, error) { return false, feature.ErrUnreachable })
		},
		"hanging": func(state *memory) {
			state.setFault(func(ctx context.Context) (bool, error) { <-ctx.Done(); return false, ctx.Err() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			state, clk := newMemory(), newStepped(start)
			ls := backing.NewLeases(backing.LeaseConfig{State: state, Clock: clk})
			ctx, release, err := ls.Hold(t.Context(), "job", "a")
			if err != nil {
				t.Fatal(err)
			}
			breakIt(state)
			for ctx.Err() == nil {
				select {
				case d := <-clk.slept:
					clk.Advance(d)
				case d := <-clk.afters:
					if name == "hanging" {
						clk.Advance(d)
					}
				case <-ctx.Done():
				case <-time.After(patience):
					t.Fatal("the work was not told")
				}
			}
			if lasted := clk.Now().Sub(start); lasted > 30*time.Second {
				t.Errorf("the work was told after %s", lasted)
			}
			if !errors.Is(context.Cause(ctx), feature.ErrLeaseLost) {
				t.Errorf("cause: %v", context.Cause(ctx))
			}
			state.setFault(nil)
			if err := release(t.Context()); !errors.Is(err, feature.ErrLeaseLost) {
				t.Errorf("release: %v", err)
			}
		})
	}
}

// A renewal whose answer was lost does not cost the lease, and neither does a short outage.
func TestRenewalWithLostAnswer(t *testing.T) {
	state, clk := newMemory(), clock.NewFake(start)
	ls := backing.NewLeases(backing.LeaseConfig{State: state, Clock: clk})
	l := acquire(t, ls, "a")
	state.setFault(func(context.Context) (bool, error) { return true, nil })
	clk.Advance(10 * time.Second)
	if err := l.Renew(t.Context()); err == nil || errors.Is(err, feature.ErrLeaseLost) {
		t.Fatalf("renewal with a lost answer: %v", err)
	}
	state.setFault(nil)
	if err := l.Renew(t.Context()); err != nil {
		t.Fatalf("the next renewal: %v", err)
	}
	state.setFault(func(context.Context) (bool, error) { return true, nil })
	_ = l.Renew(t.Context()) // lost again, and then released
	state.setFault(nil)
	if err := l.Release(t.Context()); err != nil {
		t.Fatalf("release: %v", err)
	}
	if err := l.Renew(t.Context()); !errors.Is(err, feature.ErrLeaseLost) {
		t.Errorf("renewal after the release: %v", err)
	}
	acquire(t, ls, "b")
}

// A holder that slept through its lease does not renew it, even if nobody took it: a
// contender may be about to.
func TestRenewalTooLate(t *testing.T) {
	state, clk := newMemory(), clock.NewFake(start)
	l := acquire(t, backing.NewLeases(backing.LeaseConfig{State: state, Clock: clk}), "a")
	clk.Advance(30 * time.Second)
	before := state.writes()
	if err := l.Renew(t.Context()); !errors.Is(err, feature.ErrLeaseLost) || state.writes() != before {
		t.Errorf("late renewal: %v", err)
	}
}

// A save that dies between its steps leaves the old set, and the next save cleans up.
func TestFileSetCrashes(t *testing.T) {
	id := feature.ViewID{Name: "v", Version: 1}
	files := func(n int) (fs []feature.File) {
		for i := range 5000 {
			fs = append(fs, feature.File{Path: fmt.Sprintf("/a/quite/long/path/to/make/chunks/part-%06d-%d.parquet", i, n), Size: int64(n)})
		}
		return fs
	}
	for dieAt := 1; dieAt <= 3; dieAt++ { // two chunks and the head
		state := newMemory()
		if err := backing.SaveFiles(t.Context(), state, id.String(), files(1)); err != nil {
			t.Fatal(err)
		}
		n := 0
		state.setFault(func(context.Context) (bool, error) {
			if n++; n >= dieAt {
				return false, errors.New("killed")
			}
			return false, nil
		})
		if err := backing.SaveFiles(t.Context(), state, id.String(), files(2)); err == nil {
			t.Fatalf("death at write %d: no error", dieAt)
		}
		state.setFault(nil)
		got, err := backing.LoadFiles(t.Context(), state, id.String())
		if err != nil || !slices.Equal(got, files(1)) {
			t.Fatalf("death at write %d: %d files, %v", dieAt, len(got), err)
		}
		for range 2 { // an orphan has the next generation's number: it goes one save later
			if err := backing.SaveFiles(t.Context(), state, id.String(), files(3)); err != nil {
				t.Fatal(err)
			}
		}
		if got, err = backing.LoadFiles(t.Context(), state, id.String()); err != nil || !slices.Equal(got, files(3)) {
			t.Fatalf("after the next save: %d files, %v", len(got), err)
		}
		if len(state.items) != 3 {
			t.Errorf("death at write %d: %d items are left", dieAt, len(state.items))
		}
	}
}

func TestUpdateJSON(t *testing.T) {
	state := newMemory()
	fresh := func() []int { return nil }
	stop := errors.New("stop")
	if _, err := backing.UpdateJSON(t.Context(), state, "k", "n", fresh, func(*[]int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error of change: %v", err)
	}
	if len(state.items) != 0 {
		t.Error("something was stored")
	}
	ctx, cancel := context.WithCancel(t.Context())
	state.setFault(func(context.Context) (bool, error) { cancel(); return false, feature.ErrConflict })
	if _, err := backing.UpdateJSON(ctx, state, "k", "n", fresh, func(*[]int) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("endless conflict: %v", err)
	}
	state.setFault(nil)
	if _, err := backing.SaveJSON(t.Context(), state, "k", "n", 0, []int{1}); err != nil {
		t.Fatal(err)
	}
	var wrong map[string]string
	if _, err := backing.LoadJSON(t.Context(), state, "k", "n", &wrong); !errors.Is(err, feature.ErrCorrupt) {
		t.Errorf("another type: %v", err)
	}
	for range 2 {
		if err := backing.DeleteJSON(t.Context(), state, "k", "n"); err != nil {
			t.Fatal(err)
		}
	}
	if len(state.items) != 0 {
		t.Error("the item is still there")
	}
}
