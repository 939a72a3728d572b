package materializer_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sim"
	"github.com/hearthstore/hearth/materializer"
)

func (w *world) forget(ids ...int) (*materializer.ForgetReport, error) {
	w.t.Helper()
	w.run++
	req := materializer.ForgetRequest{Run: w.run}
	for _, id := range ids {
		req.Refs = append(req.Refs, w.ref(id))
	}
	return w.new().Forget(w.t.Context(), req)
}

// TestForget: an erased entity is a deletion in both tiers, which no earlier row gets past,
// however often and late it comes; a later fact does. Red when the deletion has the times of
// the stored value, as a prune's has: the --full run brings the value back.
func TestForget(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(1, 4, 5, 1)...)
	w.must(nil)
	stale := w.online.Snapshot()[w.ref(1)]
	r, err := w.forget(1, 9)
	if err != nil || r.Status != "done" || r.Views[0].Backing != "erased" || r.Views[0].Online != "erased" || r.Views[1].Backing != "absent" {
		t.Fatalf("%+v %v", r, err)
	}
	if want := w.clock.Now().Add(materializer.DefaultGuard); !r.GuardUntil.Equal(want) {
		t.Errorf("guarded until %s, want %s", r.GuardUntil, want)
	}
	w.expect(1, "h100 deleted")
	w.expect(2, "h5 n=1")
	// What a rewarm or a repair read before cannot bring it back online.
	rec, err := feature.NewRecord(w.view, key(1), stale)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := w.online.Put(t.Context(), []feature.Record{rec}); err != nil || res[0].Outcome != feature.Older {
		t.Errorf("an old copy came back: %v %v", res, err)
	}
	w.must(full)
	w.source.Write("b", 1, row(1, 90, 7), row(9, 90, 7)) // late rows, about a time before
	w.must(nil)
	w.expect(1, "h100 deleted")
	w.expect(9, "h100 deleted")
	w.clock.Advance(2 * time.Hour)
	w.source.Write("c", 1, row(1, 101, 8))
	w.must(nil)
	w.expect(1, "h101 n=8")
	// Again: the newer fact goes, too, and a third time there is nothing to erase.
	if r, err := w.forget(1); err != nil || r.Views[0].Backing != "erased" {
		t.Fatalf("%+v %v", r, err)
	}
	if r, err := w.forget(1); err != nil || r.Views[0].Backing != "absent" {
		t.Fatalf("%+v %v", r, err)
	}
	w.expect(1, "h102 deleted")
	// The guard ends by itself.
	w.clock.Advance(materializer.DefaultGuard + time.Hour)
	w.backing.Expire(feature.MicrosOf(w.clock.Now()))
	if w.backing.Snapshot()[w.ref(1)] != nil {
		t.Error("the deletion names the entity for ever")
	}
}

// TestForgetFaults: an erasure that reached one tier only is partial, and done when repeated.
func TestForgetFaults(t *testing.T) {
	for name, broken := range map[string]string{"online": "online.put", "backing": "backing.put", "read": "backing.get"} {
		t.Run(name, func(t *testing.T) {
			w := setup(t)
			w.source.Write("a", 1, rows(1, 4, 5, 1)...)
			w.must(nil)
			w.inject(func(c sim.Call) *sim.Fault {
				if c.Op == broken {
					return &sim.Fault{Err: feature.ErrUnreachable}
				}
				return nil
			})
			r, err := w.forget(1)
			var partial *feature.PartialError
			if !errors.As(err, &partial) || r.Status == "done" || r.Views[0].Online != "failed" {
				t.Fatalf("%+v %v", r, err)
			}
			w.inject(nil)
			if r, err := w.forget(1); err != nil || r.Status != "done" {
				t.Fatalf("%+v %v", r, err)
			}
			w.expect(1, "h100 deleted")
		})
	}
	w := setup(t)
	if _, err := w.new().Forget(t.Context(), materializer.ForgetRequest{Run: 1, Refs: []feature.Ref{w.ref(1)}, Guard: time.Minute}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("a guard of a minute: %v", err)
	}
}

// TestForgetRace: a value that is pushed about a later time between the read and the write of an
// erasure is erased as well. Red with one try.
func TestForgetRace(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, row(1, 5, 1))
	w.must(nil)
	pushes := 0
	w.backing.Inject = func(c sim.Call) *sim.Fault {
		if c.Op == "backing.put" && pushes == 0 {
			pushes++
			w.run++
			if _, err := w.new().Push(t.Context(), materializer.PushRequest{Run: w.run, View: w.view, Rows: []feature.Row{row(1, 200, 2)}}); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	w.run = 10
	if r, err := w.forget(1); err != nil || r.Status != "done" {
		t.Fatalf("%+v %v", r, err)
	}
	w.expect(1, "h200 deleted")
}

// TestErasedRowsArePassedOver: a view version that is published after an erasure has no
// deletion of its own; the rows are passed over because the run asks. Red without guarded.
func TestErasedRowsArePassedOver(t *testing.T) {
	w := setup(t)
	w.tune = func(c *materializer.Config) {
		c.Erased = func(context.Context) (func(feature.Key) (feature.Micros, bool), error) {
			return func(k feature.Key) (feature.Micros, bool) { return at(50), k == key(1) }, nil
		}
	}
	w.source.Write("a", 1, rows(1, 4, 5, 1)...)
	r := w.must(nil)
	if r.Views[0].Backing.Erased != 1 || r.Views[0].Backing.Written != 2 {
		t.Errorf("%+v", r.Views[0].Backing)
	}
	w.expect(1, "-")
	w.run++
	p, err := w.new().Push(t.Context(), materializer.PushRequest{Run: w.run, View: w.view, Rows: []feature.Row{row(1, 50, 1), row(2, 50, 1)}})
	if err != nil || outcomes(p) != "erased written/written" {
		t.Errorf("%s %v", outcomes(p), err)
	}
	w.source.Write("b", 1, row(1, 51, 3))
	w.must(nil)
	w.expect(1, "h51 n=3")
	w.tune = func(c *materializer.Config) {
		c.Erased = func(context.Context) (func(feature.Key) (feature.Micros, bool), error) {
			return nil, feature.ErrUnreachable
		}
	}
	w.source.Write("c", 1, row(1, 52, 4))
	if r, err := w.materialize(nil); r.Status != "failed" || !errors.Is(err, feature.ErrUnreachable) {
		t.Errorf("who is erased is not known: %s %v", r.Status, err)
	}
}

func (w *world) retire() (*materializer.RetireReport, error) {
	w.t.Helper()
	w.run++
	return w.new().Retire(w.t.Context(), materializer.RetireRequest{Run: w.run, View: w.view.ID()}, materializer.RetireTiers{Backing: w.backing, Online: w.online})
}

// TestRetire: both tiers lose the version, and nothing writes it again unless it is told to.
// Red without notRetired.
func TestRetire(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 30, 5, 1)...)
	w.must(nil)
	other := feature.Ref{View: feature.ViewID{Name: "spend", Version: 2}, Key: key(1)}
	payload := feature.AppendPayload(nil, feature.Header{Version: feature.Version{Event: at(1), Run: 1}}, nil)
	keep := []feature.Record{{Ref: other, Version: feature.Version{Event: at(1), Run: 1}, Payload: payload, Online: feature.NoTime, Retain: feature.NoTime}}
	for _, put := range []func(context.Context, []feature.Record) ([]feature.PutResult, error){w.backing.Put, w.online.Put} {
		if _, err := put(t.Context(), keep); err != nil {
			t.Fatal(err)
		}
	}
	r, err := w.retire()
	if err != nil || r.Status != "done" || r.Backing.Deleted != 30 || r.Online.Deleted != 30 {
		t.Fatalf("%+v %v", r, err)
	}
	if len(w.backing.Snapshot()) != 1 || len(w.online.Snapshot()) != 1 {
		t.Error("another version went, too, or something is left")
	}
	for _, change := range []func(*materializer.Request){nil, full, func(r *materializer.Request) { r.Shards = 2 }} {
		if r, err := w.materialize(change); r.Status != "failed" || !strings.Contains(err.Error(), "retired") {
			t.Errorf("%s %v", r.Status, err)
		}
	}
	if _, err := w.new().Push(t.Context(), materializer.PushRequest{Run: 99, View: w.view, Rows: rows(0, 1, 6, 1)}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("push: %v", err)
	}
	if r, err := w.retire(); err != nil || r.Status != "nothing" {
		t.Errorf("%+v %v", r, err)
	}
	w.must(func(r *materializer.Request) { r.Full, r.Force = true, true })
	w.expect(3, "h5 n=1")
}

// TestRetireKilled: killed at any call, a repeated retire ends as one that was not killed, and
// no reader is left with an online value that the table does not have: I5. Red when the
// backing tier goes first.
func TestRetireKilled(t *testing.T) {
	for n := 1; ; n++ {
		w := setup(t)
		w.source.Write("a", 1, rows(0, 10, 5, 1)...)
		w.must(nil)
		k := sim.NewKiller(n, nil)
		w.inject(k.Inject)
		_, err := w.retire()
		w.inject(nil)
		if err == nil {
			if n < 6 {
				t.Fatalf("only %d calls", n)
			}
			return
		}
		w.checkAhead(n)
		if r, err := w.retire(); err != nil || len(w.backing.Snapshot())+len(w.online.Snapshot()) != 0 {
			t.Fatalf("killed at %d: %+v %v", n, r, err)
		}
	}
}
