package materializer_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/materializer"
)

// BenchmarkRun measures what the pipeline itself costs per row: encoding, batching and
// counting, between a source and tiers that do nothing. ns/op is per row.
func BenchmarkRun(b *testing.B) {
	batch := make([]feature.Row, 4096)
	features := make([]byte, 187) // with its header a payload of 220 bytes
	for i := range batch {
		batch[i] = feature.Row{Key: feature.Key(fmt.Sprintf("driver_id=%07d", i)), Event: at(5), Created: feature.NoTime, Features: features}
	}
	w := setup(nil)
	m, err := materializer.New(materializer.Config{Source: &repeat{batch: batch, rows: b.N}, Backing: null{}, Online: null{}, State: w.state, Clock: w.clock})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	r, err := m.Run(b.Context(), w.request())
	if err != nil {
		b.Fatal(err)
	}
	if got := r.Views[0].Online.Written; got != int64(b.N) {
		b.Fatalf("%d rows arrived of %d", got, b.N)
	}
}

type repeat struct {
	batch []feature.Row
	rows  int
}

func (s *repeat) Files(context.Context, *feature.View) ([]feature.File, error) {
	return []feature.File{{Path: "a"}}, nil
}

func (s *repeat) Latest(_ context.Context, _ feature.LatestRequest, emit func([]feature.Row) error) (feature.LatestStats, error) {
	for left := s.rows; left > 0; left -= len(s.batch) {
		if err := emit(s.batch[:min(left, len(s.batch))]); err != nil {
			return feature.LatestStats{}, err
		}
	}
	return feature.LatestStats{Emitted: int64(s.rows), Newest: at(5)}, nil
}

// null is a tier that takes everything.
type null struct{ materializer.Backing }

func (null) Put(_ context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	results := make([]feature.PutResult, len(recs))
	for i := range results {
		results[i] = feature.PutResult{Outcome: feature.Written, Stored: recs[i].Version}
	}
	return results, nil
}

func (null) Get(_ context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	results := make([]feature.GetResult, len(refs))
	for i := range results {
		results[i].Payload = []byte{feature.FormatValue}
	}
	return results, nil
}

func (null) MarkWarm(context.Context, uint64) error { return nil }
