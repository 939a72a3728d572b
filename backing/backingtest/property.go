package backingtest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/hearthstore/hearth/feature"
	"pgregory.net/rapid"
)

// reference is the slow, obvious store: what one key holds.
type reference struct {
	version feature.Version
	content string
}

// put is the rule of the store's contract, written on versions and texts and not on bytes.
func (m *reference) put(present bool, v feature.Version, content string) (feature.Outcome, bool) {
	newerTimes := !present || m.version.Event < v.Event || m.version.Event == v.Event && m.version.Created < v.Created
	sameTimes := present && m.version.Event == v.Event && m.version.Created == v.Created
	switch {
	case newerTimes:
		return feature.Written, true
	case sameTimes && (m.content == content || m.version.Run == v.Run):
		return feature.Unchanged, false
	case sameTimes && m.version.Run < v.Run:
		return feature.Written, true
	}
	return feature.Older, false
}

// I4 and I7 against a map, for random batches on few keys, so that every pair of versions
// meets. Seen red with each of the three parts of the condition changed.
func testPutAgainstReference(t *testing.T, s *suite) {
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		model := map[feature.Ref]*reference{}
		for range rapid.IntRange(1, 6).Draw(rt, "calls") {
			n := rapid.IntRange(1, 30).Draw(rt, "records")
			recs := make([]feature.Record, 0, n)
			contents := make([]string, 0, n)
			used := map[string]bool{}
			for range n {
				key := fmt.Sprintf("%d-%d", round, rapid.IntRange(0, 40).Draw(rt, "key"))
				if used[key] {
					continue // duplicates have a case of their own
				}
				used[key] = true
				v := version(rapid.Int64Range(1, 3).Draw(rt, "event"), rapid.Int64Range(0, 2).Draw(rt, "created"), rapid.Uint64Range(1, 4).Draw(rt, "run"))
				content := rapid.SampledFrom([]string{"a", "b", tombstone}).Draw(rt, "content")
				rec := s.record(key, v, content)
				if rapid.Bool().Draw(rt, "expires") {
					rec.Retain = feature.Micros(4e15 + rapid.Int64Range(0, 9).Draw(rt, "retain")*1e6)
				}
				recs, contents = append(recs, rec), append(contents, content)
			}
			results, err := s.Put(t.Context(), recs)
			if err != nil {
				rt.Fatalf("put: %v", err)
			}
			for i, rec := range recs {
				m, present := model[rec.Ref]
				if !present {
					m = &reference{}
				}
				want, write := m.put(present, rec.Version, contents[i])
				if write {
					*m = reference{version: rec.Version, content: contents[i]}
					model[rec.Ref] = m
				}
				if got := results[i]; got.Outcome != want || got.Stored != m.version || got.Err != nil {
					rt.Fatalf("put %s at %s %q: %s, stored %s, %v; want %s, stored %s", rec.Ref, rec.Version, contents[i], got.Outcome, got.Stored, got.Err, want, m.version)
				}
			}
		}
		refs := make([]feature.Ref, 0, len(model))
		for ref := range model {
			refs = append(refs, ref)
		}
		got, err := s.Get(t.Context(), refs)
		if err != nil {
			rt.Fatalf("get: %v", err)
		}
		for i, ref := range refs {
			want := newRecord(ref, model[ref].version, model[ref].content)
			if string(got[i].Payload) != string(want.Payload) {
				rt.Fatalf("get %s: %s, want %s", ref, describe(got[i].Payload), describe(want.Payload))
			}
		}
	})
}

// I4 under concurrency: writers send overlapping, shuffled batches of different versions
// of the same keys; a watcher never sees a version go down, and at the end every key has
// the largest version that any writer sent. Seen red with the condition left out of UPDATE.
func testPutInterleaved(t *testing.T, s *suite) {
	const keys, writers, rounds = 60, 6, 8
	newest := make([]feature.Version, keys)
	batches := make([][]feature.Record, 0, writers*rounds)
	rng := rand.New(rand.NewPCG(1, 2))
	for b := range writers * rounds {
		var batch []feature.Record
		for _, k := range rng.Perm(keys) {
			v := version(rng.Int64N(20), rng.Int64N(3), uint64(b+1)) // one run per batch: all versions differ
			if newest[k].IsZero() || newest[k].Compare(v) < 0 {
				newest[k] = v
			}
			batch = append(batch, s.record(fmt.Sprint(k), v, fmt.Sprintf("run %d", b+1)))
		}
		batches = append(batches, batch)
	}
	refs := make([]feature.Ref, keys)
	for k := range refs {
		refs[k] = s.ref(fmt.Sprint(k))
	}
	done := make(chan struct{})
	var watcher, group sync.WaitGroup
	watcher.Go(func() {
		seen := make([]feature.Version, keys)
		for {
			results, err := s.Get(t.Context(), refs)
			if err != nil {
				t.Errorf("get: %v", err)
				return
			}
			for k, r := range results {
				if r.Err != nil {
					t.Errorf("get: %v", r.Err)
					return
				}
				if r.Payload == nil {
					if !seen[k].IsZero() {
						t.Errorf("key %d vanished", k)
					}
					continue
				}
				h, _, err := feature.ParsePayload(r.Payload)
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				if !seen[k].IsZero() && h.Version.Compare(seen[k]) < 0 {
					t.Errorf("key %d went from %s back to %s", k, seen[k], h.Version)
				}
				seen[k] = h.Version
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for w := range writers {
		group.Go(func() {
			for i := range rounds {
				results, err := s.Put(t.Context(), batches[w*rounds+i])
				if err != nil {
					t.Errorf("put: %v", err)
					return
				}
				for _, r := range results {
					if r.Err != nil {
						t.Errorf("put: %v", r.Err)
						return
					}
				}
			}
		})
	}
	group.Wait()
	close(done)
	watcher.Wait()
	for k, ref := range refs {
		h, _, err := feature.ParsePayload(s.stored(ref))
		if err != nil {
			t.Fatalf("key %d: %v", k, err)
		}
		if h.Version != newest[k] {
			t.Errorf("key %d ended at %s, the newest sent is %s", k, h.Version, newest[k])
		}
	}
}
