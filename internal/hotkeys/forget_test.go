package hotkeys_test

import (
	"testing"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/hotkeys"
	"github.com/hearthstore/hearth/internal/sketch"
)

// TestForget: an erased key leaves the stored sketches, and a reader that still counts it does
// not store it again, while it goes on storing the others. Seen red without the question in
// store (the key is back), and without put (the reader never stores again).
func TestForget(t *testing.T) {
	state := open(t)
	clk := clock.NewFake(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC))
	r := hotkeys.Start(t.Context(), hotkeys.Config{State: state, Clock: clk, Every: time.Minute, Sketch: sketch.Config{Sample: 1}})
	turn := func() {
		t.Helper()
		if err := clk.WaitForWaiters(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		clk.Advance(time.Minute)
		if err := clk.WaitForWaiters(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		r.Record(ref(1))
		r.Record(ref(2))
	}
	turn()
	gone := ref(1).Key
	d, err := backing.NewDigester(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	if err := backing.RecordErasure(t.Context(), state, backing.Erasure{Run: 1, At: clk.Now(), Entity: d.Of(gone)}); err != nil {
		t.Fatal(err)
	}
	if n, err := hotkeys.Forget(t.Context(), state, func(k feature.Key) bool { return k == gone }); err != nil || n != 1 {
		t.Fatalf("%d entries went, %v; want 1", n, err)
	}
	for range 1000 {
		r.Record(ref(3))
	}
	turn()
	got, err := hotkeys.Load(t.Context(), state, clk.Now())
	if err != nil || len(got) != 2 || got[0] == ref(1) || got[1] == ref(1) {
		t.Errorf("hot are %v (%v), want 2 and 3", got, err)
	}
	r.Close()
}
