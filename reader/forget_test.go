package reader_test

import (
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
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
	b.online.faults(refused, nil)
	b.backing.faults(refused, nil)
	resp = b.get(1)
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierCache, start)
	if !resp.Row(0).At(0).Stale {
		t.Error("the last known value of an outage is not marked stale")
	}
}
