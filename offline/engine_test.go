package offline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A dead engine's scratch files go when the next one opens; a living one's stay.
func TestStaleScratch(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tmp")
	dead := filepath.Join(dir, ownPrefix+"dead", "spill")
	if err := os.MkdirAll(dead, 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := Open(t.Context(), Config{TempDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	second, err := Open(t.Context(), Config{TempDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead engine's files are still there: %v", err)
	}
	if _, err := os.Stat(first.temp); err != nil {
		t.Errorf("the living engine lost its files: %v", err)
	}
	if err := errors.Join(first.Close(), second.Close()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if _, err := e.BuildDataset(t.Context(), DatasetRequest{}); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after close: %v", err)
	}
}

// A cancelled build returns from the middle of a statement, and leaves nothing.
func TestCancelBuild(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 10, 70)
	e := openEngine(t)
	// A query source that would run for days: that the build returns is the interrupt.
	query := filepath.Join(s.dir, "slow.sql")
	text := `SELECT 'u1' AS k1, 1::BIGINT AS k2, TIMESTAMP '2020-09-13' AS event, NULL::TIMESTAMP AS created, false AS deleted, sum(a.range * b.range)::BIGINT AS a, 'x' AS b
		FROM range(100000000) a, range(100000000) b`
	if err := os.WriteFile(query, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s.view.Source.Path, s.view.Source.Query = "", query
	s.req.Selection = selectionOf(t, []*feature.View{s.view}, ref(t, "facts:*"))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := e.BuildDataset(ctx, s.req)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Dir(s.req.Output)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left at the output: %v", err)
	}
}

// A build that is cancelled at any of its steps publishes nothing and leaves nothing, however
// the views are put together. What stood there before stays.
// Seen red with the scratch folder of the operation kept.
func TestCancelAtEveryStep(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 2_000, 2_000)
	e := openEngine(t)
	before := s.build(t, e)
	for _, assembly := range []Assembly{AssemblyJoin, AssemblyShelf} {
		var steps []string
		s.build(t, e, func(r *DatasetRequest) {
			r.assembly, r.Output = assembly, s.req.Output+"-other"
			r.Progress = func(p telemetry.Progress) {
				if len(steps) == 0 || steps[len(steps)-1] != p.Stage {
					steps = append(steps, p.Stage)
				}
			}
		})
		if len(steps) < 7 {
			t.Errorf("steps %q", steps)
		}
		if err := os.RemoveAll(s.req.Output + "-other"); err != nil {
			t.Fatal(err)
		}
		for _, step := range steps {
			ctx, cancel := context.WithCancel(t.Context())
			req := s.req
			req.assembly = assembly
			req.Progress = func(p telemetry.Progress) {
				if p.Stage == step {
					cancel()
				}
			}
			_, err := e.BuildDataset(ctx, req)
			cancel()
			if step != "done" && !errors.Is(err, context.Canceled) {
				t.Errorf("%s, %s: %v", assembly, step, err)
			}
			if m, err := ReadManifest(s.req.Output); err != nil || m.Digest != before.Digest {
				t.Errorf("%s, %s: the earlier training set is gone: %v", assembly, step, err)
			}
			for _, dir := range []string{e.temp, filepath.Dir(s.req.Output)} {
				entries, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, entry := range entries {
					if name := entry.Name(); name != "d" && name != lockName && name != "spill" {
						t.Errorf("%s, %s: %s is left", assembly, step, filepath.Join(dir, name))
					}
				}
			}
		}
	}
}

// A query source gives what its rows give: sums keep their integers (DuckDB would write
// HUGEINT as DOUBLE), and the files behind it and the query itself are its inputs.
func TestQuerySource(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 3_000, 400)
	query := filepath.Join(s.dir, "facts.sql")
	text := `SELECT k1, k2, event, created, deleted, b, sum(a + 9007199254740993) OVER (PARTITION BY k1, k2, event, created, b, a) AS total
		FROM {{source "raw"}};`
	if err := os.WriteFile(query, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	e := openEngine(t, func(c *Config) {
		c.Sources = []feature.NamedSource{{Name: "raw", Path: filepath.Join(s.dir, "facts")}}
	})
	v := *s.view
	v.Source.Path, v.Source.Query = "", query
	v.Features = []feature.Feature{{Field: feature.Field{Name: "total", Type: feature.Int64}}}
	if problems := e.Check(t.Context(), &feature.Project{Views: []feature.View{v}}); len(problems) > 0 {
		t.Fatal(problems)
	}
	files, err := e.Files(t.Context(), &v)
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	got, err := latestOf(t, e, &v)
	if err != nil || len(got.rows) == 0 || got.stats.RowsRead != 3_000 {
		t.Fatalf("%+v, %v", got.stats, err)
	}
	for key, row := range got.rows {
		values, err := feature.DecodeFeatures(row.Features, v.Fields(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n := values[0].Int(); n < 9007199254740993 || n%9007199254740993 > 100 {
			t.Fatalf("%s: %d lost its last digits", key, n)
		}
	}
	s.req.Selection = selectionOf(t, []*feature.View{&v}, ref(t, "facts:*"))
	if m := s.build(t, e); m.Views[0].Matched == 0 {
		t.Error("nothing matched")
	}
	if err := os.WriteFile(query, []byte(`SELECT * FROM {{source "nope"}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if text := e.Check(t.Context(), &feature.Project{Views: []feature.View{v}}).Error(); !strings.Contains(text, `unknown source "nope"; declared are: raw`) {
		t.Error(text)
	}
}

// Files of a source may have been written before a feature existed, and hive folders are
// columns whose values are text until a type is declared.
func TestEvolvingAndPartitioned(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	dir := t.TempDir()
	copySQL(t, e, `SELECT i AS k, TIMESTAMP '2021-01-01 00:00:00' AS at, i::INTEGER AS a FROM range(4) r(i)`, filepath.Join(dir, "region=007", "old.parquet"))
	copySQL(t, e, `SELECT i AS k, TIMESTAMP '2021-01-02 00:00:00' AS at, 5000000000 + i AS a, 'new' AS b FROM range(2) r(i)`, filepath.Join(dir, "region=eu%20west", "new.parquet"))
	copySQL(t, e, `SELECT i AS k, TIMESTAMP '2021-01-02 00:00:00' AS at, i AS a FROM range(0) r(i)`, filepath.Join(dir, "region=x", "empty.parquet"))
	v := &feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}}, Source: feature.Source{Path: dir, TimestampField: "at"}}
	for _, f := range []feature.Field{{Name: "a", Type: feature.Int64}, {Name: "b", Type: feature.String}, {Name: "region", Type: feature.String}} {
		v.Features = append(v.Features, feature.Feature{Field: f})
	}
	want := map[feature.Key]string{"k=0": "[5000000000 new eu west]", "k=1": "[5000000001 new eu west]", "k=2": "[2 null 007]", "k=3": "[3 null 007]"}
	check := func(got latestResult, err error, keys ...feature.Key) {
		t.Helper()
		if err != nil || len(got.rows) != len(keys) {
			t.Fatalf("%d rows, %v", len(got.rows), err)
		}
		for _, k := range keys {
			values, err := feature.DecodeFeatures(got.rows[k].Features, v.Fields(), nil)
			if err != nil {
				t.Fatal(err)
			}
			var text []string
			for _, value := range values {
				text = append(text, value.String())
			}
			if got := "[" + strings.Join(text, " ") + "]"; got != want[k] {
				t.Errorf("%s: %s, want %s", k, got, want[k])
			}
		}
	}
	got, err := latestOf(t, e, v)
	check(got, err, "k=0", "k=1", "k=2", "k=3")
	// An incremental run takes the old file only: its missing column is NULL, not an error.
	want["k=0"], want["k=1"] = "[0 null 007]", "[1 null 007]"
	got, err = latestOf(t, e, v, func(r *feature.LatestRequest) { r.Files = r.Files[:1] })
	check(got, err, "k=0", "k=1", "k=2", "k=3")
	// Declared as a number, a folder that holds none is a rejected row.
	v.Features[2].Type = feature.Int64
	got, err = latestOf(t, e, v)
	if err != nil || got.stats.Rejected != 2 || len(got.rows) != 4 {
		t.Errorf("%+v, %v", got.stats, err)
	}
}
