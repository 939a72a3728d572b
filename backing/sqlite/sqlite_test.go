package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/backing/sqlite"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"

	"go.uber.org/goleak"
)

// writerVariable makes this test binary a second process that writes.
const writerVariable = "HEARTH_TEST_SQLITE_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerVariable); path != "" {
		os.Exit(writerProcess(path))
	}
	goleak.VerifyTestMain(m)
}

var view = feature.ViewID{Name: "driver_stats", Version: 1}

func record(i int, event int64, run uint64) feature.Record {
	v := feature.Version{Event: feature.Micros(event), Created: feature.NoTime, Run: run}
	return feature.Record{
		Ref: feature.Ref{View: view, Key: feature.Key(fmt.Sprintf("id=%d", i))}, Version: v,
		Payload: feature.AppendPayload(nil, feature.Header{Version: v}, fmt.Appendf(nil, "run %d", run)), Online: feature.NoTime, Retain: feature.NoTime,
	}
}

func records(n int, event int64, run uint64) []feature.Record {
	recs := make([]feature.Record, n)
	for i := range recs {
		recs[i] = record(i, event, run)
	}
	return recs
}

func outcomes(t *testing.T, s *sqlite.Store, recs []feature.Record) map[feature.Outcome]int {
	t.Helper()
	results, err := s.Put(t.Context(), recs)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[feature.Outcome]int{}
	for _, r := range results {
		counts[r.Outcome]++
	}
	return counts
}

// Until it is applied nothing works and no file appears; the errors say what to do.
func TestNotApplied(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub dir #1?", "b%20.db")
	s := open(t, path)
	ctx := t.Context()
	refs := []feature.Ref{record(1, 1, 1).Ref}
	var page feature.ScanPage
	for op, f := range map[string]func() error{
		"put":       func() error { _, err := s.Put(ctx, records(2, 1, 1)); return err },
		"get":       func() error { _, err := s.Get(ctx, refs); return err },
		"delete":    func() error { _, err := s.Delete(ctx, refs); return err },
		"scan":      func() error { return s.Scan(ctx, feature.ScanRequest{Segments: 1}, &page) },
		"get state": func() error { _, err := s.GetState(ctx, "k", "n"); return err },
		"put state": func() error { _, err := s.PutState(ctx, backing.StateItem{Kind: "k", Name: "n"}); return err },
		"del state": func() error { return s.DeleteState(ctx, "k", "n", 1) },
		"list":      func() error { _, err := s.ListState(ctx, "k", backing.ListOptions{}); return err },
	} {
		if err := f(); !errors.Is(err, feature.ErrNotApplied) || !strings.Contains(err.Error(), "hearth apply") {
			t.Errorf("%s: %v", op, err)
		}
	}
	plan, err := s.Plan(ctx)
	if err != nil || len(plan) != 1 || plan[0].Change != backing.ChangeCreate {
		t.Errorf("plan: %v, %v", plan, err)
	}
	if d, err := s.Describe(ctx); err != nil || d.Applied {
		t.Errorf("describe: %+v, %v", d, err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a file has appeared: %v", err)
	}
	if _, err := s.Apply(ctx); err != nil {
		t.Fatal(err)
	}
	if got := outcomes(t, s, records(2, 1, 1)); got[feature.Written] != 2 {
		t.Errorf("after apply: %v", got)
	}
	if _, err := sqlite.Open(ctx, sqlite.Config{}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("no path: %v", err)
	}
}

// A call of more rows than one transaction holds.
func TestManyTransactions(t *testing.T) {
	s := applied(t, filepath.Join(t.TempDir(), "b.db"))
	if got := outcomes(t, s, records(12_000, 1, 1)); got[feature.Written] != 12_000 {
		t.Errorf("new: %v", got)
	}
	if got := outcomes(t, s, records(12_500, 1, 1)); got[feature.Written] != 500 || got[feature.Unchanged] != 12_000 {
		t.Errorf("again: %v", got)
	}
	d, err := s.Describe(t.Context())
	if err != nil || d.Items != 12_500 || d.Bytes == 0 {
		t.Errorf("describe: %+v, %v", d, err)
	}
}

// Rows go when their retain time has passed, and Apply says so. Seen red with x stored in
// microseconds.
func TestApplyRemovesExpired(t *testing.T) {
	fake := clock.NewFake(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC))
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "b.db"), Clock: fake})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := s.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	recs := records(6000, 1, 1)
	for i := range recs {
		if i%2 == 0 {
			recs[i].Retain = feature.MicrosOf(fake.Now().Add(time.Hour))
		}
	}
	outcomes(t, s, recs)
	if _, err := s.PutState(t.Context(), backing.StateItem{Kind: "run", Name: "1", ExpireAt: feature.MicrosOf(fake.Now().Add(time.Hour))}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		advance time.Duration
		removed string
	}{{59 * time.Minute, ""}, {2 * time.Minute, "3001 rows"}, {time.Hour, ""}} {
		fake.Advance(step.advance)
		for _, f := range []func(context.Context) ([]backing.Action, error){s.Plan, s.Apply} {
			actions, err := f(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, a := range actions {
				if a.Change == backing.ChangeRemove {
					got = a.Detail
				}
			}
			if got != step.removed {
				t.Errorf("after %s: removed %q, want %q", step.advance, got, step.removed)
			}
		}
	}
	if d, err := s.Describe(t.Context()); err != nil || d.Items != 3000 {
		t.Errorf("%+v, %v", d, err)
	}
}

// What is no store of ours is said as such, and left alone.
func TestForeignFiles(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is no database at all. ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.db")
	db, err := sql.Open("sqlite", other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE items (a)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(dir, "damaged.db")
	s := applied(t, damaged)
	outcomes(t, s, records(5000, 1, 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	for i := 8192; i < len(b); i++ {
		b[i] = 0xA5
	}
	if err := os.WriteFile(damaged, b, 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	if err := applied(t, newer).Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = sql.Open("sqlite", newer); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version=99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var page feature.ScanPage
	for _, c := range []struct {
		path string
		call func(s *sqlite.Store) error
		want error
		text string
	}{
		{text, func(s *sqlite.Store) error { _, err := s.Apply(ctx); return err }, feature.ErrCorrupt, "no SQLite database"},
		{text, func(s *sqlite.Store) error { _, err := s.Put(ctx, records(1, 1, 1)); return err }, feature.ErrCorrupt, "no SQLite database"},
		{other, func(s *sqlite.Store) error { _, err := s.Apply(ctx); return err }, feature.ErrInvalid, "another program"},
		{newer, func(s *sqlite.Store) error { _, err := s.Apply(ctx); return err }, feature.ErrUnknownFormat, "upgrade"},
		{damaged, func(s *sqlite.Store) error { return s.Scan(ctx, feature.ScanRequest{Segments: 1}, &page) }, feature.ErrCorrupt, "hearth materialize --full"},
	} {
		if err := c.call(open(t, c.path)); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s: %v", filepath.Base(c.path), err)
		}
	}
}

// A full disk (here: the largest size that SQLite lets this file have) fails the call with
// everything rolled back that was not acknowledged; with room again the same call goes on.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.db")
	s := applied(t, path)
	outcomes(t, s, records(100, 1, 1))
	if err := s.LimitPages(t.Context(), 400); err != nil {
		t.Fatal(err)
	}
	recs := records(20_000, 2, 2)
	results, err := s.Put(t.Context(), recs)
	full := err
	for _, r := range results {
		if r.Err != nil {
			full = r.Err
			break
		}
	}
	if full == nil || !strings.Contains(full.Error(), "disk is full") {
		t.Fatalf("put: %v", full)
	}
	if got, err := s.Get(t.Context(), []feature.Ref{recs[0].Ref}); err != nil || got[0].Payload == nil {
		t.Errorf("get with a full disk: %v, %v", got, err)
	}
	if err := s.LimitPages(t.Context(), 1<<30); err != nil {
		t.Fatal(err)
	}
	got := outcomes(t, s, recs)
	if got[feature.Failed] != 0 || got[feature.Written]+got[feature.Unchanged] != len(recs) {
		t.Errorf("with room again: %v", got)
	}
}

// A writer that holds the file longer than BusyTimeout: said as such, and right again after.
func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.db")
	applied(t, path)
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, BusyTimeout: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), records(10, 1, 1)); !errors.Is(err, feature.ErrThrottled) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("put: %v", err)
	}
	if _, err := s.Get(t.Context(), []feature.Ref{record(1, 1, 1).Ref}); err != nil {
		t.Errorf("a read waits for a writer: %v", err)
	}
	if err := errors.Join(tx.Rollback(), db.Close()); err != nil {
		t.Fatal(err)
	}
	if got := outcomes(t, s, records(10, 1, 1)); got[feature.Written] != 10 {
		t.Errorf("after the lock: %v", got)
	}
}

// A cancelled call ends with what was done, and the store goes on.
func TestCancelledPut(t *testing.T) {
	s := applied(t, filepath.Join(t.TempDir(), "b.db"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	results, err := s.Put(ctx, records(10, 1, 1))
	if !errors.Is(err, context.Canceled) || len(results) != 10 || results[0].Err == nil {
		t.Errorf("put: %d results, %v", len(results), err)
	}
	if got := outcomes(t, s, records(10, 1, 1)); got[feature.Written] != 10 {
		t.Errorf("after the cancellation: %v", got)
	}
}

const (
	processKeys = 4000
	processRuns = 6
)

func writerProcess(path string) int {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, sqlite.Config{Path: path, BusyTimeout: time.Minute})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for run := range uint64(processRuns) {
		n, err := backing.NextRun(ctx, s)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		results, err := s.Put(ctx, records(processKeys, int64(run), n))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		for _, r := range results {
			if r.Err != nil {
				fmt.Fprintln(os.Stderr, r.Err)
				return 1
			}
		}
	}
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Several processes at once: no error, no lost write, no version going down. Seen red
// without busy_timeout.
func TestSeveralProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.db")
	s := applied(t, path)
	const processes = 3
	cmds := make([]*exec.Cmd, processes)
	logs := make([]strings.Builder, processes)
	for i := range cmds {
		cmds[i] = exec.CommandContext(t.Context(), os.Args[0])
		cmds[i].Env = append(os.Environ(), writerVariable+"="+path)
		cmds[i].Stderr = &logs[i]
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, processes)
	for i, cmd := range cmds {
		go func() {
			err := cmd.Wait()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, logs[i].String())
			}
			done <- err
		}()
	}
	refs := make([]feature.Ref, 50)
	for i := range refs {
		refs[i] = record(i*37, 0, 0).Ref
	}
	seen := make([]feature.Version, len(refs))
	for left := processes; left > 0; {
		results, err := s.Get(t.Context(), refs)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Payload == nil {
				continue
			}
			h, _, err := feature.ParsePayload(r.Payload)
			if err != nil {
				t.Fatal(err)
			}
			if h.Version.Compare(seen[i]) < 0 && !seen[i].IsZero() {
				t.Errorf("%s went from %s back to %s", refs[i], seen[i], h.Version)
			}
			seen[i] = h.Version
		}
		select {
		case err := <-done:
			left--
			if err != nil {
				t.Error(err)
			}
		default:
		}
	}
	if run, err := backing.NextRun(t.Context(), s); err != nil || run != processes*processRuns+1 {
		t.Errorf("run numbers: %d, %v", run, err)
	}
	d, err := s.Describe(t.Context())
	if err != nil || d.Items != processKeys {
		t.Errorf("%+v, %v", d, err)
	}
	var page feature.ScanPage
	if err := s.Scan(t.Context(), feature.ScanRequest{Segments: 1, Limit: processKeys + 1}, &page); err != nil {
		t.Fatal(err)
	}
	for _, r := range page.Records {
		if r.Version.Event != processRuns-1 {
			t.Fatalf("%s ended at %s", r.Ref, r.Version)
		}
	}
}

// Killed in the middle of writing, the file has whole transactions: every acknowledged
// record, and a process that comes after goes on.
func TestKilledWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.db")
	s := applied(t, path)
	for range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), writerVariable+"="+path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		before, err := s.GetState(t.Context(), "counter", "run")
		if err != nil && !errors.Is(err, feature.ErrNotFound) {
			t.Fatal(err)
		}
		for { // until it has begun a run of its own
			now, err := s.GetState(t.Context(), "counter", "run")
			if err == nil && now.Revision != before.Revision {
				break
			}
			if err != nil && !errors.Is(err, feature.ErrNotFound) {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		d, err := s.Describe(t.Context())
		if err != nil || d.Items%processKeys != 0 {
			t.Errorf("half a transaction: %d rows, %v", d.Items, err)
		}
	}
	if got := outcomes(t, s, records(processKeys, 99, 99)); got[feature.Written] != processKeys {
		t.Errorf("after the kills: %v", got)
	}
}
