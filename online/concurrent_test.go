package online

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/testservers"
)

// TestInterleaved lets several stores, as several processes would, write the same keys in
// random order with duplicates and tombstones, while readers watch: no reader ever sees a
// key's version go down, and in the end each key holds its greatest version (I4). Seen red
// with scripts that compare the event time alone.
func TestInterleaved(t *testing.T) {
	t.Parallel()
	single, cluster := testservers.SharedRedis(t), testservers.SharedCluster(t)
	for _, layout := range []string{LayoutBlob, LayoutHash} {
		for name, cfg := range map[string]Config{
			"embedded": {Embedded: true}, "single": {Addrs: []string{single}}, "cluster": {Addrs: cluster, Cluster: true},
		} {
			t.Run(name+"/"+layout, func(t *testing.T) {
				t.Parallel()
				cfg.Project, cfg.Layout, cfg.Views = project(t), layout, []*feature.View{testView}
				cfg.PipelineSize, cfg.ScriptKeys = 20, 4
				interleave(t, cfg)
			})
		}
	}
}

func interleave(t *testing.T, cfg Config) {
	const keys, versions, writers = 40, 30, 4
	var all []feature.Record
	want := make([]feature.Record, keys)
	for k := range keys {
		for v := range versions {
			version := feature.Version{Event: feature.Micros(1 + v/3), Created: feature.Micros(v % 3), Run: uint64(v)}
			rec := record(t, key(k), version, int64(v))
			if v%7 == 6 {
				rec = tombstone(t, key(k), version)
			}
			all = append(all, rec, rec)
			want[k] = rec
		}
	}
	first := mustOpen(t, cfg)
	stores := []*Store{first}
	for range writers - 1 {
		if cfg.Embedded { // there is only one such server
			stores = append(stores, first)
			continue
		}
		stores = append(stores, mustOpen(t, cfg))
	}
	var writing, reading sync.WaitGroup
	stop := make(chan struct{})
	for w, s := range stores {
		writing.Go(func() {
			mine := append([]feature.Record(nil), all...)
			rand.New(rand.NewPCG(uint64(w), 9)).Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			for len(mine) > 0 {
				n := min(len(mine), 70)
				results, err := s.Put(t.Context(), mine[:n])
				if err == nil {
					err = firstErr(results)
				}
				if err != nil {
					t.Error(err)
					return
				}
				mine = mine[n:]
			}
		})
	}
	asked := make([]feature.Ref, keys)
	for k := range keys {
		asked[k] = want[k].Ref
	}
	for range 2 {
		reading.Go(func() {
			seen := make([]feature.Version, keys)
			for {
				if err := neverBack(first, t, asked, seen); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	for _, rec := range want {
		wantStored(t, first, rec)
	}
}

// neverBack reads all refs once and compares with the versions seen before.
func neverBack(s *Store, t *testing.T, asked []feature.Ref, seen []feature.Version) error {
	got, err := s.Get(t.Context(), asked)
	if err != nil {
		return err
	}
	for i, r := range got {
		if r.Err != nil {
			return r.Err
		}
		if r.Payload == nil {
			if seen[i] != (feature.Version{}) {
				return errors.New("a stored key vanished")
			}
			continue
		}
		h, _, err := feature.ParsePayload(r.Payload)
		if err != nil {
			return err
		}
		if h.Version.Compare(seen[i]) < 0 && seen[i] != (feature.Version{}) {
			return fmt.Errorf("%s went from %v back to %v", asked[i], seen[i], h.Version)
		}
		seen[i] = h.Version
	}
	return nil
}
