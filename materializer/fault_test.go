package materializer_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sim"
	"github.com/hearthstore/hearth/materializer"
)

// content describes both tiers without run numbers.
func (w *world) content() string {
	var b strings.Builder
	backing, online := w.backing.Snapshot(), w.online.Snapshot()
	keys := map[feature.Ref]bool{}
	for ref := range backing {
		keys[ref] = true
	}
	for ref := range online {
		keys[ref] = true
	}
	for _, ref := range slices.SortedFunc(maps.Keys(keys), func(a, b feature.Ref) int { return strings.Compare(a.String(), b.String()) }) {
		fmt.Fprintf(&b, "%s: %s / %s\n", ref, show(w.t, w, backing[ref]), show(w.t, w, online[ref]))
	}
	return b.String()
}

// scenarios are what a killed run was doing. prepare makes the world before it.
var scenarios = map[string]struct {
	prepare func(w *world)
	request func(*materializer.Request)
}{
	"first run": {
		prepare: func(w *world) {
			w.source.Write("a", 1, rows(0, 9, 5, 1)...)
			w.source.Write("b", 1, append(rows(5, 12, 6, 2), gone(3, 7))...)
		},
	},
	"incremental with corrections and deletions": {
		prepare: func(w *world) {
			w.source.Write("a", 1, rows(0, 9, 5, 1)...)
			w.must(nil)
			w.source.Write("a", 2, append(rows(0, 5, 5, 2), gone(6, 8))...)
			w.source.Write("b", 1, rows(4, 11, 4, 3)...)
		},
	},
	"healing": {
		prepare: func(w *world) {
			w.source.Write("a", 1, rows(0, 9, 5, 1)...)
			w.online.Inject = func(c sim.Call) *sim.Fault { return &sim.Fault{Err: feature.ErrUnreachable} }
			_, _ = w.materialize(nil)
			w.online.Inject = nil
			w.source.Write("b", 1, rows(7, 11, 7, 3)...)
		},
	},
	"chunks": {
		prepare: func(w *world) {
			chunked(w)
			w.source.Write("a", 1, rows(0, 6, 5, 1)...)
			w.source.Write("b", 2, append(rows(3, 8, 5, 2), gone(1, 7))...) // of equal times that of the later file stays
			w.source.Write("c", 3, rows(0, 5, 6, 3)...)
			w.source.Write("d", 4, append(rows(5, 10, 4, 4), row(1, 8, 4))...)
		},
	},
	"chunks, the youngest first": {
		prepare: func(w *world) {
			chunked(w)
			w.view.Source.CreatedTimestampColumn = "created"
			w.source.Write("a", 1, rows(0, 6, 5, 1)...)
			w.must(nil)
			w.source.Write("a", 2, append(rows(0, 6, 5, 2), gone(3, 6))...)
			w.source.Write("b", 3, append(rows(3, 8, 6, 3), gone(1, 7))...)
			w.source.Write("c", 4, rows(2, 9, 5, 4)...)
		},
	},
	"full with prune": {
		prepare: func(w *world) {
			w.source.Write("a", 1, rows(0, 12, 5, 1)...)
			w.must(nil)
			w.source.Write("a", 2, rows(4, 9, 5, 2)...)
		},
		request: func(r *materializer.Request) { r.Full, r.Prune = true, true },
	},
}

// TestKilledAnywhere is I6: the process dies at its n-th call of any dependency, with none,
// a part or all of the call's effect, for every n; the same command run again ends in the
// state that no kill would have given, and nothing is online that the table does not hold
// at any time. Red when a chunk is recorded before its rows are acknowledged, when taken files are saved before the values, when Unchanged goes online
// under the new run, and when a prune passes over the deletions of an earlier one.
func TestKilledAnywhere(t *testing.T) {
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := setup(t)
			sc.prepare(whole)
			whole.must(sc.request)
			want := whole.content()
			for _, part := range []func(int) int{nil, func(n int) int { return (n + 1) / 2 }, func(n int) int { return n }} {
				for n := 1; ; n++ {
					w := setup(t)
					sc.prepare(w)
					k := sim.NewKiller(n, part)
					w.inject(k.Inject)
					req := w.request()
					if sc.request != nil {
						sc.request(&req)
					}
					_, err := w.new().Run(t.Context(), req)
					w.inject(nil)
					if err == nil {
						break // it needs fewer than n calls
					}
					w.checkAhead(n)
					again := w.must(sc.request)
					if got := w.content(); got != want {
						t.Fatalf("killed at call %d (%v):\n%s\nwant\n%s", n, k.Calls()[:n], got, want)
					}
					if again.Views[0].Online.Behind != 0 {
						t.Errorf("killed at call %d: %+v", n, again.Views[0])
					}
					if r := w.must(nil); r.Status != "nothing" {
						t.Fatalf("killed at call %d: the run after the second is %s", n, r.Status)
					}
				}
			}
		})
	}
}

// checkAhead is I5: no online value is newer than the backing tier's.
func (w *world) checkAhead(n int) {
	w.t.Helper()
	backing := w.backing.Snapshot()
	for ref, payload := range w.online.Snapshot() {
		o, _, err := feature.ParsePayload(payload)
		if err != nil {
			w.t.Fatal(err)
		}
		b, _, err := feature.ParsePayload(backing[ref])
		if err != nil || o.Version.Compare(b.Version) > 0 {
			w.t.Fatalf("killed at call %d: %s online is ahead of the table (%v)", n, ref, err)
		}
	}
}

// TestKilledFullThenIncremental: a killed --full run that corrected values of files already
// taken leaves nothing behind that an incremental run does not bring online. Red without
// the write-ahead of FilesBehind in claim.
func TestKilledFullThenIncremental(t *testing.T) {
	for n := 1; ; n++ {
		w := setup(t)
		w.source.Write("a", 1, rows(0, 9, 5, 1)...)
		w.must(nil)
		// The table loses a value (erased, restored from a backup) and so does the online
		// tier: a full run brings both back.
		if _, err := w.backing.Delete(t.Context(), []feature.Ref{w.ref(2), w.ref(7)}); err != nil {
			t.Fatal(err)
		}
		w.online.Evict(w.ref(2))
		w.online.Evict(w.ref(7))
		k := sim.NewKiller(n, func(n int) int { return n })
		w.inject(k.Inject)
		req := w.request()
		req.Full = true
		_, err := w.new().Run(t.Context(), req)
		w.inject(nil)
		if err == nil {
			break
		}
		w.must(nil)
		w.expectEqual() // what the table holds is online
	}
}

// TestBackingFailures: what fails is counted by key, the rest goes on, and the files are
// read again. Red when settle ignores Backing.Failed.
func TestBackingFailures(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 20, 5, 1)...)
	w.tune = func(c *materializer.Config) { c.BackingWorkers, c.MaxFailedBatches = 1, 100 }
	w.backing.Inject = func(c sim.Call) *sim.Fault {
		if c.Op != "backing.put" {
			return nil
		}
		return &sim.Fault{Record: func(i int) error {
			if i == 0 {
				return feature.ErrThrottled
			}
			return nil
		}}
	}
	r, err := w.materialize(nil)
	v := r.Views[0]
	if r.Status != "partial" || v.Backing.Failed != 5 || v.Backing.Written != 15 || v.Online.Written != 15 || len(v.Failures) != 5 || v.Failures[0].Tier != "backing" {
		t.Fatalf("%s %+v", r.Status, v)
	}
	var partial *feature.PartialError
	if !errors.As(err, &partial) || partial.Failed != 5 || partial.Done != 15 {
		t.Errorf("%v", err)
	}
	if r.MarkedWarm {
		t.Error("marked warm")
	}
	w.backing.Inject = nil
	if r := w.must(nil); r.Views[0].Backing.Written != 5 || r.Views[0].Backing.Unchanged != 15 || r.MarkedWarm {
		t.Errorf("%+v", r.Views[0])
	}
	w.expectEqual()
}

// TestMarkersNotSetIsPartial: all values are stored in both tiers, and Redis goes away before it is
// marked warm. That is partial, exit 3; a combined run of faults ended so with exit 1 (seed
// 12984748569569884410 of TestFaultsOfBothStoresAtOnce). Red without the PartialError.
func TestMarkersNotSetIsPartial(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 20, 5, 1)...)
	w.inject(func(c sim.Call) *sim.Fault {
		if c.Op == "online.markwarm" {
			return &sim.Fault{Err: feature.ErrUnreachable}
		}
		return nil
	})
	r, err := w.materialize(nil)
	w.inject(nil)
	var partial *feature.PartialError
	if !errors.As(err, &partial) || r.Status != "partial" || partial.Done != 20 || r.MarkedWarm {
		t.Fatalf("%s: %v", r.Status, err)
	}
	w.expectEqual()
}

// TestStateNotSavedIsPartial: the values are stored, that they are is not written down. That is
// partial, which a script tells by exit code 3, and not a failure with nothing done.
// Red without the PartialError of a run that ended early.
func TestStateNotSavedIsPartial(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 20, 5, 1)...)
	var stored atomic.Bool
	broken := errors.New("the state table is away")
	w.inject(func(c sim.Call) *sim.Fault {
		switch {
		case c.Op == "backing.put":
			stored.Store(true)
		case stored.Load() && strings.HasPrefix(c.Op, "state.save"):
			return &sim.Fault{Err: broken}
		}
		return nil
	})
	r, err := w.materialize(nil)
	w.inject(nil)
	var partial *feature.PartialError
	if !errors.As(err, &partial) || !errors.Is(err, broken) || r.Status != "partial" || partial.Done != 20 || partial.Failed != 0 {
		t.Fatalf("%s: %v", r.Status, err)
	}
	if r := w.must(nil); r.Views[0].Backing.Unchanged != 20 {
		t.Errorf("%+v", r.Views[0])
	}
	w.expectEqual()
}

// TestThrottlingSlows: throttled records are sent again until they are through, however
// long, as long as some are (I13). Red when attempts are not reset by progress.
func TestThrottlingSlows(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 20, 5, 1)...)
	w.tune = func(c *materializer.Config) { c.BatchSize, c.BackingWorkers = 20, 1 }
	w.backing.Inject = func(c sim.Call) *sim.Fault {
		if c.Op != "backing.put" {
			return nil
		}
		return &sim.Fault{Record: func(i int) error {
			if i > 0 {
				return feature.ErrThrottled
			}
			return nil
		}}
	}
	before := w.clock.Now()
	if r := w.must(nil); r.Views[0].Backing.Written != 20 {
		t.Fatalf("%+v", r.Views[0])
	}
	if w.clock.Now().Equal(before) {
		t.Error("no pause between the tries")
	}
	w.expectEqual()
}

// TestGivesUp: a tier that is away or denies ends the view soon, not after every batch.
func TestGivesUp(t *testing.T) {
	for _, cause := range []error{feature.ErrDenied, feature.ErrNotApplied, feature.ErrUnreachable} {
		w := setup(t)
		w.source.Write("a", 1, rows(0, 400, 5, 1)...)
		other := *w.view
		other.Name = "other"
		puts := 0
		var mu sync.Mutex
		w.backing.Inject = func(c sim.Call) *sim.Fault {
			if c.Op != "backing.put" {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			puts++
			return &sim.Fault{Err: cause}
		}
		r, err := w.materialize(func(r *materializer.Request) { r.Views = append(r.Views, &other) })
		if r.Status != "failed" || !errors.Is(err, cause) || r.Views[0].Status != "failed" || r.Views[1].Status != "failed" {
			t.Errorf("%v: %s %v", cause, r.Status, err)
		}
		if puts > 50 {
			t.Errorf("%v: %d puts", cause, puts)
		}
		if errors.Is(cause, feature.ErrDenied) && puts > 2 {
			t.Errorf("denied: %d puts", puts)
		}
	}
}

// TestOneViewFailsBesideAnother: one view is done and another fails whole. Together that is
// partial, by the status and by the error. Red without the rule that they agree.
func TestOneViewFailsBesideAnother(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 20, 5, 1)...)
	other, broken := *w.view, errors.New("its state cannot be read")
	other.Name = "other"
	var loads atomic.Int64
	w.inject(func(c sim.Call) *sim.Fault {
		if c.Op == "state.load" && loads.Add(1) == 2 { // the other view's
			return &sim.Fault{Err: broken}
		}
		return nil
	})
	r, err := w.materialize(func(r *materializer.Request) { r.Views = append(r.Views, &other) })
	w.inject(nil)
	var partial *feature.PartialError
	if r.Status != "partial" || r.Views[0].Status != "done" || r.Views[1].Status != "failed" {
		t.Fatalf("%s: %s and %s: %v", r.Status, r.Views[0].Status, r.Views[1].Status, err)
	}
	if !errors.As(err, &partial) || !errors.Is(err, broken) || partial.Done != 20 || partial.Failed != 0 {
		t.Errorf("%v", err)
	}
}

// TestOnlineAway: the run goes on, ends partial, never done (I9), and says how far behind
// the online tier is; the next run sends it by reads, without conditional writes. Red when
// outcome ignores Behind, and when FilesBehind is not saved.
func TestOnlineAway(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 60, 5, 1)...)
	tried := 0
	var mu sync.Mutex
	w.tune = func(c *materializer.Config) { c.OnlineWorkers = 1 }
	w.online.Inject = func(c sim.Call) *sim.Fault {
		mu.Lock()
		defer mu.Unlock()
		tried++
		return &sim.Fault{Err: feature.ErrUnreachable}
	}
	r, err := w.materialize(nil)
	v := r.Views[0]
	if r.Status != "partial" || v.Backing.Written != 60 || v.Online.Behind != 60 || v.Online.Failed != 12 || !errors.Is(err, feature.ErrUnreachable) {
		t.Fatalf("%s %v %+v", r.Status, err, v.Online)
	}
	if tried != 3 {
		t.Errorf("%d tries of a tier that is away", tried)
	}
	w.online.Inject = nil
	puts := w.calls("backing.put", func() {
		r := w.must(nil)
		if v := r.Views[0]; r.Status != "done" || v.Online.Healed != 60 || v.Files != 0 || r.MarkedWarm {
			t.Errorf("%s %+v", r.Status, v)
		}
	})
	if puts != 0 {
		t.Errorf("healing wrote %d times to the backing tier", puts)
	}
	w.expectEqual()
	if r := w.must(nil); r.Status != "nothing" {
		t.Errorf("%s", r.Status)
	}
}

// TestOnlineReturns: after the cooldown one batch probes, and the run goes on sending.
func TestOnlineReturns(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 80, 5, 1)...)
	w.tune = func(c *materializer.Config) { c.OnlineWorkers, c.BackingWorkers = 1, 1 }
	calls := 0
	w.online.Inject = func(c sim.Call) *sim.Fault {
		if calls++; calls <= 4 {
			return &sim.Fault{Err: feature.ErrUnreachable}
		}
		return nil
	}
	w.backing.Observe = func(feature.Ref, []byte) { w.clock.Advance(time.Second) }
	r, _ := w.materialize(nil)
	if v := r.Views[0]; v.Online.Written == 0 || v.Online.Behind == 0 || v.Online.Written+v.Online.Behind != 80 {
		t.Fatalf("%+v", v.Online)
	}
	w.must(nil)
	w.expectEqual()
}

// TestWarmMarkers: only the first fill of everything marks the online tier warm. Red when
// prepare ignores State.Empty, when markWarm does not look at the sample, and when claim
// does not save before the first write (killed first run).
func TestWarmMarkers(t *testing.T) {
	t.Run("incremental into a lost tier", func(t *testing.T) {
		w := setup(t)
		w.source.Write("a", 1, rows(0, 5, 5, 1)...)
		if !w.must(nil).MarkedWarm || w.online.MarkerRun() != 1 {
			t.Fatal("the first fill must mark")
		}
		w.online.Flush()
		w.source.Write("b", 1, rows(5, 9, 5, 1)...)
		if w.must(nil).MarkedWarm || w.online.MarkerRun() != 0 {
			t.Error("an incremental run marked a lost tier warm")
		}
		if w.must(full).MarkedWarm || w.online.MarkerRun() != 0 {
			t.Error("a full run cannot know what was pushed")
		}
	})
	t.Run("lost during the first fill", func(t *testing.T) {
		w := setup(t)
		w.source.Write("a", 1, rows(0, 40, 5, 1)...)
		w.tune = func(c *materializer.Config) { c.OnlineWorkers, c.BackingWorkers = 1, 1 }
		n := 0
		w.backing.Inject = func(c sim.Call) *sim.Fault {
			if c.Op == "backing.put" {
				if n++; n == 8 {
					w.online.Flush()
				}
			}
			return nil
		}
		if r := w.must(nil); r.MarkedWarm || len(r.Warnings) != 1 || w.online.MarkerRun() != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("after a push", func(t *testing.T) {
		w := setup(t)
		other := *w.view
		other.Name = "other"
		if _, err := w.new().Push(t.Context(), materializer.PushRequest{Run: 1, View: &other, Rows: rows(0, 1, 5, 1)}); err != nil {
			t.Fatal(err)
		}
		w.online.Flush()
		w.run = 1
		w.source.Write("a", 1, rows(0, 5, 5, 1)...)
		if w.must(nil).MarkedWarm {
			t.Error("the pushed value is not online")
		}
	})
	t.Run("after a killed first run", func(t *testing.T) {
		w := setup(t)
		other := *w.view
		other.Name = "other"
		w.source.Write("a", 1, rows(0, 40, 5, 1)...)
		k := sim.NewKiller(12, func(n int) int { return n })
		w.inject(k.Inject)
		_, _ = w.materialize(nil)
		w.inject(nil)
		w.online.Flush()
		if w.must(func(r *materializer.Request) { r.Views = []*feature.View{&other} }).MarkedWarm {
			t.Error("the killed run's values are not online")
		}
	})
	t.Run("marking fails", func(t *testing.T) {
		w := setup(t)
		w.source.Write("a", 1, rows(0, 4, 5, 1)...)
		w.online.Inject = func(c sim.Call) *sim.Fault {
			if c.Op == "online.markwarm" {
				return &sim.Fault{Err: feature.ErrUnreachable}
			}
			return nil
		}
		if r, err := w.materialize(nil); r.Status != "partial" || !strings.Contains(err.Error(), "hearth rewarm") {
			t.Errorf("%s %v", r.Status, err)
		}
	})
}

// TestBackpressure is I13: however slow the tiers, a bounded number of rows is under way. Red
// when the free list is not waited for.
func TestBackpressure(t *testing.T) {
	w := setup(t)
	const total = 2000
	w.source.Batch = 10
	w.source.Write("a", 1, rows(0, total, 5, 1)...)
	w.tune = func(c *materializer.Config) { c.BatchSize, c.BackingWorkers, c.OnlineWorkers = 10, 3, 2 }
	const most = (3+2+2)*10 + 10
	var mu sync.Mutex
	emitted, done, peak := 0, 0, 0
	block := make(chan struct{})
	first := make(chan struct{}, 1)
	counting := &countingSource{Source: w.source, emitted: func(n int) {
		mu.Lock()
		defer mu.Unlock()
		emitted += n
		peak = max(peak, emitted-done)
		if emitted-done > 40 { // the pipeline is filling: let it move
			select {
			case first <- struct{}{}:
				close(block)
			default:
			}
		}
	}}
	w.online.Inject = func(c sim.Call) *sim.Fault {
		<-block
		mu.Lock()
		defer mu.Unlock()
		done += c.N
		return nil
	}
	m, err := materializer.New(materializer.Config{Source: counting, Backing: w.backing, Online: w.online, State: w.state, Clock: w.clock, BatchSize: 10, BackingWorkers: 3, OnlineWorkers: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(t.Context(), w.request()); err != nil {
		t.Fatal(err)
	}
	if peak > most {
		t.Errorf("%d rows under way, the bound is %d", peak, most)
	}
	t.Logf("at most %d of %d rows under way", peak, total)
}

// TestSuspended: a machine that sleeps between the two tiers must not bring back online what
// was deleted meanwhile and whose deletion marker is gone. Red without MaxBatchAge.
func TestSuspended(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, row(1, 5, 1))
	deleted := false
	w.tune = func(c *materializer.Config) {
		c.Backing = &afterPut{Backing: w.backing, after: func() {
			if deleted {
				return
			}
			deleted = true
			w.tune = nil
			if _, err := w.new().Push(t.Context(), materializer.PushRequest{Run: 50, View: w.view, Rows: []feature.Row{gone(1, 6)}}); err != nil {
				t.Error(err)
			}
			w.clock.Advance(2 * time.Hour)
		}}
	}
	r, err := w.materialize(nil)
	if r.Status != "partial" || err == nil || r.Views[0].Online.Behind != 1 {
		t.Fatalf("%s %v %+v", r.Status, err, r.Views[0])
	}
	w.expectTiers(1, "h6 deleted", "-")
	w.must(nil)
	w.expectTiers(1, "h6 deleted", "h6 deleted")
}

// TestKilledWithOnlineAway: a run that could not reach the online tier and dies while it
// writes that down leaves nothing that the next run does not send. Red when FilesTaken is
// saved before FilesBehind.
func TestKilledWithOnlineAway(t *testing.T) {
	for n, alive := 1, true; alive; n++ {
		w := setup(t)
		w.source.Write("a", 1, rows(0, 9, 5, 1)...)
		k := sim.NewKiller(n, func(n int) int { return n })
		w.inject(func(c sim.Call) *sim.Fault {
			if strings.HasPrefix(c.Op, "online.") {
				return &sim.Fault{Err: feature.ErrUnreachable}
			}
			return k.Inject(c)
		})
		if _, err := w.materialize(nil); err == nil {
			t.Fatal("done without the online tier")
		}
		alive = len(k.Calls()) >= n
		w.inject(nil)
		w.must(nil)
		w.expectEqual()
	}
}
