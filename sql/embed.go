// Package sql holds Hearth's query templates, one folder per SQL dialect, and the words
// that they are written in. It knows no engine: it turns a description of a join into text.
package sql

import (
	"embed"
	"fmt"
	"strings"
	"text/template"
)

//go:embed duckdb/*.sql
var files embed.FS

var duckdb = template.Must(template.New("duckdb").Funcs(template.FuncMap{
	"ident": Ident, "literal": Literal, "join": strings.Join,
}).ParseFS(files, "duckdb/*.sql"))

// DuckDB renders the template name (without ".sql") of the DuckDB dialect.
func DuckDB(name string, data any) (string, error) {
	var b strings.Builder
	if err := duckdb.ExecuteTemplate(&b, name+".sql", data); err != nil {
		return "", fmt.Errorf("render query %s: %w", name, err)
	}
	return b.String(), nil
}

// Ident quotes an identifier.
func Ident(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Literal quotes a string literal.
func Literal(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

// Scan describes the rows of one source in normal form: keys cast to the types of the
// join keys, times as BIGINT microseconds since the epoch, features cast to their declared
// types (timestamps as BIGINT microseconds). All expressions are over the columns of From.
type Scan struct {
	From     string   // a table function call or table
	Where    []string // rows that count at all: times and values in range
	Keys     []string
	Event    string
	Created  string // "NULL::BIGINT" when the source has none
	Deleted  string // "false" when the source has none
	Features []string
}

// Bounds restricts a scan to the rows that can matter, by predicates on stored columns
// that Parquet statistics answer.
type Bounds []string

// Select renders a subquery with the asked columns: "keys" (k0, k1, …), "ev", "cr", "del",
// "all" (f0, f1, …, every feature) and "f3" for a single feature.
func (s Scan) Select(b Bounds, columns ...string) string {
	var out []string
	for _, c := range columns {
		switch c {
		case "keys":
			for i, e := range s.Keys {
				out = append(out, fmt.Sprintf("%s AS k%d", e, i))
			}
		case "ev":
			out = append(out, s.Event+" AS ev")
		case "cr":
			out = append(out, s.Created+" AS cr")
		case "del":
			out = append(out, s.Deleted+" AS del")
		case "all":
			for i, e := range s.Features {
				out = append(out, fmt.Sprintf("%s AS f%d", e, i))
			}
		default:
			var n int
			if _, err := fmt.Sscanf(c, "f%d", &n); err == nil && n < len(s.Features) {
				out = append(out, fmt.Sprintf("%s AS f%d", s.Features[n], n))
			} else {
				out = append(out, c)
			}
		}
	}
	where := append(append([]string{}, s.Where...), b...)
	text := "(SELECT " + strings.Join(out, ", ") + "\n    FROM " + s.From
	if len(where) > 0 {
		text += "\n    WHERE " + strings.Join(where, "\n      AND ")
	}
	return text + ")"
}

// Join is one point-in-time join: one group of a selection against one spine.
type Join struct {
	N      int // suffix of the temporary tables: s0, w0, m0, …
	Spine  Spine
	Keys   []string // spine key expressions, aligned with Scan.Keys
	Scan   Scan
	Bounds Bounds
	TTL    int64 // microseconds; 0: none
	// KnownAt also asks that the row was known at the label's time.
	KnownAt bool
	Bucket  bool  // of the hash plans: compare within time buckets of one TTL
	Fetch   []int // positions of the selected features
	Limit   int64 // of the fetched rows: more means that ties are the rule, not the exception
}

// Spine describes the label rows.
type Spine struct {
	From    string
	RowID   string // expression: position of the row in the spine
	Time    string // expression: BIGINT microseconds
	Columns []string
}

// KeyNames returns k0, k1, … with a prefix: "s.k0, s.k1".
func (j Join) KeyNames(prefix string) string {
	names := make([]string, len(j.Keys))
	for i := range names {
		names[i] = fmt.Sprintf("%sk%d", prefix, i)
	}
	return strings.Join(names, ", ")
}

// KeysEqual renders the key equalities of a join, component by component.
func (j Join) KeysEqual(a, b string) string {
	eq := make([]string, len(j.Keys))
	for i := range eq {
		eq[i] = fmt.Sprintf("%s.k%d = %s.k%d", a, i, b, i)
	}
	return strings.Join(eq, " AND ")
}

// Narrow is the feature side of the winner step: keys and times only.
func (j Join) Narrow() string {
	if j.KnownAt {
		return j.Scan.Select(j.Bounds, "keys", "ev", "cr")
	}
	return j.Scan.Select(j.Bounds, "keys", "ev")
}

// Wide is the feature side of the fetch step.
func (j Join) Wide() string {
	columns := []string{"keys", "ev", "cr", "del"}
	for _, f := range j.Fetch {
		columns = append(columns, fmt.Sprintf("f%d", f))
	}
	return j.Scan.Select(j.Bounds, columns...)
}

// All is the feature side of the tie-break: every feature of the view, so that a training
// set that asks for one feature and the online tiers that hold all pick the same row.
func (j Join) All() string {
	return j.Scan.Select(j.Bounds, "keys", "ev", "cr", "del", "all")
}

// Fetched lists the selected features with a prefix: ", f.f0, f.f3".
func (j Join) Fetched(prefix string) string {
	var b strings.Builder
	for _, f := range j.Fetch {
		fmt.Fprintf(&b, ", %sf%d", prefix, f)
	}
	return b.String()
}

// Digest is the last tie-break: md5 over the text of the row. See [Scan.Digest].
func (j Join) Digest(prefix string) string { return j.Scan.Digest(prefix) }

// Digest renders md5 over the text of the deletion mark and all features, so that of rows
// equal in both times the same one wins whatever the order of files, rows and threads.
func (s Scan) Digest(prefix string) string {
	columns := make([]string, 0, len(s.Features)+1)
	columns = append(columns, prefix+"del")
	for i := range s.Features {
		columns = append(columns, fmt.Sprintf("%sf%d", prefix, i))
	}
	return "md5(row(" + strings.Join(columns, ", ") + ")::VARCHAR)"
}

// Latest is the newest row per key.
type Latest struct{ Scan Scan }

// Keys lists k0, k1, ….
func (l Latest) Keys() string {
	return Join{Keys: l.Scan.Keys}.KeyNames("")
}

// Columns lists the features with a prefix.
func (l Latest) Columns() string {
	names := make([]string, len(l.Scan.Features))
	for i := range names {
		names[i] = fmt.Sprintf("f%d", i)
	}
	return strings.Join(names, ", ")
}

// Rows is the source in normal form.
func (l Latest) Rows() string {
	return l.Scan.Select(Bounds{}, "keys", "ev", "cr", "del", "all")
}

// Output is the last step of a training set.
type Output struct {
	Spine   Spine
	Joins   []int    // suffixes of the m tables
	Columns []string // "expression AS name" over s and m0, m1, …
	Path    string
	// Options of COPY, for example FORMAT parquet, COMPRESSION zstd.
	Options []string
	Where   string // "" or a range of row_id
	// Shelf and Shelves are the spine and the views in scratch files of one row per spine
	// row, for the form of the last step that holds nothing in memory.
	Shelf   string
	Shelves []string
}

// Shelf moves the winners of one join into a scratch file.
type Shelf struct {
	Join
	Path    string
	Options []string
}
