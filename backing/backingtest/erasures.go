package backingtest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
)

func testViewsOf(t *testing.T, s *suite) {
	rec := s.record("who", version(9, 0, 1), "x")
	other := rec
	other.View.Version = 7
	s.put(rec, other, s.record("who_else", version(9, 0, 1), "x"))
	ids, err := s.ViewsOf(t.Context(), rec.Key)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(ids, func(a, b feature.ViewID) int { return a.Version - b.Version })
	if !slices.Equal(ids, []feature.ViewID{rec.View, other.View}) {
		t.Errorf("views of %s: %v", rec.Key, ids)
	}
	if ids, err := s.ViewsOf(t.Context(), s.ref("nobody").Key); err != nil || len(ids) != 0 {
		t.Errorf("views of nobody: %v %v", ids, err)
	}
}

// testErasures: a record names its entity by a digest that only the project's key makes, and
// guards it until its time. Red when the digest is a plain hash, and when a guard that has
// ended still counts.
func testErasures(t *testing.T, s *suite) {
	ctx := t.Context()
	key := feature.Key("id=" + s.id)
	d, err := backing.NewDigester(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	again, err := backing.NewDigester(ctx, s)
	if err != nil || d.Of(key) != again.Of(key) || d.Of(key) == d.Of(key+"0") {
		t.Fatalf("digests %s %s %v", d.Of(key), again.Of(key), err)
	}
	if (backing.Digester{}).Of(key) == d.Of(key) {
		t.Error("the digest needs no key: it can be guessed")
	}
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	until := at.Add(time.Hour)
	e := backing.Erasure{Run: 7, At: at, Holder: "h/1", Entity: d.Of(key), Status: backing.RunRunning, Views: []feature.ViewID{s.view()}}
	for range 2 { // begun, then ended: one record
		if err := backing.RecordErasure(ctx, s, e); err != nil {
			t.Fatal(err)
		}
		e.Status, e.GuardUntil = backing.RunDone, &until
	}
	list, err := backing.Erasures(ctx, s, time.Time{})
	if err != nil || len(list) != 1 || list[0].Status != backing.RunDone || !list[0].At.Equal(at) {
		t.Fatalf("%+v %v", list, err)
	}
	for _, kind := range []string{"erasure", "secret"} {
		items, err := s.ListState(ctx, kind, backing.ListOptions{})
		if err != nil || len(items) != 1 || strings.Contains(items[0].Name+string(items[0].Value), string(key)) {
			t.Errorf("%s: %d items, %v; none may name the key", kind, len(items), err)
		}
	}
	erased, err := backing.ErasedSince(ctx, s, at.Add(-time.Minute))
	if err != nil || erased == nil || !erased(key) || erased(key+"0") {
		t.Errorf("erased since before: %v", err)
	}
	if erased, err := backing.ErasedSince(ctx, s, at.Add(time.Minute)); err != nil || erased != nil {
		t.Errorf("erased since after: %v", err)
	}
	guard, err := backing.Guards(ctx, s, until)
	if err != nil || guard == nil {
		t.Fatalf("guards at its end: %v", err)
	}
	if moment, ok := guard(key); !ok || moment != feature.MicrosOf(at) {
		t.Errorf("guarded up to %s, %v", moment, ok)
	}
	if guard, err := backing.Guards(ctx, s, until.Add(time.Second)); err != nil || guard != nil {
		t.Errorf("guards after its end: %v", err)
	}
}

// testScrubRuns: a text is replaced wherever a ledger entry has it, and numbers stay exact.
func testScrubRuns(t *testing.T, s *suite) {
	ctx := t.Context()
	l := backing.NewLedger(s, nil)
	job := "job_" + s.id
	const exact = uint64(1)<<63 + 1
	run := backing.Run{Number: exact, Job: job, Status: backing.RunPartial, Error: "key a=1&b=2: full",
		Detail: []byte(`{"failures":[{"key":"a=1&b=2","n":9007199254740993}]}`)}
	if err := l.Start(ctx, run); err != nil {
		t.Fatal(err)
	}
	if err := l.Finish(ctx, backing.Run{Number: exact + 1, Job: job, Status: backing.RunDone}); err != nil {
		t.Fatal(err)
	}
	n, err := backing.ScrubRuns(ctx, s, func(text string) string { return strings.ReplaceAll(text, "a=1&b=2", "***") })
	if err != nil || n != 1 {
		t.Fatalf("%d entries changed, %v; want 1", n, err)
	}
	got, err := l.Get(ctx, job, exact)
	if err != nil || got.Error != "key ***: full" || string(got.Detail) != `{"failures":[{"key":"***","n":9007199254740993}]}` || got.Number != exact {
		t.Errorf("%+v %s %v", got, got.Detail, err)
	}
	// File sets of a prefix go, those of others stay.
	for _, name := range []string{s.id + "@1/taken", s.id + "@1/0-of-2/behind", s.id + "@10/taken"} {
		if err := backing.SaveFiles(ctx, s, name, fileSet(1, 3)); err != nil {
			t.Fatal(err)
		}
	}
	if err := backing.DeleteFileSets(ctx, s, s.id+"@1/"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{s.id + "@1/taken": 0, s.id + "@1/0-of-2/behind": 0, s.id + "@10/taken": 3} {
		if files, err := backing.LoadFiles(ctx, s, name); err != nil || len(files) != want {
			t.Errorf("%s: %d files, %v; want %d", name, len(files), err, want)
		}
	}
}
