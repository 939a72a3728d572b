package offline

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/offline/internal/newest"
	"github.com/hearthstore/hearth/sql"
)

// What the index finds is held against a loop over all rows in its own package; and through
// files and statements by the tests of the joins (dataset_test.go, plan_test.go, rules_test.go), which
// were seen red with the same rules broken.

// indexSetting is a view of so many rows from SQL over the row number i, and labels.
func indexSetting(t *testing.T, e *Engine, facts, labels string) (DatasetRequest, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "facts.parquet")
	copySQL(t, e, facts, path)
	copySQL(t, e, labels, filepath.Join(dir, "labels.parquet"))
	v := &feature.View{Name: "v", Version: 1, TTL: 20 * 24 * time.Hour, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}},
		Source: feature.Source{Path: path, TimestampField: "at"}, Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}, {Field: feature.Field{Name: "b", Type: feature.String}}}}
	return DatasetRequest{Name: "d", Spine: Spine{Path: filepath.Join(dir, "labels.parquet"), TimestampField: "t"},
		Selection: selectionOf(t, []*feature.View{v}, ref(t, "v:*")), Output: filepath.Join(dir, "out")}, path
}

func buildWith(t *testing.T, e *Engine, req DatasetRequest, plan Plan) *Manifest {
	t.Helper()
	req.Plan = plan
	m, err := e.BuildDataset(t.Context(), req)
	if err != nil {
		t.Fatalf("plan %q: %v", plan, err)
	}
	return m
}

// Rows of few labelled entities are kept when they are read, unless there turn out to be many;
// both give the rows of ASOF. Seen red with the bound left out (the rows were kept) and with
// the cut table taken for all rows.
func TestIndexGathersFewRows(t *testing.T) {
	t.Parallel()
	e := openEngine(t, func(c *Config) { c.Threads = 1 }) // so that the first rows are the first
	at := func(salt string) string { return fmt.Sprintf("make_timestamp(%d + %s)", base, evenly(salt, 30)) }
	labels := "SELECT (hash(i, 's') % 40)::BIGINT AS k, " + at("t") + " AS t FROM range(3000) r(i)"
	for name, c := range map[string]struct {
		key  string
		kept bool
	}{
		"few":                     {"hash(i, 'k') % 4000", true},
		"few among the first":     {"CASE WHEN i < 100000 THEN 50 + i % 10 ELSE i % 40 END", false}, // unlike the others
		"many":                    {"hash(i, 'k') % 60", false},
		"none":                    {"50 + i % 10", true},
		"few, of rows that tie":   {"i // 2 % 4000", true},
		"few, and many like them": {"CASE WHEN i % 2000 = 0 THEN 7 ELSE 50 + i END", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req, _ := indexSetting(t, e, "SELECT ("+c.key+")::BIGINT AS k, "+at("e")+" AS at, i AS a, 'x' || i % 7 AS b FROM range(250000) r(i)", labels)
			want := buildWith(t, e, req, PlanASOF)
			got := buildWith(t, e, req, PlanAuto)
			if got.Views[0].Plan != PlanIndex || got.Digest != want.Digest || got.Views[0].Matched != want.Views[0].Matched || got.Views[0].Ties != want.Views[0].Ties {
				t.Errorf("plan %s: %d matched, %d ties, digest %s; asof: %d, %d, %s", got.Views[0].Plan, got.Views[0].Matched, got.Views[0].Ties, got.Digest, want.Views[0].Matched, want.Views[0].Ties, want.Digest)
			}
			if kept := got.Views[0].PlanStats.Gathered; (kept > 0) != (c.kept && name != "none") {
				t.Errorf("%d rows were kept", kept)
			}
		})
	}
}

// Where hundreds of thousands of rows share key and both times, the index gives up, and SQL
// breaks the ties: the same row wins. Seen red with the further ties dropped in silence.
func TestIndexGivesUpOnManyTies(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	req, _ := indexSetting(t, e, fmt.Sprintf("SELECT 1 AS k, make_timestamp(%d) AS at, i AS a, 'x' || i AS b FROM range(%d) r(i)", base, newest.MaxTied+10),
		fmt.Sprintf("SELECT 1 AS k, make_timestamp(%d + i) AS t FROM range(3) r(i)", base))
	want := buildWith(t, e, req, PlanASOF)
	for _, plan := range []Plan{PlanAuto, PlanIndex} {
		got := buildWith(t, e, req, plan)
		if v := got.Views[0]; v.Plan != PlanASOF || v.PlanReason != errCrowded.Error() || got.Digest != want.Digest || v.Matched != 3 {
			t.Errorf("plan %q: %s (%s), %d matched, digest %s, want %s", plan, v.Plan, v.PlanReason, v.Matched, got.Digest, want.Digest)
		}
	}
}

// A source that is written anew between the two passes fails the build; nothing is published.
// Seen red without the comparison of the event times: rows of other entities came out.
func TestIndexNoticesAnotherSource(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	facts := func(salt string) string {
		return fmt.Sprintf("SELECT (hash(i, 'k%s') %% 50)::BIGINT AS k, make_timestamp(%d + %s) AS at, i AS a, 'x' AS b FROM range(3000) r(i)", salt, base, evenly("e"+salt, 30))
	}
	for name, change := range map[string]func(*DatasetRequest){
		"at once":   func(*DatasetRequest) {},
		"in tables": func(r *DatasetRequest) { r.PartitionRows = 100 }, // between the picking and the fetching
		"shelved":   func(r *DatasetRequest) { r.assembly = AssemblyShelf },
	} {
		req, path := indexSetting(t, e, facts("1"), fmt.Sprintf("SELECT (i %% 50)::BIGINT AS k, make_timestamp(%d + %s) AS t FROM range(500) r(i)", base, evenly("t", 30)))
		req.Plan = PlanIndex
		change(&req)
		op, err := e.session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d := &dataset{session: op, req: req, sources: map[feature.ViewID]*source{}, queries: newDigest()}
		if err := errors.Join(d.validate(), d.bind(t.Context())); err != nil {
			t.Fatal(err)
		}
		d.assembly = req.assembly
		if d.assembly == assemblyAuto {
			d.assembly = AssemblyJoin
		}
		j, err := d.describeJoin(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		x, from, err := d.pick(t.Context(), j, &d.manifest.Views[0])
		if err != nil {
			t.Fatal(err)
		}
		copySQL(t, e, facts("2"), path)
		err = d.take(t.Context(), x, from)
		if err == nil && d.assembly == AssemblyShelf {
			err = d.shelve(t.Context(), 0, j)
		}
		if err == nil {
			err = d.write(t.Context(), op.dir)
		}
		if !errors.Is(err, errChanged) || !strings.Contains(err.Error(), sql.OtherRows) {
			t.Errorf("%s: %v", name, err)
		}
		if err := errors.Join(d.closeIndexes(t.Context()), op.close()); err != nil {
			t.Error(err)
		}
	}
}

// What an index takes from DuckDB's memory comes back, whatever ended the build. Seen red
// without the return after a failure.
func TestIndexGivesMemoryBack(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	limit := func() (text string) {
		op, err := e.session(t.Context())
		if err == nil {
			err = errors.Join(op.QueryRow(t.Context(), "SELECT current_setting('memory_limit')", &text), op.close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	before := limit()
	req, path := indexSetting(t, e, fmt.Sprintf("SELECT i %% 50 AS k, make_timestamp(%d + i) AS at, i AS a, 'x' AS b FROM range(3000) r(i)", base),
		fmt.Sprintf("SELECT i %% 50 AS k, make_timestamp(%d + i) AS t FROM range(500) r(i)", base))
	buildWith(t, e, req, PlanIndex)
	if after := limit(); after != before || e.lent != 0 {
		t.Errorf("after a build DuckDB has %s, before %s; %d bytes are lent", after, before, e.lent)
	}
	copySQL(t, e, fmt.Sprintf("SELECT 1 AS k, make_timestamp(%d) AS at, i AS a, 'x' || i AS b FROM range(%d) r(i)", base, newest.MaxTied+10), path)
	buildWith(t, e, req, PlanIndex) // gives up
	if after := limit(); after != before || e.lent != 0 {
		t.Errorf("after an index that gave up DuckDB has %s, before %s; %d bytes are lent", after, before, e.lent)
	}
}
