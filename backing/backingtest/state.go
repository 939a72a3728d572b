package backingtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// Seen red with the revision left out of the condition.
func testStateCAS(t *testing.T, s *suite) {
	ctx, kind := t.Context(), "kind_"+s.id
	if _, err := s.GetState(ctx, kind, "a"); !errors.Is(err, feature.ErrNotFound) {
		t.Fatalf("get of an absent item: %v", err)
	}
	item, err := s.PutState(ctx, backing.StateItem{Kind: kind, Name: "a", Value: []byte(`{"n":1}`), ExpireAt: feature.NoTime})
	if err != nil || item.Revision == 0 {
		t.Fatalf("create: %+v, %v", item, err)
	}
	if _, err := s.PutState(ctx, backing.StateItem{Kind: kind, Name: "a", Value: []byte("{}")}); !errors.Is(err, feature.ErrConflict) {
		t.Errorf("create again: %v", err)
	}
	first := item
	item.Value, item.ExpireAt = []byte(`{"n":2}`), 4_000_000_000_000_000
	item, err = s.PutState(ctx, item)
	if err != nil || item.Revision == first.Revision {
		t.Fatalf("update: %+v, %v", item, err)
	}
	if _, err := s.PutState(ctx, first); !errors.Is(err, feature.ErrConflict) {
		t.Errorf("update from an old revision: %v", err)
	}
	got, err := s.GetState(ctx, kind, "a")
	if err != nil || string(got.Value) != `{"n":2}` || got.Revision != item.Revision || got.ExpireAt != item.ExpireAt || got.Kind != kind || got.Name != "a" {
		t.Errorf("get: %+v, %v", got, err)
	}
	if err := s.DeleteState(ctx, kind, "a", first.Revision); !errors.Is(err, feature.ErrConflict) {
		t.Errorf("delete of an old revision: %v", err)
	}
	if err := s.DeleteState(ctx, kind, "a", item.Revision); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := s.DeleteState(ctx, kind, "a", item.Revision); err != nil {
		t.Errorf("delete of an absent item: %v", err)
	}
	again, err := s.PutState(ctx, backing.StateItem{Kind: kind, Name: "a", Value: []byte{0xff, 0, 1}, ExpireAt: feature.NoTime})
	if err != nil || again.Revision == first.Revision {
		t.Errorf("create after the deletion: %+v, %v", again, err)
	}
	if got, err := s.GetState(ctx, kind, "a"); err != nil || string(got.Value) != "\xff\x00\x01" {
		t.Errorf("bytes that are no text: %q, %v", got.Value, err)
	}
	if _, err := s.PutState(ctx, backing.StateItem{Kind: kind, Name: "gone", Revision: 42, Value: []byte("{}")}); !errors.Is(err, feature.ErrConflict) {
		t.Errorf("update of an absent item: %v", err)
	}
	big := backing.StateItem{Kind: kind, Name: "big", Value: []byte(`"` + strings.Repeat("b", backing.MaxStateBytes-2) + `"`), ExpireAt: feature.NoTime}
	if _, err := s.PutState(ctx, big); err != nil {
		t.Errorf("the largest item: %v", err)
	}
	if got, err := s.GetState(ctx, kind, "big"); err != nil || string(got.Value) != string(big.Value) {
		t.Errorf("the largest item: %d bytes, %v", len(got.Value), err)
	}
	for _, bad := range []backing.StateItem{{Name: "x"}, {Kind: kind}, {Kind: kind, Name: "x", Value: make([]byte, backing.MaxStateBytes+1)}, {Kind: kind, Name: strings.Repeat("n", 1025)}} {
		if _, err := s.PutState(ctx, bad); !errors.Is(err, feature.ErrInvalid) {
			t.Errorf("invalid item: %v", err)
		}
	}
}

func testStateList(t *testing.T, s *suite) {
	ctx, kind := t.Context(), "kind_"+s.id
	names := []string{"a", "a/1", "a/2", "a/3", "b", "b/1", "zoë", "zz"}
	for i, n := range names {
		if _, err := s.PutState(ctx, backing.StateItem{Kind: kind, Name: n, Value: fmt.Appendf(nil, "%d", i), ExpireAt: feature.NoTime}); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(names)
	for _, c := range []struct {
		opt  backing.ListOptions
		want []string
	}{
		{backing.ListOptions{}, names},
		{backing.ListOptions{Descending: true, Limit: 2}, []string{"zz", "zoë"}},
		{backing.ListOptions{Limit: 3}, []string{"a", "a/1", "a/2"}},
		{backing.ListOptions{After: "a/2"}, []string{"a/3", "b", "b/1", "zoë", "zz"}},
		{backing.ListOptions{After: "a/2", Descending: true}, []string{"a/1", "a"}},
		{backing.ListOptions{Prefix: "a/"}, []string{"a/1", "a/2", "a/3"}},
		{backing.ListOptions{Prefix: "a/", Descending: true, Limit: 2}, []string{"a/3", "a/2"}},
		{backing.ListOptions{Prefix: "a/", After: "a/1", Limit: 1}, []string{"a/2"}},
		{backing.ListOptions{Prefix: "a/", After: "a/3", Descending: true}, []string{"a/2", "a/1"}},
		{backing.ListOptions{Prefix: "zoë"}, []string{"zoë"}},
		{backing.ListOptions{Prefix: "none"}, nil},
	} {
		items, err := s.ListState(ctx, kind, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, item := range items {
			got = append(got, item.Name)
			if item.Kind != kind || item.Revision == 0 || len(item.Value) == 0 || item.ExpireAt != feature.NoTime {
				t.Errorf("%+v: item %+v", c.opt, item)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.opt, got, c.want)
		}
	}
	// More than one answer of any server.
	long := strings.Repeat("x", 300<<10)
	for i := range 6 {
		if _, err := s.PutState(ctx, backing.StateItem{Kind: kind + "_long", Name: fmt.Sprint(i), Value: []byte(long), ExpireAt: feature.NoTime}); err != nil {
			t.Fatal(err)
		}
	}
	if items, err := s.ListState(ctx, kind+"_long", backing.ListOptions{}); err != nil || len(items) != 6 || len(items[5].Value) != len(long) {
		t.Errorf("long list: %d items, %v", len(items), err)
	}
}

// Numbers are unique and grow, from any number of goroutines, also those that are reserved
// together. Seen red with conflicts ignored, and when ReserveRuns returns the last.
func testNextRun(t *testing.T, s *suite) {
	const n, each = 6, 5
	var (
		mu   sync.Mutex
		seen []uint64
		wg   sync.WaitGroup
	)
	for range n {
		wg.Go(func() {
			last := uint64(0)
			for range each {
				run, err := backing.NextRun(t.Context(), s.Store)
				if err != nil {
					t.Errorf("next run: %v", err)
					return
				}
				more, err := backing.ReserveRuns(t.Context(), s.Store, 2)
				if err != nil {
					t.Errorf("reserve runs: %v", err)
					return
				}
				if run <= last || more <= run {
					t.Errorf("runs %d and %d after %d", run, more, last)
				}
				last = more + 1
				mu.Lock()
				seen = append(seen, run, more, more+1)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(seen)
	if len(slices.Compact(seen)) != 3*n*each {
		t.Errorf("%d numbers were drawn, %d are different", 3*n*each, len(slices.Compact(seen)))
	}
}

var day = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func testLedger(t *testing.T, s *suite) {
	ctx, fake := t.Context(), clock.NewFake(day)
	l := backing.NewLedger(s.Store, fake)
	hourly, daily := "hourly_"+s.id, "daily_"+s.id
	due := day.Add(-time.Minute)
	for i := uint64(1); i <= 12; i++ {
		job := hourly
		if i%4 == 0 {
			job = daily
		}
		if err := l.Start(ctx, backing.Run{Number: 1000 + i, Job: job, Kind: "materialize", Due: &due, Holder: "here", Attempts: 1}); err != nil {
			t.Fatal(err)
		}
		fake.Advance(time.Minute)
		if i == 12 {
			break // still running
		}
		if err := l.Finish(ctx, backing.Run{Number: 1000 + i, Job: job, Status: backing.RunDone, Detail: []byte(`{"rows":5}`)}); err != nil {
			t.Fatal(err)
		}
	}
	numbers := func(runs []backing.Run) (ns []uint64) {
		for _, r := range runs {
			ns = append(ns, r.Number-1000)
		}
		return ns
	}
	list := func(job string, limit int) []backing.Run {
		t.Helper()
		runs, err := l.List(ctx, job, limit)
		if err != nil {
			t.Fatal(err)
		}
		return runs
	}
	if got := numbers(list(hourly, 3)); !slices.Equal(got, []uint64{11, 10, 9}) {
		t.Errorf("newest hourly runs: %v", got)
	}
	if got := numbers(list(daily, 0)); !slices.Equal(got, []uint64{12, 8, 4}) {
		t.Errorf("daily runs: %v", got)
	}
	if all := list("", 0); len(all) < 12 || !slices.IsSortedFunc(all, func(a, b backing.Run) int { return int(int64(b.Number) - int64(a.Number)) }) {
		t.Errorf("all runs: %v", numbers(all))
	}
	if got := list("", 2); len(got) != 2 {
		t.Errorf("all runs, limited: %v", numbers(got))
	}
	done := list(daily, 2)[1]
	if done.Status != backing.RunDone || done.Holder != "here" || done.Due == nil || !done.Due.Equal(due) || done.Kind != "materialize" ||
		done.Finished == nil || done.Finished.Sub(*done.Started) != time.Minute || string(done.Detail) != `{"rows":5}` || done.Attempts != 1 {
		t.Errorf("finished run: %+v", done)
	}
	if r := list(daily, 1)[0]; r.Status != backing.RunRunning || r.Finished != nil {
		t.Errorf("running run: %+v", r)
	}
	if err := l.Start(ctx, backing.Run{Number: 1008, Job: daily}); !errors.Is(err, feature.ErrConflict) {
		t.Errorf("start of a finished run: %v", err)
	}
	if err := l.Start(ctx, backing.Run{Number: 1012, Job: daily, Attempts: 2}); err != nil {
		t.Errorf("second attempt: %v", err)
	}
	if r, err := l.Get(ctx, daily, 1012); err != nil || r.Attempts != 2 || r.Holder != "here" {
		t.Errorf("second attempt: %+v, %v", r, err)
	}
	if _, err := l.Get(ctx, daily, 7); !errors.Is(err, feature.ErrNotFound) {
		t.Errorf("get of no run: %v", err)
	}
	long := backing.Run{Number: 1013, Job: daily, Status: backing.RunFailed, Error: strings.Repeat("é", 9999), Detail: []byte(`"` + strings.Repeat("d", 1<<20) + `"`)}
	if err := l.Finish(ctx, long); err != nil {
		t.Errorf("a run with a long error: %v", err)
	}
	if err := l.Start(ctx, backing.Run{Job: daily}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("run without a number: %v", err)
	}
}

// Each due time is claimed once, whoever asks. Seen red with ClaimDue overwriting.
func testClaimDue(t *testing.T, s *suite) {
	ctx, job := t.Context(), "job_"+s.id
	l := backing.NewLedger(s.Store, clock.NewFake(day))
	if _, ok, err := l.LastDue(ctx, job); ok || err != nil {
		t.Errorf("last due of a new job: %v, %v", ok, err)
	}
	for i := range 3 {
		due := day.Add(time.Duration(i) * time.Hour)
		var (
			wg   sync.WaitGroup
			wins atomic.Int64
		)
		for run := range uint64(8) {
			wg.Go(func() {
				switch err := l.ClaimDue(ctx, job, due, run+1); {
				case err == nil:
					wins.Add(1)
				case !errors.Is(err, feature.ErrConflict):
					t.Errorf("claim: %v", err)
				}
			})
		}
		wg.Wait()
		if wins.Load() != 1 {
			t.Errorf("due %s was claimed %d times", due, wins.Load())
		}
		if err := l.ClaimDue(ctx, job, due, 99); !errors.Is(err, feature.ErrConflict) {
			t.Errorf("a later claim of due %s: %v", due, err)
		}
	}
	if err := l.ClaimDue(ctx, job, day.Add(30*time.Minute), 77); err != nil {
		t.Errorf("a missed due time between: %v", err)
	}
	if err := l.ClaimDue(ctx, job, day.Add(30*time.Minute), 77); err != nil {
		t.Errorf("the same run again: %v", err)
	}
	if last, ok, err := l.LastDue(ctx, job); err != nil || !ok || !last.Equal(day.Add(2*time.Hour)) {
		t.Errorf("last due: %s, %v, %v", last, ok, err)
	}
}

// The life of a lease over this store; timing is tested with package backing.
func testLeases(t *testing.T, s *suite) {
	ctx, fake, name := t.Context(), clock.NewFake(day), "lease_"+s.id
	leases := backing.NewLeases(backing.LeaseConfig{State: s.Store, Clock: fake})
	other := backing.NewLeases(backing.LeaseConfig{State: s.Store, Clock: fake})
	a, err := leases.Acquire(ctx, name, "a")
	if err != nil {
		t.Fatal(err)
	}
	var held *backing.LeaseHeldError
	if _, err := other.Acquire(ctx, name, "b"); !errors.Is(err, feature.ErrLeaseHeld) || !errors.As(err, &held) || held.Holder != "a" || held.Name != name || !held.Until.Equal(day.Add(30*time.Second)) {
		t.Fatalf("second holder: %v", err)
	}
	fake.Advance(20 * time.Second)
	if err := a.Renew(ctx); err != nil {
		t.Fatal(err)
	}
	fake.Advance(20 * time.Second)
	if _, err := other.Acquire(ctx, name, "b"); !errors.Is(err, feature.ErrLeaseHeld) {
		t.Fatalf("second holder after a renewal: %v", err)
	}
	if err := a.Release(ctx); err != nil {
		t.Fatal(err)
	}
	b, err := other.Acquire(ctx, name, "b")
	if err != nil {
		t.Fatal(err)
	}
	if b.Fence() <= a.Fence() {
		t.Errorf("fence %d after %d", b.Fence(), a.Fence())
	}
	fake.Advance(time.Hour) // b is dead
	c, err := leases.Acquire(ctx, name, "c")
	if err != nil {
		t.Fatal(err)
	}
	if c.Fence() <= b.Fence() {
		t.Errorf("fence %d after %d", c.Fence(), b.Fence())
	}
	if err := b.Renew(ctx); !errors.Is(err, feature.ErrLeaseLost) {
		t.Errorf("renewal of a lost lease: %v", err)
	}
	if err := b.Release(ctx); !errors.Is(err, feature.ErrLeaseLost) {
		t.Errorf("release of a lost lease: %v", err)
	}
	if err := c.Renew(ctx); err != nil {
		t.Errorf("the loser disturbed the new holder: %v", err)
	}
}

// One of many contenders gets a free lease.
func testLeaseContention(t *testing.T, s *suite) {
	name := "lease_" + s.id
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		leases []*backing.Lease
	)
	for i := range 8 {
		wg.Go(func() {
			l := backing.NewLeases(backing.LeaseConfig{State: s.Store, Clock: clock.NewFake(day)})
			lease, err := l.Acquire(t.Context(), name, fmt.Sprint("holder ", i))
			if err != nil {
				if !errors.Is(err, feature.ErrLeaseHeld) {
					t.Errorf("acquire: %v", err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			leases = append(leases, lease)
		})
	}
	wg.Wait()
	if len(leases) != 1 {
		t.Fatalf("%d holders", len(leases))
	}
}

func fileSet(generation, n int) []feature.File {
	files := make([]feature.File, n)
	for i := range files {
		files[i] = feature.File{Path: fmt.Sprintf("/data/g=%d/year=2026/month=11/day=%02d/part-%05d.parquet", generation, i%30, i), Size: int64(generation), Modified: feature.Micros(i), ETag: "etag"}
	}
	return files
}

func testFileSets(t *testing.T, s *suite) {
	ctx, id := t.Context(), s.view()
	if files, err := backing.LoadFiles(ctx, s.Store, id.String()); err != nil || files != nil {
		t.Fatalf("files of a new view: %d, %v", len(files), err)
	}
	for i, n := range []int{10_000, 10_001, 1, 0, 300} {
		want := fileSet(i, n)
		if err := backing.SaveFiles(ctx, s.Store, id.String(), want); err != nil {
			t.Fatal(err)
		}
		got, err := backing.LoadFiles(ctx, s.Store, id.String())
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%d files came back as %d, %v", n, len(got), err)
		}
	}
	// Nothing of the older sets is left.
	items, err := s.ListState(ctx, "files:"+id.String(), backing.ListOptions{})
	if err != nil || len(items) != 1 {
		t.Errorf("%d chunks are left, %v", len(items), err)
	}
}

// A reader never sees half of a set, nor a mix of two. Seen red with the chunks overwritten
// in place.
func testFileSetsWhole(t *testing.T, s *suite) {
	ctx, id := t.Context(), s.view()
	const n = 4000 // two chunks
	if err := backing.SaveFiles(ctx, s.Store, id.String(), fileSet(0, n)); err != nil {
		t.Fatal(err)
	}
	readCtx, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for readCtx.Err() == nil {
				files, err := backing.LoadFiles(readCtx, s.Store, id.String())
				if readCtx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("load: %v", err)
					return
				}
				for _, f := range files {
					if f.Size != files[0].Size {
						t.Errorf("a set of generations %d and %d", files[0].Size, f.Size)
						return
					}
				}
				if want := n + int(files[0].Size); len(files) != want {
					t.Errorf("%d files of %d", len(files), want)
					return
				}
			}
		})
	}
	for i := 1; i <= 5; i++ {
		if err := backing.SaveFiles(ctx, s.Store, id.String(), fileSet(i, n+i)); err != nil {
			t.Errorf("save: %v", err)
		}
	}
	stop()
	readers.Wait()
}
