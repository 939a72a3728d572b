package hotkeys_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/backing/sqlite"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/hotkeys"
	"github.com/hearthstore/hearth/internal/sketch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ref(i int) feature.Ref {
	return feature.Ref{View: feature.ViewID{Name: "v", Version: 1}, Key: feature.Key(fmt.Sprintf("id=%d", i))}
}

func open(t *testing.T) backing.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "b.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// Two readers record; a rewarm sees both, hottest first. Seen red with one name for all
// recorders (the second overwrote the first) and without the store at Close.
func TestRecordersMeetInTheStateTable(t *testing.T) {
	state := open(t)
	clk := clock.NewFake(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC))
	cfg := hotkeys.Config{State: state, Clock: clk, Sketch: sketch.Config{Sample: 1}}
	a, b := hotkeys.Start(t.Context(), cfg), hotkeys.Start(t.Context(), cfg)
	for range 10 {
		a.Record(ref(1))
		b.Record(ref(1))
		b.Record(ref(2))
	}
	a.Record(ref(3))
	if err := clk.WaitForWaiters(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	clk.Advance(time.Minute)
	if err := clk.WaitForWaiters(t.Context(), 2); err != nil { // both stored and wait again
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	got, err := hotkeys.Load(t.Context(), state, clk.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) < 2 || got[0] != ref(1) || got[1] != ref(2) {
		t.Errorf("got %v, want id=1 and id=2 first", got)
	}
	if got, err := hotkeys.Load(t.Context(), state, clk.Now().Add(48*time.Hour)); err != nil || len(got) != 0 {
		t.Errorf("two days later: %v, %v", got, err)
	}
}

// forgetful is a state store that loses the answers of some writes.
type forgetful struct {
	backing.StateStore
	lose bool
}

func (f *forgetful) PutState(ctx context.Context, item backing.StateItem) (backing.StateItem, error) {
	saved, err := f.StateStore.PutState(ctx, item)
	if err == nil && f.lose {
		f.lose = false
		return backing.StateItem{}, feature.ErrUnreachable
	}
	return saved, err
}

// An answer that was lost does not end the storing for good: the next store finds the item
// at a revision that the recorder does not know.
// Seen red with: put giving up at a conflict.
func TestLostAnswerDoesNotStopTheRecorder(t *testing.T) {
	state := &forgetful{StateStore: open(t), lose: true}
	clk := clock.NewFake(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC))
	r := hotkeys.Start(t.Context(), hotkeys.Config{State: state, Clock: clk, Sketch: sketch.Config{Sample: 1}})
	asleep := func() {
		t.Helper()
		if err := clk.WaitForWaiters(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	asleep()
	for _, i := range []int{1, 2} {
		r.Record(ref(i))
		clk.Advance(10 * time.Minute)
		asleep() // stored
	}
	r.Close()
	got, err := hotkeys.Load(t.Context(), state, clk.Now())
	if err != nil || len(got) != 2 {
		t.Errorf("got %v, %v, want both keys", got, err)
	}
}

// What is asked for seldom is not forgotten by the hourly wear of the sketch.
// Seen red with: Decay after every store.
func TestSeldomKeysAreKept(t *testing.T) {
	state := open(t)
	clk := clock.NewFake(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC))
	r := hotkeys.Start(t.Context(), hotkeys.Config{State: state, Clock: clk, Sketch: sketch.Config{Sample: 1}})
	for i := range 5 {
		r.Record(ref(i)) // each once, in its own ten minutes
		if err := clk.WaitForWaiters(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		clk.Advance(10 * time.Minute)
	}
	if err := clk.WaitForWaiters(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if got, err := hotkeys.Load(t.Context(), state, clk.Now()); err != nil || len(got) != 5 {
		t.Errorf("got %v, %v, want all five", got, err)
	}
}
