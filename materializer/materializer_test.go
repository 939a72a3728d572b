package materializer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sim"
	"github.com/hearthstore/hearth/materializer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type state = sim.State[materializer.Slot, materializer.Progress, materializer.FileSet]

var (
	_ materializer.Source  = (*sim.Source)(nil)
	_ materializer.Backing = (*sim.Backing)(nil)
	_ materializer.Online  = (*sim.Online)(nil)
	_ materializer.State   = (*state)(nil)
)

// world is everything a run touches.
type world struct {
	t       *testing.T
	clock   *sim.Clock
	source  *sim.Source
	backing *sim.Backing
	online  *sim.Online
	state   *state
	view    *feature.View
	run     uint64
	tune    func(*materializer.Config)
}

var day0 = time.Date(2024, 5, 1, 0, 0, 0, 0, time.UTC)

// at is the instant n hours after day0; the clock of a world starts at hour 100.
func at(hours int) feature.Micros {
	return feature.MicrosOf(day0.Add(time.Duration(hours) * time.Hour))
}

func setup(t *testing.T) *world {
	c := sim.NewClock(at(100).Time())
	return &world{
		t: t, clock: c, source: sim.NewSource(), backing: sim.NewBacking(), online: sim.NewOnline(c),
		state: sim.NewState[materializer.Slot, materializer.Progress, materializer.FileSet](func(p materializer.Progress) uint64 { return p.LastRun }),
		view: &feature.View{Name: "spend", Version: 1, JoinKeys: []feature.JoinKey{{Name: "id", Type: feature.Int64}},
			Features: []feature.Feature{{Field: feature.Field{Name: "n", Type: feature.Int64}}, {Field: feature.Field{Name: "s", Type: feature.String}}}},
	}
}

func (w *world) new() *materializer.Materializer {
	cfg := materializer.Config{Source: w.source, Backing: w.backing, Online: w.online, State: w.state, Clock: w.clock, Reserve: w.reserve,
		Logger: slog.New(slog.DiscardHandler), BatchSize: 4, BackingWorkers: 2, OnlineWorkers: 2}
	if w.tune != nil {
		w.tune(&cfg)
	}
	m, err := materializer.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// tuneMore changes the configuration on top of what does already.
func (w *world) tuneMore(more func(*materializer.Config)) {
	before := w.tune
	w.tune = func(c *materializer.Config) {
		if before != nil {
			before(c)
		}
		more(c)
	}
}

// reserve draws run numbers after those of the requests so far.
func (w *world) reserve(_ context.Context, n int) (uint64, error) {
	first := w.run + 1
	w.run += uint64(n)
	return first, nil
}

// inject gives every dependency the same injector.
func (w *world) inject(f sim.Injector) {
	w.source.Inject, w.backing.Inject, w.online.Inject, w.state.Inject = f, f, f, f
}

func (w *world) request() materializer.Request {
	w.run++
	return materializer.Request{Run: w.run, Views: []*feature.View{w.view}, Start: feature.NoTime, End: feature.NoTime}
}

// materialize runs and returns the report; the error is left to the caller.
func (w *world) materialize(change func(*materializer.Request)) (*materializer.Report, error) {
	w.t.Helper()
	req := w.request()
	if change != nil {
		change(&req)
	}
	r, err := w.new().Run(w.t.Context(), req)
	if r == nil {
		w.t.Fatalf("no report: %v", err)
	}
	if whole := r.Status == "done" || r.Status == "nothing"; whole != (err == nil) {
		w.t.Fatalf("status %s with error %v: the error must be nil exactly for done and nothing", r.Status, err)
	}
	return r, err
}

func (w *world) must(change func(*materializer.Request)) *materializer.Report {
	w.t.Helper()
	r, err := w.materialize(change)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func full(r *materializer.Request) { r.Full = true }

func key(id int) feature.Key { return feature.Key(fmt.Sprintf("id=%d", id)) }

func (w *world) ref(id int) feature.Ref { return feature.Ref{View: w.view.ID(), Key: key(id)} }

// row is a value n of an entity at an hour.
func row(id, hour, n int) feature.Row {
	fields := []feature.Field{{Name: "n", Type: feature.Int64}, {Name: "s", Type: feature.String}}
	f, err := feature.AppendFeatures(nil, fields, []feature.Value{feature.IntValue(int64(n)), feature.StringValue("text")})
	if err != nil {
		panic(err) // the test's own mistake
	}
	return feature.Row{Key: key(id), Event: at(hour), Created: feature.NoTime, Features: f}
}

func gone(id, hour int) feature.Row {
	return feature.Row{Key: key(id), Event: at(hour), Created: feature.NoTime, Deleted: true}
}

func rows(from, to, hour, n int) []feature.Row {
	var out []feature.Row
	for id := from; id < to; id++ {
		out = append(out, row(id, hour, n))
	}
	return out
}

// show describes a stored value without its run: "h12 n=3", "h12 deleted" or "-".
func show(t *testing.T, w *world, payload []byte) string {
	t.Helper()
	if payload == nil {
		return "-"
	}
	h, body, err := feature.ParsePayload(payload)
	if err != nil {
		t.Fatal(err)
	}
	hour := int(h.Version.Event.Sub(at(0)) / time.Hour)
	if h.Tombstone {
		return fmt.Sprintf("h%d deleted", hour)
	}
	values, err := feature.DecodeFeatures(body, w.view.Fields(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("h%d n=%d", hour, values[0].Int())
}

func (w *world) expect(id int, want string) {
	w.t.Helper()
	w.expectTiers(id, want, want)
}

func (w *world) expectTiers(id int, backing, online string) {
	w.t.Helper()
	if got := show(w.t, w, w.backing.Snapshot()[w.ref(id)]); got != backing {
		w.t.Errorf("entity %d in the backing tier: %s, want %s", id, got, backing)
	}
	if got := show(w.t, w, w.online.Snapshot()[w.ref(id)]); got != online {
		w.t.Errorf("entity %d in the online tier: %s, want %s", id, got, online)
	}
}

// expectEqual checks that both tiers hold the same bytes: online every value of the
// backing tier at its very version.
func (w *world) expectEqual() {
	w.t.Helper()
	backing, online := w.backing.Snapshot(), w.online.Snapshot()
	for ref, payload := range backing {
		if string(online[ref]) != string(payload) {
			w.t.Errorf("%s: backing %s, online %s", ref, show(w.t, w, payload), show(w.t, w, online[ref]))
		}
	}
	for ref := range online {
		if backing[ref] == nil {
			w.t.Errorf("%s is online only", ref)
		}
	}
}

func (w *world) version(id int) feature.Version {
	w.t.Helper()
	h, _, err := feature.ParsePayload(w.backing.Snapshot()[w.ref(id)])
	if err != nil {
		w.t.Fatal(err)
	}
	return h.Version
}

// calls counts the calls of an operation during f.
func (w *world) calls(op string, f func()) int {
	k := sim.NewKiller(0, nil)
	w.inject(k.Inject)
	f()
	w.inject(nil)
	n := 0
	for _, c := range k.Calls() {
		if c == op {
			n++
		}
	}
	return n
}

// TestTwiceWritesNothing is I7. Red when planFiles ignores the stored set, and, for --full,
// when the backing tier's Unchanged is treated as a write.
func TestTwiceWritesNothing(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 10, 5, 1)...)
	first := w.must(nil)
	if first.Status != "done" || first.Views[0].Backing.Written != 10 || first.Views[0].Online.Written != 10 || !first.MarkedWarm {
		t.Fatalf("first run: %+v", first.Views[0])
	}
	before := w.version(3)
	puts := w.calls("backing.put", func() {
		if r := w.must(nil); r.Status != "nothing" {
			t.Errorf("second run: %s", r.Status)
		}
	})
	if puts != 0 {
		t.Errorf("the second run sent %d batches", puts)
	}
	r := w.must(full)
	if v := r.Views[0]; v.Backing.Written != 0 || v.Backing.Unchanged != 10 || v.Online.Written != 0 || v.Online.Unchanged != 10 {
		t.Errorf("full again: %+v %+v", v.Backing, v.Online)
	}
	if got := w.version(3); got != before {
		t.Errorf("version %s became %s", before, got)
	}
	w.expectEqual()
}

// TestUnchangedGoesOnlineWithStoredVersion is I5: a full run into an emptied online tier
// must not put its own run number on values that the table holds under an earlier run. Red
// without SetVersion in judge.
func TestUnchangedGoesOnlineWithStoredVersion(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 9, 5, 1)...)
	w.must(nil)
	w.online.Flush()
	w.must(full)
	w.expectEqual()
	if run := w.version(0).Run; run != 1 {
		t.Errorf("stored under run %d", run)
	}
}

// TestOnlyNewAndChangedFiles: late rows in new files are taken, whatever their time.
func TestOnlyNewAndChangedFiles(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, row(1, 5, 1), row(2, 5, 1))
	w.must(nil)
	w.source.Write("b", 1, row(2, 4, 9), row(3, 2, 9)) // late, and older for entity 2
	r := w.must(nil)
	if v := r.Views[0]; v.Files != 1 || v.RowsRead != 2 || v.Backing.Written != 1 || v.Backing.Older != 1 || v.Online.Written != 1 {
		t.Fatalf("%+v", v)
	}
	w.expect(2, "h5 n=1")
	w.expect(3, "h2 n=9")
	w.source.Write("a", 2, row(1, 5, 7)) // rewritten: a correction
	r = w.must(nil)
	if v := r.Views[0]; v.Files != 1 || v.Backing.Written != 1 {
		t.Fatalf("%+v", v)
	}
	w.expect(1, "h5 n=7")
	w.source.Remove("b")
	if r = w.must(nil); r.Status != "nothing" || r.Views[0].RemovedFiles != 1 || r.Views[0].Removed[0] != "b" {
		t.Fatalf("after removal: %+v", r.Views[0])
	}
	if r = w.must(nil); r.Views[0].RemovedFiles != 0 {
		t.Fatalf("a removed file is reported once: %+v", r.Views[0])
	}
}

// TestLaterRunCorrectsEarlierCannot: equal times and other content is a correction for the
// later run only. Red when the payload's version has no run.
func TestLaterRunCorrectsEarlierCannot(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, row(1, 5, 1))
	w.must(nil)
	w.run = 6
	w.source.Write("a", 2, row(1, 5, 2))
	w.must(nil) // run 7
	w.run = 3
	w.source.Write("a", 3, row(1, 5, 3))
	r, err := w.materialize(nil) // run 4, a stale worker that wakes up
	if r.Views[0].Backing.Older != 1 || r.Views[0].Online.Written != 0 {
		t.Fatalf("%+v", r.Views[0])
	}
	if !errors.Is(err, feature.ErrConflict) {
		t.Errorf("a stale run must not move the state: %v", err)
	}
	w.expect(1, "h5 n=2")
}

func TestTombstones(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, row(1, 5, 1), row(2, 5, 1))
	w.must(nil)
	w.source.Write("b", 1, gone(1, 6))
	w.must(nil)
	w.expect(1, "h6 deleted")
	w.source.Write("c", 1, row(1, 5, 3)) // older than the deletion
	r := w.must(nil)
	if r.Views[0].Backing.Older != 1 {
		t.Fatalf("%+v", r.Views[0])
	}
	w.expect(1, "h6 deleted")
	w.clock.Advance(2 * time.Hour)
	w.expectTiers(1, "h6 deleted", "-") // the online marker is short-lived
	w.source.Write("d", 1, row(1, 7, 4))
	w.must(nil)
	w.expect(1, "h7 n=4")
}

// TestFutureRowsStayPending: rows after the run's time are not taken, and their file is
// read again. Red when settle records LatestStats.Future files as taken.
func TestFutureRowsStayPending(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, row(1, 5, 1), row(2, 101, 1))
	w.source.Write("b", 1, row(3, 5, 1))
	r := w.must(nil)
	if v := r.Views[0]; v.PendingFiles != 1 || v.Pending[0] != "a" || v.Backing.Written != 2 {
		t.Fatalf("%+v", v)
	}
	w.expect(2, "-")
	r = w.must(nil)
	if v := r.Views[0]; v.Files != 1 || v.Backing.Unchanged != 1 || v.PendingFiles != 1 {
		t.Fatalf("%+v", v)
	}
	w.clock.Advance(2 * time.Hour)
	if r = w.must(nil); r.Views[0].Backing.Written != 1 {
		t.Fatalf("%+v", r.Views[0])
	}
	w.expect(2, "h101 n=1")
	if r = w.must(nil); r.Status != "nothing" {
		t.Fatalf("%s", r.Status)
	}
}

// TestStartReadsAllAndRecordsNothing: a backfill of an interval does not pretend that the
// rows before it were taken.
func TestStartReadsAllAndRecordsNothing(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, row(1, 5, 1), row(2, 50, 1))
	w.must(func(r *materializer.Request) { r.Start, r.End = at(40), at(60) })
	w.expect(1, "-")
	w.expect(2, "h50 n=1")
	w.must(nil)
	w.expect(1, "h5 n=1")
}

func TestRejects(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, row(1, 5, 1), feature.Row{Event: at(5)})
	dir := t.TempDir()
	w.backing.Inject = func(c sim.Call) *sim.Fault {
		if c.Op != "backing.put" {
			return nil
		}
		return &sim.Fault{Record: func(int) error { return fmt.Errorf("%w: item too large", feature.ErrInvalid) }}
	}
	r := w.must(func(r *materializer.Request) { r.RejectsDir = dir })
	v := r.Views[0]
	if v.Rejected != 2 || v.Reasons["null join key"] != 1 || v.Reasons["refused by the backing tier"] != 1 || v.Rejects != filepath.Join(dir, "1-spend@1.ndjson") {
		t.Fatalf("%+v", v)
	}
	text, err := os.ReadFile(v.Rejects)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"file":"a","row":2,"reason":"null join key"`, `"key":"id=1","reason":"invalid: item too large"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s lacks %s", text, want)
		}
	}
	if lines := strings.Count(string(text), "\n"); lines != 2 {
		t.Errorf("%d lines", lines)
	}
	w.backing.Inject = nil
	if r := w.must(nil); r.Status != "nothing" {
		t.Errorf("a rejected row must not hold its file back: %s", r.Status)
	}
}

func TestExpiredIsNotSent(t *testing.T) {
	w := setup(t)
	w.view.TTL = 24 * time.Hour
	w.source.Write("a", 1, row(1, 5, 1), row(2, 99, 1))
	r := w.must(nil)
	if v := r.Views[0]; v.Backing.Written != 2 || v.Online.Written != 1 || v.Online.Expired != 1 {
		t.Fatalf("%+v", v)
	}
	w.expectTiers(1, "h5 n=1", "-")
	w.expect(2, "h99 n=1")
}

// TestRetain: a value past its retain time is not written again and again, the online tier
// never keeps a value longer than the backing tier (I5), and a deletion is kept for a while
// even so. Red without the cap in record.
func TestRetain(t *testing.T) {
	w := setup(t)
	w.view.Retain = 50 * time.Hour
	w.source.Write("a", 1, row(1, 5, 1), row(2, 99, 1), gone(3, 5))
	r := w.must(nil)
	if v := r.Views[0]; v.Backing.Written != 2 || v.Backing.Expired != 1 {
		t.Fatalf("%+v", v)
	}
	if got, want := w.online.Expiry(w.ref(2)), at(149); got != want {
		t.Errorf("online until %s, want %s", got, want)
	}
	w.backing.Expire(feature.MicrosOf(w.clock.Now()))
	w.expect(3, "h5 deleted")
	w.clock.Advance(60 * time.Hour)
	w.backing.Expire(feature.MicrosOf(w.clock.Now()))
	w.expectTiers(2, "-", "-")
	if r := w.must(full); r.Views[0].Backing.Written != 0 {
		t.Errorf("%+v", r.Views[0].Backing)
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 7, 5, 1)...)
	big := row(7, 5, 1)
	big.Features = append(big.Features, make([]byte, 3000)...)
	w.source.Write("b", 1, big)
	k := sim.NewKiller(0, nil)
	w.inject(k.Inject)
	r := w.must(func(r *materializer.Request) { r.DryRun = true })
	for _, op := range k.Calls() {
		switch op {
		case "backing.put", "online.put", "state.save", "state.savefiles", "online.markwarm":
			t.Errorf("a dry run called %s", op)
		}
	}
	e := r.Estimate
	if e.Items != 8 || e.WriteUnits != 7+4 || e.Dollars <= 0 || e.PricePerMillion != 0.625 {
		t.Errorf("%+v", e)
	}
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil || !strings.Contains(b.String(), "11 write units at most") {
		t.Errorf("%v\n%s", err, &b)
	}

	// The price of a region that is not known is not passed off as its own.
	w.inject(nil)
	w.tune = func(c *materializer.Config) { c.Region = "mx-central-1" }
	if e := w.must(func(r *materializer.Request) { r.DryRun = true }).Estimate; e.UnknownRegion != "mx-central-1" || !strings.Contains(e.String(), "that of mx-central-1 is not known") {
		t.Errorf("%+v: %s", e, e)
	}
}

func TestShardsCoverEverythingOnce(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 50, 5, 1)...)
	var written int64
	for shard := range 3 {
		r := w.must(func(r *materializer.Request) { r.Shard, r.Shards = shard, 3 })
		written += r.Views[0].Backing.Written
		if r.MarkedWarm {
			t.Error("a shard does not fill the online tier")
		}
	}
	if written != 50 {
		t.Errorf("%d written", written)
	}
	if r := w.must(nil); r.Views[0].Backing.Unchanged != 50 {
		t.Errorf("%+v", r.Views[0].Backing)
	}
	w.expectEqual()
}

func TestBadRequests(t *testing.T) {
	w := setup(t)
	for name, change := range map[string]func(*materializer.Request){
		"no run":         func(r *materializer.Request) { r.Run = 0 },
		"no view":        func(r *materializer.Request) { r.Views = nil },
		"view twice":     func(r *materializer.Request) { r.Views = append(r.Views, r.Views...) },
		"shard 3 of 3":   func(r *materializer.Request) { r.Shard, r.Shards = 3, 3 },
		"prune alone":    func(r *materializer.Request) { r.Prune = true },
		"prune with end": func(r *materializer.Request) { r.Prune, r.Full, r.End = true, true, at(3) },
		"end first":      func(r *materializer.Request) { r.Start, r.End = at(4), at(3) },
	} {
		req := w.request()
		change(&req)
		if r, err := w.new().Run(t.Context(), req); r != nil || !errors.Is(err, feature.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchemaChange(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 3, 5, 1)...)
	w.must(nil)
	was := w.view.Features
	w.view.Features = []feature.Feature{{Field: feature.Field{Name: "n", Type: feature.Float64}}, {Field: feature.Field{Name: "t", Type: feature.String}}}
	for _, change := range []func(*materializer.Request){nil, full} {
		r, err := w.materialize(change)
		if r.Status != "failed" || !errors.Is(err, feature.ErrInvalid) {
			t.Fatalf("%s %v", r.Status, err)
		}
		for _, want := range []string{`"n" was int64 and is float64`, `"s" is gone`, `"t" is new`, "version: 2", "hearth materialize --feature-views spend@2", "--full --force"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v lacks %s", err, want)
			}
		}
	}
	if _, err := w.new().Push(t.Context(), materializer.PushRequest{Run: 99, View: w.view, Rows: rows(0, 1, 6, 1)}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("push: %v", err)
	}
	w.must(func(r *materializer.Request) { r.Full, r.Force = true, true })
	w.view.Features = append(was[:2:2], feature.Feature{Field: feature.Field{Name: "z", Type: feature.Bool}})
	w.must(func(r *materializer.Request) { r.Full, r.Force = true, true })
	w.view.Features = was
	w.must(func(r *materializer.Request) { r.Full, r.Force = true, true })
	w.view.Features = append(was[:2:2], feature.Feature{Field: feature.Field{Name: "z", Type: feature.Bool}})
	w.must(full)
}

// TestAddedFeature: a feature added at the end goes on without --full, and says what is not
// there yet; from its first write on the configuration without it is refused. Red when claim
// does not save the new fields, and when checkSchema compares names only.
func TestAddedFeature(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 3, 5, 1)...)
	w.must(nil)
	was := w.view.Features
	w.view.Features = append(was[:2:2], feature.Feature{Field: feature.Field{Name: "z", Type: feature.Bool}})
	w.source.Write("b", 1, rows(2, 4, 6, 2)...)
	kill := sim.NewKiller(9, func(n int) int { return n })
	w.inject(kill.Inject)
	if _, err := w.new().Run(t.Context(), w.request()); err == nil {
		t.Fatal("not killed")
	}
	w.inject(nil)
	w.view.Features = was
	if r, err := w.materialize(nil); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), `"z" is gone`) {
		t.Fatalf("without the feature that is being written: %s %v", r.Status, err)
	}
	w.view.Features = append(was[:2:2], feature.Feature{Field: feature.Field{Name: "z", Type: feature.Int64}})
	if r, err := w.materialize(nil); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), `"z" was bool and is int64`) {
		t.Fatalf("with another type for it: %s %v", r.Status, err)
	}
	w.view.Features = append(was[:2:2], feature.Feature{Field: feature.Field{Name: "z", Type: feature.Bool}})
	w.must(nil)
	if n := len(w.backing.Snapshot()); n != 4 {
		t.Errorf("%d values", n)
	}
	again := w.must(nil)
	if len(again.Warnings) != 0 {
		t.Errorf("said twice: %v", again.Warnings)
	}
	w.view.Features = append(w.view.Features, feature.Feature{Field: feature.Field{Name: "y", Type: feature.Bool}})
	if r, err := w.new().Push(t.Context(), materializer.PushRequest{Run: 99, View: w.view, Rows: rows(0, 1, 7, 1)}); err != nil {
		t.Errorf("push with an added feature: %v %+v", err, r)
	}
	w.view.Features = w.view.Features[:3]
	w.run = 100
	w.source.Write("c", 1, rows(2, 4, 8, 2)...)
	if _, err := w.materialize(nil); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("after the push with an added feature: %v", err)
	}
}

func TestFileChangedWhileRead(t *testing.T) {
	for name, change := range map[string]func(*world){
		"changed":  func(w *world) { w.source.Write("a", 2, row(1, 6, 2)) },
		"vanished": func(w *world) { w.source.Remove("a") },
	} {
		t.Run(name, func(t *testing.T) {
			w := setup(t)
			w.source.Write("a", 1, row(1, 5, 1))
			w.source.Reading = func() { change(w) }
			r, err := w.materialize(nil)
			if r.Status != "partial" || !strings.Contains(err.Error(), "while it was read") {
				t.Fatalf("%s %v", r.Status, err)
			}
			w.source.Reading = nil
			w.source.Write("a", 2, row(1, 6, 2))
			w.must(nil)
			w.expect(1, "h6 n=2")
		})
	}
}

func TestInterrupted(t *testing.T) {
	w := setup(t)
	w.source.Write("a", 1, rows(0, 40, 5, 1)...)
	ctx, cancel := context.WithCancelCause(t.Context())
	w.backing.Inject = func(c sim.Call) *sim.Fault {
		if c.Op == "backing.put" {
			cancel(feature.ErrLeaseLost)
		}
		return nil
	}
	r, err := w.new().Run(ctx, w.request())
	if r.Status != "interrupted" || !errors.Is(err, feature.ErrLeaseLost) {
		t.Fatalf("%s %v", r.Status, err)
	}
	w.backing.Inject = nil
	if s := w.state.Describe(); s != "" {
		t.Errorf("an interrupted run moved the state: %s", s)
	}
	w.must(nil)
	w.expectEqual()
}
