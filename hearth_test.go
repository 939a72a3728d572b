package hearth_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthstore/hearth"
	"github.com/hearthstore/hearth/backing/sqlite"
	"github.com/hearthstore/hearth/feature"
)

const repository = `
project: taxis
entities: [{name: driver, join_keys: [{name: driver_id, type: int64}]}]
feature_views:
  - name: trips
    entities: [driver]
    source: {path: data/trips.parquet, timestamp_field: ts}
    features: [{name: rating, type: float64, default: 3.5}, {name: count, type: int64, default: 0}]
feature_services: [{name: dispatch, features: ["trips:*"]}]
online: {embedded: {}}
backing: {sqlite: {path: store.db}}
reader: {online_timeout: 10s, backing_timeout: 30s, cache: {ttl: 1h}}
`

// makeRepository writes a configuration and, as a materialize would, one driver into its
// backing tier. It returns the path of the configuration.
func makeRepository(ctx context.Context, dir string, at time.Time) (string, error) {
	path := filepath.Join(dir, "hearth.yaml")
	if err := os.WriteFile(path, []byte(repository), 0o600); err != nil {
		return "", err
	}
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "store.db")})
	if err != nil {
		return "", err
	}
	if _, err := store.Apply(ctx); err != nil {
		return "", err
	}
	fields := []feature.Field{{Name: "rating", Type: feature.Float64}, {Name: "count", Type: feature.Int64}}
	features, err := feature.AppendFeatures(nil, fields, []feature.Value{feature.Float64Value(4.75), feature.IntValue(1204)})
	if err != nil {
		return "", err
	}
	h := feature.Header{Fingerprint: feature.Fingerprint(fields), Version: feature.Version{Event: feature.MicrosOf(at), Created: feature.NoTime, Run: 1}}
	rec, err := feature.NewRecord(&feature.View{Name: "trips", Version: 1}, "driver_id=1001", feature.AppendPayload(nil, h, features))
	if err != nil {
		return "", err
	}
	got, err := store.Put(ctx, []feature.Record{rec})
	if err != nil {
		return "", err
	}
	return path, errors.Join(got[0].Err, store.Close())
}

// The whole way of an embedding service: the value comes from the backing tier, is written
// up to the online tier, comes from the cache, and an unknown driver gets the defaults.
func TestOpenAndGet(t *testing.T) {
	defer goleak.VerifyNone(t)
	at := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	path, err := makeRepository(t.Context(), t.TempDir(), at)
	if err != nil {
		t.Fatal(err)
	}
	var called []hearth.Tier
	f, err := hearth.Open(t.Context(), path, hearth.WithObserver(func(tier hearth.Tier, _ int, _ time.Duration, _ error) { called = append(called, tier) }))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	read := func(id string, skip bool) hearth.Item {
		t.Helper()
		resp, err := f.Get(t.Context(), hearth.Request{FeatureService: "dispatch", Entities: []map[string]string{{"driver_id": id}}, SkipCache: skip})
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Unreachable) != 0 {
			t.Errorf("unreachable: %+v", resp.Unreachable)
		}
		it, _ := resp.Row(0).Get("trips:rating")
		return it
	}
	check := func(it hearth.Item, value float64, status hearth.Status, tier hearth.Tier) {
		t.Helper()
		if it.Value.Float() != value || it.Status != status || it.Tier != tier {
			t.Errorf("got %v %s from %s, want %v %s from %s", it.Value.Float(), it.Status, it.Tier, value, status, tier)
		}
	}
	first := read("1001", false)
	check(first, 4.75, hearth.Present, hearth.TierBacking)
	if first.EventTime != feature.MicrosOf(at) {
		t.Errorf("event time %s", first.EventTime)
	}
	check(read("1001", false), 4.75, hearth.Present, hearth.TierCache)
	check(read("7", false), 3.5, hearth.NotFound, hearth.TierDefault)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for f.Stats().Repairs.Written == 0 {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the value was not written up")
		}
	}
	check(read("1001", true), 4.75, hearth.Present, hearth.TierOnline)
	if len(called) == 0 {
		t.Error("the observer heard nothing")
	}
	if _, err := f.Get(t.Context(), hearth.Request{FeatureService: "dispatches"}); !errors.Is(err, hearth.ErrInvalid) || !errors.Is(err, hearth.ErrNotFound) {
		t.Errorf("unknown service: %v", err)
	}
}

// A service starts while its store is not there yet, and says so in each value.
func TestOpenBeforeAnythingExists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hearth.yaml")
	if err := os.WriteFile(path, []byte(repository), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := hearth.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := f.Get(t.Context(), hearth.Request{Features: []string{"trips:rating"}, Entities: []map[string]string{{"driver_id": "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	if it := resp.Row(0).At(0); it.Status != hearth.Unknown || it.Tier != hearth.TierDefault {
		t.Errorf("%+v", it)
	}
	if len(resp.Unreachable) != 1 || resp.Unreachable[0].Tier != hearth.TierBacking {
		t.Errorf("unreachable: %+v", resp.Unreachable)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Get(t.Context(), hearth.Request{FeatureService: "dispatch"}); !errors.Is(err, hearth.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestOpenReportsEveryMistake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hearth.yaml")
	broken := strings.Replace(strings.Replace(repository, "type: float64", "type: float46", 1), "[driver]", "[rider]", 1)
	if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := hearth.Open(t.Context(), path)
	if !errors.Is(err, hearth.ErrInvalid) || !strings.Contains(err.Error(), "float46") || !strings.Contains(err.Error(), "rider") {
		t.Errorf("got %v", err)
	}
}

// The front door never compiles the offline engine: it builds without cgo and reaches no
// package that needs it.
func TestFrontDoorBuildsWithoutCgo(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", ".")
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := list.CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	for pkg := range strings.FieldsSeq(string(out)) {
		switch rest, ours := strings.CutPrefix(pkg, "github.com/hearthstore/hearth/"); {
		case strings.Contains(pkg, "duckdb"):
			t.Errorf("hearth.go reaches %s", pkg)
		case ours && !strings.HasPrefix(rest, "internal/") && rest != "feature" && rest != "reader" && rest != "online" && !strings.HasPrefix(rest, "backing"):
			t.Errorf("hearth.go reaches %s", pkg)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build without cgo: %v\n%s", err, out)
	}
}
