package offline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"text/template"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/offline/internal/duck"
	"github.com/hearthstore/hearth/offline/internal/newest"
	"github.com/hearthstore/hearth/sql"
)

// source is a view's source, bound to files and column types.
type source struct {
	view   *feature.View
	files  []located
	from   string
	types  map[string]string // column -> DuckDB type
	hive   map[string]bool   // columns that are partition folders
	scan   sql.Scan
	faults []fault
	query  string            // the rendered query of a query source
	varies map[string]string // columns whose type differs between files, and where

	times   map[string]*timeRange // by local path, what eventTimes found; nil: the footer does not tell
	skipped map[string]bool       // paths of files whose rows are not read: their footers or folders rule them out
}

// fault is a condition under which a row cannot become a value.
type fault struct {
	when   string // SQL, true for a bad row
	reason string
}

// problemAt starts a problem of a view's source.
func problemAt(v *feature.View, field, format string, args ...any) feature.Problem {
	return feature.Problem{Path: fmt.Sprintf("feature_views[%s].%s", v.ID(), field), Message: fmt.Sprintf(format, args...)}
}

func withRemedy(p feature.Problem, format string, args ...any) feature.Problem {
	p.Remedy = fmt.Sprintf(format, args...)
	return p
}

// locate lists the files of a view's source. For a query these are the files of every
// named source that the query uses, and text is the query.
func (e *Engine) locate(ctx context.Context, v *feature.View) (files []located, text string, err error) {
	if v.Source.Query == "" {
		files, err = e.list(ctx, v.Source.Path)
		return files, "", err
	}
	b, err := os.ReadFile(v.Source.Query)
	if err != nil {
		return nil, "", fmt.Errorf("read query: %w", err)
	}
	seen := map[string]bool{}
	tmpl, err := template.New(filepath.Base(v.Source.Query)).Option("missingkey=error").Funcs(template.FuncMap{
		"source": func(name string) (string, error) {
			i := slices.IndexFunc(e.config.Sources, func(s feature.NamedSource) bool { return s.Name == name })
			if i < 0 {
				return "", fmt.Errorf("unknown source %q; declared are: %s", name, e.sourceNames())
			}
			found, err := e.list(ctx, e.config.Sources[i].Path)
			if err != nil {
				return "", err
			}
			for _, f := range found {
				if !seen[f.Path] {
					seen[f.Path] = true
					files = append(files, f)
				}
			}
			hive, err := partitions(e.config.Sources[i].Path, found)
			var mixed *mixedError
			if errors.As(err, &mixed) {
				return "", fmt.Errorf("source %s: %w; %s", name, err, mixed.remedy())
			}
			return readParquet(found, len(hive) > 0), err
		},
	}).Parse(string(b))
	if err != nil {
		return nil, "", fmt.Errorf("parse query %s: %w", v.Source.Query, err)
	}
	var out strings.Builder
	if err := tmpl.Execute(&out, nil); err != nil {
		return nil, "", fmt.Errorf("render query %s: %w", v.Source.Query, err)
	}
	// The query itself is an input: when it changes, its rows do.
	own, err := statFile(v.Source.Query)
	if err != nil {
		return nil, "", fmt.Errorf("read query: %w", err)
	}
	files = append(files, located{File: own, local: v.Source.Query})
	return files, strings.TrimRight(strings.TrimSpace(out.String()), ";"), nil
}

func (e *Engine) sourceNames() string {
	if len(e.config.Sources) == 0 {
		return "none"
	}
	names := make([]string, len(e.config.Sources))
	for i, s := range e.config.Sources {
		names[i] = s.Name
	}
	return strings.Join(names, ", ")
}

// Files lists the files behind a view's source, in order of path. For a query source
// these are the files of every named source that it uses, and the query itself.
func (e *Engine) Files(ctx context.Context, v *feature.View) ([]feature.File, error) {
	found, _, err := e.locate(ctx, v)
	if err != nil {
		return nil, fmt.Errorf("files of view %s: %w", v.ID(), err)
	}
	files := make([]feature.File, len(found))
	for i, f := range found {
		files[i] = f.File
	}
	slices.SortFunc(files, func(a, b feature.File) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

// open binds a view's source for reading. A query is run once, into a scratch file, so
// that everything after reads the same rows. only, when not nil, restricts a path source
// to these files; a column that they lack but others of the source have is NULL. Of a path
// source, only rows whose event time lies in the range are asked for: remote files that
// cannot hold any are not downloaded.
func (s *session) open(ctx context.Context, v *feature.View, only []feature.File, in timeRange) (*source, error) {
	files, query, err := s.engine.locate(ctx, v)
	if err != nil {
		return nil, err
	}
	src := &source{view: v, files: files, query: query}
	if query != "" {
		if err := s.stage(ctx, files); err != nil {
			return nil, err
		}
		if src.from, err = s.materialize(ctx, query); duck.IsKind(err, duck.Catalog) {
			return nil, asProblems(v, "source.query", err)
		} else if err != nil {
			return nil, fmt.Errorf("query %s: %w", v.Source.Query, err)
		}
		if src.types, err = s.describe(ctx, src.from); err != nil {
			return nil, src.unreadable(err)
		}
		return src.bound()
	}
	if src.hive, err = partitions(v.Source.Path, files); err != nil {
		return nil, src.unreadable(err)
	}
	if only != nil {
		if src.files, err = choose(files, only); err != nil {
			return nil, err
		}
	}
	shapes, read, err := s.fetch(ctx, src, in)
	if err != nil {
		return nil, src.unreadable(err)
	}
	src.skip(read)
	if err := s.kept(ctx, src, shapes); err != nil {
		return nil, src.unreadable(err)
	}
	if err := s.evolved(ctx, src, shapes); err != nil {
		return nil, src.unreadable(err)
	}
	src.from = readParquet(read, len(src.hive) > 0)
	if src.types, err = s.describe(ctx, src.from); err != nil {
		return nil, src.unreadable(err)
	}
	if len(read) < len(files) && src.lacks() { // other files may have it
		if files, err = s.footers(ctx, files); err != nil {
			return nil, err
		}
		if shapes, err = s.staged(ctx, src, files); err != nil {
			return nil, src.unreadable(err)
		}
		if err := s.evolved(ctx, src, shapes); err != nil {
			return nil, src.unreadable(err)
		}
		all, err := s.describe(ctx, readParquet(files, len(src.hive) > 0))
		if err != nil {
			return nil, src.unreadable(err)
		}
		src.complete(all)
	}
	return src.bound()
}

// staged returns the schemas of files, after those without a local footer were downloaded.
func (s *session) staged(ctx context.Context, src *source, files []located) ([]shape, error) {
	var whole []located
	for _, f := range files {
		if !f.footer {
			whole = append(whole, f)
		}
	}
	if err := s.stage(ctx, whole); err != nil {
		return nil, err
	}
	return s.shapes(ctx, files, len(src.hive) > 0)
}

// skip notes which files are not read.
func (src *source) skip(read []located) {
	if len(read) == len(src.files) {
		return
	}
	src.skipped = make(map[string]bool, len(src.files)-len(read))
	for _, f := range src.files {
		src.skipped[f.Path] = true
	}
	for _, f := range read {
		delete(src.skipped, f.Path)
	}
}

// bound returns the source with its columns mapped, or every problem.
func (src *source) bound() (*source, error) {
	if problems := src.bind(); len(problems) > 0 {
		return nil, problems
	}
	return src, nil
}

// lacks reports whether a declared column is missing from the files.
func (src *source) lacks() bool {
	v := src.view
	names := []string{v.Source.TimestampField, v.Source.CreatedTimestampColumn, v.Source.DeletedColumn}
	for _, jk := range v.JoinKeys {
		names = append(names, v.Source.Column(jk.Name))
	}
	for _, f := range v.Features {
		names = append(names, v.Source.Column(f.Name))
	}
	return slices.ContainsFunc(names, func(name string) bool {
		_, ok := src.types[name]
		return name != "" && !ok
	})
}

// choose returns the located files that only names, in order of path, and refuses files
// that are gone or are no longer what was listed.
func choose(files []located, only []feature.File) ([]located, error) {
	at := make(map[string]located, len(files))
	for _, f := range files {
		at[f.Path] = f
	}
	out := make([]located, 0, len(only))
	for _, want := range only {
		f, ok := at[want.Path]
		if !ok {
			return nil, fmt.Errorf("%w: %s is gone; run again", errChanged, want.Path)
		}
		if f.File != want {
			return nil, fmt.Errorf("%w: %s; run again when its writer is done", errChanged, want.Path)
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b located) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// complete adds the columns that only other files of the source have, as NULLs.
func (src *source) complete(all map[string]string) {
	var missing []string
	for name := range all {
		if _, ok := src.types[name]; !ok {
			missing = append(missing, name)
		}
	}
	sort.Strings(missing)
	if len(missing) == 0 {
		return
	}
	columns := make([]string, len(missing))
	for i, name := range missing {
		columns[i] = fmt.Sprintf("NULL::%s AS %s", all[name], sql.Ident(name))
		src.types[name] = all[name]
	}
	src.from = fmt.Sprintf("(SELECT *, filename, file_row_number, file_index, %s FROM %s)", strings.Join(columns, ", "), src.from)
}

// unreadable makes a problem of an error that is the files' fault.
func (src *source) unreadable(err error) error {
	var mixed *mixedError
	if errors.As(err, &mixed) {
		return feature.Problems{withRemedy(problemAt(src.view, "source.path", "%v", err), "%s", mixed.remedy())}
	}
	if !duck.IsKind(err, duck.IO) {
		return err
	}
	return feature.Problems{withRemedy(problemAt(src.view, "source.path", "a file cannot be read as Parquet: %v", err),
		"replace or remove the file; a writer that died leaves a file without its end")}
}

// describe returns the columns of a table expression and their DuckDB types.
func (s *session) describe(ctx context.Context, from string) (map[string]string, error) {
	types := map[string]string{}
	err := s.Each(ctx, "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM "+from+")", func(scan func(dest ...any) error) error {
		var name, kind string
		err := scan(&name, &kind)
		types[name] = kind
		return err
	})
	return types, err
}

// materialize runs a query into a scratch Parquet file. HUGEINT, which sum(bigint) gives
// and which Parquet would keep as DOUBLE, is kept exactly as DECIMAL(38,0).
func (s *session) materialize(ctx context.Context, query string) (from string, err error) {
	types, err := s.describe(ctx, "(\n"+query+"\n)")
	if err != nil {
		return "", err
	}
	var replace []string
	for name, t := range types {
		if t == "HUGEINT" || t == "UHUGEINT" {
			replace = append(replace, fmt.Sprintf("%s::DECIMAL(38,0) AS %s", sql.Ident(name), sql.Ident(name)))
		}
	}
	slices.Sort(replace)
	star := "*"
	if len(replace) > 0 {
		star += " REPLACE (" + strings.Join(replace, ", ") + ")"
	}
	var path string
	for i := 0; ; i++ {
		path = filepath.Join(s.dir, fmt.Sprintf("query%d.parquet", i))
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	copySQL := fmt.Sprintf("COPY (SELECT %s FROM (\n%s\n)) TO %s (FORMAT parquet, COMPRESSION zstd)", star, query, sql.Literal(path))
	if err := s.Exec(ctx, copySQL); err != nil {
		return "", err
	}
	return readParquet([]located{{local: path}}, false), nil
}

// bind maps the declared columns to expressions. All problems are returned at once.
func (src *source) bind() feature.Problems {
	var problems feature.Problems
	v := src.view
	column := func(field, name string) (expr, found string, ok bool) {
		found, ok = src.types[name]
		if !ok {
			problems = append(problems, withRemedy(problemAt(v, field, "the source has no column %q", name), "%s", src.suggest(name)))
		}
		return sql.Ident(name), found, ok
	}
	typed := func(field, name string, t feature.Type) (converted, bool) {
		col := v.Source.Column(name)
		expr, found, ok := column(field, col)
		if !ok {
			return converted{}, false
		}
		c, wants, ok := convert(expr, found, t, src.hive[col])
		if !ok {
			problems = append(problems, withRemedy(problemAt(v, field, "column %q has type %s, which cannot be %s", col, src.differs(col, found), t),
				"%s needs %s: change the declared type, or convert in a query source", t, wants))
		}
		return c, ok
	}
	fits := func(c converted, reason string) {
		if c.check != "" {
			src.faults = append(src.faults, fault{"NOT (" + c.check + ")", reason})
		}
	}
	for _, jk := range v.JoinKeys {
		c, ok := typed("source", jk.Name, jk.Type)
		if !ok {
			continue
		}
		raw := sql.Ident(v.Source.Column(jk.Name))
		src.scan.Keys = append(src.scan.Keys, c.expr)
		src.faults = append(src.faults, fault{null(raw), fmt.Sprintf("join key %q is null", jk.Name)})
		fits(c, fmt.Sprintf("join key %q is out of range for %s", jk.Name, jk.Type))
	}
	if expr, found, ok := column("source.timestamp_field", v.Source.TimestampField); ok {
		us, ok := micros(expr, found, v.Source.TimestampUnit)
		if !ok {
			problems = append(problems, withRemedy(problemAt(v, "source.timestamp_field", "column %q has type %s, which is no time", v.Source.TimestampField, src.differs(v.Source.TimestampField, found)),
				"use a timestamp or date column, or set timestamp_unit for epoch integers, or convert in a query source"))
		}
		src.scan.Event = us
		src.faults = append(src.faults, fault{null(expr), "event time is null"},
			fault{null(us), "event time is infinite or out of range"})
	}
	src.scan.Created = "NULL::BIGINT"
	if name := v.Source.CreatedTimestampColumn; name != "" {
		if expr, found, ok := column("source.created_timestamp_column", name); ok {
			us, ok := micros(expr, found, v.Source.TimestampUnit)
			if !ok {
				problems = append(problems, withRemedy(problemAt(v, "source.created_timestamp_column", "column %q has type %s, which is no time", name, found),
					"use a timestamp or date column"))
			}
			src.scan.Created = us
		}
	}
	src.scan.Deleted = "false"
	if name := v.Source.DeletedColumn; name != "" {
		if expr, found, ok := column("source.deleted_column", name); ok {
			if found != "BOOLEAN" {
				problems = append(problems, withRemedy(problemAt(v, "source.deleted_column", "column %q has type %s, which is no boolean", name, found),
					"use a boolean column, or convert in a query source"))
			}
			src.scan.Deleted = "coalesce(" + expr + ", false)"
		}
	}
	for _, f := range v.Features {
		if c, ok := typed("features."+f.Name, f.Name, f.Type); ok {
			src.scan.Features = append(src.scan.Features, c.expr)
			fits(c, fmt.Sprintf("feature %q is out of range for %s", f.Name, f.Type))
		}
	}
	for _, name := range reserved {
		if found := src.types[name]; found != "" {
			problems = append(problems, withRemedy(problemAt(v, "source", "the source has a column %q, a name that Hearth numbers its rows with", name), "rename it in the files, or leave it out in a query source"))
		}
	}
	src.scan.From, src.scan.Place = src.from, "file_row_number"
	if src.query == "" && len(src.files) > 1 {
		src.scan.Place = fmt.Sprintf("file_index::BIGINT * %d + file_row_number", int64(newest.FileRows))
	}
	for _, f := range src.faults {
		if strings.HasPrefix(f.reason, "feature ") { // the joins themselves drop NULL keys and times
			src.scan.Where = append(src.scan.Where, "NOT coalesce("+f.when+", false)")
		}
	}
	return problems
}

// differs names a column's type, and where it comes from when the files do not agree.
func (src *source) differs(column, found string) string {
	if where := src.varies[column]; where != "" {
		return found + " (" + where + ")"
	}
	return found
}

// reserved are columns that number rows and name files: a stored column of such a name
// would take their place.
var reserved = []string{"file_row_number", "file_index", "filename"}

// suggest names the columns that exist, the likely one first.
func (src *source) suggest(name string) string {
	names := make([]string, 0, len(src.types))
	for n := range src.types {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return fmt.Sprintf("did you mean %q? names are compared exactly; map it with field_mapping: {%s: %s}", n, n, name)
		}
	}
	return "it has: " + strings.Join(names, ", ") + "; a renamed column is mapped with field_mapping: {column: feature}"
}

// prune renders predicates on the stored time column for rows between lo and hi.
func (src *source) prune(lo, hi feature.Micros) []string {
	name := src.view.Source.TimestampField
	return pruning(sql.Ident(name), src.types[name], src.view.Source.TimestampUnit, lo, hi)
}

// bounds renders exact predicates on the event time, with pruning ones beside them.
func (src *source) bounds(lo, hi feature.Micros) []string {
	var out []string
	if lo != feature.NoTime {
		out = append(out, fmt.Sprintf("%s >= %d", src.scan.Event, int64(lo)))
	}
	if hi != feature.NoTime {
		out = append(out, fmt.Sprintf("%s <= %d", src.scan.Event, int64(hi)))
		out = append(out, src.prune(lo, hi)...)
	}
	return out
}
