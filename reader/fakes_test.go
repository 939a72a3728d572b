package reader_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// tier is a complete tier in memory with faults to order: add-or-newer puts, a version
// history per key, and hooks that stand in for whatever a server can do wrong.
type tier struct {
	name  string
	clock clock.Clock

	mu     sync.Mutex
	values map[feature.Ref]feature.Record
	reads  map[feature.Ref]int // how often each key was asked for
	calls  []call
	puts   [][]feature.Record
	broken []string // breaches of the store's own rules, for the test to report

	// onGet runs before a call of Get is answered, without the lock. It may block until ctx
	// ends, and returns an error to fail the whole call.
	onGet func(ctx context.Context, refs []feature.Ref) error
	// perKey may turn the answer for one key into an error or other bytes.
	perKey func(ref feature.Ref, r feature.GetResult) feature.GetResult
	onPut  func(ctx context.Context, recs []feature.Record) error
}

type call struct {
	at       time.Time
	refs     []feature.Ref
	deadline time.Time
}

func newTier(name string, c clock.Clock) *tier {
	return &tier{name: name, clock: c, values: map[feature.Ref]feature.Record{}, reads: map[feature.Ref]int{}}
}

func (f *tier) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	deadline, _ := ctx.Deadline()
	f.mu.Lock()
	f.calls = append(f.calls, call{f.clock.Now(), slices.Clone(refs), deadline})
	seen := map[feature.Ref]bool{}
	for _, r := range refs {
		f.reads[r]++
		if seen[r] {
			f.broken = append(f.broken, fmt.Sprintf("%s asked twice in one call", r))
		}
		seen[r] = true
	}
	onGet, perKey := f.onGet, f.perKey
	f.mu.Unlock()
	if onGet != nil {
		if err := onGet(ctx, refs); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", feature.ErrUnreachable, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]feature.GetResult, len(refs))
	now := feature.MicrosOf(f.clock.Now())
	for i, r := range refs {
		if rec, ok := f.values[r]; ok && (rec.Online == feature.NoTime || f.name == "backing" || rec.Online > now) {
			out[i].Payload = rec.Payload
		}
		if perKey != nil {
			out[i] = perKey(r, out[i])
		}
	}
	return out, nil
}

func (f *tier) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	f.mu.Lock()
	onPut := f.onPut
	f.mu.Unlock()
	if onPut != nil {
		if err := onPut(ctx, recs); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts = append(f.puts, slices.Clone(recs))
	out := make([]feature.PutResult, len(recs))
	for i, rec := range recs {
		old, ok := f.values[rec.Ref]
		switch {
		case rec.Online != feature.NoTime && rec.Online <= feature.MicrosOf(f.clock.Now()):
			out[i].Outcome = feature.Expired
		case ok && old.Version.Compare(rec.Version) > 0:
			out[i].Outcome = feature.Older
		case ok && old.Version == rec.Version:
			out[i].Outcome = feature.Unchanged
		default:
			f.values[rec.Ref] = rec
			out[i] = feature.PutResult{Outcome: feature.Written, Stored: rec.Version}
		}
	}
	return out, nil
}

func (f *tier) set(recs ...feature.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range recs {
		f.values[r.Ref] = r
	}
}

func (f *tier) wipe() { f.mu.Lock(); defer f.mu.Unlock(); clear(f.values) }

func (f *tier) faults(onGet func(context.Context, []feature.Ref) error, perKey func(feature.Ref, feature.GetResult) feature.GetResult) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onGet, f.perKey = onGet, perKey
}

func (f *tier) callCount() int { f.mu.Lock(); defer f.mu.Unlock(); return len(f.calls) }

func (f *tier) callLog() []call { f.mu.Lock(); defer f.mu.Unlock(); return slices.Clone(f.calls) }

func (f *tier) readCounts() map[feature.Ref]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.reads)
}

func (f *tier) get(ref feature.Ref) (feature.Record, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.values[ref]
	return r, ok
}

func refused(context.Context, []feature.Ref) error {
	return fmt.Errorf("%w: connection refused", feature.ErrUnreachable)
}

// hang answers nothing until the call's own deadline.
func hang(ctx context.Context, _ []feature.Ref) error {
	<-ctx.Done()
	return fmt.Errorf("%w: %w", feature.ErrUnreachable, ctx.Err())
}

// project: two views of different entities that share a feature name, one of them without
// a TTL, and a second version of the first.
func testProject(t testing.TB) *feature.Project {
	t.Helper()
	field := func(name string, typ feature.Type, def feature.Value) feature.Feature {
		return feature.Feature{Field: feature.Field{Name: name, Type: typ}, Default: def}
	}
	driver := []feature.JoinKey{{Name: "driver_id", Type: feature.Int64}}
	p := &feature.Project{Name: "test"}
	p.Views = []feature.View{
		{Name: "stats", Version: 1, JoinKeys: driver, TTL: time.Hour, Features: []feature.Feature{
			field("rate", feature.Float64, feature.Float64Value(-1)), field("trips", feature.Int64, feature.Null), field("city", feature.String, feature.StringValue("nowhere")),
		}},
		{Name: "stats", Version: 2, JoinKeys: driver, TTL: time.Hour, Features: []feature.Feature{
			field("rate", feature.Float32, feature.Null), field("extra", feature.Int32, feature.IntValue(7)),
		}},
		{Name: "zip", Version: 1, JoinKeys: []feature.JoinKey{{Name: "area", Type: feature.String}, {Name: "zipcode", Type: feature.Int64}}, Features: []feature.Feature{
			field("rate", feature.Float64, feature.Float64Value(0.5)), field("city", feature.String, feature.Null),
		}},
	}
	ref := func(s string) feature.FeatureRef {
		r, err := feature.ParseFeatureRef(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	p.Services = []feature.Service{
		{Name: "drivers", Features: []feature.FeatureRef{ref("stats:*")}},
		{Name: "mixed", Features: []feature.FeatureRef{ref("zip:rate"), ref("stats:rate"), ref("stats@2:rate"), ref("zip:city")}},
	}
	return p
}

// record encodes values for the view; the last run given wins.
func record(t fataler, v *feature.View, key feature.Key, at time.Time, run uint64, values ...feature.Value) feature.Record {
	t.Helper()
	features, err := feature.AppendFeatures(nil, v.Fields(), values)
	if err != nil {
		t.Fatal(err)
	}
	h := feature.Header{Fingerprint: v.Fingerprint(), Version: feature.Version{Event: feature.MicrosOf(at), Created: feature.NoTime, Run: run}}
	rec, err := feature.NewRecord(v, key, feature.AppendPayload(nil, h, features))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func tombstone(t fataler, v *feature.View, key feature.Key, at time.Time, run uint64) feature.Record {
	t.Helper()
	h := feature.Header{Fingerprint: v.Fingerprint(), Version: feature.Version{Event: feature.MicrosOf(at), Created: feature.NoTime, Run: run}, Tombstone: true}
	rec, err := feature.NewRecord(v, key, feature.AppendPayload(nil, h, nil))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func stats(t testing.TB, p *feature.Project, id int, at time.Time, run uint64, rate float64) feature.Record {
	t.Helper()
	return record(t, &p.Views[0], driverKey(id), at, run, feature.Float64Value(rate), feature.IntValue(int64(id)), feature.StringValue("bonn"))
}

func driverKey(id int) feature.Key { return feature.Key(fmt.Sprintf("driver_id=%d", id)) }

func driverRef(id int) feature.Ref {
	return feature.Ref{View: feature.ViewID{Name: "stats", Version: 1}, Key: driverKey(id)}
}

func drivers(ids ...int) []map[string]string {
	out := make([]map[string]string, len(ids))
	for i, id := range ids {
		out[i] = map[string]string{"driver_id": fmt.Sprint(id)}
	}
	return out
}

// bundle is a reader over two fake tiers on a fake clock.
type bundle struct {
	t       testing.TB
	clock   *clock.Fake
	project *feature.Project
	online  *tier
	backing *tier
	reader  *reader.Reader
}

func newBundle(t testing.TB, change ...func(*reader.Config)) *bundle {
	t.Helper()
	b := &bundle{t: t, clock: clock.NewFake(start), project: testProject(t)}
	b.online, b.backing = newTier("online", b.clock), newTier("backing", b.clock)
	cfg := reader.Config{Project: b.project, Online: b.online, Backing: b.backing, Clock: b.clock, OnlineTimeout: 5 * time.Minute, BackingTimeout: 5 * time.Minute}
	for _, c := range change {
		c(&cfg)
	}
	r, err := reader.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.reader = r
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		for _, f := range []*tier{b.online, b.backing} {
			for _, what := range f.broken {
				t.Errorf("%s tier: %s", f.name, what)
			}
		}
	})
	return b
}

func (b *bundle) get(ids ...int) *reader.Response {
	b.t.Helper()
	return b.read(reader.Request{Service: "drivers", Entities: drivers(ids...)})
}

func (b *bundle) read(req reader.Request) *reader.Response {
	b.t.Helper()
	resp, err := b.reader.Get(b.t.Context(), req)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp
}

// want checks one value against what it should be.
func want(t testing.TB, v reader.Vector, name string, value feature.Value, status feature.Status, tier feature.Tier, at time.Time) {
	t.Helper()
	it, ok := v.Get(name)
	if !ok {
		t.Fatalf("%s is not in the response", name)
	}
	event := feature.NoTime
	if !at.IsZero() {
		event = feature.MicrosOf(at)
	}
	if !sameValue(it.Value, value) || it.Status != status || it.Tier != tier || it.EventTime != event {
		t.Errorf("%s of %v: got %s %s from %s at %s; want %s %s from %s at %s", name, v.Entity(),
			text(it.Value), it.Status, it.Tier, it.EventTime, text(value), status, tier, event)
	}
}

func sameValue(a, b feature.Value) bool {
	return text(a) == text(b)
}

func text(v feature.Value) string {
	b, err := v.MarshalJSON()
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func wantUnreachable(t testing.TB, r *reader.Response, tiers ...feature.Tier) {
	t.Helper()
	var got []feature.Tier
	for _, o := range r.Unreachable {
		got = append(got, o.Tier)
	}
	if !slices.Equal(got, tiers) {
		t.Errorf("unreachable: got %v (%+v), want %v", got, r.Unreachable, tiers)
	}
}

// fataler is what testing.TB and rapid.T have in common.
type fataler interface {
	Helper()
	Fatal(...any)
}
