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

// A drill brings its share into the scratch tier, leaves the live one and the state alone,
// and removes what it brought; what it cannot remove dies within the hour.
// Seen red with: life not set; remove a no-op; the drill given the live state.
func TestDrill(t *testing.T) {
	t.Parallel()
	for _, canDelete := range []bool{true, false} {
		w := newWorld(t, 1)
		w.fill(400)
		scratch := newCache(w.clock, 1)
		var most time.Duration
		scratch.past = func(_ int, recs []feature.Record, _ []feature.PutResult) {
			for _, rec := range recs {
				if rec.Tombstone() { // the tier gives it an hour
					continue
				}
				if rec.Online == feature.NoTime {
					most = math.MaxInt64
				} else {
					most = max(most, rec.Online.Sub(scratch.now()))
				}
			}
		}
		var to Online = scratch
		if canDelete {
			to = deleting{scratch}
		}
		rep, err := w.rewarmer(func(c *Config) { c.Objective = time.Hour }).Drill(context.Background(), to, DrillRequest{Run: 3, Fraction: 0.25, MaxWriteRate: 100})
		if err != nil {
			t.Fatal(err)
		}
		if rep.Status != StatusDone || math.Abs(float64(rep.Written)-200) > 60 || rep.Verify == nil || rep.Verify.Compared != rep.Written || !rep.OK() {
			t.Errorf("delete %v: %+v, want about 200 of 800 written and compared", canDelete, rep)
		}
		if want := float64(rep.Written) / 100 * 4; math.Abs(rep.WholeSeconds-want) > want/4 {
			t.Errorf("delete %v: the whole would take %.1f s, want about %.1f s", canDelete, rep.WholeSeconds, want)
		}
		if most > drillLife {
			t.Errorf("delete %v: a scratch key lives %s", canDelete, most)
		}
		left := len(scratch.shards[0].values)
		if canDelete && (left != 0 || rep.Removed < rep.Written) || !canDelete && (left == 0 || len(rep.Problems) == 0) {
			t.Errorf("delete %v: %d scratch keys left, report %+v", canDelete, left, rep)
		}
		if w.online.puts != 0 || w.online.marked != 0 || scratch.marked != 0 || w.state.saves != 0 {
			t.Errorf("delete %v: the live tier was touched: %d puts, %d marks, %d saves", canDelete, w.online.puts, w.online.marked, w.state.saves)
		}
		var text strings.Builder
		if err := rep.WriteTable(&text); err != nil || !strings.Contains(text.String(), "within the objective") {
			t.Errorf("%v\n%s", err, text.String())
		}
	}
}

func TestDrillIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.fill(400)
	r := w.rewarmer()
	if _, err := r.Drill(context.Background(), w.online, DrillRequest{Fraction: 0.05}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("into the live tier: %v", err)
	}
	scratch := newCache(w.clock, 1)
	if _, err := r.Drill(context.Background(), scratch, DrillRequest{Fraction: 2}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("twice the table: %v", err)
	}
	scratch.info = Info{UsedMemory: 1 << 20, MaxMemory: 1<<20 + 1000}
	if _, err := r.Drill(context.Background(), scratch, DrillRequest{Fraction: 1}); !errors.Is(err, ErrDoesNotFit) || scratch.puts != 0 {
		t.Errorf("without memory: %v, %d puts", err, scratch.puts)
	}
	// Killed half-way it still removes what it brought.
	scratch = newCache(w.clock, 1)
	ctx, die := context.WithCancel(context.Background())
	scratch.past = func(n int, _ []feature.Record, _ []feature.PutResult) {
		if n == 10 {
			die()
		}
	}
	rep, err := r.Drill(ctx, deleting{scratch}, DrillRequest{Fraction: 1})
	if !errors.Is(err, context.Canceled) || rep.Removed == 0 || len(scratch.shards[0].values) != 0 {
		t.Errorf("interrupted: %v, %+v, %d keys left", err, rep, len(scratch.shards[0].values))
	}
}
