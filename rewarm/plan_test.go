package rewarm

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// Seen red with: expired records counted as live; the plan scanning on.
func TestPlanMovesNothingAndIsRight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.fill(400)
	for i := 1000; i < 1200; i++ {
		w.table.put(value(t, w.views[1], key(i), feature.Version{Event: at(-50 * day), Run: 1}, 1))
	}
	w.table.limit = 1000
	r := w.rewarmer(func(c *Config) { c.Region = "us-east-1"; c.Project = "p" })
	rep, err := r.Run(context.Background(), Request{Run: 1, IfCold: true, PlanOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	pl := rep.Plan
	if rep.Status != StatusPlanned || w.online.puts != 0 || w.state.saves != 0 {
		t.Errorf("status %s, %d puts, %d saves", rep.Status, w.online.puts, w.state.saves)
	}
	if !pl.Exact || pl.Items != 1000 || pl.Live != 800 || !pl.Fits || pl.Dollars == nil {
		t.Errorf("plan %+v, want 1000 items, 800 live", pl)
	}
	for objective, want := range map[time.Duration]bool{time.Microsecond: false, time.Hour: true} {
		rep, err := w.rewarmer(func(c *Config) { c.Objective = objective }).Run(context.Background(), Request{PlanOnly: true})
		if err != nil || rep.Plan.WithinObjective == nil || *rep.Plan.WithinObjective != want {
			t.Errorf("objective %s: %v %+v, want within: %v", objective, err, rep.Plan, want)
		}
	}
	rep = w.run(Request{Run: 2, IfCold: true})
	if rep.Written != pl.Live {
		t.Errorf("written %d, planned %d", rep.Written, pl.Live)
	}

	// A table of which only a sample is looked at: the sample is of other segments than the
	// rest, and yet close.
	w = newWorld(t, 1)
	w.fill(3000)
	for i := 10_000; i < 11_500; i++ {
		w.table.put(value(t, w.views[1], key(i), feature.Version{Event: at(-50 * day), Run: 1}, 1))
	}
	w.table.limit = 500
	rep = w.run(Request{Run: 1, IfCold: true, PlanOnly: true, Segments: 16})
	pl = rep.Plan
	if w.table.calls > 8 || pl.Exact || pl.Items != 7500 || math.Abs(float64(pl.Live)-6000) > 300 {
		t.Errorf("after %d scans: %+v, want about 6000 live", w.table.calls, pl)
	}
	var text strings.Builder
	if err := rep.WriteTable(&text); err != nil || !strings.Contains(text.String(), "planned") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

func TestPlanOfUnknownSize(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.fill(3000)
	w.table.size = &Table{Name: "new"}
	pl := w.run(Request{Run: 1, PlanOnly: true}).Plan
	if len(pl.Notes) == 0 || pl.Items == 0 || pl.Dollars != nil {
		t.Errorf("plan %+v, want a note, a lower bound and no price", pl)
	}
}

// Seen red with: mustFit returning nil.
func TestWhatDoesNotFitIsNotBegun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.fill(400)
	w.online.info = Info{UsedMemory: 1 << 20, MaxMemory: 1<<20 + 50_000, Policy: "noeviction"}
	_, err := w.rewarmer().Run(context.Background(), Request{Run: 1, IfCold: true})
	if !errors.Is(err, ErrDoesNotFit) || w.online.puts != 0 {
		t.Fatalf("%v after %d puts, want ErrDoesNotFit after none", err, w.online.puts)
	}
	if rep := w.run(Request{Run: 2, IfCold: true, Force: true}); rep.Status != StatusDone {
		t.Errorf("forced: %+v", rep)
	}
	// What is there already needs no more memory.
	if rep := w.run(Request{Run: 3}); rep.Status != StatusDone {
		t.Errorf("refresh of a full tier: %+v", rep)
	}
}

// An evicting Redis that is full is not taken for one that was flushed.
func TestEvictionEndsTheRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.fill(100)
	w.online.info = Info{UsedMemory: 99, MaxMemory: 100, Policy: "allkeys-lru"}
	w.online.past = func(_ int, recs []feature.Record, _ []feature.PutResult) {
		for _, rec := range recs[:1] {
			w.online.set(rec.Ref, nil, 0)
		}
	}
	rep := w.run(Request{Run: 1, IfCold: true, Force: true})
	if rep.Status != StatusPartial || rep.Warm || rep.Flushes != 0 || !strings.Contains(strings.Join(rep.Problems, " "), "evicts") {
		t.Errorf("report %+v", rep)
	}
}

func TestNumbersForPeople(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{512: "512 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}
