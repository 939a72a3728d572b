package offline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// fixed makes a repeatable set of facts and labels.
func fixed(nFacts, nLabels int) ([]factRow, []labelRow) {
	seed := uint64(42)
	next := func(n uint64) uint64 {
		seed = seed*6364136223846793005 + 1442695040888963407
		return (seed >> 33) % n
	}
	facts := make([]factRow, nFacts)
	for i := range facts {
		facts[i] = factRow{K1: ptr(fmt.Sprint("u", next(50))), K2: ptr(int64(next(3))), Event: ptr(base + int64(next(1000))), A: ptr(int64(next(9))), B: ptr(fmt.Sprint("v", next(4)))}
		if next(3) > 0 {
			facts[i].Created = ptr(base + int64(next(1000)))
		}
	}
	labels := make([]labelRow, nLabels)
	for i := range labels {
		labels[i] = labelRow{ID: int64(i), X: ptr(fmt.Sprint("u", next(60))), Y: ptr(int64(next(3))), T: ptr(base + int64(next(1100)))}
	}
	return facts, labels
}

// setting is one dataset over generated data.
type setting struct {
	dir    string
	facts  []factRow
	labels []labelRow
	view   *feature.View
	req    DatasetRequest
}

func newSetting(t testing.TB, nFacts, nLabels int) *setting {
	t.Helper()
	s := &setting{dir: t.TempDir()}
	s.facts, s.labels = fixed(nFacts, nLabels)
	writeParquet(t, filepath.Join(s.dir, "facts", "1.parquet"), s.facts)
	writeParquet(t, filepath.Join(s.dir, "labels.parquet"), s.labels)
	s.view = factsView(filepath.Join(s.dir, "facts"), 300*time.Microsecond)
	s.req = DatasetRequest{
		Name: "d", Project: "p", Spine: Spine{Path: filepath.Join(s.dir, "labels.parquet"), TimestampField: "t", JoinKeys: map[string]string{"k1": "x", "k2": "y"}},
		Selection: selectionOf(t, []*feature.View{s.view}, ref(t, "facts:*")), EventTimestamps: true, Output: filepath.Join(s.dir, "out", "d"),
	}
	return s
}

func (s *setting) build(t testing.TB, e *Engine, change ...func(*DatasetRequest)) *Manifest {
	t.Helper()
	req := s.req
	for _, f := range change {
		f(&req)
	}
	m, err := e.BuildDataset(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The same inputs give the same bytes (I3): whatever the threads, the split into files,
// the order of the rows, the memory, the loop join that DuckDB's ASOF uses for few rows, and the
// way in which the views are put together. The label file itself is not touched, as its order
// is the order of the result. The labels fill two row groups.
// Seen red with the digest left out of the tie-break, and with the shelved files of the spine
// and of the views not in order: the build fails, by the audit and by the last step's own check.
func TestSameInputsSameBytes(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 20_000, 130_000)
	e := openEngine(t)
	want := s.build(t, e)
	checkJoined(t, readJoined(t, s.req.Output)[:500], s.labels[:500], s.facts, 300*time.Microsecond, false)
	few, digest := filepath.Join(s.dir, "few.parquet"), ""
	writeParquet(t, few, s.labels[:1_000])
	same := func(name string, m *Manifest) {
		t.Helper()
		if m.Digest != want.Digest {
			t.Errorf("%s: digest %s, want %s", name, m.Digest, want.Digest)
		}
		if m.Files[0].SHA256 != want.Files[0].SHA256 {
			t.Errorf("%s: the bytes of the file differ", name)
		}
	}
	same("again", s.build(t, e))
	for seed := range uint64(2) {
		rows := shuffled(s.facts, seed+1)
		writeParquet(t, filepath.Join(s.dir, "facts", "1.parquet"), rows[:7_000])
		writeParquet(t, filepath.Join(s.dir, "facts", "0.parquet"), rows[7_000:])
		same("shuffled and split", s.build(t, e))
	}
	same("one thread", s.build(t, openEngine(t, func(c *Config) { c.Threads = 1 })))
	same("three threads", s.build(t, openEngine(t, func(c *Config) { c.Threads = 3 })))
	same("little memory", s.build(t, openEngine(t, func(c *Config) { c.MemoryBytes = 160 << 20 })))
	for _, rows := range []int{0, 64, 1 << 30} {
		other := openEngine(t)
		setGlobal(t, other, "asof_loop_join_threshold", rows)
		// A loop over all pairs takes its time, so that fewer labels are asked.
		m := s.build(t, other, func(r *DatasetRequest) { r.Plan = PlanASOF; r.Spine.Path = few; r.Output = s.req.Output + "-few" })
		if digest == "" {
			digest = m.Digest
		}
		if m.Digest != digest {
			t.Errorf("loop join below %d rows: digest %s, want %s", rows, m.Digest, digest)
		}
	}
	for _, threads := range []int{1, 3} {
		same("shelved", s.build(t, openEngine(t, func(c *Config) { c.Threads = threads }), func(r *DatasetRequest) { r.assembly = AssemblyShelf }))
	}
	if err := os.Rename(s.req.Spine.Path, filepath.Join(s.dir, "whole.parquet")); err != nil {
		t.Fatal(err)
	}
	writeParquet(t, filepath.Join(s.dir, "labels", "a.parquet"), s.labels[:11])
	writeParquet(t, filepath.Join(s.dir, "labels", "b.parquet"), s.labels[11:])
	s.req.Spine.Path = filepath.Join(s.dir, "labels")
	same("spine in two files", s.build(t, e))
}

// Snapshots appended over and over: one event time, a thousand rows per key. They are
// resolved per key before they are given to the labels.
func TestTiesAreTheRule(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 1, 5_000)
	for i := range 20_000 {
		f := s.facts[0]
		f.K1, f.K2, f.Event, f.Created, f.A = ptr(fmt.Sprint("u", i%4)), ptr(int64(0)), ptr(base), ptr(base+int64(i/8)), ptr(int64(i%7))
		s.facts = append(s.facts, f)
	}
	writeParquet(t, filepath.Join(s.dir, "facts", "1.parquet"), s.facts)
	s.view.TTL = 0
	s.req.Selection = selectionOf(t, []*feature.View{s.view}, ref(t, "facts:*"))
	e := openEngine(t)
	for _, known := range []bool{false, true} {
		s.build(t, e, func(r *DatasetRequest) { r.KnownAt = known })
		labels := s.labels[:300]
		checkJoined(t, readJoined(t, s.req.Output)[:300], labels, s.facts, 0, known)
	}
}

func TestOutputFormats(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 500, 1_000)
	e := openEngine(t)
	want := s.build(t, e)
	m := s.build(t, e, func(r *DatasetRequest) { r.PartitionRows = 300 })
	if len(m.Files) != 4 || m.Files[3].Rows != 100 || m.Digest != want.Digest {
		t.Errorf("partitions: %+v", m.Files)
	}
	checkJoined(t, readJoined(t, s.req.Output), s.labels, s.facts, s.view.TTL, false)
	m = s.build(t, e, func(r *DatasetRequest) { r.PartitionRows, r.assembly = 300, AssemblyShelf })
	if len(m.Files) != 4 || m.Files[3].Rows != 100 || m.Digest != want.Digest {
		t.Errorf("partitions of shelved views: %+v", m.Files)
	}
	m = s.build(t, e, func(r *DatasetRequest) { r.FileFormat = "csv" })
	text, err := os.ReadFile(filepath.Join(s.req.Output, "part-00000.csv"))
	if err != nil || strings.Count(string(text), "\n") != 1_001 || !strings.HasPrefix(string(text), "id,x,y,t,a,b,facts__event_timestamp\n0,") || m.Digest != want.Digest {
		t.Errorf("csv: %v, %.80q", err, text)
	}
	// The CSV files as a spine: rows in order of the file, times as UTC.
	spine := filepath.Join(s.dir, "spine.csv")
	var b strings.Builder
	b.WriteString("id,x,y,t\n")
	for _, l := range s.labels {
		fmt.Fprintf(&b, "%d,%s,%d,%s\n", l.ID, *l.X, *l.Y, time.UnixMicro(*l.T).UTC().Format("2006-01-02 15:04:05.000000"))
	}
	if err := os.WriteFile(spine, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	s.build(t, e, func(r *DatasetRequest) { r.Spine.Path = spine })
	checkJoined(t, readJoined(t, s.req.Output), s.labels, s.facts, s.view.TTL, false)
}

func TestParquetMetadata(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 10, 100)
	s.build(t, openEngine(t), func(r *DatasetRequest) { r.Service, r.ConfigDigest, r.Run = "svc", "abc", 7 })
	f, err := os.Open(filepath.Join(s.req.Output, "part-00000.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	p, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"hearth.project": "p", "hearth.dataset": "d", "hearth.service": "svc", "hearth.config_digest": "abc", "hearth.run": "7"} {
		if got, ok := p.Lookup(key); !ok || got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestNamesAndDefaults(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 200, 300)
	e := openEngine(t)
	columns := func(m *Manifest) string {
		names := make([]string, len(m.Columns))
		for i, c := range m.Columns {
			names[i] = c.Name
		}
		return strings.Join(names, " ")
	}
	m := s.build(t, e, func(r *DatasetRequest) { r.FullFeatureNames = true })
	if got, want := columns(m), "id x y t facts__a facts__b facts__event_timestamp"; got != want {
		t.Errorf("columns %q, want %q", got, want)
	}
	// The same view twice, under other spine columns: k1 from x, then k1 from x again with k2 from id.
	twice := selectionOf(t, []*feature.View{s.view}, ref(t, "facts:a"),
		feature.FeatureRef{View: feature.ViewID{Name: "facts", Version: 1}, Feature: "*", As: "other", JoinKeys: map[string]string{"k2": "id"}})
	m = s.build(t, e, func(r *DatasetRequest) { r.Selection = twice })
	if got, want := columns(m), "id x y t facts__a other__a b facts__event_timestamp other__event_timestamp"; got != want {
		t.Errorf("columns %q, want %q", got, want)
	}
	if m.Views[1].JoinKeys["k2"] != "id" || m.Views[0].Matched <= m.Views[1].Matched {
		t.Errorf("views %+v", m.Views)
	}
	s.build(t, e, func(r *DatasetRequest) { r.FillDefaults = true })
	for i, row := range readJoined(t, s.req.Output) {
		want := reference(s.labels[i], s.facts, s.view.TTL, false)
		if row.A == nil || want == nil && *row.A != -1 || want != nil && want.A != nil && *row.A != *want.A {
			t.Fatalf("row %d: %s", i, show(row))
		}
		if want == nil && row.B != nil {
			t.Fatalf("row %d: a default out of nowhere", i)
		}
	}
	// A feature named like a column of the spine.
	view := *s.view
	view.Features = []feature.Feature{{Field: feature.Field{Name: "ID", Type: feature.Int64}}}
	view.Source.FieldMapping = map[string]string{"a": "ID"}
	req := s.req
	req.Selection = selectionOf(t, []*feature.View{&view}, ref(t, "facts:*"))
	_, err := e.BuildDataset(t.Context(), req)
	if !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), "full_feature_names") {
		t.Errorf("collision: %v", err)
	}
}

// Every way in which sources and requests are wrong: the error names the place and what
// to do, and all problems come at once.
func TestProblems(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 100, 100)
	e := openEngine(t)
	bad := filepath.Join(s.dir, "bad", "x.parquet")
	if err := os.MkdirAll(filepath.Dir(bad), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte("PAR1 not really"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(v *feature.View)
		want   []string
	}{
		"missing file":    {func(v *feature.View) { v.Source.Path = filepath.Join(s.dir, "none.parquet") }, []string{"none.parquet", "no such file"}},
		"empty folder":    {func(v *feature.View) { v.Source.Path = filepath.Join(s.dir, "empty") }, []string{"empty", "no Parquet file"}},
		"empty glob":      {func(v *feature.View) { v.Source.Path = filepath.Join(s.dir, "*.nothing") }, []string{"*.nothing", "no file matches"}},
		"unreadable":      {func(v *feature.View) { v.Source.Path = bad }, []string{"x.parquet", "cannot be read as Parquet", "replace or remove"}},
		"wrong column":    {func(v *feature.View) { v.Features[0].Name = "aa" }, []string{`no column "aa"`, "field_mapping"}},
		"case":            {func(v *feature.View) { v.Features[0].Name = "A" }, []string{`did you mean "a"`}},
		"wrong type":      {func(v *feature.View) { v.Features[1].Type = feature.Int64 }, []string{`column "b" has type VARCHAR`, "integer column"}},
		"time is no time": {func(v *feature.View) { v.Source.TimestampField = "a" }, []string{`column "a" has type BIGINT`, "timestamp_unit"}},
		"deleted":         {func(v *feature.View) { v.Source.DeletedColumn = "a" }, []string{`"a" has type BIGINT`, "boolean"}},
		"two at once":     {func(v *feature.View) { v.Features[0].Name, v.Features[1].Name = "p", "q" }, []string{`"p"`, `"q"`}},
	} {
		v := *s.view
		v.Features = append([]feature.Feature(nil), s.view.Features...)
		c.change(&v)
		text := e.Check(t.Context(), &feature.Project{Views: []feature.View{v}}).Error()
		_, err := e.Latest(t.Context(), feature.LatestRequest{View: &v, Files: []feature.File{{Path: "x"}}, Start: feature.NoTime, End: feature.NoTime}, func([]feature.Row) error { return nil })
		if err == nil {
			t.Errorf("%s: Latest accepts it", name)
		}
		req := s.req
		req.Selection = selectionOf(t, []*feature.View{&v}, ref(t, "facts:*"))
		_, err = e.BuildDataset(t.Context(), req)
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: Check says %q, want %q", name, text, want)
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: BuildDataset says %q, want %q", name, err, want)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(r *DatasetRequest)
		want   string
	}{
		"spine missing":  {func(r *DatasetRequest) { r.Spine.Path += "x" }, "no such file"},
		"spine time":     {func(r *DatasetRequest) { r.Spine.TimestampField = "x" }, "store it as timestamp or date"},
		"spine column":   {func(r *DatasetRequest) { r.Spine.TimestampField = "nope" }, "it has: id, x, y, t"},
		"spine key":      {func(r *DatasetRequest) { r.Spine.JoinKeys = nil }, `no column "k1"`},
		"spine key type": {func(r *DatasetRequest) { r.Spine.JoinKeys = map[string]string{"k1": "y", "k2": "y"} }, `join key "k1" of view facts@1 is string`},
		"no features":    {func(r *DatasetRequest) { r.Selection = &feature.Selection{} }, "no feature is selected"},
		"format":         {func(r *DatasetRequest) { r.FileFormat = "xml" }, "parquet or csv"},
		"plan":           {func(r *DatasetRequest) { r.Plan = "magic" }, "unknown plan"},
	} {
		req := s.req
		c.change(&req)
		if problems := e.CheckDataset(t.Context(), req); !strings.Contains(problems.Error(), c.want) {
			t.Errorf("%s: CheckDataset says %q, want %q", name, problems, c.want)
		}
		if _, err := e.BuildDataset(t.Context(), req); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: BuildDataset says %q, want %q", name, err, c.want)
		}
	}
	if problems := e.CheckDataset(t.Context(), s.req); len(problems) > 0 {
		t.Error(problems)
	}
	if _, err := os.Stat(s.req.Output); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was published: %v", err)
	}
}

// A label at infinity would match the newest row of any future.
func TestInfiniteLabelTime(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 100, 100)
	e := openEngine(t)
	copySQL(t, e, `SELECT 1 AS id, 'u1' AS x, 0::BIGINT AS y, TIMESTAMP 'infinity' AS t`, s.req.Spine.Path)
	if _, err := e.BuildDataset(t.Context(), s.req); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), "1 rows have an infinite") {
		t.Errorf("got %v", err)
	}
}

// The audit reads the written rows: a winner from after its label fails the build, and
// what was published before stays. The fault is planted between join and write.
func TestAuditFailsTheBuild(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 500, 500)
	e := openEngine(t)
	before := s.build(t, e)
	shift := func(d *dataset, by int64) {
		for i, t := range d.indexes[0].index.Events() {
			if t != int64(feature.NoTime) {
				d.indexes[0].index.Events()[i] += by
			}
		}
	}
	for name, c := range map[string]struct {
		plan  Plan
		plant func(d *dataset) error
	}{
		"newer":        {PlanASOF, func(d *dataset) error { return d.Exec(t.Context(), "UPDATE m0 SET ev = ev + 1000000") }},
		"stale":        {PlanASOF, func(d *dataset) error { return d.Exec(t.Context(), "UPDATE m0 SET ev = ev - 1000000") }},
		"index, newer": {PlanIndex, func(d *dataset) error { shift(d, 1_000_000); d.winners[0].Event = nil; return nil }},
		"index, stale": {PlanIndex, func(d *dataset) error { shift(d, -1_000_000); d.winners[0].Event = nil; return nil }},
	} {
		op, err := e.session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d := &dataset{session: op, req: s.req, sources: map[feature.ViewID]*source{}, queries: newDigest()}
		d.req.Plan = c.plan
		if err = errors.Join(d.validate(), d.bind(t.Context())); err == nil {
			err = d.join(t.Context(), 0)
		}
		if err == nil {
			err = errors.Join(c.plant(d), d.write(t.Context(), op.dir))
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := d.audit(t.Context(), op.dir); !errors.Is(err, ErrLeak) {
			t.Errorf("%s: audit says %v", name, err)
		}
		if err := errors.Join(d.closeIndexes(t.Context()), op.close()); err != nil {
			t.Fatal(err)
		}
	}
	if after, err := ReadManifest(s.req.Output); err != nil || after.Digest != before.Digest {
		t.Errorf("the earlier training set is gone: %v", err)
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 100, 200)
	e := openEngine(t)
	first := s.build(t, e)
	// A second build of the same output while one runs is refused, and harms nothing.
	var inner error
	s.build(t, e, func(r *DatasetRequest) {
		r.Progress = func(p telemetry.Progress) {
			if p.Stage == "write" && inner == nil {
				_, inner = e.BuildDataset(t.Context(), s.req)
			}
		}
	})
	if !errors.Is(inner, feature.ErrLeaseHeld) {
		t.Errorf("two builds at once: %v", inner)
	}
	// What is no training set is never replaced.
	precious := filepath.Join(s.dir, "precious")
	if err := os.MkdirAll(precious, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(precious, "thesis.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	req := s.req
	req.Output = precious
	if _, err := e.BuildDataset(t.Context(), req); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("precious folder: %v", err)
	}
	// What dead builds left is cleaned up, and a replaced output that one had moved away
	// comes back when its successor never arrived.
	parent := filepath.Dir(s.req.Output)
	if err := os.MkdirAll(filepath.Join(parent, ".d.tmp-dead"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.req.Output, filepath.Join(parent, ".d.old-dead")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	req = s.req
	req.Progress = func(telemetry.Progress) { cancel() }
	if _, err := e.BuildDataset(ctx, req); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if m, err := ReadManifest(s.req.Output); err != nil || m.Digest != first.Digest {
		t.Errorf("the moved output did not come back: %v", err)
	}
	names, err := os.ReadDir(parent)
	if err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	var table strings.Builder
	if err := first.WriteTable(&table); err != nil || !strings.Contains(table.String(), "facts@1") {
		t.Errorf("table: %v\n%s", err, table.String())
	}
}

// A folder in which no file can be made is an error, and not tried for ever: some file systems
// answer as if the folder were gone. Seen red (it never ended) without a bound of attempts.
func TestOutputWhereNoFileCanBe(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 10, 10)
	s.req.Output = "/proc/hearth-training-set"
	if _, err := openEngine(t).BuildDataset(t.Context(), s.req); err == nil || !strings.Contains(err.Error(), "output") {
		t.Errorf("got %v", err)
	}
}

// A set whose file is damaged or gone cannot be compared, and the error says what to do; a
// memory limit whose unit was forgotten is refused. Seen red without either.
func TestDamagedSetAndTinyMemory(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 50, 50)
	e := openEngine(t)
	s.build(t, e)
	other := s.req.Output + "-other"
	s.build(t, e, func(r *DatasetRequest) { r.Output, r.FillDefaults, r.FullFeatureNames = other, true, true })
	part := filepath.Join(s.req.Output, "part-00000.parquet")
	for _, damage := range []func() error{func() error { return os.Truncate(part, 100) }, func() error { return os.Remove(part) }} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := e.DatasetDiff(t.Context(), s.req.Output, other, DiffOptions{}); err == nil || !strings.Contains(err.Error(), "part-00000.parquet") || !strings.Contains(err.Error(), "build that set again") {
			t.Errorf("got %v", err)
		}
	}
	if e, err := Open(t.Context(), Config{MemoryBytes: 5, TempDir: t.TempDir()}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("5 bytes: %v, %v", e, err)
	}
}
