package offline

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// A time is the same time in whatever type a source or spine holds it, and files are pruned
// by it. Epoch integers need a unit, and a spine does not take them at all.
// Seen red with ms taken for s.
func TestTimesOfEveryType(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	facts := func(expr string) string {
		return "SELECT i % 5 AS k, " + expr + " AS event, i AS a FROM (SELECT i, TIMESTAMP '2020-12-20' + INTERVAL (i) DAY AS w FROM range(60) r(i))"
	}
	labels := func(expr string) string {
		return "SELECT i * i % 5 AS k, " + expr + " AS t FROM (SELECT i, TIMESTAMP '2021-01-01' + INTERVAL (i) DAY AS w FROM range(20) r(i))"
	}
	build := func(unit, label, w string) (*Manifest, error) {
		dir := t.TempDir()
		copySQL(t, e, labels(label), filepath.Join(dir, "labels.parquet"))
		copySQL(t, e, facts(w)+" WHERE i < 30", filepath.Join(dir, "facts", "0.parquet"))
		copySQL(t, e, facts(w)+" WHERE i >= 30", filepath.Join(dir, "facts", "1.parquet"))
		v := &feature.View{Name: "v", Version: 1, TTL: 24 * time.Hour, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}},
			Source:   feature.Source{Path: filepath.Join(dir, "facts"), TimestampField: "event", TimestampUnit: unit},
			Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}}}
		return e.BuildDataset(t.Context(), DatasetRequest{Name: "d", Spine: Spine{Path: filepath.Join(dir, "labels.parquet"), TimestampField: "t"},
			Selection: selectionOf(t, []*feature.View{v}, ref(t, "v:a")), Output: filepath.Join(dir, "out"), EventTimestamps: true})
	}
	rows := func(m *Manifest) string {
		s, err := e.session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var text string
		err = errors.Join(s.QueryRow(t.Context(), "SELECT string_agg(concat_ws(' ', k, a, epoch(v__event_timestamp)), ', ' ORDER BY file_row_number) FROM read_parquet('"+filepath.Join(m.Dir(), m.Files[0].Path)+"')", &text), s.close())
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	first, err := build("", "w", "w")
	if err != nil || first.Views[0].Matched == 0 || first.Views[0].Matched == 20 {
		t.Fatalf("%+v, %v", first, err)
	}
	want := rows(first)
	for _, c := range []struct{ unit, expr string }{
		{"", "w::TIMESTAMPTZ"}, {"", "w::TIMESTAMP_MS"}, {"", "w::TIMESTAMP_NS"}, {"", "w::TIMESTAMP_S"}, {"", "w::DATE"},
		{"s", "epoch(w)::BIGINT"}, {"s", "epoch(w)::INTEGER"}, {"ms", "epoch_ms(w)"}, {"us", "epoch_us(w)"}, {"ns", "epoch_ns(w)"}, {"s", "epoch(w)::UBIGINT"},
	} {
		m, err := build(c.unit, "w", c.expr)
		if err != nil {
			t.Errorf("event time %s: %v", c.expr, err)
		} else if got := rows(m); got != want {
			t.Errorf("event time %s: got %s\nwant %s", c.expr, got, want)
		}
	}
	for _, expr := range []string{"w::TIMESTAMPTZ", "w::TIMESTAMP_MS", "w::TIMESTAMP_NS", "w::DATE"} {
		m, err := build("", expr, "w")
		if err != nil {
			t.Errorf("label time %s: %v", expr, err)
		} else if got := rows(m); got != want {
			t.Errorf("label time %s: got %s\nwant %s", expr, got, want)
		}
	}
	for want, c := range map[string][2]string{
		`"event" has type BIGINT, which is no time`:    {"w", "epoch_ms(w)"},
		`"event" has type VARCHAR, which`:              {"w", "w::VARCHAR"},
		`column "t" has type BIGINT, which is no time`: {"epoch_ms(w)", "w"},
	} {
		if _, err := build("", c[0], c[1]); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", c, err, want)
		}
	}
}
