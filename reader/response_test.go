package reader_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// The document of `hearth get --json`: its names are the contract.
func TestDocument(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.online.set(stats(t, b.project, 1, start.Add(-90*time.Second), 1, 0.25))
	b.backing.faults(refused, nil)
	got, err := json.Marshal(b.read(reader.Request{Features: []string{"stats:city", "stats:rate", "stats:trips"}, Entities: drivers(1, 2)}))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"results":[` +
		`{"entity":{"driver_id":"1"},"features":[` +
		`{"name":"stats:city","value":"bonn","status":"PRESENT","tier":"online","event_timestamp":"2026-11-21T11:58:30Z","age_seconds":90},` +
		`{"name":"stats:rate","value":0.25,"status":"PRESENT","tier":"online","event_timestamp":"2026-11-21T11:58:30Z","age_seconds":90},` +
		`{"name":"stats:trips","value":1,"status":"PRESENT","tier":"online","event_timestamp":"2026-11-21T11:58:30Z","age_seconds":90}]},` +
		`{"entity":{"driver_id":"2"},"features":[` +
		`{"name":"stats:city","value":"nowhere","status":"UNKNOWN","tier":"default","event_timestamp":null,"age_seconds":null},` +
		`{"name":"stats:rate","value":-1,"status":"UNKNOWN","tier":"default","event_timestamp":null,"age_seconds":null},` +
		`{"name":"stats:trips","value":null,"status":"UNKNOWN","tier":"default","event_timestamp":null,"age_seconds":null}]}],` +
		`"unreachable":["backing"],"outages":[{"tier":"backing","reason":"error"}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.online.set(stats(t, b.project, 1, start.Add(-26*time.Hour), 1, 0.25), stats(t, b.project, 2, start.Add(-90*time.Second), 1, 0.5))
	b.online.mu.Lock()
	for ref, rec := range b.online.values { // keep the old one alive online
		rec.Online = feature.NoTime
		b.online.values[ref] = rec
	}
	b.online.mu.Unlock()
	b.backing.faults(refused, nil)
	var out strings.Builder
	resp := b.read(reader.Request{Features: []string{"stats:rate"}, Entities: drivers(1, 2, 3)})
	if err := resp.WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	const want = "" +
		"ENTITY       FEATURE     VALUE  STATUS           TIER     EVENT TIME            AGE\n" +
		"driver_id=1  stats:rate  0.25   OUTSIDE_MAX_AGE  online   2026-11-20T10:00:00Z  26h0m\n" +
		"driver_id=2  stats:rate  0.5    PRESENT          online   2026-11-21T11:58:30Z  1m30s\n" +
		"driver_id=3  stats:rate  -1     UNKNOWN          default  -                     -\n" +
		"unreachable: backing tier (error)\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// The bound of the TTL is inclusive, a request may be stricter than the view, and what is
// served for an old value is the service's or the request's choice.
func TestMaxAgeAndOnStale(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *reader.Config) { c.StaleDefaults = map[string]bool{"drivers": true} })
	exact, over := start.Add(-time.Hour), start.Add(-time.Hour-time.Microsecond)
	b.backing.set(stats(t, b.project, 1, exact, 1, 0.1), stats(t, b.project, 2, over, 1, 0.2), stats(t, b.project, 3, start.Add(-10*time.Minute), 1, 0.3))
	check := func(onStale reader.OnStale, maxAge time.Duration, statuses [3]feature.Status, values [3]float64) {
		t.Helper()
		resp := b.read(reader.Request{Service: "drivers", Entities: drivers(1, 2, 3), OnStale: onStale, MaxAge: maxAge})
		var dst [3]float32
		for i := range 3 {
			it := resp.Row(i).At(0)
			if it.Status != statuses[i] || it.Value.Float() != values[i] || it.EventTime == feature.NoTime {
				t.Errorf("on stale %d, max age %s, row %d: %+v, want %s %v", onStale, maxAge, i, it, statuses[i], values[i])
			}
			if n := resp.Row(i).Fill(dst[:]); dst[0] != float32(values[i]) || (n == 3) != (it.Status != feature.Present) {
				t.Errorf("row %d filled with %v, %d not present", i, dst, n)
			}
		}
	}
	fresh, old := feature.Present, feature.OutsideMaxAge
	check(reader.StaleValue, 0, [3]feature.Status{fresh, old, fresh}, [3]float64{0.1, 0.2, 0.3})
	check(reader.StaleDefault, 0, [3]feature.Status{fresh, old, fresh}, [3]float64{0.1, -1, 0.3})
	check(reader.StaleAsConfigured, 0, [3]feature.Status{fresh, old, fresh}, [3]float64{0.1, -1, 0.3})
	check(reader.StaleValue, 10*time.Minute, [3]feature.Status{old, old, fresh}, [3]float64{0.1, 0.2, 0.3})
	check(reader.StaleValue, 9*time.Hour, [3]feature.Status{fresh, old, fresh}, [3]float64{0.1, 0.2, 0.3})
}

func TestVector(t *testing.T) { // not parallel: it counts allocations
	b := newBundle(t)
	v := &b.project.Views[0]
	b.online.set(record(t, v, driverKey(1), start, 1, feature.Null, feature.IntValue(1<<53+1), feature.StringValue("x")))
	row := b.get(1).Row(0)
	if f := row.Float64("stats:rate"); f != -1 { // the default, as with fill_defaults
		t.Errorf("a null as number: %v", f)
	}
	if it := row.At(0); it.Status != feature.NullValue || it.Tier != feature.TierOnline {
		t.Errorf("a null: %+v", it)
	}
	if f := row.Float64("stats:trips"); f != 1<<53 {
		t.Errorf("trips %v", f)
	}
	if !math.IsNaN(row.Float64("stats:nothing")) || !math.IsNaN(row.Float64("stats:city")) {
		t.Error("what is no number must be NaN")
	}
	if n, ok := row.Int64("stats:trips"); !ok || n != 1<<53+1 {
		t.Errorf("trips %d, %v", n, ok)
	}
	if s, ok := row.Text("stats:city"); !ok || s != "x" {
		t.Errorf("city %q, %v", s, ok)
	}
	for _, name := range []string{"stats:city", "stats:nothing"} {
		if _, ok := row.Int64(name); ok {
			t.Errorf("%s as an integer", name)
		}
		if _, ok := row.Bool(name); ok {
			t.Errorf("%s as a bool", name)
		}
	}
	if _, ok := row.Text("stats:trips"); ok {
		t.Error("a number as text")
	}
	if it, ok := row.Get("stats:trips"); !ok || it.Value.Int() != 1<<53+1 {
		t.Errorf("trips %v", it.Value.Int())
	}
	dst := make([]float32, 5)
	if n := row.Fill(dst); n != 1 || dst[0] != -1 || dst[1] != 1<<53 || !math.IsNaN(float64(dst[2])) || dst[3] != 0 {
		t.Errorf("filled %v, %d not present", dst, n)
	}
	if allocs := testing.AllocsPerRun(100, func() { row.Fill(dst) }); allocs != 0 {
		t.Errorf("Fill allocates %v times", allocs)
	}
}

// The same view under two aliases and other request names: one lookup per entity and
// alias, one read where both name the same entity.
// "view:feature" finds a feature of another version where no other fits, and none where
// two do. Seen red without the short names of newPlan.
func TestShortNames(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	row := b.read(reader.Request{Features: []string{"stats@2:rate", "stats@2:extra", "zip:rate"}, Entities: []map[string]string{{"driver_id": "1", "area": "a", "zipcode": "1"}}}).Row(0)
	if it, ok := row.Get("stats:extra"); !ok || it.Name != "stats@2:extra" {
		t.Errorf("%+v, %v", it, ok)
	}
	both := b.read(reader.Request{Features: []string{"stats@2:rate", "stats:rate"}, Entities: drivers(1)}).Row(0)
	if it, _ := both.Get("stats:rate"); it.Name != "stats:rate" {
		t.Errorf("the full name lost to a short one: %+v", it)
	}
}

func TestAliases(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.online.set(stats(t, b.project, 1, start, 1, 0.1), stats(t, b.project, 2, start, 1, 0.2))
	id := feature.ViewID{Name: "stats", Version: 1}
	sel, err := b.project.Resolve([]feature.FeatureRef{
		{View: id, Feature: "rate", As: "first", JoinKeys: map[string]string{"driver_id": "driver_1"}},
		{View: id, Feature: "rate", As: "second", JoinKeys: map[string]string{"driver_id": "driver_2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	resp := b.read(reader.Request{Selection: sel, Entities: []map[string]string{{"driver_1": "1", "driver_2": "2"}, {"driver_1": "2", "driver_2": "2"}}})
	want(t, resp.Row(0), "first:rate", feature.Float64Value(0.1), feature.Present, feature.TierOnline, start)
	want(t, resp.Row(0), "second:rate", feature.Float64Value(0.2), feature.Present, feature.TierOnline, start)
	want(t, resp.Row(1), "first:rate", feature.Float64Value(0.2), feature.Present, feature.TierOnline, start)
	want(t, resp.Row(1), "second:rate", feature.Float64Value(0.2), feature.Present, feature.TierOnline, start)
	if calls := b.online.callLog(); len(calls) != 1 || len(calls[0].refs) != 2 {
		t.Errorf("calls %+v, want one of 2 keys", calls)
	}
}

// Requests that cannot be read are errors of the caller, with what would be right.
func TestInvalidRequests(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for name, req := range map[string]struct {
		req  reader.Request
		says string
	}{
		"nothing asked":     {reader.Request{Entities: drivers(1)}, "exactly one"},
		"two things asked":  {reader.Request{Service: "drivers", Features: []string{"stats:rate"}}, "exactly one"},
		"unknown service":   {reader.Request{Service: "riders"}, "drivers, mixed"},
		"unknown view":      {reader.Request{Features: []string{"state:rate"}}, "stats@1, stats@2, zip@1"},
		"unknown feature":   {reader.Request{Features: []string{"stats:rates"}}, "rate, trips, city"},
		"no reference":      {reader.Request{Features: []string{"rate"}}, "view:feature"},
		"missing join key":  {reader.Request{Service: "drivers", Entities: []map[string]string{{"driver_id": "1"}, {"driver": "2"}}}, `entity 1: invalid: join key "driver_id" is missing`},
		"key of wrong type": {reader.Request{Service: "drivers", Entities: []map[string]string{{"driver_id": "one"}}}, `"one" is no int64`},
		"key too long":      {reader.Request{Service: "mixed", Entities: []map[string]string{{"driver_id": "1", "zipcode": "1", "area": strings.Repeat("&", 1000)}}}, "the limit is 2048"},
	} {
		_, err := b.reader.Get(t.Context(), req.req)
		if !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), req.says) {
			t.Errorf("%s: got %v, want an error with %q", name, err, req.says)
		}
	}
	if n := b.online.callCount(); n != 0 {
		t.Errorf("invalid requests made %d calls", n)
	}
	if resp := b.read(reader.Request{Service: "drivers"}); resp.Len() != 0 {
		t.Errorf("no entities gave %d rows", resp.Len())
	}
}

// The reader builds the very keys that the writers build.
func TestKeysAreTheWritersKeys(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	var last feature.Ref
	r, err := reader.New(reader.Config{Project: b.project, Online: b.online, Clock: b.clock, Asked: func(ref feature.Ref) { last = ref }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	zip := &b.project.Views[2]
	for _, code := range []string{"0", "7", "007", "-7", "-0", "+5", "123456789012345678", "1234567890123456789", "9223372036854775807", "00", ""} {
		for _, area := range []string{"", "a b", "ä/ö", "x=y&z", "%41"} {
			entity := map[string]string{"zipcode": code, "area": area}
			want, wantErr := zip.Key(entity)
			_, err := r.Get(t.Context(), reader.Request{Features: []string{"zip:*"}, Entities: []map[string]string{entity}})
			if (err == nil) != (wantErr == nil) {
				t.Errorf("%v: reader says %v, the view %v", entity, err, wantErr)
			} else if err == nil && last.Key != want {
				t.Errorf("%v: key %q, want %q", entity, last.Key, want)
			}
		}
	}
}
