package backingtest

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
)

// The retain instant travels with the value, is rounded up to a second, and goes when a
// newer value has none. Seen red with UPDATE not naming x.
func testRetain(t *testing.T, s *suite) {
	retained := func() feature.Micros {
		t.Helper()
		got := s.scanAll(feature.ScanRequest{Segments: 1, Views: []feature.ViewID{s.view()}})
		rec, ok := got[s.ref("a")]
		if !ok {
			t.Fatal("the scan did not return the value")
		}
		return rec.Retain
	}
	rec := s.record("a", version(1, 0, 1), "one")
	rec.Retain = 4_000_000_000_000_001 // far away, or the store may delete it
	s.put(rec)
	if got := retained(); got != 4_000_000_001_000_000 {
		t.Errorf("retain %d, want it rounded up to the next second", got)
	}
	rec = s.record("a", version(2, 0, 1), "two")
	rec.Retain = 4_100_000_000_000_000
	s.put(rec)
	if got := retained(); got != rec.Retain {
		t.Errorf("retain of the newer value is %d, want %d", got, rec.Retain)
	}
	s.put(s.record("a", version(3, 0, 1), "three"))
	if got := retained(); got != feature.NoTime {
		t.Errorf("retain of a value that has none is %d", got)
	}
}

func testGet(t *testing.T, s *suite) {
	const n = 300
	recs := make([]feature.Record, n)
	for i := range recs {
		recs[i] = s.record(fmt.Sprint(i), version(1, 0, 1), fmt.Sprintf("value %d", i))
	}
	s.put(recs...)
	var (
		refs []feature.Ref
		want [][]byte
	)
	for i := range n { // found, absent and repeated, mixed
		refs = append(refs, recs[i].Ref, s.ref(fmt.Sprintf("absent %d", i)), recs[(i*7)%n].Ref)
		want = append(want, recs[i].Payload, nil, recs[(i*7)%n].Payload)
	}
	refs = append(refs, feature.Ref{View: feature.ViewID{Name: s.view().Name, Version: 2}, Key: recs[0].Key}) // another version of the view
	want = append(want, nil)
	results, err := s.Get(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil || !bytes.Equal(r.Payload, want[i]) {
			t.Fatalf("get %s: %s, %v; want %s", refs[i], describe(r.Payload), r.Err, describe(want[i]))
		}
	}
	if results, err := s.Get(t.Context(), nil); err != nil || len(results) != 0 {
		t.Errorf("get of nothing: %v, %v", results, err)
	}
}

// Keys are percent-encoded, so whatever a join key holds, the stored key is plain.
func testWeirdKeys(t *testing.T, s *suite) {
	values := []string{"", " ", "a=b&c", "%41", "{x}", "ключ", "日本", "\x00\x01", `"'; DROP TABLE items`, "a/b?c#d", strings.Repeat("%", 300), "🔥", "\u202e", "?"}
	recs := make([]feature.Record, len(values))
	for i, v := range values {
		key, err := feature.NewKey(feature.KeyPart{Name: "name with space", Value: v}, feature.KeyPart{Name: "b", Value: v})
		if err != nil {
			t.Fatal(err)
		}
		if v == "?" {
			key = feature.Key("id=" + strings.Repeat("k", backing.MaxKeyBytes-3)) // the longest there is
		}
		recs[i] = newRecord(feature.Ref{View: s.view(), Key: key}, version(1, 0, 1), v)
	}
	s.put(recs...)
	s.put(recs...)
	for _, rec := range recs {
		s.wantStored(rec)
	}
	got := s.scanAll(feature.ScanRequest{Segments: 3, Views: []feature.ViewID{s.view()}, Limit: 700})
	if len(got) != len(recs) {
		t.Errorf("scan returned %d of %d", len(got), len(recs))
	}
	for _, rec := range recs {
		if !bytes.Equal(got[rec.Ref].Payload, rec.Payload) || got[rec.Ref].Version != rec.Version {
			t.Errorf("scan of %q: %s", rec.Key, describe(got[rec.Ref].Payload))
		}
	}
}

func testDelete(t *testing.T, s *suite) {
	const n = 120
	recs := make([]feature.Record, n)
	var refs []feature.Ref
	for i := range recs {
		recs[i] = s.record(fmt.Sprint(i), version(9, 0, 1), "x")
		if i < 70 {
			refs = append(refs, recs[i].Ref)
		}
	}
	s.put(recs...)
	refs = append(refs, s.ref("absent"), refs[3])
	results, err := s.Delete(t.Context(), refs)
	if err != nil || len(results) != len(refs) {
		t.Fatalf("delete: %d results, %v", len(results), err)
	}
	for i, err := range results {
		if err != nil {
			t.Errorf("delete %s: %v", refs[i], err)
		}
	}
	for i, rec := range recs {
		if got := s.stored(rec.Ref); (got == nil) != (i < 70) {
			t.Fatalf("record %d after the deletion: %s", i, describe(got))
		}
	}
	old := s.record("3", version(1, 0, 1), "old") // deletion forgets the version
	s.wantPut(old, feature.Written, old.Version)
}

func (s *suite) fill(view feature.ViewID, n int) map[feature.Ref]feature.Record {
	s.t.Helper()
	all := map[feature.Ref]feature.Record{}
	recs := make([]feature.Record, n)
	for i := range recs {
		recs[i] = newRecord(feature.Ref{View: view, Key: feature.Key(fmt.Sprintf("id=%d", i))}, version(int64(i+1), 0, 1), fmt.Sprintf("%s %d", view, i))
		all[recs[i].Ref] = recs[i]
	}
	s.put(recs...)
	return all
}

// Every value exactly once over any number of segments, whatever the page size, resumed at
// every cursor. Seen red with the last record of a page dropped.
func testScan(t *testing.T, s *suite) {
	one, two := s.view(), feature.ViewID{Name: s.view().Name, Version: 2}
	want := s.fill(one, 700)
	other := s.fill(two, 50)
	for _, c := range []struct {
		segments, limit int
		views           []feature.ViewID
	}{
		{1, 0, []feature.ViewID{one}},
		{3, 37, []feature.ViewID{one}},
		{8, 1000, []feature.ViewID{one}},
		{5, 100, []feature.ViewID{one, two}},
		{4, 211, nil},
	} {
		counts := map[feature.Ref]int{}
		var page feature.ScanPage
		for segment := range c.segments {
			req := feature.ScanRequest{Segment: segment, Segments: c.segments, Limit: c.limit, Views: c.views}
			s.scanSegment(t.Context(), req, &page, func(r feature.Record) {
				counts[r.Ref]++
				rec, ok := want[r.Ref]
				if !ok {
					rec, ok = other[r.Ref]
				}
				if ok && (!bytes.Equal(r.Payload, rec.Payload) || r.Version != rec.Version || r.Online != feature.NoTime || r.Retain != feature.NoTime) {
					t.Errorf("%+v: %s: %s, want %s", c, r.Ref, describe(r.Payload), describe(rec.Payload))
				}
				if !ok && c.views != nil {
					t.Errorf("%+v: returned %s, which was not asked for", c, r.Ref)
				}
				if len(c.views) == 1 && r.View != one {
					t.Errorf("%+v: returned view %s", c, r.View)
				}
			})
		}
		for ref := range want {
			if counts[ref] != 1 {
				t.Fatalf("%+v: %s returned %d times", c, ref, counts[ref])
			}
		}
	}
	var page feature.ScanPage
	for _, bad := range []feature.ScanRequest{{}, {Segment: 2, Segments: 2}, {Segment: -1, Segments: 1}, {Segments: 1, Cursor: []byte("?")}} {
		if err := s.Store.Scan(t.Context(), bad, &page); err == nil {
			t.Errorf("scan of %+v: no error", bad)
		}
	}
}

// What is there throughout is returned, whatever is written meanwhile.
func testScanWhileWriting(t *testing.T, s *suite) {
	want := s.fill(s.view(), 600)
	var writer sync.WaitGroup
	stop := make(chan struct{})
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			recs := make([]feature.Record, 25)
			for j := range recs {
				recs[j] = s.record(fmt.Sprintf("new %d %d", i, j), version(1, 0, 1), "new")
			}
			if _, err := s.Put(t.Context(), recs); err != nil {
				t.Errorf("put: %v", err)
				return
			}
		}
	})
	got := s.scanAll(feature.ScanRequest{Segments: 4, Limit: 50, Views: []feature.ViewID{s.view()}})
	close(stop)
	writer.Wait()
	for ref, rec := range want {
		if !bytes.Equal(got[ref].Payload, rec.Payload) {
			t.Errorf("%s: %s", ref, describe(got[ref].Payload))
		}
	}
}

// The store is set up already: nothing is left to do, and doing it again changes nothing.
func testApply(t *testing.T, s *suite) {
	rec := s.record("a", version(1, 0, 1), "one")
	s.put(rec)
	for range 2 {
		plan, err := s.Plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range plan {
			if a.Change != backing.ChangeNone && a.Change != backing.ChangeUnsupported {
				t.Errorf("plan of a store that is set up: %s", a)
			}
		}
		done, err := s.Apply(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(plan) != fmt.Sprint(done) {
			t.Errorf("planned %v, did %v", plan, done)
		}
	}
	s.wantStored(rec)
	d, err := s.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !d.Reachable || !d.Applied || d.Name == "" || d.Kind == "" || d.Items < 1 {
		t.Errorf("describe: %+v", d)
	}
}
