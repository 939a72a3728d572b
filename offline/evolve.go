package offline

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/sql"
)

// shape is one schema that files of a source have, with these files.
type shape struct {
	types map[string]string // column -> DuckDB type
	files []located         // those with rows, in order of path
}

// shapes groups files by schema. Files without rows are left out: whatever their schema,
// they hold nothing. Only footers are read.
func (s *session) shapes(ctx context.Context, files []located, hive bool) ([]shape, error) {
	list := make([]string, len(files))
	for i, f := range files {
		list[i] = sql.Literal(f.local)
	}
	from := "([" + strings.Join(list, ", ") + "])"
	rows, signatures := map[string]int64{}, map[string]*strings.Builder{}
	err := s.Each(ctx, "SELECT file_name, num_rows FROM parquet_file_metadata"+from, func(scan func(dest ...any) error) error {
		var (
			name string
			n    int64
		)
		err := scan(&name, &n)
		rows[name] = n
		return err
	})
	if err != nil {
		return nil, err
	}
	query := "SELECT file_name, concat_ws(' ', name, type, type_length, converted_type, logical_type, num_children, scale, precision) FROM parquet_schema" + from
	err = s.Each(ctx, query, func(scan func(dest ...any) error) error {
		var name, column string
		err := scan(&name, &column)
		if signatures[name] == nil {
			signatures[name] = &strings.Builder{}
		}
		_, _ = fmt.Fprintf(signatures[name], "%q", column)
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []shape
	at := map[string]int{}
	for _, f := range files {
		text := signatures[f.local]
		if rows[f.local] == 0 || text == nil {
			continue
		}
		i, ok := at[text.String()]
		if !ok {
			types, err := s.describe(ctx, readParquet([]located{f}, hive))
			if err != nil {
				return nil, err
			}
			i, at[text.String()] = len(out), len(out)
			out = append(out, shape{types: types})
		}
		out[i].files = append(out[i].files, f)
	}
	return out, nil
}

// evolved checks the files of a source against each other. What may change from file to
// file: a column comes later, and its type widens. A column that is gone from the newest
// rows was renamed or dropped, and reading it as null would teach a model that it is; a
// key or time that a file lacks would lose the file's rows; a type that does not fit is
// named with its file.
func (s *session) evolved(ctx context.Context, src *source, shapes []shape) error {
	if len(shapes) < 2 {
		return nil
	}
	v := src.view
	var problems feature.Problems
	src.varies = map[string]string{}
	// fits collects the files whose type of a column does not do.
	fits := func(field, column string, ok func(found string) bool, kind, needs string) {
		var kinds, seen []string
		for _, sh := range shapes {
			found, has := sh.types[column]
			if !has {
				continue
			}
			if !slices.Contains(seen, found) {
				seen = append(seen, found)
				kinds = append(kinds, found+" in "+sh.files[0].Path)
			}
			if !ok(found) {
				problems = append(problems, withRemedy(problemAt(v, field, "in %s column %q has type %s, which cannot be %s", sh.files[0].Path, column, found, kind),
					"%s; convert the files, or read them with a query source", needs))
			}
		}
		if len(kinds) > 1 {
			src.varies[column] = strings.Join(kinds, ", ")
		}
	}
	whole := func(field, column, what string) {
		for _, sh := range shapes {
			if _, ok := sh.types[column]; !ok && hasColumn(shapes, column) {
				problems = append(problems, withRemedy(problemAt(v, field, "%s has no column %q, which other files have: the rows of %s would be lost", sh.files[0].Path, column, count(len(sh.files), "file")),
					"rename the column in the file, or read the files with a query source: every file needs the %s", what))
			}
		}
	}
	typed := func(field, column string, t feature.Type) {
		_, wants, _ := convert("x", "", t, false)
		fits(field, column, func(found string) bool { _, _, ok := convert("x", found, t, src.hive[column]); return ok }, string(t), string(t)+" needs "+wants)
	}
	for _, jk := range v.JoinKeys {
		whole("source", v.Source.Column(jk.Name), "join key")
		typed("source", v.Source.Column(jk.Name), jk.Type)
	}
	isTime := func(found string) bool { _, ok := micros("x", found, v.Source.TimestampUnit); return ok }
	whole("source.timestamp_field", v.Source.TimestampField, "event time")
	fits("source.timestamp_field", v.Source.TimestampField, isTime, "a time", "use timestamps, or integers with timestamp_unit")
	if name := v.Source.CreatedTimestampColumn; name != "" {
		fits("source.created_timestamp_column", name, isTime, "a time", "use timestamps, or integers with timestamp_unit")
	}
	for _, f := range v.Features {
		column := v.Source.Column(f.Name)
		typed("features."+f.Name, column, f.Type)
		if p, err := s.vanished(ctx, src, shapes, f.Name, column); err != nil {
			return err
		} else if p != nil {
			problems = append(problems, *p)
		}
	}
	return problems.Err()
}

func hasColumn(shapes []shape, column string) bool {
	return slices.ContainsFunc(shapes, func(s shape) bool { _, ok := s.types[column]; return ok })
}

func count(n int, what string) string {
	if n == 1 {
		return "that " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// vanished reports a feature's column that is missing from a file most of whose rows are
// newer than any row of the files that have it. Files may overlap in time: late rows are in
// the files of later days. Where the footers do not tell, the times themselves are read, of
// these files only; files that are not here prove nothing then.
func (s *session) vanished(ctx context.Context, src *source, shapes []shape, name, column string) (*feature.Problem, error) {
	var with, without []shape
	known := map[string]bool{}
	for _, sh := range shapes {
		if _, ok := sh.types[column]; ok {
			with = append(with, sh)
			for c := range sh.types {
				known[c] = true
			}
		} else {
			without = append(without, sh)
		}
	}
	if len(with) == 0 || len(without) == 0 {
		return nil, nil
	}
	last := feature.NoTime
	times, err := s.eventTimes(ctx, src, with)
	if err != nil {
		return nil, err
	}
	for _, sh := range with {
		for _, f := range sh.files {
			r := times[f.local]
			if r == nil {
				if r, err = s.readTimes(ctx, src, sh, f); err != nil || r == nil {
					return nil, err
				}
			}
			last = max(last, r.hi)
		}
	}
	if times, err = s.eventTimes(ctx, src, without); err != nil {
		return nil, err
	}
	for _, sh := range without {
		for _, f := range sh.files {
			r := times[f.local]
			newer := r != nil && r.lo > last
			if !newer && (r == nil || r.hi > last) {
				if newer, err = s.mostlyAfter(ctx, src, sh, f, last); err != nil {
					return nil, err
				}
			}
			if newer {
				p := gone(src, sh, f, known, name, column)
				return &p, nil
			}
		}
	}
	return nil, nil
}

// gone says that a column is missing from a file, and what the file has instead.
func gone(src *source, sh shape, f located, known map[string]bool, name, column string) feature.Problem {
	var extra []string
	for c := range sh.types {
		if !known[c] {
			extra = append(extra, c)
		}
	}
	sort.Strings(extra)
	hint := "if it was dropped on purpose, publish a new version of the view without it"
	if len(extra) > 0 {
		hint = "it has " + strings.Join(extra, ", ") + ", which the older files do not: if it was renamed, read the files with a query source that takes either (coalesce)"
	}
	return withRemedy(problemAt(src.view, "features."+name, "column %q is gone: %s, whose rows are newer than those of every file that has it, lacks it", column, f.Path), "%s", hint)
}
