package reader_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// Corrupt bytes, an unknown format and another schema online: counted, treated as a miss,
// and replaced from the backing tier.
func TestDamagedOnlineFallsThroughAndIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	good := []feature.Record{stats(t, b.project, 1, start, 2, 0.1), stats(t, b.project, 2, start, 2, 0.2), stats(t, b.project, 3, start, 2, 0.3)}
	b.backing.set(good...)
	damage := []func([]byte) []byte{
		func(p []byte) []byte { return p[:len(p)-2] },
		func(p []byte) []byte { p[0] = 0x42; return p },
		func(p []byte) []byte {
			p[1] ^= 1
			feature.SetVersion(p, feature.Version{Event: feature.MicrosOf(start.Add(-time.Minute)), Created: feature.NoTime, Run: 1})
			return p
		},
	}
	for i := range good {
		old := stats(t, b.project, i+1, start.Add(-time.Minute), 1, 9)
		old.Payload = damage[i](old.Payload)
		b.online.set(old)
	}
	resp := b.get(1, 2, 3)
	for i := range good {
		want(t, resp.Row(i), "stats:rate", feature.Float64Value(float64(i+1)/10), feature.Present, feature.TierBacking, start)
	}
	wantUnreachable(t, resp)
	s := b.reader.Stats()
	if s.Online.Corrupt != 1 || s.Online.Foreign != 2 {
		t.Errorf("counted %d corrupt and %d foreign, want 1 and 2", s.Online.Corrupt, s.Online.Foreign)
	}
	if err := b.reader.Close(); err != nil { // writes the queued repairs
		t.Fatal(err)
	}
	for i, rec := range good {
		if got, _ := b.online.get(driverRef(i + 1)); got.Version != rec.Version {
			t.Errorf("driver %d: the online tier still holds %s", i+1, got.Version)
		}
	}
}

// discarder is an online tier that can remove damaged values, as Redis is.
type discarder struct{ *tier }

func (d discarder) Discard(_ context.Context, refs []feature.Ref) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ref := range refs {
		if _, _, err := feature.ParsePayload(d.values[ref].Payload); err != nil {
			delete(d.values, ref)
		}
	}
	return nil
}

// A damaged version looks newer than every good one: the value is removed before the good
// one is written up, and a key that the table does not have is cleaned as well. Seen red
// with repairer.remove left out.
func TestDamagedVersionIsRepaired(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *reader.Config) { c.Online = discarder{c.Online.(*tier)} })
	good := stats(t, b.project, 1, start, 2, 0.1)
	b.backing.set(good)
	for id := 1; id <= 2; id++ {
		spoiled := stats(t, b.project, id, start.Add(time.Hour), 9, 9)
		spoiled.Payload[feature.VersionOffset] ^= 0x40
		b.online.set(spoiled)
	}
	resp := b.get(1, 2)
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.1), feature.Present, feature.TierBacking, start)
	if it := resp.Row(1).At(0); it.Status != feature.Unknown {
		t.Errorf("damaged and absent below: %s", it.Status)
	}
	if err := b.reader.Close(); err != nil { // writes the queued repairs
		t.Fatal(err)
	}
	if got, _ := b.online.get(driverRef(1)); got.Version != good.Version {
		t.Errorf("the online tier holds %s", got.Version)
	}
	if _, there := b.online.get(driverRef(2)); there {
		t.Error("damaged bytes without a good value are still online")
	}
}

// Damage in the only tier that has the key is UNKNOWN, not NOT_FOUND: something is there.
// Also when the online tier holds bytes that nobody can read and the backing tier says
// absent. Seen red with lookup.damaged ignored.
func TestDamageIsNotAbsence(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	rec := stats(t, b.project, 1, start, 1, 0.1)
	rec.Payload = rec.Payload[:len(rec.Payload)-1]
	b.backing.set(rec)
	other := stats(t, b.project, 2, start, 1, 0.1)
	other.Payload = other.Payload[:len(other.Payload)-1]
	b.online.set(other)
	resp := b.get(1, 2)
	for i := range 2 {
		want(t, resp.Row(i), "stats:rate", feature.Float64Value(-1), feature.Unknown, feature.TierDefault, time.Time{})
	}
	wantUnreachable(t, resp) // the tiers did answer
	if s := b.reader.Stats(); s.Backing.Corrupt != 1 || s.Online.Corrupt != 1 || s.Unknown != 2 {
		t.Errorf("stats %+v", s)
	}
}

// An absence is remembered for its own short while, apart from the values.
func TestAbsenceIsRememberedBriefly(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.get(1)
	b.get(1)
	if n := b.backing.callCount(); n != 1 {
		t.Errorf("%d backing calls within the negative TTL, want 1", n)
	}
	if s := b.reader.Stats(); s.CacheNegative != 1 || s.NotFound != 2 {
		t.Errorf("stats %+v", s)
	}
	b.backing.set(stats(t, b.project, 1, start, 1, 0.5))
	b.clock.Advance(time.Second)
	want(t, b.get(1).Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierBacking, start)
}

// A value is served from the cache for its TTL (a tenth less for some), then asked again.
func TestCacheTTL(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.online.set(stats(t, b.project, 1, start, 1, 0.1))
	b.get(1)
	b.online.set(stats(t, b.project, 1, start.Add(time.Second), 2, 0.2))
	b.clock.Advance(4 * time.Second)
	want(t, b.get(1).Row(0), "stats:rate", feature.Float64Value(0.1), feature.Present, feature.TierCache, start)
	b.clock.Advance(time.Second)
	want(t, b.get(1).Row(0), "stats:rate", feature.Float64Value(0.2), feature.Present, feature.TierOnline, start.Add(time.Second))
}

// An answer that was overtaken on its way does not turn the reader back: the newer version
// that it has seen stays, and says that it is the cache's. Seen red with memory.put
// overwriting always.
func TestOvertakenAnswerDoesNotTurnBack(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	newer, older := stats(t, b.project, 1, start, 5, 0.5), stats(t, b.project, 1, start.Add(-time.Minute), 4, 0.4)
	b.backing.set(newer)
	b.get(1) // 0.5, from the backing tier
	b.online.wipe()
	b.online.set(older) // a lagging online tier
	b.clock.Advance(6 * time.Second)
	want(t, b.get(1).Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierCache, start)
	// In the end the online tier's word counts again.
	b.clock.Advance(2 * time.Minute)
	want(t, b.get(1).Row(0), "stats:rate", feature.Float64Value(0.4), feature.Present, feature.TierOnline, start.Add(-time.Minute))
}

// When every tier is out, the last known value is served for its window and says so.
func TestServeStale(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.online.set(stats(t, b.project, 1, start, 1, 0.1))
	b.get(1)
	b.online.faults(refused, nil)
	b.backing.faults(refused, nil)
	b.clock.Advance(30 * time.Second)
	resp := b.get(1, 2)
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.1), feature.Present, feature.TierCache, start)
	if it := resp.Row(0).At(0); !it.Stale || it.Age != 30*time.Second {
		t.Errorf("%+v, want a stale value of age 30s", it)
	}
	want(t, resp.Row(1), "stats:rate", feature.Float64Value(-1), feature.Unknown, feature.TierDefault, time.Time{})
	wantUnreachable(t, resp, feature.TierOnline, feature.TierBacking)
	b.clock.Advance(time.Minute)
	want(t, b.get(1).Row(0), "stats:rate", feature.Float64Value(-1), feature.Unknown, feature.TierDefault, time.Time{})

	off := newBundle(t, func(c *reader.Config) { c.Cache.ServeStale = -1 })
	off.online.set(stats(t, off.project, 1, start, 1, 0.1))
	off.get(1)
	off.online.faults(refused, nil)
	off.backing.faults(refused, nil)
	off.clock.Advance(6 * time.Second)
	want(t, off.get(1).Row(0), "stats:rate", feature.Float64Value(-1), feature.Unknown, feature.TierDefault, time.Time{})
}

// SkipCache asks the tiers, and what they say is cached for others.
func TestSkipCache(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.online.set(stats(t, b.project, 1, start, 1, 0.1))
	b.get(1)
	b.online.set(stats(t, b.project, 1, start.Add(time.Second), 2, 0.2))
	resp := b.read(reader.Request{Service: "drivers", Entities: drivers(1), SkipCache: true})
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.2), feature.Present, feature.TierOnline, start.Add(time.Second))
	want(t, b.get(1).Row(0), "stats:rate", feature.Float64Value(0.2), feature.Present, feature.TierCache, start.Add(time.Second))
}

// Without the caches every read goes to the tiers.
func TestNoCache(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *reader.Config) { c.Cache.MaxEntries, c.Cache.NegativeEntries = -1, -1 })
	b.online.set(stats(t, b.project, 1, start, 1, 0.1))
	b.get(1, 2)
	b.get(1, 2)
	if on, back := b.online.callCount(), b.backing.callCount(); on != 2 || back != 2 {
		t.Errorf("%d online and %d backing calls, want 2 and 2", on, back)
	}
}

// One tier is enough; absent in the only tier is absent.
func TestSingleTier(t *testing.T) {
	t.Parallel()
	for _, online := range []bool{true, false} {
		b := newBundle(t, func(c *reader.Config) {
			if online {
				c.Backing = nil
			} else {
				c.Online = nil
			}
		})
		b.online.set(stats(t, b.project, 1, start, 1, 0.1))
		b.backing.set(stats(t, b.project, 1, start, 1, 0.1))
		resp := b.get(1, 2)
		tier := feature.TierOnline
		if !online {
			tier = feature.TierBacking
		}
		want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.1), feature.Present, tier, start)
		want(t, resp.Row(1), "stats:rate", feature.Float64Value(-1), feature.NotFound, feature.TierDefault, time.Time{})
	}
	if _, err := reader.New(reader.Config{}); err == nil {
		t.Error("a reader of no tier was made")
	}
	single := newBundle(t, func(c *reader.Config) { c.Backing = nil })
	single.online.faults(refused, nil)
	want(t, single.get(1).Row(0), "stats:rate", feature.Float64Value(-1), feature.Unknown, feature.TierDefault, time.Time{})
}

// The sketch hears every key of every request, from the cache or not; the observer every
// call of a tier.
func TestAskedAndObserve(t *testing.T) {
	t.Parallel()
	asked := map[feature.Ref]int{}
	var tiers []feature.Tier
	b := newBundle(t, func(c *reader.Config) {
		c.Asked = func(r feature.Ref) { asked[r]++ }
		c.Observe = func(tier feature.Tier, keys int, _ time.Duration, err error) {
			if keys != 2 || err != nil {
				t.Errorf("%s: %d keys, error %v", tier, keys, err)
			}
			tiers = append(tiers, tier)
		}
	})
	b.get(1, 2)
	b.get(1, 2)
	if asked[driverRef(1)] != 2 || asked[driverRef(2)] != 2 {
		t.Errorf("asked: %v", asked)
	}
	if len(tiers) != 2 || tiers[0] != feature.TierOnline || tiers[1] != feature.TierBacking {
		t.Errorf("observed: %v", tiers)
	}
}

// Close drains: new reads are refused, and the one that waits for the cap gets its answer.
// Seen red with Close not waiting for the reads inside.
func TestCloseDrains(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *reader.Config) { c.MaxBackingRPS = 1 })
	b.backing.set(stats(t, b.project, 2, start, 1, 0.5))
	b.get(1) // uses the second's only call
	queued := make(chan *reader.Response, 1)
	go func() { queued <- b.get(2) }()
	// Its wait for the tier and the wait for the cap; the first read's wait is still counted.
	if err := b.clock.WaitForWaiters(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 2)
	for range 2 {
		go func() { closed <- b.reader.Close() }()
	}
	for refused := false; !refused; {
		_, err := b.reader.Get(t.Context(), reader.Request{Service: "drivers"})
		refused = errors.Is(err, reader.ErrClosed)
	}
	b.clock.Advance(time.Second)
	want(t, (<-queued).Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierBacking, start)
	for range 2 {
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
}
