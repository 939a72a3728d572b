package offline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/hearthstore/hearth/sql"
)

// Diff says how two training sets differ. It never holds values.
type Diff struct {
	A         string `json:"a"`
	B         string `json:"b"`
	Identical bool   `json:"identical"` // same content, column for column and row for row
	RowsA     int64  `json:"rows_a"`
	RowsB     int64  `json:"rows_b"`

	OnlyA []string     `json:"only_a,omitempty"` // columns
	OnlyB []string     `json:"only_b,omitempty"`
	Types []TypeChange `json:"types,omitempty"`
	// Compared is the number of rows that both have; rows are compared by position.
	Compared int64        `json:"compared"`
	Changed  int64        `json:"changed"` // rows with any difference in the common columns
	FirstRow int64        `json:"first_row,omitempty"`
	Columns  []ColumnDiff `json:"columns,omitempty"` // those that differ, most rows first
	Rates    []RateChange `json:"rates,omitempty"`
	Inputs   []string     `json:"inputs,omitempty"` // input files that only one has, or that changed
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
}

// RateChange is a match rate or null rate that moved.
type RateChange struct {
	What string  `json:"what"`
	A    float64 `json:"a"`
	B    float64 `json:"b"`
}

// DatasetDiff compares two training sets: their manifests, and row by row what they hold.
func (e *Engine) DatasetDiff(ctx context.Context, a, b string) (diff *Diff, err error) {
	ma, err := ReadManifest(a)
	if err != nil {
		return nil, err
	}
	mb, err := ReadManifest(b)
	if err != nil {
		return nil, err
	}
	diff = &Diff{A: a, B: b, RowsA: ma.Rows, RowsB: mb.Rows, Compared: min(ma.Rows, mb.Rows), Identical: ma.Digest == mb.Digest}
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
		if err = errors.Join(err, s.close()); err != nil {
			diff, err = nil, fmt.Errorf("compare %s and %s: %w", a, b, e.explain(err))
		}
	}()
	return diff, s.compare(ctx, diff, ma, mb)
}

// rowsOf renders the rows of a training set with their numbers, in the files' own types.
func (s *session) rowsOf(ctx context.Context, m *Manifest) (string, error) {
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
	return fmt.Sprintf("(SELECT %s AS row_id__, * FROM %s)", numbered.rowID, readParquet(files, false)), nil
}

func (s *session) compare(ctx context.Context, diff *Diff, ma, mb *Manifest) error {
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
	if len(common) == 0 || diff.Compared == 0 {
		return nil
	}
	from := make([]string, 2)
	for i, m := range []*Manifest{ma, mb} {
		var err error
		if from[i], err = s.rowsOf(ctx, m); err != nil {
			return err
		}
	}
	counts, differs := make([]string, 0, 3*len(common)), make([]string, len(common))
	for i, c := range common {
		x, y := "a."+sql.Ident(c), "b."+sql.Ident(c)
		differs[i] = fmt.Sprintf("%s IS DISTINCT FROM %s", x, y)
		counts = append(counts, "count(*) FILTER ("+differs[i]+")",
			fmt.Sprintf("count(*) FILTER (%s IS NOT NULL AND %s IS NULL)", x, y), fmt.Sprintf("count(*) FILTER (%s IS NULL AND %s IS NOT NULL)", x, y))
	}
	anyDiffers := strings.Join(differs, " OR ")
	query := fmt.Sprintf("SELECT count(*) FILTER (%s), min(a.row_id__) FILTER (%s), %s FROM %s a JOIN %s b ON a.row_id__ = b.row_id__",
		anyDiffers, anyDiffers, strings.Join(counts, ", "), from[0], from[1])
	found := make([]int64, len(counts))
	var first *int64
	dest := []any{&diff.Changed, &first}
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
			diff.Columns = append(diff.Columns, ColumnDiff{c, found[3*i], found[3*i+1], found[3*i+2]})
		}
	}
	slices.SortStableFunc(diff.Columns, func(a, b ColumnDiff) int { return int(min(max(b.Rows-a.Rows, -1), 1)) })
	return nil
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
	line("rows that differ\t%d of %d compared, by position", d.Changed, d.Compared)
	if d.FirstRow > 0 {
		line("the first\trow %d", d.FirstRow)
	}
	for _, c := range d.OnlyA {
		line("only in A\t%s", c)
	}
	for _, c := range d.OnlyB {
		line("only in B\t%s", c)
	}
	for _, c := range d.Types {
		line("type\t%s\t%s -> %s", c.Column, c.A, c.B)
	}
	for _, c := range d.Columns {
		line("values\t%s\t%d rows (%d became null, %d were null)", c.Column, c.Rows, c.Lost, c.Gained)
	}
	for _, r := range d.Rates {
		line("rate\t%s\t%s -> %s", r.What, percent(r.A), percent(r.B))
	}
	for _, f := range d.Inputs {
		line("input\t%s", f)
	}
	return t.Flush()
}
