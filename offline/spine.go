package offline

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/offline/internal/duck"
	"github.com/hearthstore/hearth/sql"
)

// spine is the bound label rows.
type spine struct {
	files   []located
	rows    []int64 // per file
	total   int64
	from    string
	rowID   string
	time    string
	timeCol string
	names   []string // columns, in order
	types   map[string]string
}

func spineProblem(field, format string, args ...any) feature.Problem {
	return feature.Problem{Path: "spine." + field, Message: fmt.Sprintf(format, args...)}
}

// openSpine binds the spine. keys are the types of its columns that hold join keys, for a CSV
// file. Problems are returned as feature.Problems.
func (s *session) openSpine(ctx context.Context, spec Spine, keys map[string]feature.Type) (*spine, error) {
	files, err := s.engine.list(ctx, spec.Path)
	if err != nil {
		return nil, feature.Problems{spineProblem("path", "%v", err)}
	}
	hive, err := partitions(spec.Path, files)
	var mixed *mixedError
	if errors.As(err, &mixed) {
		return nil, feature.Problems{withRemedy(spineProblem("path", "%v", err), "%s", mixed.remedy())}
	}
	if err := s.stage(ctx, files); err != nil {
		return nil, fmt.Errorf("spine: %w", err)
	}
	sp := &spine{files: files, timeCol: spec.TimestampField, types: map[string]string{}}
	readable := files
	if isCSV(files[0].Path) {
		if readable, err = s.convertCSV(ctx, files, spec.TimestampField, keys); err != nil {
			return nil, err
		}
	}
	sp.from = readParquet(readable, len(hive) > 0)
	err = s.Each(ctx, "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM "+sp.from+")", func(scan func(dest ...any) error) error {
		var name, kind string
		err := scan(&name, &kind)
		sp.names = append(sp.names, name)
		sp.types[name] = kind
		return err
	})
	if err == nil {
		err = s.countRows(ctx, sp, readable)
	}
	if duck.IsKind(err, duck.IO) {
		return nil, feature.Problems{withRemedy(spineProblem("path", "a file cannot be read as Parquet: %v", err), "replace or remove the file")}
	}
	if err != nil {
		return nil, err
	}
	for _, name := range append([]string{"row_id__"}, reserved...) {
		if sp.types[name] != "" {
			return nil, feature.Problems{withRemedy(spineProblem("path", "the spine has a column %q, a name that Hearth numbers its rows with", name), "rename the column")}
		}
	}
	found, ok := sp.types[spec.TimestampField]
	if !ok {
		return nil, feature.Problems{withRemedy(spineProblem("timestamp_field", "the spine has no column %q", spec.TimestampField), "it has: %s", strings.Join(sp.names, ", "))}
	}
	if sp.time, ok = micros(sql.Ident(spec.TimestampField), found, ""); !ok {
		return nil, feature.Problems{withRemedy(spineProblem("timestamp_field", "column %q has type %s, which is no time", spec.TimestampField, found),
			"store it as timestamp or date: a label time that is guessed from text or a number can leak the future")}
	}
	return sp, nil
}

// countRows fills the row counts and the expression that numbers the spine's rows.
func (s *session) countRows(ctx context.Context, sp *spine, readable []located) error {
	counts := map[string]int64{}
	list := make([]string, len(readable))
	for i, f := range readable {
		list[i] = sql.Literal(f.local)
	}
	err := s.Each(ctx, "SELECT file_name, num_rows FROM parquet_file_metadata(["+strings.Join(list, ", ")+"])", func(scan func(dest ...any) error) error {
		var (
			name string
			n    int64
		)
		err := scan(&name, &n)
		counts[name] = n
		return err
	})
	if err != nil {
		return err
	}
	offsets := make([]string, len(readable))
	of := map[string]int64{}
	for i, f := range readable {
		offsets[i] = strconv.FormatInt(sp.total, 10)
		of[f.Path] = counts[f.local]
		sp.total += counts[f.local]
	}
	for _, f := range sp.files { // of CSV files, those without rows are not among the readable
		sp.rows = append(sp.rows, of[f.Path])
	}
	sp.rowID = "file_row_number"
	if len(readable) > 1 {
		sp.rowID = fmt.Sprintf("file_row_number + ([%s]::BIGINT[])[file_index::BIGINT + 1]", strings.Join(offsets, ", "))
	}
	return nil
}

// checkTimes counts the labels without a time, finds the range of the others (never, when
// there is none), and refuses infinite ones: the newest row would match them, from any future.
func (s *session) checkTimes(ctx context.Context, sp *spine) (nullTimes int64, in timeRange, err error) {
	var (
		infinite    int64
		first, last *int64
	)
	col := sql.Ident(sp.timeCol)
	query := fmt.Sprintf("SELECT count(*) FILTER (%s IS NULL), count(*) FILTER (%s IS NOT NULL AND %s IS NULL), min(%s), max(%s) FROM %s", col, col, sp.time, sp.time, sp.time, sp.from)
	if err := s.QueryRow(ctx, query, &nullTimes, &infinite, &first, &last); err != nil {
		return 0, never, err
	}
	if infinite > 0 {
		return 0, never, feature.Problems{withRemedy(spineProblem("timestamp_field", "%d rows have an infinite or unrepresentable time in column %q", infinite, sp.timeCol),
			"give these labels a time, or NULL to keep the rows without features")}
	}
	if first == nil || last == nil {
		return nullTimes, never, nil
	}
	return nullTimes, timeRange{feature.Micros(*first), feature.Micros(*last)}, nil
}

// needs is the range of event times that can matter to labels in a range.
func needs(labels timeRange, v *feature.View) timeRange {
	switch ttl := feature.Micros(v.TTL / time.Microsecond); {
	case labels == never:
		return never
	case ttl > 0 && labels.lo > feature.NoTime+ttl:
		return timeRange{labels.lo - ttl, labels.hi}
	}
	return timeRange{feature.NoTime, labels.hi}
}

// keyTypes are the spine columns that hold join keys, and the types of the keys, for files in
// which all is text. What is a string to one view is one.
func (req *DatasetRequest) keyTypes() map[string]feature.Type {
	columns := map[string]feature.Type{}
	for _, g := range req.Selection.Groups {
		for _, jk := range g.View.JoinKeys {
			if column := req.keyColumn(g, jk.Name); columns[column] != feature.String {
				columns[column] = jk.Type
			}
		}
	}
	return columns
}

// keyColumn is the spine column that holds a join key of a group.
func (req *DatasetRequest) keyColumn(g feature.Group, key string) string {
	column := key
	if to, ok := g.JoinKeys[key]; ok {
		column = to
	}
	if to, ok := req.Spine.JoinKeys[column]; ok {
		return to
	}
	return column
}

// keys renders the spine's key expressions of a group. A key that does not fit the join
// key's type is NULL and so matches nothing: no entity can have it.
func (sp *spine) keys(req *DatasetRequest, g feature.Group) (exprs []string, problems feature.Problems) {
	for _, jk := range g.View.JoinKeys {
		column := req.keyColumn(g, jk.Name)
		found, ok := sp.types[column]
		if !ok {
			problems = append(problems, withRemedy(spineProblem("join_keys."+jk.Name, "the spine has no column %q, which view %s joins on", column, g.Alias),
				"it has: %s; name the right one in join_keys: {%s: column}", strings.Join(sp.names, ", "), jk.Name))
			continue
		}
		c, wants, ok := convert(sql.Ident(column), found, jk.Type, false)
		if !ok {
			problems = append(problems, withRemedy(spineProblem("join_keys."+jk.Name, "column %q has type %s, but join key %q of view %s is %s", column, found, jk.Name, g.View.ID(), jk.Type),
				"a key of type %s needs %s", jk.Type, wants))
			continue
		}
		exprs = append(exprs, c.expr)
	}
	return exprs, problems
}
