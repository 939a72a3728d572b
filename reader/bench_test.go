package reader_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
)

// wide is a reader over one view of n float features, with every entity in its cache.
func wide(t testing.TB, entities, features int) (*reader.Reader, reader.Request) {
	t.Helper()
	v := feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "id", Type: feature.Int64}}}
	values := make([]feature.Value, features)
	for i := range features {
		v.Features = append(v.Features, feature.Feature{Field: feature.Field{Name: fmt.Sprint("f", i), Type: feature.Float64}})
		values[i] = feature.Float64Value(float64(i))
	}
	ref, err := feature.ParseFeatureRef("v:*")
	if err != nil {
		t.Fatal(err)
	}
	p := &feature.Project{Name: "wide", Views: []feature.View{v}, Services: []feature.Service{{Name: "all", Features: []feature.FeatureRef{ref}}}}
	req := reader.Request{Service: "all"}
	b := newBundle(t, func(c *reader.Config) { c.Project = p; c.Cache.TTL, c.Clock = 24*time.Hour, clock.System })
	for id := range entities {
		b.online.set(record(t, &p.Views[0], feature.Key(fmt.Sprintf("id=%d", id)), start, 1, values...))
		req.Entities = append(req.Entities, map[string]string{"id": fmt.Sprint(id)})
	}
	b.read(req)
	return b.reader, req
}

// readCached reads and fills the model's input.
func readCached(t testing.TB, r *reader.Reader, req reader.Request, dst []float32) {
	resp, err := r.Get(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for i := range resp.Len() {
		if missing := resp.Row(i).Fill(dst); missing != 0 {
			t.Fatalf("%d features are missing", missing)
		}
	}
}

// A cached read allocates nothing per feature: the same for 5 features as for 200, and at
// most the key per entity. Seen red with Fill copying the bytes that it decodes.
func TestCachedReadAllocatesNothingPerFeature(t *testing.T) { // not parallel: it counts allocations
	count := func(entities, features int) float64 {
		r, req := wide(t, entities, features)
		dst := make([]float32, features)
		return testing.AllocsPerRun(50, func() { readCached(t, r, req, dst) })
	}
	few, many := count(100, 5), count(100, 200)
	if many > few {
		t.Errorf("%.1f allocations for 5 features, %.1f for 200", few, many)
	}
	if few > 104 {
		t.Errorf("%.1f allocations for 100 entities, want one each and a handful", few)
	}
}

func BenchmarkCached(b *testing.B) {
	for _, entities := range []int{1, 100} {
		b.Run(fmt.Sprintf("%dx50", entities), func(b *testing.B) {
			r, req := wide(b, entities, 50)
			dst := make([]float32, 50)
			b.ReportAllocs()
			for b.Loop() {
				readCached(b, r, req, dst)
			}
			b.ReportMetric(float64(b.N*entities)/b.Elapsed().Seconds(), "entities/s")
		})
	}
}
