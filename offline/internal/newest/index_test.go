package newest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

const noTime = int64(feature.NoTime)

type fact struct {
	entity, event, created, place int64
	dead                          bool
}

type want struct {
	place, event, created int64
	found                 Found
}

// newestOf is the rule, said once more: a loop over all rows.
func newestOf(c Config, facts []fact, digests map[int64]string, entity, t int64) (w want) {
	w = want{place: noSource, event: noTime, created: noTime}
	var best []fact // of one event time
	for _, f := range facts {
		if f.entity != entity || f.event > t || c.KnownAt && f.created > t {
			continue
		}
		if len(best) == 0 || f.event > best[0].event {
			best = best[:0]
		}
		if len(best) == 0 || f.event == best[0].event {
			best = append(best, f)
		}
	}
	if len(best) == 0 || c.TTL > 0 && uint64(t)-uint64(best[0].event) > uint64(c.TTL) {
		return w
	}
	if len(best) > 1 {
		w.found.Twins = 1
	}
	f := slices.MaxFunc(best, func(a, b fact) int {
		return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(digests[a.place], digests[b.place]))
	})
	if f.dead {
		w.found.Dead = 1
		return w
	}
	w.found.Winners = 1
	w.place, w.event, w.created = f.place, f.event, f.created
	return w
}

// The index gives every label what a loop over all rows gives it, whoever offers which rows
// and when.
//
// Seen red with each of these broken: the best row handed on to later labels; the search before the
// label's time, or at it; the inclusive TTL, and its difference at the ends of time; a newer, a known and a tied
// created time; the digest; a tombstone; known_at; the twins that became known later; the file of a
// place; under the race detector, the locks.
func TestIndexEqualsLoop(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		times := rapid.SampledFrom([]int64{0, 0, 0, math.MinInt64 + 40, math.MaxInt64 - 40}).Draw(rt, "epoch")
		at := rapid.Custom(func(rt *rapid.T) int64 { return times + rapid.Int64Range(-30, 30).Draw(rt, "t") })
		c := Config{TTL: rapid.SampledFrom([]int64{0, 1, 5, 20, 1000}).Draw(rt, "ttl"), KnownAt: rapid.Bool().Draw(rt, "known at"), Threads: rapid.IntRange(1, 3).Draw(rt, "threads")}
		entities := rapid.IntRange(1, 6).Draw(rt, "entities")
		var ids, labels, rows []int64
		for id := range entities {
			n := rapid.IntRange(1, 7).Draw(rt, "labels")
			c.Labels = append(c.Labels, uint32(n))
			for range n {
				ids, labels, rows = append(ids, int64(id)), append(labels, at.Draw(rt, "label")), append(rows, int64(len(rows)))
			}
		}
		var facts []fact
		digests := map[int64]string{}
		for i := range rapid.IntRange(0, 60).Draw(rt, "facts") {
			f := fact{entity: int64(rapid.IntRange(0, entities-1).Draw(rt, "entity")), event: at.Draw(rt, "event"), created: noTime,
				place: int64(i%3)*FileRows + int64(i), dead: rapid.IntRange(0, 5).Draw(rt, "dead") == 0}
			if rapid.Bool().Draw(rt, "known") {
				f.created = at.Draw(rt, "created")
			}
			digests[f.place] = fmt.Sprint(rapid.IntRange(0, 1_000_000).Draw(rt, "digest"), "-", i)
			facts = append(facts, f)
		}
		x := build(rt, c, ids, labels, rows, facts)
		defer x.Close()
		if err := x.BreakTies(digests); err != nil {
			rt.Fatal(err)
		}
		found, err := x.Settle(context.Background(), len(rows))
		if err != nil {
			rt.Fatal(err)
		}
		var sum Found
		for i, row := range rows {
			w := newestOf(c, facts, digests, ids[i], labels[i])
			sum.Winners, sum.Twins, sum.Dead = sum.Winners+w.found.Winners, sum.Twins+w.found.Twins, sum.Dead+w.found.Dead
			if x.Places()[row] != w.place || x.Events()[row] != w.event || c.KnownAt && w.place != noSource && x.Created()[row] != w.created {
				rt.Fatalf("label %d of entity %d at %d: place %d, event %d; want %+v", row, ids[i], labels[i], x.Places()[row], x.Events()[row], w)
			}
		}
		if found != sum {
			rt.Fatalf("found %+v, want %+v", found, sum)
		}
		set := NewSet(x.Places())
		for _, f := range facts {
			if got, want := set.Has(f.place) == 1, slices.Contains(x.Places(), f.place); got != want {
				rt.Fatalf("place %d: in the set %v, want %v", f.place, got, want)
			}
		}
	})
}

// build makes an index, with labels and rows split over goroutines at will.
func build(t rapid.TB, c Config, ids, labels, rows []int64, facts []fact) *Index {
	t.Helper()
	x, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for part := range 3 {
		running.Go(func() {
			lo, hi := part*len(ids)/3, (part+1)*len(ids)/3
			x.Place(ids[lo:hi], labels[lo:hi], rows[lo:hi])
		})
	}
	running.Wait()
	if err := x.Sort(context.Background()); err != nil {
		t.Fatal(err)
	}
	for part := range 3 {
		running.Go(func() {
			var r Rows
			for i := part; i < len(facts); i += 3 {
				f := facts[i]
				r.Entities, r.Events, r.Created = append(r.Entities, f.entity), append(r.Events, f.event), append(r.Created, f.created)
				r.Places, r.Dead = append(r.Places, f.place), append(r.Dead, f.dead)
			}
			x.Offer(r)
		})
	}
	running.Wait()
	if x.Crowded() {
		t.Fatal("crowded")
	}
	return x
}

// More rows than one step, on few entities, from several goroutines: the same as the loop.
// Seen red with the rest of a step forgotten.
func TestManyRows(t *testing.T) {
	t.Parallel()
	c := Config{Labels: []uint32{3, 5000, 1}, TTL: 100_000, Threads: 2}
	var ids, labels, rows []int64
	for id, n := range c.Labels {
		for i := range n {
			ids, labels, rows = append(ids, int64(id)), append(labels, int64(i)*7919%1_000_000), append(rows, int64(len(rows)))
		}
	}
	var facts []fact
	digests := map[int64]string{}
	for i := range int64(20_000) {
		facts = append(facts, fact{entity: i % 3, event: i * 7907 % 1_000_000, created: noTime, place: i})
		digests[i] = fmt.Sprint(i)
	}
	x := build(t, c, ids, labels, rows, facts)
	defer x.Close()
	if err := x.BreakTies(digests); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Settle(context.Background(), len(rows)); err != nil {
		t.Fatal(err)
	}
	byEntity := map[int64][]fact{}
	for _, f := range facts {
		byEntity[f.entity] = append(byEntity[f.entity], f)
	}
	for i := 0; i < len(rows); i += 13 {
		if w := newestOf(c, byEntity[ids[i]], digests, ids[i], labels[i]); x.Places()[i] != w.place {
			t.Fatalf("label %d: place %d, want %d", i, x.Places()[i], w.place)
		}
	}
}

// A tied row without a digest is an error: it was there when it was offered.
func TestTieWithoutDigest(t *testing.T) {
	t.Parallel()
	x := build(t, Config{Labels: []uint32{1}}, []int64{0}, []int64{10}, []int64{0}, []fact{{event: 3, created: noTime, place: 1}, {event: 3, created: noTime, place: 2}})
	defer x.Close()
	if got := len(x.Tied()); got != 2 {
		t.Fatalf("%d tied", got)
	}
	if err := x.BreakTies(map[int64]string{1: "a"}); !errors.Is(err, ErrNoDigest) {
		t.Errorf("got %v", err)
	}
}

// So many ties that they are not worth holding are said, and a newer row lets them go again.
// Seen red with the ties of a row that was beaten still counted.
func TestCrowded(t *testing.T) {
	t.Parallel()
	for _, beaten := range []bool{false, true} {
		x := build(t, Config{Labels: []uint32{1}}, []int64{0}, []int64{10}, []int64{0}, nil)
		n := MaxTied - 10
		for event := range int64(3) {
			if !beaten {
				event = 0
			}
			r := Rows{Entities: make([]int64, n), Events: slices.Repeat([]int64{event}, n), Created: make([]int64, n), Places: make([]int64, n), Dead: make([]bool, n)}
			x.Offer(r)
		}
		if x.Crowded() == beaten {
			t.Errorf("beaten %v: crowded %v", beaten, x.Crowded())
		}
		x.Close()
	}
}

// Two rows of one event time, the second of which becomes known later, are twins for the labels
// that see both. Seen red with twins noted only where they are offered.
func TestTwinKnownLater(t *testing.T) {
	t.Parallel()
	x := build(t, Config{Labels: []uint32{2}, KnownAt: true}, []int64{0, 0}, []int64{6, 10}, []int64{0, 1}, []fact{{event: 5, created: noTime, place: 1}, {event: 5, created: 9, place: 2}})
	defer x.Close()
	found, err := x.Settle(context.Background(), 2)
	if want := (Found{Winners: 2, Twins: 1}); err != nil || found != want || x.Places()[0] != 1 || x.Places()[1] != 2 {
		t.Errorf("found %+v, places %v, err %v", found, x.Places(), err)
	}
}

// When the context ends, what the index does alone stops, and the memory is let go of.
func TestStopped(t *testing.T) {
	t.Parallel()
	x := build(t, Config{Labels: []uint32{1}}, []int64{0}, []int64{10}, []int64{0}, nil)
	defer x.Close()
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := x.Settle(ctx, 1); !errors.Is(err, cause) {
		t.Errorf("settle: %v", err)
	}
	y, err := New(Config{Labels: []uint32{1}})
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	if err := y.Sort(ctx); !errors.Is(err, cause) {
		t.Errorf("sort: %v", err)
	}
}
