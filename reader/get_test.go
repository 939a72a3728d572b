package reader_test

import (
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// The five statuses, each from each place it can come from.
func TestStatuses(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	v := &b.project.Views[0]
	fresh, old := start.Add(-time.Minute), start.Add(-2*time.Hour)
	b.online.set(
		stats(t, b.project, 1, fresh, 1, 0.25),
		record(t, v, driverKey(2), fresh, 1, feature.Float64Value(0.5), feature.Null, feature.StringValue("")),
		tombstone(t, v, driverKey(5), fresh, 1),
	)
	b.backing.set(
		stats(t, b.project, 3, old, 1, 0.75),
		tombstone(t, v, driverKey(6), fresh, 2),
	)
	resp := b.get(1, 2, 3, 4, 5, 6)
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.25), feature.Present, feature.TierOnline, fresh)
	want(t, resp.Row(1), "stats:trips", feature.Null, feature.NullValue, feature.TierOnline, fresh)
	want(t, resp.Row(1), "stats:city", feature.StringValue(""), feature.Present, feature.TierOnline, fresh)
	want(t, resp.Row(2), "stats:rate", feature.Float64Value(0.75), feature.OutsideMaxAge, feature.TierBacking, old)
	want(t, resp.Row(3), "stats:rate", feature.Float64Value(-1), feature.NotFound, feature.TierDefault, time.Time{})
	want(t, resp.Row(3), "stats:trips", feature.Null, feature.NotFound, feature.TierDefault, time.Time{})
	want(t, resp.Row(4), "stats:city", feature.StringValue("nowhere"), feature.NotFound, feature.TierDefault, time.Time{})
	want(t, resp.Row(5), "stats:rate", feature.Float64Value(-1), feature.NotFound, feature.TierDefault, time.Time{})
	wantUnreachable(t, resp)

	// A deletion online is definitive: the backing tier is not asked.
	if n := b.backing.readCounts()[driverRef(5)]; n != 0 {
		t.Errorf("backing tier asked %d times for a key with a tombstone online", n)
	}

	// Now from the cache, with the same event times.
	resp = b.get(1, 4)
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.25), feature.Present, feature.TierCache, fresh)
	want(t, resp.Row(1), "stats:rate", feature.Float64Value(-1), feature.NotFound, feature.TierDefault, time.Time{})
	if n := b.online.callCount(); n != 1 {
		t.Errorf("online tier called %d times, want 1: the second read is the cache's", n)
	}
}

// Two views with the same feature name in one request, a second version of one of them,
// and the order of the selection.
func TestSameFeatureNameInTwoViews(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	at := start.Add(-time.Second)
	b.online.set(
		stats(t, b.project, 1, at, 1, 0.1),
		record(t, &b.project.Views[1], driverKey(1), at, 1, feature.Float32Value(0.2), feature.IntValue(3)),
		record(t, &b.project.Views[2], "area=NRW%20%26&zipcode=53111", at, 1, feature.Float64Value(0.3), feature.StringValue("bonn")),
	)
	resp := b.read(reader.Request{Service: "mixed", Entities: []map[string]string{{"driver_id": "001", "area": "NRW &", "zipcode": "53111", "ignored": "x"}}})
	row := resp.Row(0)
	want(t, row, "zip:rate", feature.Float64Value(0.3), feature.Present, feature.TierOnline, at)
	want(t, row, "stats:rate", feature.Float64Value(0.1), feature.Present, feature.TierOnline, at)
	want(t, row, "stats@2:rate", feature.Float32Value(0.2), feature.Present, feature.TierOnline, at)
	want(t, row, "zip:city", feature.StringValue("bonn"), feature.Present, feature.TierOnline, at)
	var dst [4]float32
	if n := row.Fill(dst[:]); n != 1 && dst[0] != 0.3 {
		t.Errorf("filled %v, %d not present", dst, n)
	}
	if dst[0] != 0.3 || dst[1] != 0.1 || dst[2] != 0.2 {
		t.Errorf("filled %v", dst)
	}
}
