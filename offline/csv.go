package offline

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/sql"
)

func isCSV(path string) bool {
	path = strings.TrimSuffix(strings.ToLower(path), ".gz")
	return strings.HasSuffix(path, ".csv") || strings.HasSuffix(path, ".tsv")
}

// convertCSV turns each CSV file into scratch Parquet, one thread per file: a parallel
// CSV reader would lose the order of the rows. The first line names the columns.
//
// A CSV file has no types, and DuckDB guesses them. Where a guess would change what is
// written there, the column stays text: numbers with leading zeros or more digits than
// their type holds, dates in any but ISO order, and the columns of keys of type string. Times in
// timeColumn must be ISO 8601: a day that is taken for a month could leak the future; and columns
// of integer keys must hold whole numbers, since a key of another type matches nothing.
func (s *session) convertCSV(ctx context.Context, files []located, timeColumn string, keys map[string]feature.Type) ([]located, error) {
	var out []located
	for i, f := range files {
		if f.Size == 0 {
			return nil, feature.Problems{withRemedy(spineProblem("path", "%s is empty: it has no line that names the columns", f.Path), "remove the file, or write it again")}
		}
		local := filepath.Join(s.dir, fmt.Sprintf("spine%d.parquet", i))
		if err := s.convertOne(ctx, f, local, timeColumn, keys); err != nil {
			return nil, err
		}
		var rows int64
		if err := s.QueryRow(ctx, "SELECT count(*) FROM "+readParquet([]located{{local: local}}, false), &rows); err != nil {
			return nil, err
		}
		if rows > 0 { // else its columns have no types, which would take those of the other files away
			f.local = local
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		return nil, feature.Problems{withRemedy(spineProblem("path", "%s has no rows below the line that names the columns", files[0].Path), "check what writes it; a spine of no rows can be Parquet, which has types")}
	}
	return out, nil
}

func (s *session) convertOne(ctx context.Context, f located, to, timeColumn string, keys map[string]feature.Type) error {
	read := func(options string) string {
		return fmt.Sprintf("read_csv(%s, header = true, sample_size = -1, parallel = false%s)", sql.Literal(f.local), options)
	}
	unreadable := func(err error) error {
		if ctx.Err() != nil {
			return err
		}
		return feature.Problems{withRemedy(spineProblem("path", "%s cannot be read as CSV: %s", f.Path, csvFault(err)), "check the file, or store the spine as Parquet")}
	}
	guessed, err := s.describe(ctx, read(""))
	if err != nil {
		return unreadable(err)
	}
	if len(guessed) == 1 { // of one column, or the rows do not fit the first line and each was taken for a value
		for header := range guessed {
			if err := s.ragged(ctx, f, header); err != nil {
				return unreadable(err)
			}
		}
	}
	var columns []string
	for name := range guessed {
		columns = append(columns, name)
	}
	slices.Sort(columns)
	forced, star := []string{}, "*"
	force := func(name, kind string) { forced = append(forced, sql.Literal(name)+": "+sql.Literal(kind)) }
	var problems feature.Problems
	for _, name := range columns {
		var harm string
		col := sql.Ident(name)
		switch base, _, _ := strings.Cut(guessed[name], "("); {
		case name == timeColumn && base != "BOOLEAN": // checked and cast below
			force(name, "VARCHAR")
			continue
		case keys[name] == feature.String:
			force(name, "VARCHAR")
			continue
		case keys[name] == feature.Int64 || keys[name] == feature.Int32:
			bad, first, err := s.notWhole(ctx, name, read(", all_varchar = true"))
			if err != nil {
				return unreadable(err)
			}
			if bad > 0 {
				problems = append(problems, withRemedy(spineProblem("join_keys", "%s: %d rows have no whole number in column %q, the first is row %d below the line that names the columns", f.Path, bad, name, first),
					"the join key is %s: write 1203, without a fraction or leading zeros, and nothing where there is no key", keys[name]))
			}
			force(name, "BIGINT") // also where all are empty, and the guess is text
			continue
		case integers[base].fits64 || base == "HUGEINT" || base == "DOUBLE":
			harm = fmt.Sprintf("regexp_full_match(%s, '[+-]?0[0-9]+([.].*)?')", col)
			if base == "DOUBLE" || base == "HUGEINT" {
				harm += fmt.Sprintf(" OR regexp_full_match(%s, '[+-]?[0-9]{16,}')", col)
			}
		case base == "DATE" || strings.HasPrefix(base, "TIMESTAMP"):
			harm = fmt.Sprintf("NOT regexp_matches(%s, '^[0-9]{4}-[0-9]{2}-[0-9]{2}')", col)
		default:
			continue
		}
		var n int64
		if err := s.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FILTER (%s) FROM %s", harm, read(", all_varchar = true")), &n); err != nil {
			return unreadable(err)
		}
		if n > 0 {
			force(name, "VARCHAR")
		}
	}
	if len(problems) > 0 {
		return problems
	}
	options := ""
	if len(forced) > 0 {
		options = ", types = {" + strings.Join(forced, ", ") + "}"
	}
	if guessed[timeColumn] != "" && timeColumn != "" {
		if star, err = s.isoTime(ctx, f, read(options), timeColumn); err != nil {
			return err
		}
	}
	if err := s.Exec(ctx, fmt.Sprintf("COPY (SELECT %s FROM %s) TO %s (FORMAT parquet, COMPRESSION zstd)", star, read(options), sql.Literal(to))); err != nil {
		return unreadable(err)
	}
	return nil
}

// ragged reads a file by the columns of its first line, and returns the error on the first line
// that has others.
func (s *session) ragged(ctx context.Context, f located, header string) error {
	for _, delimiter := range []string{",", ";", "\t", "|"} {
		if !strings.Contains(header, delimiter) {
			continue
		}
		columns := make([]string, strings.Count(header, delimiter)+1)
		for i := range columns {
			columns[i] = fmt.Sprintf("'c%d': 'VARCHAR'", i)
		}
		query := fmt.Sprintf("SELECT count(*) FROM read_csv(%s, auto_detect = false, header = true, parallel = false, delim = %s, quote = '\"', columns = {%s})",
			sql.Literal(f.local), sql.Literal(delimiter), strings.Join(columns, ", "))
		var n int64
		if err := s.QueryRow(ctx, query, &n); err != nil {
			return err
		}
	}
	return nil
}

// csvFault is what a reader's error says of where and what, without the line itself, whose values are
// nobody's to log, and without advice on options that cannot be given here.
func csvFault(err error) string {
	var out []string
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		where := strings.Contains(line, "Error on Line") || strings.HasPrefix(line, "Expected Number of Columns") || strings.HasPrefix(line, "Error when sniffing") ||
			strings.HasPrefix(line, "It was not possible") || strings.HasPrefix(line, "IO Error")
		if where {
			out = append(out, strings.TrimPrefix(line, "Invalid Input Error: "))
		}
	}
	if len(out) == 0 {
		return "no columns can be told from it"
	}
	return strings.Join(out, ", ")
}

// notWhole counts the rows of a CSV file whose column is neither empty nor a whole number as
// it would be written again, and finds the first of them.
func (s *session) notWhole(ctx context.Context, column, from string) (bad, first int64, err error) {
	col := sql.Ident(column)
	whole := fmt.Sprintf("regexp_full_match(trim(%s), '[+-]?(0|[1-9][0-9]*)') AND TRY_CAST(%s AS BIGINT) IS NOT NULL", col, col)
	query := fmt.Sprintf("SELECT count(*), coalesce(min(n), 0) FROM (SELECT row_number() OVER () AS n, %s IS NULL OR (%s) AS fits FROM %s) WHERE NOT fits", col, whole, from)
	err = s.QueryRow(ctx, query, &bad, &first)
	return bad, first, err
}

// isoTime renders the columns of a CSV file with its label time cast, and refuses times
// that are not ISO 8601. A time without a zone is UTC.
func (s *session) isoTime(ctx context.Context, f located, from, column string) (star string, err error) {
	col := sql.Ident(column)
	iso := fmt.Sprintf("CASE WHEN regexp_matches(%s, '^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T]|$)') THEN TRY_CAST(%s AS TIMESTAMPTZ) END", col, col)
	var (
		bad   int64
		first *int64
	)
	query := fmt.Sprintf("SELECT count(*), min(n) FROM (SELECT row_number() OVER () AS n, %s AS written, %s AS parsed FROM %s) WHERE written IS NOT NULL AND parsed IS NULL", col, iso, from)
	if err := s.QueryRow(ctx, query, &bad, &first); err != nil {
		return "", fmt.Errorf("read label times of %s: %w", f.Path, err)
	}
	if bad > 0 && first != nil {
		return "", feature.Problems{withRemedy(spineProblem("timestamp_field", "%s: %d rows have no ISO 8601 time in column %q, the first is row %d", f.Path, bad, column, *first),
			"write times as 2021-08-25T10:00:00Z; what reads as a day or as a month is not guessed, since a wrong guess can leak the future")}
	}
	return fmt.Sprintf("* REPLACE (%s AS %s)", iso, col), nil
}
