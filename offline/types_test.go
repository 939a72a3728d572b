package offline

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

// Every declared type in a training set, from every column type that fits it: the output's type
// is that of the declaration, the value is the source's. Both forms of the last step.
// Seen red with nanoseconds rounded instead of cut, and with the elements of lists not converted.
func TestFeaturesOfEveryType(t *testing.T) {
	t.Parallel()
	e, dir := openEngine(t), t.TempDir()
	source, labels := filepath.Join(dir, "facts.parquet"), filepath.Join(dir, "labels.parquet")
	columns := []struct {
		stored string // SQL
		kind   feature.Type
		want   string // DuckDB type and text
	}{
		{"-5::TINYINT", feature.Int64, "BIGINT -5"}, {"5000000000::BIGINT", feature.Int64, "BIGINT 5000000000"}, {"9::BIGINT", feature.Int32, "INTEGER 9"},
		{"18446744073709551615::UBIGINT // 4", feature.Int64, "BIGINT 4611686018427387903"}, {"12345678901234567::DECIMAL(20,0)", feature.Int64, "BIGINT 12345678901234567"},
		{"1.5::FLOAT", feature.Float64, "DOUBLE 1.5"}, {"0.1::DOUBLE", feature.Float64, "DOUBLE 0.1"}, {"0.25::DOUBLE", feature.Float32, "FLOAT 0.25"}, {"12.34::DECIMAL(9,2)", feature.Float64, "DOUBLE 12.34"},
		{"'NaN'::DOUBLE", feature.Float64, "DOUBLE nan"}, {"'-inf'::DOUBLE", feature.Float32, "FLOAT -inf"}, {"7::BIGINT", feature.Float64, "DOUBLE 7.0"},
		{"'ü€'::VARCHAR", feature.String, "VARCHAR ü€"}, {"'red'::ENUM('red','green')", feature.String, "VARCHAR red"}, {"'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::UUID", feature.String, "VARCHAR 6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
		{"true", feature.Bool, "BOOLEAN true"}, {`'\xFF\x00'::BLOB`, feature.Bytes, `BLOB \xFF\x00`}, {"'text'", feature.Bytes, "BLOB text"},
		{"TIMESTAMPTZ '2021-02-03 04:05:06.000007+02'", feature.Timestamp, "TIMESTAMP WITH TIME ZONE 2021-02-03 02:05:06.000007+00"},
		{"TIMESTAMP_NS '1969-12-31 23:59:59.999999999'", feature.Timestamp, "TIMESTAMP WITH TIME ZONE 1969-12-31 23:59:59.999999+00"},
		{"TIMESTAMP_S '2021-02-03 04:05:06'", feature.Timestamp, "TIMESTAMP WITH TIME ZONE 2021-02-03 04:05:06+00"}, {"TIMESTAMP_MS '2021-02-03 04:05:06.007'", feature.Timestamp, "TIMESTAMP WITH TIME ZONE 2021-02-03 04:05:06.007+00"},
		{"DATE '1969-12-31'", feature.Timestamp, "TIMESTAMP WITH TIME ZONE 1969-12-31 00:00:00+00"},
		{"[1, NULL, 3]::INT[]", "list<int64>", "BIGINT[] [1, NULL, 3]"}, {"['a', '']::VARCHAR[]", "list<string>", "VARCHAR[] [a, '']"}, {"[DATE '1970-01-02']", "list<timestamp>", "TIMESTAMP WITH TIME ZONE[] ['1970-01-02 00:00:00+00']"},
		{"[0.5, 1]::FLOAT[2]", "list<float32>", "FLOAT[] [0.5, 1.0]"}, {"[]::DOUBLE[]", "list<float64>", "DOUBLE[] []"}, {"NULL::BIGINT", feature.Int64, "BIGINT "},
	}
	var stored, types, values []string
	v := &feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}}, Source: feature.Source{Path: source, TimestampField: "at"}}
	for i, c := range columns {
		name := "f" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		stored = append(stored, c.stored+" AS "+name)
		types = append(types, "typeof("+name+")")
		values = append(values, "coalesce("+name+"::VARCHAR, '')")
		v.Features = append(v.Features, feature.Feature{Field: feature.Field{Name: name, Type: c.kind}})
	}
	copySQL(t, e, "SELECT 7::UTINYINT AS k, TIMESTAMP '2021-01-01' AS at, "+strings.Join(stored, ", "), source)
	copySQL(t, e, "SELECT 7::DECIMAL(5,0) AS k, TIMESTAMP '2021-01-02' AS t", labels)
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
		var gotTypes, gotValues string
		from := " FROM '" + filepath.Join(m.Dir(), m.Files[0].Path) + "'"
		err = errors.Join(s.QueryRow(t.Context(), "SELECT concat_ws('|', "+strings.Join(types, ", ")+")"+from, &gotTypes), s.QueryRow(t.Context(), "SELECT concat_ws('|', "+strings.Join(values, ", ")+")"+from, &gotValues), s.close())
		if err != nil {
			t.Fatal(err)
		}
		kinds, texts := strings.Split(gotTypes, "|"), strings.Split(gotValues, "|")
		for i, c := range columns {
			if got := kinds[i] + " " + texts[i]; got != c.want {
				t.Errorf("%s, %s as %s: got %q, want %q", assembly, c.stored, c.kind, got, c.want)
			}
		}
	}
}

// A row whose value does not fit its declared type is as if it were not there: the older one
// counts, as it does online, and the manifest counts what was left out.
// Seen red with the checks left out of the scan's predicates.
func TestRuleRowsThatDoNotFit(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	var rejected int64
	_, rows := small{
		facts:  `SELECT * FROM (VALUES ('x', TIMESTAMP '2021-01-01', 1::BIGINT, ''), ('x', TIMESTAMP '2021-01-02', 3000000000, ''), ('y', TIMESTAMP '2021-01-02', -3000000000, ''), ('z', TIMESTAMP '2021-01-02', NULL, '')) f(k, "at", a, b)`,
		labels: `SELECT unnest(['x', 'y', 'z']) AS k, TIMESTAMP '2021-01-03' AS t`,
		change: func(v *feature.View, _ *DatasetRequest) {
			v.Features[0].Type, v.Features[0].Default = feature.Int32, feature.Null
		},
		built: func(m *Manifest) { rejected = m.Views[0].Rejected },
	}.build(t, e)
	expect(t, "rows", rows, "x 2021-01-03 1", "y 2021-01-03 -", "z 2021-01-03 -")
	if rejected != 2 {
		t.Errorf("%d rows rejected, want 2", rejected)
	}
}

// Sources without rows are sources: a file without rows, and files that all are so. Nothing matches.
func TestSourceWithoutRows(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	_, rows := small{facts: someFacts + " LIMIT 0", labels: `SELECT 'x' AS k, TIMESTAMP '2021-01-03' AS t`}.build(t, e)
	expect(t, "one file", rows, "x 2021-01-03 -")
	dir := t.TempDir()
	copySQL(t, e, someFacts+" LIMIT 0", filepath.Join(dir, "1.parquet"))
	copySQL(t, e, `SELECT k, "at", a, b FROM (`+someFacts+") LIMIT 0", filepath.Join(dir, "2.parquet"))
	_, rows = small{facts: someFacts, labels: `SELECT 'x' AS k, TIMESTAMP '2021-01-03' AS t LIMIT 0`, change: func(v *feature.View, _ *DatasetRequest) { v.Source.Path = dir }}.build(t, e)
	expect(t, "no label either", rows)
}

// A query is checked for the columns that it must give, without being run: an endless one is
// judged, too. Seen red with the types of the view's own columns not asked.
func TestQueryIsChecked(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 100, 10)
	query := filepath.Join(s.dir, "q.sql")
	e := openEngine(t, func(c *Config) {
		c.Sources = []feature.NamedSource{{Name: "raw", Path: filepath.Join(s.dir, "facts")}}
	})
	v := *s.view
	v.Source.Path, v.Source.Query = "", query
	const endless = `(SELECT sum(x.range * y.range) FROM range(100000000) x, range(100000000) y)::BIGINT`
	for name, c := range map[string]struct{ text, want string }{
		"windows, counters and ratios": {`SELECT k1, k2, event, created, deleted, count(*) OVER w AS a, (a / nullif(avg(a) OVER w, 0))::VARCHAR AS b FROM {{source "raw"}} WINDOW w AS (PARTITION BY k1, k2 ORDER BY event RANGE INTERVAL 1 DAY PRECEDING)`, ""},
		"endless":                      {`SELECT k1, k2, event, created, deleted, ` + endless + ` AS a, b FROM {{source "raw"}}`, ""},
		"no feature":                   {`SELECT k1, k2, event, created, deleted, b FROM {{source "raw"}}`, `no column "a"`},
		"no key":                       {`SELECT k1, event, created, deleted, a, b FROM {{source "raw"}}`, `no column "k2"`},
		"no time":                      {`SELECT k1, k2, created, deleted, a, b FROM {{source "raw"}}`, `no column "event"`},
		"a feature of another type":    {`SELECT k1, k2, event, created, deleted, a / 2 AS a, b FROM {{source "raw"}}`, `column "a" has type DOUBLE`},
		"a time that is text":          {`SELECT k1, k2, event::VARCHAR AS event, created, deleted, a, b FROM {{source "raw"}}`, `column "event" has type VARCHAR`},
		"no SQL":                       {`SELEKT 1`, "correct the SQL"},
		"a column that is not there":   {`SELECT nope FROM {{source "raw"}}`, "nope"},
		"no template":                  {`SELECT * FROM {{source "raw"`, "parse query"},
	} {
		if err := os.WriteFile(query, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		problems := e.Check(t.Context(), &feature.Project{Views: []feature.View{v}})
		if c.want == "" && len(problems) > 0 || c.want != "" && !strings.Contains(problems.Error(), c.want) {
			t.Errorf("%s: %q, want %q", name, problems.Error(), c.want)
		}
		if c.want == "correct the SQL" { // a build says the same
			req := s.req
			req.Selection = selectionOf(t, []*feature.View{&v}, ref(t, "facts:*"))
			if _, err := e.BuildDataset(t.Context(), req); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the build says %v", err)
			}
		}
	}
}
