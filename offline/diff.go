package offline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/offline/internal/duck"
	"github.com/hearthstore/hearth/sql"
)

// DiffOptions say how two training sets are compared.
type DiffOptions struct {
	// By are columns that identify a row, for sets whose rows moved. Rows that are equal in
	// all of them are paired in their order. Defaults to comparing by position.
	By []string
	// Examples is how many differing values are shown of each column. Defaults to none.
	Examples int
}

// Diff says how two training sets differ. It holds values only where examples were asked for.
type Diff struct {
	A         string `json:"a"`
	B         string `json:"b"`
	Identical bool   `json:"identical"` // same content, column for column and row for row
	RowsA     int64  `json:"rows_a"`
	RowsB     int64  `json:"rows_b"`

	OnlyA []string     `json:"only_a,omitempty"` // columns
	OnlyB []string     `json:"only_b,omitempty"`
	Types []TypeChange `json:"types,omitempty"`
	// Compared is the number of rows that both have: by position, or by the columns of By.
	Compared  int64        `json:"compared"`
	By        []string     `json:"by,omitempty"`
	OnlyRowsA int64        `json:"only_rows_a"`
	OnlyRowsB int64        `json:"only_rows_b"`
	Changed   int64        `json:"changed"`             // rows with any difference in the common columns
	FirstRow  int64        `json:"first_row,omitempty"` // of A, from 1
	Columns   []ColumnDiff `json:"columns,omitempty"`   // those that differ, most rows first
	Rates     []RateChange `json:"rates,omitempty"`
	Inputs    []string     `json:"inputs,omitempty"` // input files that only one has, or that changed
}

// TypeChange is a column with another type.
type TypeChange struct {
	Column string `json:"column"`
	A      string `json:"a"`
	B      string `json:"b"`
}

// ColumnDiff counts the rows in which a column differs.
type ColumnDiff struct {
	Column string `json:"column"`
	Rows   int64  `json:"rows"`
	Lost   int64  `json:"lost"`   // a value in A, null in B
	Gained int64  `json:"gained"` // null in A, a value in B

	Examples []DiffExample `json:"examples,omitempty"` // the first ones, by row of A
}

// DiffExample is one value that differs, as text; null is nil.
type DiffExample struct {
	RowA int64   `json:"row_a"` // from 1
	RowB int64   `json:"row_b"`
	A    *string `json:"a"`
	B    *string `json:"b"`
}

// RateChange is a match rate or null rate that moved.
type RateChange struct {
	What string  `json:"what"`
	A    float64 `json:"a"`
	B    float64 `json:"b"`
}

// DatasetDiff compares two training sets: their manifests, and row by row what they hold.
func (e *Engine) DatasetDiff(ctx context.Context, a, b string, o DiffOptions) (diff *Diff, err error) {
	ma, err := ReadManifest(a)
	if err != nil {
		return nil, err
	}
	mb, err := ReadManifest(b)
	if err != nil {
		return nil, err
	}
	diff = &Diff{A: a, B: b, RowsA: ma.Rows, RowsB: mb.Rows, By: o.By, Identical: ma.Digest == mb.Digest}
	diff.Compared = min(ma.Rows, mb.Rows)
	diff.OnlyRowsA, diff.OnlyRowsB = ma.Rows-diff.Compared, mb.Rows-diff.Compared
	diff.inputs(ma, mb)
	diff.rates(ma, mb)
	if diff.Identical {
		return diff, nil
	}
	s, err := e.session(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if duck.IsKind(err, duck.IO) {
			err = fmt.Errorf("%w; a file of one of them is damaged or gone: its manifest has the size and SHA-256 of each; build that set again", err)
		}
		if err = errors.Join(err, s.close()); err != nil {
			diff, err = nil, fmt.Errorf("compare %s and %s: %w", a, b, e.explain(err))
		}
	}()
	return diff, s.compare(ctx, diff, o, ma, mb)
}

// rowsOf renders the rows of a training set with their numbers, in the files' own types,
// and with nth__, which tells apart rows that are equal in by.
func (s *session) rowsOf(ctx context.Context, m *Manifest, by []string) (string, error) {
	files := make([]located, len(m.Files))
	for i, f := range m.Files {
		files[i].local = filepath.Join(m.dir, f.Path)
	}
	if isCSV(m.Files[0].Path) {
		var err error
		if files, err = s.convertCSV(ctx, files, "", nil); err != nil {
			return "", err
		}
	}
	numbered := &spine{}
	if err := s.countRows(ctx, numbered, files); err != nil {
		return "", err
	}
	nth := "0"
	if len(by) > 0 {
		nth = fmt.Sprintf("row_number() OVER (PARTITION BY %s ORDER BY %s)", idents(by), numbered.rowID)
	}
	return fmt.Sprintf("(SELECT %s AS row_id__, %s AS nth__, * FROM %s)", numbered.rowID, nth, readParquet(files, false)), nil
}

func idents(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = sql.Ident(n)
	}
	return strings.Join(quoted, ", ")
}

func (s *session) compare(ctx context.Context, diff *Diff, o DiffOptions, ma, mb *Manifest) error {
	typesB := map[string]string{}
	for _, c := range mb.Columns {
		typesB[c.Name] = c.Type
	}
	var common []string
	for _, c := range ma.Columns {
		kind, ok := typesB[c.Name]
		switch {
		case !ok:
			diff.OnlyA = append(diff.OnlyA, c.Name)
			continue
		case kind != c.Type:
			diff.Types = append(diff.Types, TypeChange{c.Name, c.Type, kind})
		default:
			common = append(common, c.Name)
		}
		delete(typesB, c.Name)
	}
	for _, c := range mb.Columns {
		if _, ok := typesB[c.Name]; ok {
			diff.OnlyB = append(diff.OnlyB, c.Name)
		}
	}
	for _, c := range o.By {
		if !slices.Contains(common, c) {
			return fmt.Errorf("compare by %q: %w: it is no column of one type in both; these are: %s", c, feature.ErrInvalid, strings.Join(common, ", "))
		}
	}
	if len(common) == 0 || diff.Compared == 0 {
		return nil
	}
	joined, err := s.paired(ctx, o.By, ma, mb)
	if err != nil {
		return err
	}
	counts, differs := make([]string, 0, 3*len(common)), make([]string, len(common))
	for i, c := range common {
		x, y := "a."+sql.Ident(c), "b."+sql.Ident(c)
		differs[i] = fmt.Sprintf("%s IS DISTINCT FROM %s", x, y)
		counts = append(counts, fmt.Sprintf("count(*) FILTER (%s AND %s)", both, differs[i]),
			fmt.Sprintf("count(*) FILTER (%s AND %s IS NOT NULL AND %s IS NULL)", both, x, y), fmt.Sprintf("count(*) FILTER (%s AND %s IS NULL AND %s IS NOT NULL)", both, x, y))
	}
	anyDiffers := both + " AND (" + strings.Join(differs, " OR ") + ")"
	query := fmt.Sprintf("SELECT count(*) FILTER (%s), count(*) FILTER (b.row_id__ IS NULL), count(*) FILTER (a.row_id__ IS NULL), count(*) FILTER (%s), min(a.row_id__) FILTER (%s), %s FROM %s",
		both, anyDiffers, anyDiffers, strings.Join(counts, ", "), joined)
	found := make([]int64, len(counts))
	var first *int64
	dest := []any{&diff.Compared, &diff.OnlyRowsA, &diff.OnlyRowsB, &diff.Changed, &first}
	for i := range found {
		dest = append(dest, &found[i])
	}
	if err := s.QueryRow(ctx, query, dest...); err != nil {
		return err
	}
	if first != nil {
		diff.FirstRow = *first + 1
	}
	for i, c := range common {
		if found[3*i] > 0 {
			diff.Columns = append(diff.Columns, ColumnDiff{Column: c, Rows: found[3*i], Lost: found[3*i+1], Gained: found[3*i+2]})
		}
	}
	slices.SortStableFunc(diff.Columns, func(a, b ColumnDiff) int { return int(min(max(b.Rows-a.Rows, -1), 1)) })
	for i := range min(len(diff.Columns), maxExampleColumns) {
		if err := s.examples(ctx, &diff.Columns[i], joined, o.Examples); err != nil {
			return err
		}
	}
	return nil
}

const (
	// both is true for a pair of rows, in the full join of paired.
	both = "a.row_id__ IS NOT NULL AND b.row_id__ IS NOT NULL"
	// maxExampleColumns bounds the columns that get examples: each is read once more.
	maxExampleColumns = 20
)

// paired renders the full join of the rows of two training sets.
func (s *session) paired(ctx context.Context, by []string, ma, mb *Manifest) (string, error) {
	from := make([]string, 2)
	for i, m := range []*Manifest{ma, mb} {
		var err error
		if from[i], err = s.rowsOf(ctx, m, by); err != nil {
			return "", err
		}
	}
	on := []string{"a.row_id__ = b.row_id__"}
	if len(by) > 0 {
		on[0] = "a.nth__ = b.nth__"
		for _, c := range by {
			on = append(on, fmt.Sprintf("a.%s IS NOT DISTINCT FROM b.%s", sql.Ident(c), sql.Ident(c)))
		}
	}
	return fmt.Sprintf("%s a FULL JOIN %s b ON %s", from[0], from[1], strings.Join(on, " AND ")), nil
}

// examples reads the first values of a column that differ.
func (s *session) examples(ctx context.Context, c *ColumnDiff, joined string, n int) error {
	if n <= 0 {
		return nil
	}
	x, y := "a."+sql.Ident(c.Column), "b."+sql.Ident(c.Column)
	query := fmt.Sprintf("SELECT a.row_id__ + 1, b.row_id__ + 1, %s::VARCHAR, %s::VARCHAR FROM %s WHERE %s AND %s IS DISTINCT FROM %s ORDER BY a.row_id__ LIMIT %d", x, y, joined, both, x, y, n)
	return s.Each(ctx, query, func(scan func(dest ...any) error) error {
		var e DiffExample
		err := scan(&e.RowA, &e.RowB, &e.A, &e.B)
		c.Examples = append(c.Examples, e)
		return err
	})
}

func (d *Diff) inputs(a, b *Manifest) {
	collect := func(m *Manifest) map[string]InputFile {
		files := map[string]InputFile{}
		for _, f := range m.Spine.Files {
			files[f.Path] = f
		}
		for _, v := range m.Views {
			for _, f := range v.Files {
				files[f.Path] = f
			}
		}
		return files
	}
	fa, fb := collect(a), collect(b)
	for path, f := range fa {
		if g, ok := fb[path]; !ok {
			d.Inputs = append(d.Inputs, path+" (only in A)")
		} else if f.File != g.File {
			d.Inputs = append(d.Inputs, path+" (changed)")
		}
	}
	for path := range fb {
		if _, ok := fa[path]; !ok {
			d.Inputs = append(d.Inputs, path+" (only in B)")
		}
	}
	slices.Sort(d.Inputs)
}

func (d *Diff) rates(a, b *Manifest) {
	collect := func(m *Manifest) (names []string, rates map[string]float64) {
		rates = map[string]float64{}
		add := func(name string, rate float64) { names = append(names, name); rates[name] = rate }
		for _, v := range m.Views {
			add("match rate of "+v.Alias, v.MatchRate)
			for _, f := range v.Features {
				add("null rate of "+v.Alias+":"+f.Name, f.NullRate)
			}
		}
		return names, rates
	}
	names, ra := collect(a)
	_, rb := collect(b)
	for _, name := range names {
		if y, ok := rb[name]; ok && math.Abs(ra[name]-y) > 1e-12 {
			d.Rates = append(d.Rates, RateChange{name, ra[name], y})
		}
	}
}

// WriteTable shows the differences to people.
func (d *Diff) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format+"\n", args...) }
	line("A\t%s\t%d rows", d.A, d.RowsA)
	line("B\t%s\t%d rows", d.B, d.RowsB)
	if d.Identical {
		line("identical content")
		return t.Flush()
	}
	how := "by position"
	if len(d.By) > 0 {
		how = "by " + strings.Join(d.By, ", ")
	}
	line("rows that differ\t%d of %d compared, %s", d.Changed, d.Compared, how)
	if d.OnlyRowsA+d.OnlyRowsB > 0 {
		line("rows of one only\t%d of A, %d of B", d.OnlyRowsA, d.OnlyRowsB)
	}
	if d.FirstRow > 0 {
		line("the first\trow %d of A", d.FirstRow)
	}
	for _, c := range d.OnlyA {
		line("column of A only\t%s", c)
	}
	for _, c := range d.OnlyB {
		line("column of B only\t%s", c)
	}
	for _, c := range d.Types {
		line("type\t%s\t%s -> %s", c.Column, c.A, c.B)
	}
	for _, c := range d.Columns {
		line("values\t%s\t%d rows (%d became null, %d were null)", c.Column, c.Rows, c.Lost, c.Gained)
		for _, e := range c.Examples {
			row := fmt.Sprintf("row %d", e.RowA)
			if e.RowB != e.RowA {
				row += fmt.Sprintf(" (%d of B)", e.RowB)
			}
			line("\t  %s\t%s -> %s", row, shown(e.A), shown(e.B))
		}
	}
	for _, r := range d.Rates {
		line("rate\t%s\t%s -> %s", r.What, percent(r.A), percent(r.B))
	}
	for _, f := range d.Inputs {
		line("input\t%s", f)
	}
	return t.Flush()
}

// shown is an example for people: quoted where it could be misread, cut where it is long.
func shown(v *string) string {
	const most = 40
	if v == nil {
		return "null"
	}
	text, runes := *v, []rune(*v)
	if len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	if text == "" || text == "null" || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}
