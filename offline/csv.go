package offline

import (
	"context"
	"fmt"
	"path/filepath"
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
// their type holds, dates in any but ISO order, and the columns named in text. Times in
// timeColumn must be ISO 8601: a day that is taken for a month could leak the future.
func (s *session) convertCSV(ctx context.Context, files []located, timeColumn string, text map[string]bool) ([]located, error) {
	out := make([]located, len(files))
	for i, f := range files {
		out[i] = f
		out[i].local = filepath.Join(s.dir, fmt.Sprintf("spine%d.parquet", i))
		if err := s.convertOne(ctx, f, out[i].local, timeColumn, text); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *session) convertOne(ctx context.Context, f located, to, timeColumn string, text map[string]bool) error {
	read := func(options string) string {
		return fmt.Sprintf("read_csv(%s, header = true, sample_size = -1, parallel = false%s)", sql.Literal(f.local), options)
	}
	unreadable := func(err error) error {
		if ctx.Err() != nil {
			return err
		}
		return feature.Problems{withRemedy(spineProblem("path", "%s cannot be read as CSV: %v", f.Path, err), "check the file, or store the spine as Parquet")}
	}
	guessed, err := s.describe(ctx, read(""))
	if err != nil {
		return unreadable(err)
	}
	var columns []string
	for name := range guessed {
		columns = append(columns, name)
	}
	forced, star := []string{}, "*"
	force := func(name string) { forced = append(forced, sql.Literal(name)+": 'VARCHAR'") }
	for _, name := range columns {
		var harm string
		col := sql.Ident(name)
		switch base, _, _ := strings.Cut(guessed[name], "("); {
		case name == timeColumn && base != "BOOLEAN": // checked and cast below
			force(name)
			continue
		case text[name] && base != "VARCHAR":
			force(name)
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
			force(name)
		}
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
