//go:build unix

package backing_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/hearthstore/hearth/backing/sqlite"
	"github.com/hearthstore/hearth/feature"
)

// BenchmarkSQLite is what one process does on the embedded tier, by the wall clock, on a table
// of 100,000 items: calls of 4,096 records in random order, gets of 100 keys, scan pages of
// 1,000. b.N counts items, so that -benchtime 20000x is a bound: seconds, not hours.
func BenchmarkSQLite(b *testing.B) {
	const stored, batch = 100_000, 4096
	s, err := sqlite.Open(b.Context(), sqlite.Config{Path: filepath.Join(b.TempDir(), "b.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	if _, err := s.Apply(b.Context()); err != nil {
		b.Fatal(err)
	}
	// Multiplied by a number without common divisors, the keys come in no order.
	ref := func(i int) feature.Ref {
		return feature.Ref{View: feature.ViewID{Name: "view", Version: 1}, Key: feature.Key(fmt.Sprintf("driver_id=%08d", i*7_654_321%100_000_000))}
	}
	records := func(from, n int, event feature.Micros) []feature.Record {
		recs := make([]feature.Record, n)
		v := feature.Version{Event: event, Created: feature.NoTime, Run: 1}
		for i := range recs {
			recs[i] = feature.Record{Ref: ref(from + i), Version: v, Online: feature.NoTime, Retain: feature.NoTime,
				Payload: feature.AppendPayload(nil, feature.Header{Version: v}, make([]byte, 220-feature.HeaderSize))}
		}
		return recs
	}
	put := func(b *testing.B, recs []feature.Record, want feature.Outcome) {
		for start := 0; start < len(recs); start += batch {
			results, err := s.Put(b.Context(), recs[start:min(start+batch, len(recs))])
			if err != nil {
				b.Fatal(err)
			}
			if results[0].Outcome != want {
				b.Fatalf("outcome %v, want %v (%v)", results[0].Outcome, want, results[0].Err)
			}
		}
	}
	rate := func(b *testing.B) { b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s") }
	put(b, records(0, stored, 1), feature.Written)
	next, event := stored, feature.Micros(1) // a benchmark is called again with a larger b.N
	b.Run("new", func(b *testing.B) {
		recs := records(next, b.N, 1)
		next += b.N
		b.ResetTimer()
		put(b, recs, feature.Written)
		rate(b)
	})
	for _, again := range []bool{false, true} {
		name, want := "update", feature.Written
		if again {
			name, want = "unchanged", feature.Unchanged
		}
		b.Run(name, func(b *testing.B) {
			for left := b.N; left > 0; left -= stored {
				b.StopTimer()
				event++
				recs := records(0, min(left, stored), event)
				if again {
					put(b, recs, feature.Written)
				}
				b.StartTimer()
				put(b, recs, want)
			}
			rate(b)
		})
	}
	b.Run("get100", func(b *testing.B) {
		rng := rand.New(rand.NewPCG(1, 2))
		for left := b.N; left > 0; left -= 100 {
			refs := make([]feature.Ref, min(left, 100))
			for i := range refs {
				refs[i] = ref(rng.IntN(stored))
			}
			if _, err := s.Get(b.Context(), refs); err != nil {
				b.Fatal(err)
			}
		}
		rate(b)
	})
	b.Run("scan", func(b *testing.B) {
		var page feature.ScanPage
		req := feature.ScanRequest{Segments: 1}
		for left := b.N; left > 0; left -= 1000 { // a page; after the last one, the first
			if err := s.Scan(b.Context(), req, &page); err != nil {
				b.Fatal(err)
			}
			req.Cursor = page.Next
		}
		rate(b)
	})
}
