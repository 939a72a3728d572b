package reader_test

import (
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// Who has written a value reads it, and an absence that was remembered does not hide it.
// In an outage the forgotten value is still the last one known. Seen red with Forget empty,
// and (the outage) with the value removed from the cache.
func TestForget(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	old := stats(t, b.project, 1, start.Add(-time.Minute), 1, 0.1)
	b.online.set(old)
	b.backing.set(old)
	b.get(1, 2) // 2 is absent
	for id := 1; id <= 2; id++ {
		rec := stats(t, b.project, id, start, 2, 0.5)
		b.online.set(rec)
		b.backing.set(rec)
	}
	want(t, b.get(1).Row(0), "stats:rate", feature.Float64Value(0.1), feature.Present, feature.TierCache, start.Add(-time.Minute))
	b.reader.Forget(driverRef(1), driverRef(2), driverRef(3))
	resp := b.get(1, 2)
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierOnline, start)
	want(t, resp.Row(1), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierOnline, start)

	b.reader.Forget(driverRef(1))
	servesOutage(t, b)
}

// After a run every key of its views is asked for anew, whether it was known or absent, and
// no key of another view. What was known before still serves an outage. Seen red with
// ForgetViews empty, with the absences kept, and with one era for all views.
func TestForgetViews(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	old := stats(t, b.project, 1, start.Add(-time.Minute), 1, 0.1)
	other := record(t, &b.project.Views[1], driverKey(1), start.Add(-time.Minute), 1, feature.Float32Value(0.1), feature.IntValue(1))
	b.online.set(old, other)
	b.backing.set(old, other)
	v2 := reader.Request{Features: []string{"stats@2:extra"}, Entities: drivers(1)}
	b.get(1, 2) // 2 is absent
	b.read(v2)
	for id := 1; id <= 2; id++ {
		rec := stats(t, b.project, id, start, 2, 0.5)
		b.online.set(rec)
		b.backing.set(rec)
	}
	b.online.set(record(t, &b.project.Views[1], driverKey(1), start, 2, feature.Float32Value(0.1), feature.IntValue(2)))
	view := driverRef(1).View
	b.reader.ForgetViews(view)
	resp := b.get(1, 2)
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierOnline, start)
	want(t, resp.Row(1), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierOnline, start)
	want(t, b.get(2).Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierCache, start)
	want(t, b.read(v2).Row(0), "stats@2:extra", feature.IntValue(1), feature.Present, feature.TierCache, start.Add(-time.Minute))

	b.reader.ForgetViews(view)
	servesOutage(t, b)
}

// An answer that was under way while a run ended is given to who asked, and not remembered:
// it may be of before the run. Seen red with the era of an entry read when it arrives.
func TestForgetViewsUnderWay(t *testing.T) {
	t.Parallel()
	for _, tier := range []feature.Tier{feature.TierOnline, feature.TierBacking} {
		b := newBundle(t)
		old := stats(t, b.project, 1, start.Add(-time.Minute), 1, 0.1)
		slow := b.backing
		if tier == feature.TierOnline {
			slow = b.online
		}
		slow.set(old)
		slow.faults(nil, func(ref feature.Ref, r feature.GetResult) feature.GetResult {
			b.reader.ForgetViews(ref.View) // the tier has answered, the reader does not know it yet
			return r
		})
		resp := b.get(1, 2)
		want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.1), feature.Present, tier, start.Add(-time.Minute))
		slow.faults(nil, nil)
		for id := 1; id <= 2; id++ {
			b.online.set(stats(t, b.project, id, start, 2, 0.5))
		}
		resp = b.get(1, 2)
		want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierOnline, start)
		want(t, resp.Row(1), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierOnline, start)
	}
}

// servesOutage checks that driver 1's last known value, forgotten or not, is served when no tier answers.
func servesOutage(t *testing.T, b *bundle) {
	t.Helper()
	b.online.faults(refused, nil)
	b.backing.faults(refused, nil)
	resp := b.get(1)
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierCache, start)
	if !resp.Row(0).At(0).Stale {
		t.Error("the last known value of an outage is not marked stale")
	}
}
