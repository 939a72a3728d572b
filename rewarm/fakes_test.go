package rewarm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// The fakes are small real stores: the table keeps the newest version of a key, the online
// tier has shards, expiry, markers and add-or-newer. Hooks stand where faults come in.

var epoch = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

func testViews() []*feature.View {
	fields := []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}}
	return []*feature.View{
		{Name: "forever", Version: 1, Features: fields},
		{Name: "aging", Version: 2, TTL: 30 * day, Features: fields},
	}
}

func key(i int) feature.Key { return feature.Key(fmt.Sprintf("id=%05d", i)) }

func at(d time.Duration) feature.Micros { return feature.MicrosOf(epoch.Add(d)) }

// value makes the record of one number.
func value(t testing.TB, v *feature.View, k feature.Key, version feature.Version, n int64) feature.Record {
	t.Helper()
	features, err := feature.AppendFeatures(nil, v.Fields(), []feature.Value{feature.IntValue(n)})
	if err != nil {
		t.Fatal(err)
	}
	return record(t, v, k, feature.AppendPayload(nil, feature.Header{Fingerprint: v.Fingerprint(), Version: version}, features))
}

func tombstone(t testing.TB, v *feature.View, k feature.Key, version feature.Version) feature.Record {
	t.Helper()
	return record(t, v, k, feature.AppendPayload(nil, feature.Header{Fingerprint: v.Fingerprint(), Version: version, Tombstone: true}, nil))
}

func record(t testing.TB, v *feature.View, k feature.Key, payload []byte) feature.Record {
	t.Helper()
	rec, err := feature.NewRecord(v, k, payload)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// table is the backing tier.
type table struct {
	mu      sync.Mutex
	rows    map[feature.Ref][]byte
	limit   int // records per page
	unit    float64
	size    *Table // what Table says; nil for the truth
	scanned map[string]int
	calls   int
	gets    int

	onScan func(n int, req feature.ScanRequest) error // before the n-th scan, from 1
	onPage func(n int, req feature.ScanRequest)       // after the page was read
	onGet  func() error
}

func newTable() *table {
	return &table{rows: map[feature.Ref][]byte{}, limit: 10, unit: 1, scanned: map[string]int{}}
}

// put keeps the newest version, as the real stores do.
func (tb *table) put(recs ...feature.Record) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	for _, rec := range recs {
		if old, ok := tb.rows[rec.Ref]; ok {
			if h, _, err := feature.ParsePayload(old); err == nil && h.Version.Compare(rec.Version) >= 0 {
				continue
			}
		}
		tb.rows[rec.Ref] = bytes.Clone(rec.Payload)
	}
}

func (tb *table) raw(ref feature.Ref, payload []byte) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if payload == nil {
		delete(tb.rows, ref)
		return
	}
	tb.rows[ref] = payload
}

func (tb *table) get(ref feature.Ref) []byte { tb.mu.Lock(); defer tb.mu.Unlock(); return tb.rows[ref] }

func (tb *table) refs() []feature.Ref {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	refs := make([]feature.Ref, 0, len(tb.rows))
	for ref := range tb.rows {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, compareRefs)
	return refs
}

func compareRefs(a, b feature.Ref) int {
	if c := strings.Compare(string(a.Key), string(b.Key)); c != 0 {
		return c
	}
	return strings.Compare(a.View.String(), b.View.String())
}

func (tb *table) Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tb.mu.Lock()
	tb.calls++
	n := tb.calls
	hook := tb.onScan
	tb.mu.Unlock()
	if hook != nil {
		if err := hook(n, req); err != nil {
			return err
		}
	}
	// As in a real store, the memory of the page before is overwritten, and each record's
	// payload goes where the record in its place had its own.
	memory := page.Records[:cap(page.Records)]
	for i := range memory {
		for j := range memory[i].Payload {
			memory[i].Payload[j] = 0xEE
		}
	}
	page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, tb.unit
	limit := tb.limit
	if req.Limit > 0 {
		limit = min(limit, req.Limit)
	}
	tb.mu.Lock()
	var last string
	var refs []feature.Ref
	for ref := range tb.rows {
		name := string(ref.Key) + " " + ref.View.String()
		if feature.ShardOf(ref.Key, req.Segments) == req.Segment && name > string(req.Cursor) {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, compareRefs)
	for i, ref := range refs {
		if i == limit {
			page.Next = []byte(last)
			break
		}
		last = string(ref.Key) + " " + ref.View.String()
		tb.scanned[last]++
		if len(req.Views) > 0 && !slices.Contains(req.Views, ref.View) {
			continue
		}
		rec := feature.Record{Ref: ref}
		if n := len(page.Records); n < len(memory) {
			rec.Payload = memory[n].Payload[:0]
		}
		rec.Payload = append(rec.Payload, tb.rows[ref]...)
		if h, _, err := feature.ParsePayload(rec.Payload); err == nil {
			rec.Version = h.Version
		}
		page.Records = append(page.Records, rec)
	}
	after := tb.onPage
	tb.mu.Unlock()
	if after != nil {
		after(n, req)
	}
	return nil
}

func (tb *table) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if tb.onGet != nil {
		if err := tb.onGet(); err != nil {
			return nil, err
		}
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.gets += len(refs)
	results := make([]feature.GetResult, len(refs))
	for i, ref := range refs {
		results[i].Payload = bytes.Clone(tb.rows[ref])
	}
	return results, nil
}

func (tb *table) Table(context.Context) (Table, error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if tb.size != nil {
		return *tb.size, nil
	}
	t := Table{Name: "test", Items: int64(len(tb.rows))}
	for ref, p := range tb.rows {
		t.Bytes += int64(len(ref.Key) + len(p) + 40)
	}
	return t, nil
}

// cache is the online tier.
type cache struct {
	clock clock.Clock

	mu     sync.Mutex
	shards []*shard
	down   error
	puts   int
	sent   map[feature.Ref]int // values sent to Put
	info   Info
	marked int

	onPut  func(n int, recs []feature.Record) error                        // before the n-th put
	fails  func(rec feature.Record) error                                  // per record
	onGet  func()                                                          // before a get
	onMark func() error                                                    // before the markers
	past   func(n int, recs []feature.Record, results []feature.PutResult) // after a put
}

type shard struct {
	marker   uint64
	instance string // "" as of a tier that does not say
	values   map[feature.Ref]entry
}

type entry struct {
	payload []byte
	expiry  feature.Micros
}

func newCache(c clock.Clock, shards int) *cache {
	o := &cache{clock: c, sent: map[feature.Ref]int{}}
	for range shards {
		o.shards = append(o.shards, &shard{values: map[feature.Ref]entry{}})
	}
	return o
}

func (o *cache) of(ref feature.Ref) *shard { return o.shards[feature.ShardOf(ref.Key, len(o.shards))] }

func (o *cache) now() feature.Micros { return feature.MicrosOf(o.clock.Now()) }

// flush empties some shards, or all.
func (o *cache) flush(shards ...int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.shards {
		if len(shards) == 0 || slices.Contains(shards, i) {
			o.shards[i] = &shard{values: map[feature.Ref]entry{}}
		}
	}
}

func (o *cache) live(ref feature.Ref) (entry, bool) {
	e, ok := o.of(ref).values[ref]
	if ok && e.expiry != feature.NoTime && e.expiry <= o.now() {
		delete(o.of(ref).values, ref)
		return entry{}, false
	}
	return e, ok
}

func (o *cache) get(ref feature.Ref) (entry, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.live(ref)
}

func (o *cache) set(ref feature.Ref, payload []byte, expiry feature.Micros) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if payload == nil {
		delete(o.of(ref).values, ref)
		return
	}
	o.of(ref).values[ref] = entry{payload, expiry}
}

func (o *cache) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o.mu.Lock()
	o.puts++
	n, hook := o.puts, o.onPut
	o.mu.Unlock()
	if hook != nil {
		if err := hook(n, recs); err != nil {
			return nil, err
		}
	}
	o.mu.Lock()
	results := make([]feature.PutResult, len(recs))
	for i, rec := range recs {
		results[i] = o.one(rec)
	}
	past := o.past
	o.mu.Unlock()
	if past != nil {
		past(n, recs, results)
	}
	return results, nil
}

func (o *cache) one(rec feature.Record) feature.PutResult {
	o.sent[rec.Ref]++
	if o.down != nil {
		return feature.PutResult{Err: o.down}
	}
	if o.fails != nil {
		if err := o.fails(rec); err != nil {
			return feature.PutResult{Err: err}
		}
	}
	if rec.Online != feature.NoTime && rec.Online <= o.now() {
		return feature.PutResult{Outcome: feature.Expired}
	}
	if old, ok := o.live(rec.Ref); ok {
		h, _, err := feature.ParsePayload(old.payload)
		switch c := h.Version.Compare(rec.Version); {
		case err != nil: // not readable: replaced
		case c == 0:
			return feature.PutResult{Outcome: feature.Unchanged, Stored: rec.Version}
		case c > 0:
			return feature.PutResult{Outcome: feature.Older}
		}
	}
	e := entry{bytes.Clone(rec.Payload), rec.Online}
	if rec.Tombstone() {
		e.expiry = o.now().Add(time.Hour)
	}
	o.of(rec.Ref).values[rec.Ref] = e
	return feature.PutResult{Outcome: feature.Written, Stored: rec.Version}
}

func (o *cache) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.onGet != nil {
		o.onGet()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	results := make([]feature.GetResult, len(refs))
	for i, ref := range refs {
		if o.down != nil {
			results[i].Err = o.down
		} else if e, ok := o.live(ref); ok {
			results[i].Payload = bytes.Clone(e.payload)
		}
	}
	return results, nil
}

func addr(i int) string { return fmt.Sprintf("shard-%d", i) }

func (o *cache) Warmth(ctx context.Context) (Warmth, error) {
	if err := ctx.Err(); err != nil {
		return Warmth{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down != nil {
		return Warmth{}, o.down
	}
	w := Warmth{Reachable: true}
	for i, s := range o.shards {
		sw := ShardWarmth{Addr: addr(i), Reachable: true, Cold: s.marker == 0, Markers: 1, Keys: int64(len(s.values)), Instance: s.instance}
		if s.marker != 0 {
			sw.Present = 1
		}
		w.MarkerRun = max(w.MarkerRun, s.marker)
		w.Cold = w.Cold || sw.Cold
		w.Shards = append(w.Shards, sw)
	}
	return w, nil
}

func (o *cache) ColdFilter(ctx context.Context, before []byte) (func(feature.Ref) bool, []byte, error) {
	w, err := o.Warmth(ctx)
	if err != nil {
		return nil, nil, err
	}
	state := make([]byte, len(o.shards))
	for i, s := range w.Shards {
		if s.Cold || i < len(before) && before[i] == 1 {
			state[i] = 1
		}
	}
	return func(ref feature.Ref) bool { return state[feature.ShardOf(ref.Key, len(o.shards))] == 1 }, state, nil
}

func (o *cache) MarkWarm(ctx context.Context, run uint64) error {
	if o.onMark != nil {
		if err := o.onMark(); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.marked++
	for _, s := range o.shards {
		s.marker = run
	}
	return ctx.Err()
}

func (o *cache) Info(context.Context) (Info, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	info := o.info
	for _, s := range o.shards {
		info.Keys += int64(len(s.values))
	}
	info.Masters = len(o.shards)
	return info, nil
}

func (o *cache) Scan(ctx context.Context, view feature.ViewID, fn func([]feature.Ref) error) error {
	o.mu.Lock()
	var refs []feature.Ref
	for _, s := range o.shards {
		for ref := range s.values {
			if ref.View == view {
				refs = append(refs, ref)
			}
		}
	}
	o.mu.Unlock()
	for batch := range slices.Chunk(refs, 7) {
		if err := fn(batch); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// deleting is a cache that can remove.
type deleting struct{ *cache }

func (d deleting) Delete(_ context.Context, refs []feature.Ref) ([]error, error) {
	for _, ref := range refs {
		d.set(ref, nil, 0)
	}
	return make([]error, len(refs)), nil
}

// memory is the state store.
type memory struct {
	mu     sync.Mutex
	next   int64
	docs   map[string]doc
	saves  int
	onSave func(n int, name string) error
}

type doc struct {
	value []byte
	rev   int64
}

func newMemory() *memory { return &memory{docs: map[string]doc{}} }

func (m *memory) Load(_ context.Context, name string) ([]byte, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.docs[name]
	if !ok {
		return nil, 0, fmt.Errorf("state %s: %w", name, feature.ErrNotFound)
	}
	return bytes.Clone(d.value), d.rev, nil
}

func (m *memory) Save(ctx context.Context, name string, value []byte, revision int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	m.saves++
	n, hook := m.saves, m.onSave
	m.mu.Unlock()
	if hook != nil {
		if err := hook(n, name); err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.docs[name].rev != revision {
		return 0, fmt.Errorf("state %s: %w", name, feature.ErrConflict)
	}
	m.next++
	m.docs[name] = doc{bytes.Clone(value), m.next}
	return m.next, nil
}

func (m *memory) Delete(_ context.Context, name string, revision int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.docs[name]
	if ok && d.rev != revision {
		return feature.ErrConflict
	}
	delete(m.docs, name)
	return nil
}

// finished says whether the stored attempt is.
func (m *memory) finished() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	var a attempt
	return json.Unmarshal(m.docs[stateAttempt].value, &a) == nil && a.Finished != 0
}

// world is one table, one online tier, their state, and a clock that runs by itself: a
// sleeper is woken at once and the time moves on, so that no test waits.
type world struct {
	t      testing.TB
	views  []*feature.View
	table  *table
	online *cache
	state  *memory
	clock  *clock.Fake
}

func newWorld(t testing.TB, shards int) *world {
	t.Helper()
	c := clock.NewFake(epoch)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for c.WaitForWaiters(ctx, 1) == nil {
			c.Advance(time.Millisecond)
		}
	}()
	t.Cleanup(func() { stop(); <-stopped })
	return &world{t: t, views: testViews(), table: newTable(), online: newCache(c, shards), state: newMemory(), clock: c}
}

func (w *world) rewarmer(change ...func(*Config)) *Rewarmer {
	w.t.Helper()
	cfg := Config{Backing: w.table, Online: w.online, State: w.state, Views: w.views, Clock: w.clock, Workers: 3, BatchSize: 4, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// fill puts n entities of both views into the table, a day old.
func (w *world) fill(n int) {
	for i := range n {
		for _, v := range w.views {
			w.table.put(value(w.t, v, key(i), feature.Version{Event: at(-day), Run: 1}, int64(i)))
		}
	}
}

func (w *world) run(req Request) *Report {
	w.t.Helper()
	rep, err := w.rewarmer().Run(context.Background(), req)
	if err != nil {
		w.t.Fatalf("run: %v", err)
	}
	return rep
}

// checkComplete is invariant I8 by brute force: every live value of the table is online at
// its version or newer, with the expiry that its version gives it; nothing else is.
func (w *world) checkComplete() {
	w.t.Helper()
	now := feature.MicrosOf(w.clock.Now())
	for _, ref := range w.table.refs() {
		i := slices.IndexFunc(w.views, func(v *feature.View) bool { return v.ID() == ref.View })
		e, there := w.online.get(ref)
		if i < 0 {
			if there {
				w.t.Errorf("%s is of no declared view and yet online", ref)
			}
			continue
		}
		rec, err := feature.NewRecord(w.views[i], ref.Key, w.table.get(ref))
		if err != nil {
			continue
		}
		switch {
		case rec.Tombstone():
			if there && e.payload[0] != feature.FormatTombstone {
				w.t.Errorf("%s was deleted and is online", ref)
			}
		case over(rec, now):
			if there {
				w.t.Errorf("%s has expired and is online", ref)
			}
		case !there:
			w.t.Errorf("%s is not online", ref)
		default:
			h, _, err := feature.ParsePayload(e.payload)
			if err != nil {
				w.t.Errorf("%s online: %v", ref, err)
			} else if c := h.Version.Compare(rec.Version); c < 0 {
				w.t.Errorf("%s is online at %s, the table has %s", ref, h.Version, rec.Version)
			} else if c == 0 && (!bytes.Equal(e.payload, rec.Payload) || e.expiry != rec.Online) {
				w.t.Errorf("%s online: payload %x expiry %s, want %x %s", ref, e.payload, e.expiry, rec.Payload, rec.Online)
			}
		}
	}
}
