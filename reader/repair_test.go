package reader_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
)

// I12: a repair carries the one expiry that the view gives the value, and the online tier
// keeps a newer version that was written meanwhile. Seen red with rec.Online left at
// NoTime, and with the fake's put made to overwrite (the tester tested).
func TestRepairNeitherGoesBackNorOutlives(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	held, release := make(chan struct{}), make(chan struct{})
	b.online.mu.Lock()
	b.online.onPut = func(context.Context, []feature.Record) error { close(held); <-release; return nil }
	b.online.mu.Unlock()
	old := stats(t, b.project, 1, start.Add(-50*time.Minute), 1, 0.1)
	b.backing.set(old)
	b.get(1)
	<-held // the repair is on its way; now a materialize overtakes it
	newer := stats(t, b.project, 1, start, 2, 0.2)
	b.backing.set(newer)
	b.online.set(newer)
	close(release)
	if err := b.reader.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := b.online.get(driverRef(1)); got.Version != newer.Version {
		t.Errorf("the online tier went back to %s", got.Version)
	}
	sent := b.online.puts[0][0]
	expiry, _ := feature.OnlineExpiry(sent.Key, old.Version, b.project.Views[0].TTL)
	if sent.Online != expiry || sent.Version != old.Version {
		t.Errorf("the repair lives until %s, its view says %s", sent.Online, expiry)
	}
	if s := b.reader.Stats(); s.Repairs.Newer != 1 || s.Repairs.Queued != 1 {
		t.Errorf("repairs %+v", s.Repairs)
	}
}

// A value whose life online is over is answered and labelled, and not written up. Seen red
// with the check in offer removed, and with the expiry counted from the time of the read.
func TestExpiredIsNotRepaired(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	at := start.Add(-3 * time.Hour)
	b.backing.set(stats(t, b.project, 1, at, 1, 0.1))
	want(t, b.get(1).Row(0), "stats:rate", feature.Float64Value(0.1), feature.OutsideMaxAge, feature.TierBacking, at)
	if err := b.reader.Close(); err != nil {
		t.Fatal(err)
	}
	if len(b.online.puts) != 0 {
		t.Errorf("%d repairs of an expired value", len(b.online.puts))
	}
	if s := b.reader.Stats(); s.Repairs.Expired != 1 {
		t.Errorf("repairs %+v", s.Repairs)
	}
}

// What the online tier had, or did not answer for, is not written up; tombstones are.
func TestOnlyMissesAreRepaired(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.online.set(stats(t, b.project, 1, start, 1, 0.1))
	b.backing.set(stats(t, b.project, 1, start, 1, 0.1), stats(t, b.project, 2, start, 1, 0.2), stats(t, b.project, 3, start, 1, 0.3),
		tombstone(t, &b.project.Views[0], driverKey(4), start, 1))
	b.online.faults(nil, func(ref feature.Ref, r feature.GetResult) feature.GetResult {
		if ref == driverRef(2) {
			return feature.GetResult{Err: feature.ErrUnreachable}
		}
		return r
	})
	b.get(1, 2, 3, 4, 5)
	if err := b.reader.Close(); err != nil {
		t.Fatal(err)
	}
	got := map[feature.Ref]bool{}
	for _, batch := range b.online.puts {
		for _, rec := range batch {
			got[rec.Ref] = true
		}
	}
	if len(got) != 2 || !got[driverRef(3)] || !got[driverRef(4)] {
		t.Errorf("repaired %v, want drivers 3 and 4", got)
	}
}

// The queue is bounded, a slow online tier slows no reader, and what does not fit is
// dropped and counted.
func TestRepairQueueIsBounded(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *reader.Config) { c.Repair.Queue = 5 })
	held, release := make(chan struct{}, 100), make(chan struct{})
	b.online.mu.Lock()
	b.online.onPut = func(context.Context, []feature.Record) error { held <- struct{}{}; <-release; return nil }
	b.online.mu.Unlock()
	for id := range 20 {
		b.backing.set(stats(t, b.project, id, start, 1, 0.1))
	}
	b.get(0)
	<-held // the worker is busy: the queue only fills now
	for id := range 19 {
		b.get(id + 1)
	}
	if s := b.reader.Stats(); s.Repairs.Queued != 6 || s.Repairs.Dropped != 14 {
		t.Errorf("repairs %+v, want 6 queued and 14 dropped", s.Repairs)
	}
	close(release)
	if err := b.reader.Close(); err != nil {
		t.Fatal(err)
	}
	if s := b.reader.Stats(); s.Repairs.Written != 6 {
		t.Errorf("repairs %+v: Close did not write the queue", s.Repairs)
	}
}

// A repair is bounded in time, also on Close, and its failures are counted.
func TestRepairTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t, func(c *reader.Config) { c.Clock, c.Repair.Timeout = clock.System, 300*time.Millisecond })
		b.online.onPut = func(ctx context.Context, _ []feature.Record) error {
			<-ctx.Done()
			return errors.Join(feature.ErrUnreachable, ctx.Err())
		}
		now := time.Now()
		for id := range 3 {
			b.backing.set(stats(t, b.project, id, now, 1, 0.1))
			b.get(id)
		}
		begin := time.Now()
		if err := b.reader.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 600*time.Millisecond {
			t.Errorf("Close took %s", took)
		}
		if s := b.reader.Stats(); s.Repairs.Failed != 3 {
			t.Errorf("repairs %+v", s.Repairs)
		}
	})
}

// The context of a repair ends with no request, and carries the request's values.
func TestRepairOutlivesItsRequest(t *testing.T) {
	t.Parallel()
	type key struct{}
	b := newBundle(t)
	held := make(chan context.Context, 1)
	b.online.onPut = func(ctx context.Context, _ []feature.Record) error { held <- ctx; return ctx.Err() }
	b.backing.set(stats(t, b.project, 1, start, 1, 0.1))
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "trace"))
	if _, err := b.reader.Get(ctx, reader.Request{Service: "drivers", Entities: drivers(1)}); err != nil {
		t.Fatal(err)
	}
	cancel()
	got := <-held
	if got.Value(key{}) != "trace" {
		t.Error("the repair lost the values of the request's context")
	}
	if err := b.reader.Close(); err != nil {
		t.Fatal(err)
	}
	if s := b.reader.Stats(); s.Repairs.Written != 1 {
		t.Errorf("repairs %+v", s.Repairs)
	}
}
