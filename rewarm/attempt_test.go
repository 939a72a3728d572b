package rewarm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

// Machines share a named attempt: a range that is asked for again does nothing, whether the
// attempt is still open or finished, until Redis is lost or another name comes.
// Seen red with: cannotJoin refusing a finished attempt of the same name (scanned again);
// the name not compared (another execution takes the old one's word).
func TestNamedAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.fill(60)
	req := func(run uint64, name string, from, to int) Request {
		return Request{Run: run, Attempt: name, Segments: 8, Range: true, SegmentFrom: from, SegmentTo: to}
	}
	w.run(req(1, "night", 0, 3))
	again := func(run uint64, from, to int) {
		t.Helper()
		calls := w.table.calls
		if rep := w.run(req(run, "night", from, to)); rep.Status != StatusDone || rep.Scanned != 0 || rep.SegmentsDone != 4 {
			t.Errorf("retried: %+v", rep)
		}
		if w.table.calls != calls {
			t.Errorf("a retry scanned %d pages", w.table.calls-calls)
		}
	}
	again(2, 0, 3)
	if rep := w.run(req(3, "night", 4, 7)); !rep.Warm {
		t.Errorf("the last range: %+v", rep)
	}
	again(4, 0, 3)
	again(5, 4, 7)
	w.checkComplete()

	w.online.flush()
	if rep := w.run(req(6, "night", 0, 3)); rep.Scanned == 0 {
		t.Errorf("after a flush: %+v", rep)
	}
	if rep := w.run(req(7, "other", 0, 3)); rep.Scanned == 0 || rep.ResumedFrom != nil {
		t.Errorf("under another name: %+v", rep)
	}
	// Without a name it goes on with what is unfinished.
	if rep := w.run(Request{Run: 8, Segments: 8}); rep.ResumedFrom == nil || *rep.ResumedFrom != 7 || !rep.Warm {
		t.Errorf("without a name: %+v", rep)
	}
	w.checkComplete()
}

// Seen red with: Summary leaving out the segments that are not done; a name that is unknown
// because there is no attempt taken for nothing to do.
func TestSummary(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.fill(60)
	ctx := context.Background()
	if rep, err := w.rewarmer().Summary(ctx, ""); err != nil || rep.Status != StatusNothing || rep.Reason != ReasonNever || !rep.OK() {
		t.Errorf("before anything: %v %+v", err, rep)
	}
	if _, err := w.rewarmer().Summary(ctx, "x"); !errors.Is(err, feature.ErrNotFound) {
		t.Errorf("of an attempt that nobody has begun: %v", err)
	}
	req := Request{Attempt: "x", Segments: 9, Range: true}
	for i, r := range [][2]int{{0, 2}, {6, 7}} {
		req.Run, req.SegmentFrom, req.SegmentTo = uint64(1+i), r[0], r[1]
		w.run(req)
	}
	rep, err := w.rewarmer().Summary(ctx, "x")
	if err != nil || rep.Status != StatusPartial || rep.SegmentsDone != 5 || rep.SegmentsLeft != 4 || rep.OK() || !strings.Contains(strings.Join(rep.Problems, " "), "3-5,8 of 9") {
		t.Errorf("half-way: %v %+v", err, rep)
	}
	for i, r := range [][2]int{{3, 5}, {8, 8}} {
		req.Run, req.SegmentFrom, req.SegmentTo = uint64(10+i), r[0], r[1]
		w.run(req)
	}
	rep, err = w.rewarmer().Summary(ctx, "x")
	if err != nil || rep.Status != StatusDone || rep.Run != 1 || rep.Attempt != "x" || rep.Scanned != 120 || rep.Written != 120 || !rep.Warm || rep.SegmentsLeft != 0 || !rep.OK() {
		t.Errorf("at the end: %v %+v", err, rep)
	}
	if _, err := w.rewarmer().Summary(ctx, "y"); !errors.Is(err, feature.ErrNotFound) {
		t.Errorf("of another name: %v", err)
	}
}

// A part of a cold shard moves to a warm one while the run is stopped. Its keys are still
// brought back: the attempt remembers parts, not addresses.
// Seen red with: ColdFilter asked without what it said before; ColdState not handed to a
// new attempt.
func TestColdPartsAreRemembered(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"resumed": false, "begun anew": true} {
		w := newWorld(t, 3)
		w.fill(90)
		w.run(Request{Run: 1, IfCold: true})
		w.online.flush(0, 1)
		ctx, die := context.WithCancelCause(context.Background())
		w.state.onSave = func(n int, _ string) error {
			if n > 40 { // well within the second run
				die(errors.New("killed"))
			}
			return nil
		}
		rep, err := w.rewarmer().Run(ctx, Request{Run: 2, IfCold: true})
		if err == nil || len(rep.ColdShards) != 2 {
			t.Fatalf("%s: not killed: %v %+v", name, err, rep)
		}
		w.state.onSave = nil
		w.online.mu.Lock()
		w.online.shards[1].marker = 1 // as if its slots had moved to a shard that is warm
		w.online.mu.Unlock()
		if rep := w.run(Request{Run: 3, IfCold: true, Restart: restart}); !rep.Warm {
			t.Errorf("%s: %+v", name, rep)
		}
		w.checkComplete()
	}
}

// A replica takes a shard over that lacks the last puts, too few for a witness to be among
// them. The run sees that the server is another one, and brings everything again.
// Seen red with: sameServers not comparing servers.
func TestFailoverThatLosesALittle(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]bool{"within a run": false, "between runs": true} {
		w := newWorld(t, 2)
		w.fill(1500)
		for i, s := range w.online.shards {
			s.instance = fmt.Sprint("server ", i)
		}
		failover := func() {
			w.online.mu.Lock()
			defer w.online.mu.Unlock()
			s := w.online.shards[1]
			s.instance = "replica"
			lost := 0
			for ref := range s.values {
				if n := w.online.sent[ref]; n > 0 && lost < 3 && !strings.HasPrefix(string(ref.Key), canaryMember) && feature.ShardOf(ref.Key, 8) == 0 && !witnessed(w, ref) {
					delete(s.values, ref)
					lost++
				}
			}
		}
		ctx, die := context.WithCancelCause(context.Background())
		w.state.onSave = func(n int, doc string) error {
			if n == 100 {
				if between {
					die(errors.New("killed"))
				} else {
					w.state.onSave = nil
					failover()
				}
			}
			return nil
		}
		rep, err := w.rewarmer(func(c *Config) { c.Workers = 1 }).Run(ctx, Request{Run: 1, IfCold: true})
		if between {
			if err == nil {
				t.Fatal("not killed")
			}
			w.state.onSave = nil
			failover()
			rep = w.run(Request{Run: 2, IfCold: true})
			if rep.ResumedFrom != nil {
				t.Errorf("%s: resumed: %+v", name, rep)
			}
		} else if err != nil || rep.Flushes != 1 {
			t.Errorf("%s: %v %+v", name, err, rep)
		}
		if !rep.Warm {
			t.Errorf("%s: %+v", name, rep)
		}
		w.checkComplete()
	}
}

// witnessed says whether a stored checkpoint names ref as a witness.
func witnessed(w *world, ref feature.Ref) bool {
	w.state.mu.Lock()
	defer w.state.mu.Unlock()
	for _, d := range w.state.docs {
		if strings.Contains(string(d.value), fmt.Sprintf("%q", ref.Key)) {
			return true
		}
	}
	return false
}
