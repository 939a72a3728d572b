// Package backingtest is the conformance suite of the backing tier: what every
// backing.Store has to do, whatever it stores in.
package backingtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
)

// Run checks one implementation. open returns a store that is set up and that the suite may
// fill; it is called once, and the cases use views and kinds of their own. The store is
// closed by who opened it.
func Run(t *testing.T, open func(t *testing.T) backing.Store) {
	store := open(t)
	cases := []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"PutOutcomes", testPutOutcomes},
		{"PutAgainstReference", testPutAgainstReference},
		{"PutInterleaved", testPutInterleaved},
		{"PutDuplicates", testPutDuplicates},
		{"PutInvalid", testPutInvalid},
		{"PutThousands", testPutThousands},
		{"BigValues", testBigValues},
		{"Retain", testRetain},
		{"Get", testGet},
		{"WeirdKeys", testWeirdKeys},
		{"Delete", testDelete},
		{"Scan", testScan},
		{"ScanWhileWriting", testScanWhileWriting},
		{"Apply", testApply},
		{"StateCompareAndSet", testStateCAS},
		{"StateList", testStateList},
		{"NextRun", testNextRun},
		{"Ledger", testLedger},
		{"ClaimDue", testClaimDue},
		{"Leases", testLeases},
		{"LeaseContention", testLeaseContention},
		{"ViewsOf", testViewsOf},
		{"Erasures", testErasures},
		{"ScrubRuns", testScrubRuns},
		{"FileSets", testFileSets},
		{"FileSetReadersSeeWholeSets", testFileSetsWhole},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, &suite{Store: store, t: t, id: fmt.Sprintf("c%d", serial.Add(1))})
		})
	}
}

// serial gives every case names of its own within the process, so that cases may share a
// table.
var serial atomic.Int64

// suite is what a case works with.
type suite struct {
	backing.Store
	t  *testing.T
	id string
}

func (s *suite) view() feature.ViewID { return feature.ViewID{Name: "view_" + s.id, Version: 1} }

func (s *suite) ref(key string) feature.Ref {
	k, err := feature.NewKey(feature.KeyPart{Name: "id", Value: key})
	if err != nil {
		s.t.Fatal(err)
	}
	return feature.Ref{View: s.view(), Key: k}
}

// record makes a value of a few bytes.
func (s *suite) record(key string, v feature.Version, content string) feature.Record {
	return newRecord(s.ref(key), v, content)
}

const tombstone = "(deleted)"

func newRecord(ref feature.Ref, v feature.Version, content string) feature.Record {
	h := feature.Header{Fingerprint: 7, Version: v, Tombstone: content == tombstone}
	var features []byte
	if !h.Tombstone {
		features = feature.AppendValue(feature.AppendArrayHeader(nil, 1), feature.StringValue(content))
	}
	return feature.Record{Ref: ref, Version: v, Payload: feature.AppendPayload(nil, h, features), Online: feature.NoTime, Retain: feature.NoTime}
}

func version(event, created int64, run uint64) feature.Version {
	v := feature.Version{Event: feature.Micros(event), Created: feature.NoTime, Run: run}
	if created != 0 {
		v.Created = feature.Micros(created)
	}
	return v
}

// put stores and fails the test on an error or a failed record.
func (s *suite) put(recs ...feature.Record) []feature.PutResult {
	s.t.Helper()
	results, err := s.Put(s.t.Context(), recs)
	if err != nil {
		s.t.Fatalf("put: %v", err)
	}
	if len(results) != len(recs) {
		s.t.Fatalf("put: %d results for %d records", len(results), len(recs))
	}
	for i, r := range results {
		if r.Outcome == feature.Failed || r.Err != nil {
			s.t.Fatalf("put %s: %s, %v", recs[i].Ref, r.Outcome, r.Err)
		}
	}
	return results
}

// stored reads one value.
func (s *suite) stored(ref feature.Ref) []byte {
	s.t.Helper()
	results, err := s.Get(s.t.Context(), []feature.Ref{ref})
	if err != nil {
		s.t.Fatalf("get: %v", err)
	}
	if results[0].Err != nil {
		s.t.Fatal(results[0].Err)
	}
	return results[0].Payload
}

func (s *suite) wantStored(rec feature.Record) {
	s.t.Helper()
	if got := s.stored(rec.Ref); !bytes.Equal(got, rec.Payload) {
		s.t.Errorf("stored %s is %s, want %s", rec.Ref, describe(got), describe(rec.Payload))
	}
}

func (s *suite) wantPut(rec feature.Record, outcome feature.Outcome, stored feature.Version) {
	s.t.Helper()
	got := s.put(rec)[0]
	if got.Outcome != outcome || got.Stored != stored {
		s.t.Errorf("put %s at %s: %s, stored %s; want %s, stored %s", rec.Ref, rec.Version, got.Outcome, got.Stored, outcome, stored)
	}
}

func describe(payload []byte) string {
	if payload == nil {
		return "absent"
	}
	h, rest, err := feature.ParsePayload(payload)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %q tombstone=%v", h.Version, rest, h.Tombstone)
}

// I4 and the outcomes, one by one. Seen red: with `r <` for the floor condition
// (equal content rewritten), without the hash condition (corrections refused), and with the
// condition left out (older rows win).
func testPutOutcomes(t *testing.T, s *suite) {
	first := s.record("a", version(100, 50, 3), "one")
	s.wantPut(first, feature.Written, first.Version)
	s.wantPut(first, feature.Unchanged, first.Version) // again, as after a lost answer

	sameContentLaterRun := s.record("a", version(100, 50, 9), "one")
	s.wantPut(sameContentLaterRun, feature.Unchanged, first.Version)
	s.wantStored(first)
	sameContentEarlierRun := s.record("a", version(100, 50, 1), "one")
	s.wantPut(sameContentEarlierRun, feature.Unchanged, first.Version)

	staleRun := s.record("a", version(100, 50, 2), "stale")
	s.wantPut(staleRun, feature.Older, first.Version)
	correction := s.record("a", version(100, 50, 4), "two")
	s.wantPut(correction, feature.Written, correction.Version)
	s.wantStored(correction)
	s.wantPut(first, feature.Older, correction.Version)

	earlierCreated := s.record("a", version(100, 49, 99), "x")
	s.wantPut(earlierCreated, feature.Older, correction.Version)
	noCreated := s.record("a", version(100, 0, 99), "x")
	s.wantPut(noCreated, feature.Older, correction.Version)
	laterCreated := s.record("a", version(100, 51, 1), "two")
	s.wantPut(laterCreated, feature.Written, laterCreated.Version) // same content, newer times

	gone := s.record("a", version(101, 0, 1), tombstone)
	s.wantPut(gone, feature.Written, gone.Version)
	s.wantStored(gone)
	s.wantPut(laterCreated, feature.Older, gone.Version) // cannot bring the key back
	back := s.record("a", version(102, 0, 1), "back")
	s.wantPut(back, feature.Written, back.Version)
	s.wantStored(back)

	early := s.record("b", version(-5, -7, 1), "before 1970")
	s.wantPut(early, feature.Written, early.Version)
	s.wantPut(s.record("b", version(-6, 0, 1), "x"), feature.Older, early.Version)
	later := s.record("b", version(3, 0, 1<<63+5), "large run")
	s.wantPut(later, feature.Written, later.Version)
	s.wantPut(s.record("b", version(3, 0, 7), "x"), feature.Older, later.Version)
}

func testPutDuplicates(t *testing.T, s *suite) {
	v1, v2, v3 := version(1, 0, 1), version(2, 0, 1), version(2, 0, 2)
	results := s.put(s.record("a", v1, "one"), s.record("b", v1, "b"), s.record("a", v3, "three"), s.record("a", v3, "three"), s.record("a", v2, "three"), s.record("a", v2, "two"))
	want := []feature.PutResult{
		{Outcome: feature.Older, Stored: v3}, {Outcome: feature.Written, Stored: v1}, {Outcome: feature.Written, Stored: v3},
		{Outcome: feature.Unchanged, Stored: v3}, {Outcome: feature.Unchanged, Stored: v3}, {Outcome: feature.Older, Stored: v3},
	}
	for i := range want {
		if results[i] != want[i] {
			t.Errorf("record %d: %v, want %v", i, results[i], want[i])
		}
	}
	s.wantStored(s.record("a", v3, "three"))
	// Against something newer in the store, all of them are older.
	v9 := version(9, 0, 1)
	s.put(s.record("c", v9, "nine"))
	for i, r := range s.put(s.record("c", v1, "one"), s.record("c", v3, "three")) {
		if r.Outcome != feature.Older || r.Stored != v9 {
			t.Errorf("record %d against a newer one: %v", i, r)
		}
	}
	if results, err := s.Put(t.Context(), nil); err != nil || len(results) != 0 {
		t.Errorf("put of nothing: %v, %v", results, err)
	}
}

// One bad record does not spoil the others.
func testPutInvalid(t *testing.T, s *suite) {
	good := s.record("good", version(1, 0, 1), "good")
	longKey := s.record("x", version(1, 0, 1), "x")
	longKey.Key = feature.Key("id=" + strings.Repeat("k", backing.MaxKeyBytes))
	noKey := s.record("x", version(1, 0, 1), "x")
	noKey.Key = ""
	tooBig := s.record("big", version(1, 0, 1), strings.Repeat("v", backing.MaxItemBytes))
	otherVersion := s.record("other", version(1, 0, 1), "x")
	otherVersion.Version.Run = 2
	noValue := s.record("none", version(1, 0, 1), "x")
	noValue.Payload = nil
	noView := s.record("noview", version(1, 0, 1), "x")
	noView.View.Version = 0
	recs := []feature.Record{longKey, good, noKey, tooBig, otherVersion, noValue, noView}
	results, err := s.Put(t.Context(), recs)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if i == 1 {
			if r.Outcome != feature.Written {
				t.Errorf("the good record: %v", r)
			}
			continue
		}
		if r.Outcome != feature.Failed || !errors.Is(r.Err, feature.ErrInvalid) && !errors.Is(r.Err, feature.ErrCorrupt) {
			t.Errorf("record %d: %s, %v; want failed as invalid", i, r.Outcome, r.Err)
		}
	}
	if msg := results[3].Err.Error(); !strings.Contains(msg, "409600") || strings.Contains(msg, "vvvv") {
		t.Errorf("too big: %s", msg)
	}
	s.wantStored(good)
}

func testPutThousands(t *testing.T, s *suite) {
	const n = 1200
	recs := make([]feature.Record, n)
	for i := range recs {
		recs[i] = s.record(fmt.Sprint(i), version(int64(i+1), 0, 1), fmt.Sprintf("value %d", i))
	}
	count := func(want feature.Outcome, results []feature.PutResult) {
		t.Helper()
		for i, r := range results {
			if r.Outcome != want {
				t.Fatalf("record %d: %s, want %s", i, r.Outcome, want)
			}
		}
	}
	count(feature.Written, s.put(recs...))
	count(feature.Unchanged, s.put(recs...))
	for i := range recs {
		recs[i] = s.record(fmt.Sprint(i), version(int64(i+2), 0, 2), fmt.Sprintf("newer %d", i))
	}
	count(feature.Written, s.put(recs...))
	count(feature.Unchanged, s.put(recs...))
	// Half new, half present.
	for i := range recs {
		recs[i] = s.record(fmt.Sprint(i+n/2), version(int64(i+n+2), 0, 3), fmt.Sprintf("third %d", i))
	}
	count(feature.Written, s.put(recs...))
	for _, i := range []int{0, 1, n / 2, n - 1} {
		s.wantStored(recs[i])
	}
}

func testBigValues(t *testing.T, s *suite) {
	recs := make([]feature.Record, 45) // 17 MB: more than one BatchGetItem may return
	refs := make([]feature.Ref, len(recs))
	for i := range recs {
		recs[i] = s.record(fmt.Sprint(i), version(1, 0, 1), strings.Repeat(string(rune('a'+i%26)), 390<<10))
		refs[i] = recs[i].Ref
	}
	s.put(recs...)
	for i := range recs { // refused updates return what is stored
		recs[i] = s.record(fmt.Sprint(i), version(1, 0, 2), strings.Repeat(string(rune('A'+i%26)), 390<<10))
	}
	s.put(recs...)
	for i, r := range s.put(recs...) {
		if r.Outcome != feature.Unchanged {
			t.Errorf("record %d: %v", i, r)
		}
	}
	results, err := s.Get(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil || !bytes.Equal(r.Payload, recs[i].Payload) {
			t.Errorf("get %s: %d bytes, %v", refs[i], len(r.Payload), r.Err)
		}
	}
	got := s.scanAll(feature.ScanRequest{Segments: 2, Views: []feature.ViewID{s.view()}})
	for _, rec := range recs {
		if !bytes.Equal(got[rec.Ref].Payload, rec.Payload) {
			t.Errorf("scan %s: %d bytes", rec.Ref, len(got[rec.Ref].Payload))
		}
	}
	if _, err := s.Delete(t.Context(), refs); err != nil {
		t.Fatal(err)
	}
}

// scanAll scans every segment and returns what it saw. Payloads are copied.
func (s *suite) scanAll(req feature.ScanRequest) map[feature.Ref]feature.Record {
	s.t.Helper()
	got := map[feature.Ref]feature.Record{}
	var page feature.ScanPage
	for req.Segment = range req.Segments {
		s.scanSegment(context.WithoutCancel(s.t.Context()), req, &page, func(r feature.Record) { got[r.Ref] = r })
	}
	return got
}

func (s *suite) scanSegment(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage, each func(feature.Record)) {
	s.t.Helper()
	for {
		if err := s.Store.Scan(ctx, req, page); err != nil {
			s.t.Fatalf("scan: %v", err)
		}
		for _, r := range page.Records {
			r.Payload = bytes.Clone(r.Payload)
			each(r)
		}
		if page.Next == nil {
			return
		}
		req.Cursor = bytes.Clone(page.Next)
	}
}
