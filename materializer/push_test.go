package materializer_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sim"
	"github.com/hearthstore/hearth/materializer"
)

func (w *world) push(rows ...feature.Row) (*materializer.PushReport, error) {
	w.run++
	return w.new().Push(w.t.Context(), materializer.PushRequest{Run: w.run, View: w.view, Rows: rows})
}

func outcomes(r *materializer.PushReport) string {
	var out []string
	for _, x := range r.Results {
		out = append(out, strings.TrimSuffix(x.Backing+"/"+x.Online, "/"))
	}
	return strings.Join(out, " ")
}

func TestPush(t *testing.T) {
	w := setup(t)
	r, err := w.push(row(1, 5, 1), row(2, 5, 1), row(1, 7, 2), row(1, 6, 3), row(2, 5, 4))
	if err != nil || outcomes(r) != "older older written/written older written/written" || r.Status != "done" {
		t.Fatalf("%v %s %s", err, r.Status, outcomes(r))
	}
	w.expect(1, "h7 n=2")
	w.expect(2, "h5 n=4") // the last one given among equal times
	r, err = w.push(row(1, 7, 2), row(2, 4, 9), gone(2, 9))
	if err != nil || outcomes(r) != "unchanged/unchanged older written/written" {
		t.Fatalf("%v %s", err, outcomes(r))
	}
	w.expect(2, "h9 deleted")
	w.expectEqual()
	r, err = w.push(row(1, 8, 1), feature.Row{Key: key(3), Event: feature.NoTime})
	if !errors.Is(err, feature.ErrInvalid) || r.Status != "partial" || outcomes(r) != "written/written rejected" {
		t.Fatalf("%v %s %s", err, r.Status, outcomes(r))
	}
}

// TestPushFaults: a push that did not reach a tier is never done, and the same push again
// heals. Red when Push ignores Online.Behind.
func TestPushFaults(t *testing.T) {
	w := setup(t)
	w.online.Inject = func(sim.Call) *sim.Fault { return &sim.Fault{Err: feature.ErrUnreachable} }
	r, err := w.push(row(1, 5, 1))
	if r.Status != "partial" || !errors.Is(err, feature.ErrUnreachable) || outcomes(r) != "written/failed" {
		t.Fatalf("%v %s %s", err, r.Status, outcomes(r))
	}
	w.online.Inject = nil
	if r, err = w.push(row(1, 5, 1)); err != nil || outcomes(r) != "unchanged/written" {
		t.Fatalf("%v %s", err, outcomes(r))
	}
	w.expectEqual()
	w.backing.Inject = func(sim.Call) *sim.Fault { return &sim.Fault{Err: feature.ErrThrottled} }
	if r, err = w.push(row(1, 6, 1)); r.Status != "failed" || !errors.Is(err, feature.ErrThrottled) || outcomes(r) != "failed" {
		t.Fatalf("%v %s %s", err, r.Status, outcomes(r))
	}
	w.expect(1, "h5 n=1")
}

func TestPrune(t *testing.T) {
	w := setup(t)
	prune := func(r *materializer.Request) { r.Full, r.Prune = true, true }
	w.source.Write("a", 1, rows(0, 100, 5, 1)...)
	w.must(nil)
	w.source.Write("a", 2, rows(0, 70, 5, 1)...)
	w.tune = func(c *materializer.Config) { c.PruneKeys = 10 } // several passes
	if r := w.must(prune); r.Views[0].Pruned != 30 || r.Views[0].Backing.Unchanged != 70 {
		t.Fatalf("%+v", r.Views[0])
	}
	w.expect(69, "h5 n=1")
	w.expect(70, "h5 deleted")
	w.expect(99, "h5 deleted")
	if r := w.must(prune); r.Views[0].Pruned != 0 || r.Views[0].Backing.Written != 0 {
		t.Fatalf("twice: %+v", r.Views[0])
	}
	w.source.Write("a", 3, rows(0, 80, 5, 1)...) // they come back
	w.must(nil)
	w.expect(75, "h5 n=1")
	w.source.Write("a", 4)
	if r := w.must(prune); r.Views[0].Pruned != 0 || len(r.Warnings) != 1 {
		t.Fatalf("an empty source must not delete everything: %+v", r)
	}
	w.source.Write("a", 5, append(rows(0, 10, 5, 1), feature.Row{Event: at(5)})...)
	if r := w.must(prune); r.Views[0].Pruned != 0 || len(r.Warnings) != 1 {
		t.Fatalf("rejected rows must stop a prune: %+v", r)
	}
	if r := w.must(func(r *materializer.Request) { prune(r); r.Force = true }); r.Views[0].Pruned != 70 {
		t.Fatalf("%+v", r.Views[0])
	}
	w.expectEqual()
}

// TestPruneSparesLaterPush: a value that another run wrote meanwhile is not deleted.
func TestPruneSparesLaterPush(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 3, 5, 1)...)
	w.must(nil)
	w.backing.Inject = func(c sim.Call) *sim.Fault {
		if c.Op != "backing.scan" {
			return nil
		}
		w.backing.Inject = nil
		if _, err := w.new().Push(t.Context(), materializer.PushRequest{Run: 50, View: w.view, Rows: []feature.Row{row(9, 5, 1)}}); err != nil {
			t.Error(err)
		}
		return nil
	}
	w.must(func(r *materializer.Request) { r.Full, r.Prune = true, true })
	w.expect(9, "h5 n=1")
}

func TestParseNDJSON(t *testing.T) {
	w := setup(t)
	text := `{"id": 1, "n": 5, "s": "x", "event_timestamp": "2024-05-01T05:00:00Z"}

{"id": "2", "event_timestamp": "2024-05-01 06:00:00", "created_timestamp": "2024-05-01T07:00:00Z", "n": null}
{"id": 3, "event_timestamp": "2024-05-01T05:00:00Z", "deleted": true}`
	var got []feature.Row
	if err := materializer.ParseNDJSON(w.view, strings.NewReader(text), func(r feature.Row) error { got = append(got, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Key != "id=1" || got[1].Event != at(6) || got[1].Created != at(7) || !got[2].Deleted || got[2].Features != nil {
		t.Fatalf("%+v", got)
	}
	if _, err := w.push(got...); err != nil {
		t.Fatal(err)
	}
	w.expect(1, "h5 n=5")
	for line, want := range map[string]string{
		`{"id": 1}`:                        `"event_timestamp" is missing`,
		`{"id": 1, "event_timestamp": 5}`:  `"event_timestamp" must be a time`,
		`{"event_timestamp":"2024-05-01"}`: `join key "id" is missing`,
		`{"id": 1, "n": "secret", "event_timestamp":"2024-05-01"}`: `feature "n": invalid: the value is no int64`,
		`{"id": 1, "m": 2, "event_timestamp":"2024-05-01"}`:        `has no "m"; it takes event_timestamp`,
		`{"id": 1.5, "event_timestamp":"2024-05-01"}`:              `join key "id"`,
		`[1]`:            "not a JSON object",
		`{"id": 1`:       "cut off",
		`{"id" secret}`:  "syntax error at byte",
		`{"id": 1} true`: "more than one",
	} {
		err := materializer.ParseNDJSON(w.view, strings.NewReader("\n"+line), func(feature.Row) error { return nil })
		if !errors.Is(err, feature.ErrInvalid) || !strings.HasPrefix(err.Error(), "line 2: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestReportJSON(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 2, 5, 1)...)
	b, err := json.Marshal(w.must(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"run":1,"status":"done","seconds":`, `"view":"spend@1"`, `"rows_read":2`, `"rejected":0`, `"backing":{"written":2,"unchanged":0,"older":0,"expired":0,"erased":0,"failed":0}`,
		`"online":{"written":2,`, `"behind":0`, `"pending_files":0`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %s", b, want)
		}
	}
}

func TestRepair(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 4, 5, 1)...)
	w.online.Inject = func(sim.Call) *sim.Fault { return &sim.Fault{Err: feature.ErrUnreachable} }
	_, _ = w.materialize(nil)
	w.online.Inject = nil
	slots := []materializer.Slot{{View: w.view.ID()}}
	repair, err := w.new().BeginRepair(t.Context(), slots)
	if err != nil {
		t.Fatal(err)
	}
	if err := repair.Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := w.must(nil); r.Status != "nothing" || len(r.Warnings) != 0 {
		t.Errorf("%+v", r)
	}
}

// TestPruneWithOnlineAway: deletions that did not reach the online tier are remembered, since
// no file leads to them, and the next prune sends them. Red without addStored.
func TestPruneWithOnlineAway(t *testing.T) {
	w := setup(t)
	prune := func(r *materializer.Request) { r.Full, r.Prune = true, true }
	w.source.Write("a", 1, rows(0, 10, 5, 1)...)
	w.must(nil)
	w.source.Write("a", 2, rows(0, 6, 5, 1)...)
	var scanned atomic.Bool
	w.backing.Inject = func(c sim.Call) *sim.Fault {
		if c.Op == "backing.scan" {
			scanned.Store(true)
		}
		return nil
	}
	w.online.Inject = func(sim.Call) *sim.Fault {
		if scanned.Load() {
			return &sim.Fault{Err: feature.ErrUnreachable}
		}
		return nil
	}
	w.tune = func(c *materializer.Config) { c.BackingWorkers, c.OnlineWorkers = 1, 1 }
	if r, err := w.materialize(prune); r.Status != "partial" || err == nil {
		t.Fatalf("%s %v", r.Status, err)
	}
	w.expectTiers(8, "h5 deleted", "h5 n=1")
	w.inject(nil)
	if r := w.must(nil); len(r.Warnings) != 1 {
		t.Errorf("%+v", r)
	}
	w.must(prune)
	w.expectEqual()
	if r := w.must(nil); len(r.Warnings) != 0 {
		t.Errorf("%+v", r)
	}
}
