package feature_test

import (
	"bytes"
	"cmp"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

func genVersion(t *rapid.T, label string) feature.Version {
	micros := rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{math.MinInt64, -1, 0, 1, math.MaxInt64}))
	return feature.Version{
		Event:   feature.Micros(micros.Draw(t, label+" event")),
		Created: feature.Micros(micros.Draw(t, label+" created")),
		Run:     rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 3)).Draw(t, label+" run"),
	}
}

// Byte order is version order. Seen red without the sign-bit flip (times before 1970).
func TestVersionBytesKeepTheOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := genVersion(t, "a"), genVersion(t, "b")
		want := cmp.Or(cmp.Compare(a.Event, b.Event), cmp.Compare(a.Created, b.Created), cmp.Compare(a.Run, b.Run))
		if got := bytes.Compare(a.Bytes(), b.Bytes()); got != want {
			t.Fatalf("%v and %v: bytes say %d, fields say %d", a, b, got, want)
		}
		if got := a.Compare(b); got != want {
			t.Fatalf("Compare = %d, want %d", got, want)
		}
		back, err := feature.ParseVersion(a.Bytes())
		if err != nil || back != a {
			t.Fatalf("round trip %v -> %v, %v", a, back, err)
		}
	})
}

func TestFloorSeparatesOlderTimesFromOlderRuns(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		stored, incoming := genVersion(t, "stored"), genVersion(t, "incoming")
		if rapid.Bool().Draw(t, "same times") {
			stored.Event, stored.Created = incoming.Event, incoming.Created
		}
		olderTimes := cmp.Or(cmp.Compare(stored.Event, incoming.Event), cmp.Compare(stored.Created, incoming.Created)) < 0
		if got := stored.Compare(incoming.Floor()) < 0; got != olderTimes {
			t.Fatalf("stored %v below floor of %v: %v, want %v", stored, incoming, got, olderTimes)
		}
	})
}

// An older version of a key never outlives a newer one, and no life is shorter than the
// TTL. Seen red with a spread drawn per write, and with a spread on both sides.
func TestOnlineExpiryGrowsWithEventTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := feature.Key("id=" + rapid.StringMatching(`[a-z0-9]{1,8}`).Draw(t, "id"))
		ttl := time.Duration(rapid.Int64Range(1, int64(4000*24*time.Hour)).Draw(t, "ttl"))
		e1 := feature.Micros(rapid.Int64Range(-1e15, 4e15).Draw(t, "e1"))
		e2 := e1 + feature.Micros(rapid.Int64Range(0, 1e12).Draw(t, "later"))
		x1, ok1 := feature.OnlineExpiry(key, feature.Version{Event: e1}, ttl)
		x2, ok2 := feature.OnlineExpiry(key, feature.Version{Event: e2, Run: 7}, ttl)
		if !ok1 || !ok2 || x1 > x2 {
			t.Fatalf("expiries %v and %v of events %v and %v", x1, x2, e1, e2)
		}
		if life := x1.Sub(e1); life < ttl.Truncate(time.Microsecond) || life > ttl+ttl/10+time.Microsecond || life > ttl+24*time.Hour {
			t.Fatalf("life %v of ttl %v", life, ttl)
		}
	})
	if _, ok := feature.OnlineExpiry("id=1", feature.Version{}, 0); ok {
		t.Error("no TTL must mean no expiry")
	}
}

// A value leaves the online tier no later than the backing tier (I5, I12). Seen red without
// the cap: a read repair kept a value in Redis that the table had let go.
func TestOnlineLifeEndsWithRetention(t *testing.T) {
	t.Parallel()
	payload := feature.AppendPayload(nil, feature.Header{Version: feature.Version{Event: 1_000_000}}, []byte{0x90})
	for _, c := range []struct{ ttl, retain, least, most time.Duration }{
		{0, time.Hour, time.Hour, time.Hour},
		{2 * time.Hour, time.Hour, time.Hour, time.Hour},
		{time.Hour, 0, time.Hour, time.Hour + 6*time.Minute},
		{time.Hour, 90 * time.Minute, time.Hour, time.Hour + 6*time.Minute},
	} {
		r, err := feature.NewRecord(&feature.View{Name: "v", Version: 1, TTL: c.ttl, Retain: c.retain}, "id=1", payload)
		if err != nil {
			t.Fatal(err)
		}
		if life := r.Online.Sub(1_000_000); life < c.least || life > c.most {
			t.Errorf("ttl %v, retain %v: online life %v, want %v to %v", c.ttl, c.retain, life, c.least, c.most)
		}
	}
}

func TestMicrosSaturate(t *testing.T) {
	t.Parallel()
	if got := feature.Micros(math.MaxInt64 - 1).Add(time.Hour); got != math.MaxInt64 {
		t.Errorf("Add over the end = %d", got)
	}
	if got := feature.Micros(math.MaxInt64).Sub(feature.NoTime); got != math.MaxInt64 {
		t.Errorf("Sub over the end = %v", got)
	}
	if got := feature.Micros(math.MinInt64 + 1).Add(-time.Hour); got != feature.NoTime {
		t.Errorf("Add under the start = %d", got)
	}
}
