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

// BenchmarkSQLite is what one process does on the embedded tier, by the wall clock: calls of
// 4,096 records in random order, gets of 100 keys, scan pages of 1,000.
func BenchmarkSQLite(b *testing.B) {
	const n, batch = 100_000, 4096
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
	rng := rand.New(rand.NewPCG(1, 2))
	records := func(event feature.Micros) []feature.Record {
		recs := make([]feature.Record, n)
		v := feature.Version{Event: event, Created: feature.NoTime, Run: 1}
		for i, k := range rng.Perm(n) {
			recs[i] = feature.Record{Ref: feature.Ref{View: feature.ViewID{Name: "view", Version: 1}, Key: feature.Key(fmt.Sprintf("driver_id=%07d", k))},
				Version: v, Payload: feature.AppendPayload(nil, feature.Header{Version: v}, make([]byte, 220-feature.HeaderSize)), Online: feature.NoTime, Retain: feature.NoTime}
		}
		return recs
	}
	rate := func(b *testing.B, items int) {
		b.ReportMetric(float64(items)*float64(b.N)/b.Elapsed().Seconds(), "items/s")
	}
	for i, name := range []string{"new", "update", "unchanged"} {
		recs := records(feature.Micros(1 + i - i/2))
		b.Run(name, func(b *testing.B) {
			for range b.N {
				for start := 0; start < n; start += batch {
					if _, err := s.Put(b.Context(), recs[start:min(start+batch, n)]); err != nil {
						b.Fatal(err)
					}
				}
			}
			rate(b, n)
		})
	}
	b.Run("get100", func(b *testing.B) {
		refs := make([]feature.Ref, 100)
		for range b.N {
			for i := range refs {
				refs[i] = feature.Ref{View: feature.ViewID{Name: "view", Version: 1}, Key: feature.Key(fmt.Sprintf("driver_id=%07d", rng.IntN(n)))}
			}
			if _, err := s.Get(b.Context(), refs); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, 100)
	})
	b.Run("scan", func(b *testing.B) {
		var page feature.ScanPage
		for range b.N {
			req := feature.ScanRequest{Segments: 1}
			for {
				if err := s.Scan(b.Context(), req, &page); err != nil {
					b.Fatal(err)
				}
				if req.Cursor = page.Next; req.Cursor == nil {
					break
				}
			}
		}
		rate(b, n)
	})
}
