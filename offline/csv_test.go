package offline

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

// A CSV spine keeps what is written in it. Seen red with DuckDB's guesses taken as they
// come: the zip code without its zero, the long number rounded, 3 April for 4 March.
func TestCSVSpine(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	dir := t.TempDir()
	copySQL(t, e, "SELECT '01234' AS zip, TIMESTAMP '2021-01-01' AS at, 7 AS a", filepath.Join(dir, "f.parquet"))
	view := &feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "zip", Type: feature.String}}, Source: feature.Source{Path: filepath.Join(dir, "f.parquet"), TimestampField: "at"},
		Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}}}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := func(spine string) (*Manifest, error) {
		return e.BuildDataset(t.Context(), DatasetRequest{Name: "d", Spine: Spine{Path: filepath.Join(dir, spine), TimestampField: "t"},
			Selection: selectionOf(t, []*feature.View{view}, ref(t, "v:*")), Output: filepath.Join(dir, "out"), FileFormat: "csv"})
	}
	// The second file has no leading zero: the column is text all the same, as the key is.
	write("l1.csv", "id,zip,code,big,day,t,share\n1,01234,007,12345678901234567890123,03/04/2021,2021-08-25,0.30000000000000004\n2,,1,2,05/06/2021,2021-08-26T12:00:00+02:00,2\n")
	write("l2.csv", "id,zip,code,big,day,t,share\n3,99999,008,3,07/08/2021,,1\n")
	m, err := build("l*.csv")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "out", "part-00000.csv"))
	if err != nil {
		t.Fatal(err)
	}
	want := "id,zip,code,big,day,t,share,a\n" +
		"1,01234,007,12345678901234567890123,03/04/2021,2021-08-25 00:00:00+00,0.30000000000000004,7\n" +
		"2,,1,2,05/06/2021,2021-08-26 10:00:00+00,2.0,\n" +
		"3,99999,008,3,07/08/2021,,1.0,\n"
	if string(text) != want || m.Views[0].Matched != 1 || m.Spine.NullTimes != 1 {
		t.Errorf("got\n%swant\n%s", text, want)
	}
	for name, c := range map[string]struct{ text, want string }{
		"day or month": {"zip,t\n1,2021-08-25\n2,03/04/2021\n3,04/05/2021\n", "2 rows have no ISO 8601 time in column \"t\", the first is row 2"},
		"epoch":        {"zip,t\n1,1609459200\n", "1 rows have no ISO 8601 time"},
		"no column":    {"zip,when\n1,2021-08-25\n", `the spine has no column "t"`},
		"no such day":  {"zip,t\n1,2021-02-31\n", "1 rows have no ISO 8601 time"},
		"short line":   {"id,zip,t\n1,01234,2021-08-25\n2,secret\n", "bad.csv cannot be read as CSV: CSV Error on Line: 3, Expected Number of Columns: 3 Found: 2"},
		"only a head":  {"zip,t\n", "bad.csv has no rows below the line that names the columns"},
		"empty":        {"", "bad.csv is empty"},
	} {
		write("bad.csv", c.text)
		if _, err := build("bad.csv"); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "strict_mode") {
			t.Errorf("%s: %v shows the line, or advice on options", name, err)
		}
	}
	// A file with a head and no rows takes no types from the others.
	view.JoinKeys[0].Type, view.Source.FieldMapping = feature.Int64, map[string]string{"n": "zip"}
	copySQL(t, e, "SELECT 1 AS n, TIMESTAMP '2021-01-01' AS at, 7 AS a", filepath.Join(dir, "f.parquet"))
	write("n1.csv", "zip,t\n1,2021-08-25\n")
	write("n2.csv", "zip,t\n")
	if m, err := build("n*.csv"); err != nil || m.Rows != 1 || m.Views[0].Matched != 1 {
		t.Errorf("a file without rows: %+v, %v", m, err)
	}
}

// What is no whole number in an integer key column of a CSV spine is said with file, column and
// row, without the value; a file in which all keys are empty takes no type from the others. Seen
// red with the column left to DuckDB's guess: "column zip has type VARCHAR", of all files together.
func TestCSVSpineIntegerKeys(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	dir := t.TempDir()
	copySQL(t, e, "SELECT 7 AS zip, 1::INTEGER AS area, TIMESTAMP '2021-01-01' AS at, 7 AS a", filepath.Join(dir, "f.parquet"))
	view := &feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "area", Type: feature.Int32}, {Name: "zip", Type: feature.Int64}},
		Source: feature.Source{Path: filepath.Join(dir, "f.parquet"), TimestampField: "at"}, Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}}}
	req := DatasetRequest{Name: "d", Spine: Spine{Path: filepath.Join(dir, "l*.csv"), TimestampField: "t"}, Selection: selectionOf(t, []*feature.View{view}, ref(t, "v:*")), Output: filepath.Join(dir, "out")}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("area,zip,t\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("l1.csv", "1,7,2021-08-25\n1,,2021-08-25\n-1, +7,2021-08-25\n")
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"text":           {"1,1,2021-08-25\n1,,2021-08-25\n1,secret,2021-08-25\n1,secret,2021-08-25\n", []string{`l2.csv: 2 rows have no whole number in column "zip", the first is row 3 below`}},
		"fraction":       {"1,5.5,2021-08-25\n", []string{`l2.csv: 1 rows have no whole number in column "zip", the first is row 1 below`}},
		"leading zeros":  {"1,1,2021-08-25\n1,007,2021-08-25\n", []string{`column "zip", the first is row 2 below`}},
		"too large":      {"1,9223372036854775808,2021-08-25\n", []string{`column "zip", the first is row 1 below`}},
		"true and false": {"true,1,2021-08-25\n", []string{`column "area", the first is row 1 below`}},
		"both columns":   {"1,1,2021-08-25\n1,x,2021-08-25\ny,x,2021-08-25\n", []string{`column "area", the first is row 3 below`, `column "zip", the first is row 2 below`}},
	} {
		write("l2.csv", c.text)
		_, err := e.BuildDataset(t.Context(), req)
		if !errors.Is(err, feature.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
		for _, value := range []string{"secret", "007", "5.5", "922337"} {
			if strings.Contains(err.Error(), value) {
				t.Errorf("%s: %v shows a value", name, err)
			}
		}
		if problems := e.CheckDataset(t.Context(), req); problems.Err() == nil || !strings.HasSuffix(err.Error(), problems.Err().Error()) {
			t.Errorf("%s: the check says %v, the build %v", name, problems.Err(), err)
		}
	}
	write("l2.csv", "1,,2021-08-25\n")
	if m, err := e.BuildDataset(t.Context(), req); err != nil || m.Rows != 4 || m.Views[0].Matched != 1 {
		t.Errorf("a file without keys: %+v, %v", m, err)
	}
}
