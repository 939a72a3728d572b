package rewarm

import (
	"context"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

// What does not fit is refused; asked for the hottest part, a run takes the hot keys and
// as much else as there is room for, says what is missing, and never marks the tier warm.
// With more memory the next run completes it.
// Seen red with: the room not counted down; finish without its arm for errNoRoom.
func TestHottestPart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.fill(400)
	var hot []feature.Ref
	for i := 300; i < 400; i++ {
		hot = append(hot, feature.Ref{View: w.views[0].ID(), Key: key(i)})
	}
	r := w.rewarmer(func(c *Config) { c.Hot = hotList{refs: hot} })
	plan := w.run(Request{PlanOnly: true}).Plan
	need := plan.Live * plan.perKey
	for _, c := range []struct {
		share    float64 // of the memory that everything needs
		hot, all int
	}{{0.06, 40, 40}, {0.5, 100, 300}} {
		w.online.flush()
		w.online.info = Info{UsedMemory: 0, MaxMemory: int64(float64(need) * c.share), Policy: "noeviction"}
		rep, err := r.Run(context.Background(), Request{Run: 1, IfCold: true, Hottest: true, Restart: true})
		if err != nil {
			t.Fatal(err)
		}
		held, hottest := len(w.online.shards[0].values), 0
		for _, ref := range hot {
			if _, ok := w.online.get(ref); ok {
				hottest++
			}
		}
		held -= 256 // canaries
		if rep.Status != StatusPartial || rep.Warm || !strings.Contains(strings.Join(rep.Problems, " "), "hottest part") {
			t.Errorf("room for %v: %+v", c.share, rep)
		}
		if hottest < c.hot || held < c.all || float64(held) > c.share*800 {
			t.Errorf("room for %v: %d values are in, %d of them hot; want at least %d, %d hot, and at most %v", c.share, held, hottest, c.all, c.hot, c.share*800)
		}
	}
	w.online.info = Info{}
	if rep, err := r.Run(context.Background(), Request{Run: 2, IfCold: true, Hottest: true}); err != nil || rep.Status != StatusDone || !rep.Warm {
		t.Errorf("with memory for all: %v %+v", err, rep)
	}
	w.checkComplete()
}

// A tier that is full before the plan says so ends the run: partial, no record is blamed, and
// the hottest part is what is in. With more memory the next run completes it.
// Seen red with: putBatch without its arm for ErrFull.
func TestFullSoonerThanPlanned(t *testing.T) {
	t.Parallel()
	for _, hottest := range []bool{true, false} {
		w := newWorld(t, 1)
		w.fill(400)
		w.online.info = Info{MaxMemory: 1 << 40, Policy: "noeviction"}
		if hottest { // it does not fit, but there is room for most
			plan := w.run(Request{PlanOnly: true}).Plan
			w.online.info.MaxMemory = plan.Live * plan.perKey
		}
		held := 0
		w.online.fails = func(feature.Record) error {
			if held++; held > 500 {
				return feature.ErrFull
			}
			return nil
		}
		rep := w.run(Request{Run: 1, IfCold: true, Hottest: hottest})
		want := "tier is full"
		if hottest {
			want = "hottest part"
		}
		if rep.Status != StatusPartial || rep.Warm || rep.Failed > 0 || len(rep.FailedKeys) > 0 || !strings.Contains(strings.Join(rep.Problems, " "), want) {
			t.Errorf("hottest %v: %+v", hottest, rep)
		}
		w.online.fails, w.online.info = nil, Info{}
		if rep := w.run(Request{Run: 2, IfCold: true}); rep.Status != StatusDone || !rep.Warm {
			t.Errorf("hottest %v, with memory for all: %+v", hottest, rep)
		}
		w.checkComplete()
	}
}
