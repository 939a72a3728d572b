package offline

import (
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/hearthstore/hearth/feature"
)

// base is where the times of the generated data begin; they are microseconds apart.
const base = int64(1_600_000_000_000_000)

// factRow is a generated feature row of the view "facts".
type factRow struct {
	K1      *string `parquet:"k1,optional"`
	K2      *int64  `parquet:"k2,optional"`
	Event   *int64  `parquet:"event,optional,timestamp(microsecond)"`
	Created *int64  `parquet:"created,optional,timestamp(microsecond)"`
	Deleted *bool   `parquet:"deleted,optional"`
	A       *int64  `parquet:"a,optional"`
	B       *string `parquet:"b,optional"`
}

// labelRow is a generated spine row.
type labelRow struct {
	ID int64   `parquet:"id"`
	X  *string `parquet:"x,optional"`
	Y  *int64  `parquet:"y,optional"`
	T  *int64  `parquet:"t,optional,timestamp(microsecond)"`
}

func writeParquet[T any](t testing.TB, path string, rows []T) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := parquet.WriteFile(path, rows); err != nil {
		t.Fatal(err)
	}
}

func readRows[T any](t testing.TB, path string) []T {
	t.Helper()
	rows, err := parquet.ReadFile[T](path)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func ptr[T any](v T) *T { return &v }

func factsView(path string, ttl time.Duration) *feature.View {
	return &feature.View{
		Name: "facts", Version: 1, TTL: ttl, Entities: []string{"e"},
		JoinKeys: []feature.JoinKey{{Name: "k1", Type: feature.String}, {Name: "k2", Type: feature.Int64}},
		Source:   feature.Source{Path: path, TimestampField: "event", CreatedTimestampColumn: "created", DeletedColumn: "deleted"},
		Features: []feature.Feature{
			{Field: feature.Field{Name: "a", Type: feature.Int64}, Default: feature.IntValue(-1)},
			{Field: feature.Field{Name: "b", Type: feature.String}},
		},
	}
}

func selectionOf(t testing.TB, views []*feature.View, refs ...feature.FeatureRef) *feature.Selection {
	t.Helper()
	p := &feature.Project{Name: "p"}
	for _, v := range views {
		p.Views = append(p.Views, *v)
	}
	sel, err := p.Resolve(refs)
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

func ref(t testing.TB, s string) feature.FeatureRef {
	t.Helper()
	r, err := feature.ParseFeatureRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openEngine(t testing.TB, change ...func(*Config)) *Engine {
	t.Helper()
	config := Config{MemoryBytes: 1 << 30, Threads: 2, TempDir: filepath.Join(t.TempDir(), "tmp")}
	for _, f := range change {
		f(&config)
	}
	e, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		left, err := os.ReadDir(config.TempDir)
		if err == nil && len(left) > 0 {
			t.Errorf("temp_dir still holds %v", left)
		}
	})
	return e
}

// text is how DuckDB shows the row, on which the last tie-break rests. It holds for the
// plain values that the fixtures use.
func (r factRow) text() string {
	show := func(null bool, text func() string) string {
		if null {
			return "NULL"
		}
		return text()
	}
	return "(" + strings.Join([]string{
		fmt.Sprint(r.Deleted != nil && *r.Deleted),
		show(r.A == nil, func() string { return fmt.Sprint(*r.A) }),
		show(r.B == nil, func() string { return *r.B }),
	}, ", ") + ")"
}

func (r factRow) digest() string {
	sum := md5.Sum([]byte(r.text()))
	return hex.EncodeToString(sum[:])
}

// newer orders rows of one key: event, created (unknown first), digest.
func newer(a, b factRow) int {
	created := func(r factRow) int64 {
		if r.Created == nil {
			return -1 << 63
		}
		return *r.Created
	}
	return cmp.Or(cmp.Compare(*a.Event, *b.Event), cmp.Compare(created(a), created(b)), strings.Compare(a.digest(), b.digest()))
}

// reference finds the row of a label by looking at every feature row: the meaning of a
// point-in-time join, without any cleverness. nil when there is no value.
func reference(l labelRow, facts []factRow, ttl time.Duration, knownAt bool) *factRow {
	if l.X == nil || l.Y == nil || l.T == nil {
		return nil
	}
	var best *factRow
	for i := range facts {
		f := &facts[i]
		switch {
		case f.K1 == nil || f.K2 == nil || f.Event == nil:
		case *f.K1 != *l.X || *f.K2 != *l.Y:
		case *f.Event > *l.T:
		case ttl > 0 && *f.Event < *l.T-int64(ttl/time.Microsecond):
		case knownAt && f.Created != nil && *f.Created > *l.T:
		case best == nil || newer(*f, *best) > 0:
			best = f
		}
	}
	if best != nil && best.Deleted != nil && *best.Deleted {
		return nil
	}
	return best
}

// joinedRow is a row of a training set over the generated data.
type joinedRow struct {
	ID    int64   `parquet:"id"`
	X     *string `parquet:"x,optional"`
	Y     *int64  `parquet:"y,optional"`
	T     *int64  `parquet:"t,optional,timestamp(microsecond)"`
	A     *int64  `parquet:"a,optional"`
	B     *string `parquet:"b,optional"`
	Event *int64  `parquet:"facts__event_timestamp,optional,timestamp(microsecond)"`
}

func readJoined(t testing.TB, dir string) []joinedRow {
	t.Helper()
	var rows []joinedRow
	m, err := ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Files {
		rows = append(rows, readRows[joinedRow](t, filepath.Join(dir, f.Path))...)
	}
	return rows
}

func same[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// show prints a row for a failing test.
func show(v any) string {
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "%+v", v)
	return b.String()
}

// checkJoined compares a training set with the reference, row by row.
func checkJoined(t interface{ Errorf(string, ...any) }, got []joinedRow, labels []labelRow, facts []factRow, ttl time.Duration, knownAt bool) {
	if len(got) != len(labels) {
		t.Errorf("%d rows, want %d", len(got), len(labels))
		return
	}
	for i, l := range labels {
		g := got[i]
		if g.ID != l.ID || !same(g.X, l.X) || !same(g.Y, l.Y) || !same(g.T, l.T) {
			t.Errorf("row %d: spine columns differ: got id %d, want %d", i, g.ID, l.ID)
			return
		}
		var want factRow
		if best := reference(l, facts, ttl, knownAt); best != nil {
			want = *best
		}
		if !same(g.A, want.A) || !same(g.B, want.B) || !same(g.Event, want.Event) {
			t.Errorf("row %d (t=%s): got a=%s b=%s at %s, want a=%s b=%s at %s", i, deref(l.T), deref(g.A), deref(g.B), deref(g.Event), deref(want.A), deref(want.B), deref(want.Event))
			return
		}
	}
}

func deref[T any](p *T) string {
	if p == nil {
		return "null"
	}
	return fmt.Sprint(*p)
}

func shuffled[T any](rows []T, seed uint64) []T {
	out := slices.Clone(rows)
	for i := len(out) - 1; i > 0; i-- {
		seed = seed*6364136223846793005 + 1442695040888963407
		j := int((seed >> 33) % uint64(i+1))
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// setGlobal changes a setting of an engine's DuckDB.
func setGlobal(t testing.TB, e *Engine, name string, value int) {
	t.Helper()
	s, err := e.session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Exec(t.Context(), fmt.Sprintf("SET GLOBAL %s = %d", name, value)), s.close()); err != nil {
		t.Fatal(err)
	}
}
