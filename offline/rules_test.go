package offline

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/sql"
)

// The rules of docs/TRAINING_SETS.md, one by one, on data that can be read here. That the
// join keeps to them everywhere is TestJoinEqualsReference. By the rows of section 6 of the design:
//
//	1 rows       TestRuleSpineRowsOnce, TestSpineColumnsUnchanged
//	2 versions   TestRuleNewestWithinTTL, TestRuleTiesAndKnownAt, TestSameInputsSameBytes, TestTiesAreTheRule
//	3 keys       TestRuleKeysAndNulls
//	4 defaults   TestRuleDefaults
//	5 columns    TestRuleColumns, TestNamesAndDefaults
//	6 as:        TestRuleColumns, TestNamesAndDefaults
//	7 output     TestPublish, TestOutputFormats, TestManifestKeepsSchema, TestAuditFailsTheBuild, TestCancelAtEveryStep
//	8 memory     TestMemoryBounded, TestMemoryOfManyViews, TestDiskFull

// small is a training set over a few rows of SQL.
type small struct {
	facts  string // SELECT of k, at and the features a and b; optional created, deleted
	labels string // SELECT of the spine, its time is t
	change func(v *feature.View, r *DatasetRequest)
	built  func(m *Manifest)
}

// build returns the columns and the rows as text, in the order of the files.
func (c small) build(t *testing.T, e *Engine) (columns string, rows []string) {
	t.Helper()
	dir := t.TempDir()
	copySQL(t, e, c.facts, filepath.Join(dir, "facts.parquet"))
	copySQL(t, e, c.labels, filepath.Join(dir, "labels.parquet"))
	v := &feature.View{Name: "v", Version: 1, TTL: 10 * 24 * time.Hour, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.String}},
		Source: feature.Source{Path: filepath.Join(dir, "facts.parquet"), TimestampField: "at"},
		Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}, Default: feature.IntValue(-1)},
			{Field: feature.Field{Name: "b", Type: feature.String}, Default: feature.StringValue("none")}}}
	req := DatasetRequest{Name: "d", Spine: Spine{Path: filepath.Join(dir, "labels.parquet"), TimestampField: "t"}, Output: filepath.Join(dir, "out")}
	if c.change != nil {
		c.change(v, &req)
	}
	if req.Selection == nil {
		req.Selection = selectionOf(t, []*feature.View{v}, ref(t, "v:a"))
	}
	m, err := e.BuildDataset(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if c.built != nil {
		c.built(m)
	}
	return contents(t, e, m)
}

func contents(t *testing.T, e *Engine, m *Manifest) (columns string, rows []string) {
	t.Helper()
	names, values := make([]string, len(m.Columns)), make([]string, len(m.Columns))
	for i, c := range m.Columns {
		names[i], values[i] = c.Name, "coalesce("+sql.Ident(c.Name)+"::VARCHAR, '-')"
	}
	s, err := e.session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Files {
		query := fmt.Sprintf("SELECT concat_ws(' ', %s) FROM read_parquet('%s') ORDER BY file_row_number", strings.Join(values, ", "), filepath.Join(m.Dir(), f.Path))
		err := s.Each(t.Context(), query, func(scan func(dest ...any) error) error {
			var text string
			err := scan(&text)
			rows = append(rows, strings.NewReplacer(" 00:00:00+00", "", " 00:00:00", "").Replace(text))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " "), rows
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const someFacts = `SELECT * FROM (VALUES ('x', TIMESTAMP '2021-01-01', 1, 'one'), ('x', TIMESTAMP '2021-01-05', 2, NULL), ('y', TIMESTAMP '2021-01-03', 3, 'three')) f(k, "at", a, b)`

// Rule 1: the spine's rows, once each, in its order, duplicates and unknown entities too.
func TestRuleSpineRowsOnce(t *testing.T) {
	t.Parallel()
	_, rows := small{facts: someFacts, labels: `SELECT * FROM (VALUES ('y', TIMESTAMP '2021-01-04'), ('x', TIMESTAMP '2021-01-06'), ('nobody', TIMESTAMP '2021-01-06'), ('x', TIMESTAMP '2021-01-06'), ('x', TIMESTAMP '2020-12-31')) l(k, t)`}.build(t, openEngine(t))
	expect(t, "rows", rows, "y 2021-01-04 3", "x 2021-01-06 2", "nobody 2021-01-06 -", "x 2021-01-06 2", "x 2020-12-31 -")
}

// Rule 2: the newest version at or before the label and within the TTL, both inclusive.
func TestRuleNewestWithinTTL(t *testing.T) {
	t.Parallel()
	labels := `SELECT 'x' AS k, unnest([TIMESTAMP '2021-01-04 23:59:59.999999', TIMESTAMP '2021-01-05', TIMESTAMP '2021-01-15', TIMESTAMP '2021-01-15 00:00:01']) AS t`
	_, rows := small{facts: someFacts, labels: labels}.build(t, openEngine(t))
	expect(t, "10 days", rows, "x 2021-01-04 23:59:59.999999 1", "x 2021-01-05 2", "x 2021-01-15 2", "x 2021-01-15 00:00:01 -")
	_, rows = small{facts: someFacts, labels: labels, change: func(v *feature.View, _ *DatasetRequest) { v.TTL = 0 }}.build(t, openEngine(t))
	expect(t, "no TTL", rows, "x 2021-01-04 23:59:59.999999 1", "x 2021-01-05 2", "x 2021-01-15 2", "x 2021-01-15 00:00:01 2")
}

// Rule 2: ties go to the later created time, a known one before an unknown one, and known_at
// asks that the row had been created by the label's time.
func TestRuleTiesAndKnownAt(t *testing.T) {
	t.Parallel()
	facts := `SELECT * FROM (VALUES ('x', TIMESTAMP '2021-01-01', TIMESTAMP '2021-01-02', 1, ''), ('x', TIMESTAMP '2021-01-01', TIMESTAMP '2021-01-04', 2, ''), ('x', TIMESTAMP '2021-01-01', NULL, 3, '')) f(k, "at", created, a, b)`
	labels := `SELECT 'x' AS k, unnest([TIMESTAMP '2021-01-01', TIMESTAMP '2021-01-03', TIMESTAMP '2021-01-05']) AS t`
	created := func(known bool) func(*feature.View, *DatasetRequest) {
		return func(v *feature.View, r *DatasetRequest) {
			v.Source.CreatedTimestampColumn, r.KnownAt = "created", known
		}
	}
	_, rows := small{facts: facts, labels: labels, change: created(false)}.build(t, openEngine(t))
	expect(t, "ties", rows, "x 2021-01-01 2", "x 2021-01-03 2", "x 2021-01-05 2")
	_, rows = small{facts: facts, labels: labels, change: created(true)}.build(t, openEngine(t))
	expect(t, "known at", rows, "x 2021-01-01 3", "x 2021-01-03 1", "x 2021-01-05 2")
}

// Rule 3: composite keys compare component by component; a NULL key or time matches nothing.
// More than 64 labels, as DuckDB's ASOF takes another path there.
func TestRuleKeysAndNulls(t *testing.T) {
	t.Parallel()
	_, rows := small{
		facts:  `SELECT * FROM (VALUES ('1', '23', TIMESTAMP '2021-01-01', 1, ''), ('12', '3', TIMESTAMP '2021-01-01', 2, ''), (NULL, '3', TIMESTAMP '2021-01-01', 3, '')) f(k, l, "at", a, b)`,
		labels: `SELECT * FROM (VALUES ('1', '23', TIMESTAMP '2021-01-02'), ('12', '3', TIMESTAMP '2021-01-02'), ('1', '3', TIMESTAMP '2021-01-02'), (NULL, '3', TIMESTAMP '2021-01-02'), ('1', '23', NULL)) l(k, l, t), range(20)`,
		change: func(v *feature.View, _ *DatasetRequest) {
			v.JoinKeys = append(v.JoinKeys, feature.JoinKey{Name: "l", Type: feature.String})
		},
	}.build(t, openEngine(t))
	want := map[string]string{"1 23 2021-01-02": "1", "12 3 2021-01-02": "2", "1 3 2021-01-02": "-", "- 3 2021-01-02": "-", "1 23 -": "-"}
	if len(rows) != 100 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		f := strings.Fields(row) // k, l, t, range, a
		if got := f[len(f)-1]; got != want[strings.Join(f[:len(f)-2], " ")] {
			t.Errorf("%q", row)
		}
	}
}

// Rule 4: missing features are null, or the defaults that the reader serves.
func TestRuleDefaults(t *testing.T) {
	t.Parallel()
	labels := `SELECT * FROM (VALUES ('x', TIMESTAMP '2021-01-06'), ('nobody', TIMESTAMP '2021-01-06')) l(k, t)`
	both := func(fill bool) func(*feature.View, *DatasetRequest) {
		return func(v *feature.View, r *DatasetRequest) {
			r.FillDefaults, r.Selection = fill, selectionOf(t, []*feature.View{v}, ref(t, "v:*"))
		}
	}
	_, rows := small{facts: someFacts, labels: labels, change: both(false)}.build(t, openEngine(t))
	expect(t, "null", rows, "x 2021-01-06 2 -", "nobody 2021-01-06 - -")
	_, rows = small{facts: someFacts, labels: labels, change: both(true)}.build(t, openEngine(t))
	expect(t, "defaults", rows, "x 2021-01-06 2 none", "nobody 2021-01-06 -1 none")
}

// Rules 5 and 6: names, event times, and the same view twice under other columns.
func TestRuleColumns(t *testing.T) {
	t.Parallel()
	columns, rows := small{
		facts:  someFacts,
		labels: `SELECT 'x' AS k, 'y' AS seller, TIMESTAMP '2021-01-06' AS t`,
		change: func(v *feature.View, r *DatasetRequest) {
			r.EventTimestamps = true
			r.Selection = selectionOf(t, []*feature.View{v}, ref(t, "v:a"), ref(t, "v:b"),
				feature.FeatureRef{View: v.ID(), Feature: "a", As: "other", JoinKeys: map[string]string{"k": "seller"}})
		},
	}.build(t, openEngine(t))
	if want := "k seller t v__a b other__a v__event_timestamp other__event_timestamp"; columns != want {
		t.Errorf("columns %q, want %q", columns, want)
	}
	expect(t, "rows", rows, "x y 2021-01-06 2 - 3 2021-01-05 2021-01-03")
}

// Labels and request columns of any type come through as they are, under odd names too, in
// both forms of the last step.
func TestSpineColumnsUnchanged(t *testing.T) {
	t.Parallel()
	e, dir := openEngine(t), t.TempDir()
	labels, facts := filepath.Join(dir, "labels.parquet"), filepath.Join(dir, "facts.parquet")
	copySQL(t, e, `SELECT 'x' AS k, TIMESTAMPTZ '2021-01-06 00:00:00+00' AS t, 1::UTINYINT AS u8, -1::TINYINT AS i8, 65535::USMALLINT AS u16, 18446744073709551615::UBIGINT AS u64,
		12.345::DECIMAL(9,3) AS money, 12345678901234567890123456789.1::DECIMAL(38,1) AS big, 'NaN'::DOUBLE AS "not a number", '-inf'::FLOAT AS inf, true AS yes,
		'\xFF\x00'::BLOB AS raw, DATE '1969-12-31' AS d, TIME '12:34:56.789' AS tm, TIMESTAMP_NS '2021-01-01 00:00:00.123456789' AS ns, TIMESTAMP '1969-12-31 23:59:59.999999' AS "naive, ""quoted""",
		'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::UUID AS id, 'red'::ENUM('red','green') AS e, [1, NULL, 3] AS li, [['a'], []] AS nested, {'x': 1, 'y': [2.5]} AS s, MAP {'a': 1} AS m,
		INTERVAL 1 DAY AS iv, '' AS empty, NULL::INTEGER AS nothing, 'ü€😀' AS "ключ"`, labels)
	copySQL(t, e, someFacts, facts)
	v := &feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.String}}, Source: feature.Source{Path: facts, TimestampField: "at"},
		Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}}}
	for _, assembly := range []Assembly{AssemblyJoin, AssemblyShelf} {
		m, err := e.BuildDataset(t.Context(), DatasetRequest{Name: "d", Spine: Spine{Path: labels, TimestampField: "t"}, Selection: selectionOf(t, []*feature.View{v}, ref(t, "v:*")),
			Output: filepath.Join(dir, "out"), assembly: assembly})
		if err != nil {
			t.Fatal(err)
		}
		s, err := e.session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		read := func(path, except string) string {
			var types, values string
			from := "(SELECT * " + except + " FROM '" + path + "')"
			if err := s.QueryRow(t.Context(), "SELECT string_agg(column_name || ' ' || column_type, ', ') FROM (DESCRIBE SELECT * FROM "+from+")", &types); err != nil {
				t.Fatal(err)
			}
			if err := s.QueryRow(t.Context(), "SELECT x::VARCHAR FROM "+from+" x", &values); err != nil {
				t.Fatal(err)
			}
			return types + "\n" + values
		}
		want, got := read(labels, ""), read(filepath.Join(m.Dir(), m.Files[0].Path), "EXCLUDE (a)")
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", assembly, got, want)
		}
	}
}
