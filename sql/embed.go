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
	Place    string // expression: BIGINT, the place of the row among the source's files
	Features []string
}

// Bounds restricts a scan to the rows that can matter, by predicates on stored columns
// that Parquet statistics answer.
type Bounds []string

// Select renders a subquery with the asked columns: "keys" (k0, k1, …), "ev", "cr", "del",
// "place", "all" (f0, f1, …, every feature) and "f3" for a single feature.
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
		case "place":
			out = append(out, s.Place+" AS place")
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
	Call    Call  // of the statements that work with an index
}

// Call is a function outside of the database that a statement calls for each row.
type Call interface {
	// SQL renders the call with arguments that are SQL: a BIGINT.
	SQL(args ...string) string
}

// Named is a call by a name.
type Named string

// SQL renders the call.
func (n Named) SQL(args ...string) string { return string(n) + "(" + strings.Join(args, ", ") + ")" }

// Winners is where the last step finds the features of one join, under the name m<N>.
type Winners struct {
	N    int
	From string // a table or subquery; "": the table m<N>, which has the spine's row_id
	// Place and Event tell, of the number of a spine's row, the place of its feature row and
	// that row's event time. From has both. Nil, if it is the table.
	Place, Event Call
}

// Name is what the columns' expressions call it.
func (w Winners) Name() string { return fmt.Sprintf("m%d", w.N) }

// Source is what to join the spine with.
func (w Winners) Source() string {
	if w.From == "" {
		return w.Name()
	}
	return w.From + " " + w.Name()
}

// On renders the join condition for a spine's row number.
func (w Winners) On(row string) string {
	if w.Place == nil {
		return fmt.Sprintf("%s.row_id = %s", w.Name(), row)
	}
	return fmt.Sprintf("%s.place = %s", w.Name(), w.Place.SQL(row))
}

// OtherRows is what a statement says when it read other rows than the one before it.
const OtherRows = "the rows of a source are not those of before"

// checked renders the number of a spine's row, and fails the statement where a row that was joined
// is not the one that was picked. It stands in ORDER BY: as a condition it would come between
// the joins, and mislead who plans them.
func checked(row string, joins ...Winners) string {
	var same []string
	for _, w := range joins {
		if w.Event != nil {
			same = append(same, fmt.Sprintf("%s.ev IS NOT DISTINCT FROM %s", w.Name(), w.Event.SQL(row)))
		}
	}
	if len(same) == 0 {
		return row
	}
	return fmt.Sprintf("CASE WHEN %s THEN %s ELSE error(%s)::BIGINT END", strings.Join(same, " AND "), row, Literal(OtherRows))
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
	return j.Scan.Select(j.Bounds, append([]string{"keys", "ev", "cr", "del"}, j.fetched()...)...)
}

// All is the feature side of the tie-break: every feature of the view, so that a training
// set that asks for one feature and the online tiers that hold all pick the same row.
func (j Join) All() string {
	return j.Scan.Select(j.Bounds, "keys", "ev", "cr", "del", "all")
}

// Placed is the feature side of an index: keys, times and places only.
func (j Join) Placed() string { return j.Scan.Select(j.Bounds, "keys", "ev", "cr", "del", "place") }

// Keyed is the keys of the feature side alone.
func (j Join) Keyed() string { return j.Scan.Select(j.Bounds, "keys") }

// Gathered is all that a join needs of the feature side.
func (j Join) Gathered() string {
	return j.Scan.Select(j.Bounds, append([]string{"keys", "ev", "cr", "del", "place"}, j.fetched()...)...)
}

// Over is the join with what Gathered rendered, in table f<N>, as its feature side.
func (j Join) Over() Join {
	in := Scan{From: fmt.Sprintf("f%d", j.N), Event: "ev", Created: "cr", Deleted: "del", Place: "place", Features: make([]string, len(j.Scan.Features))}
	for i := range j.Keys {
		in.Keys = append(in.Keys, fmt.Sprintf("k%d", i))
	}
	for _, f := range j.Fetch {
		in.Features[f] = fmt.Sprintf("f%d", f)
	}
	j.Scan, j.Bounds = in, nil
	return j
}

func (j Join) fetched() []string {
	out := make([]string, len(j.Fetch))
	for i, f := range j.Fetch {
		out[i] = fmt.Sprintf("f%d", f)
	}
	return out
}

// WidePlaced is what the rows that an index picked are taken from.
func (j Join) WidePlaced() string {
	columns := []string{"place", "ev"}
	if j.KnownAt {
		columns = append(columns, "cr")
	}
	return j.Scan.Select(j.Bounds, append(columns, j.fetched()...)...)
}

// AllPlaced is what ties between rows of an index are broken by.
func (j Join) AllPlaced() string { return j.Scan.Select(j.Bounds, "place", "del", "all") }

// Kept lists what the last step needs of a join, with a prefix: "m0.ev, m0.f0, m0.f3".
func (j Join) Kept(prefix string) string {
	out := prefix + "ev"
	if j.KnownAt {
		out += ", " + prefix + "cr"
	}
	return out + j.Fetched(prefix)
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
	Joins   []Winners
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

// Order is what the rows are ordered by.
func (o Output) Order() string { return checked("s.row_id__", o.Joins...) }

// Shelf moves the winners of one join into a scratch file.
type Shelf struct {
	Join
	Winners
	Path    string
	Options []string
}

// Order is what the rows are ordered by.
func (s Shelf) Order() string { return checked("s.row_id", s.Winners) }
