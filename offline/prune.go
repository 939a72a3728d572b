package offline

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/sql"
)

// always is the range that excludes nothing; never is empty.
var (
	always = timeRange{feature.NoTime, feature.NoTime}
	never  = timeRange{1, 0}
)

// meets reports whether rows of the other range can lie in r, whose ends may be open.
func (r timeRange) meets(other timeRange) bool {
	return (r.lo == feature.NoTime || other.hi >= r.lo) && (r.hi == feature.NoTime || other.lo <= r.hi)
}

// fetch makes ready what a source needs of its files: whole copies of those whose rows can
// lie in the range, and of the other remote ones the footers. Files whose folders promise
// another time are left alone. It returns the others with their schemas, and the ones whose
// rows are to be read. What neither folder nor footer rules out, as a file without
// statistics, is read.
func (s *session) fetch(ctx context.Context, src *source, in timeRange) (shapes []shape, read []located, err error) {
	candidates := src.within(in)
	if in == always || len(candidates) < 2 || !isRemote(candidates[0].Path) {
		if err := s.stage(ctx, candidates); err != nil {
			return nil, nil, err
		}
		if len(candidates) > 1 || src.view.Source.TimePartitions != "" {
			shapes, err = s.shapes(ctx, candidates, len(src.hive) > 0)
		}
		return shapes, candidates, err
	}
	files, err := s.footers(ctx, candidates)
	if err != nil {
		return nil, nil, err
	}
	if shapes, err = s.staged(ctx, src, files); err != nil { // whole: small ones
		return nil, nil, err
	}
	times, err := s.eventTimes(ctx, src, shapes)
	if err != nil {
		return nil, nil, err
	}
	for i, f := range files {
		if r := times[f.local]; r != nil && !in.meets(*r) {
			continue
		}
		read = append(read, candidates[i])
	}
	if len(read) == 0 { // a source without a file has no columns
		read = append(read, smallest(candidates))
	}
	if err := s.stage(ctx, read); err != nil {
		return nil, nil, err
	}
	// What is here whole now can be read where a footer does not tell.
	here := make(map[string]located, len(read))
	for _, f := range read {
		here[f.Path] = f
	}
	for i := range shapes {
		for j, f := range shapes[i].files {
			if whole, ok := here[f.Path]; ok {
				shapes[i].files[j] = whole
			}
		}
	}
	return shapes, read, nil
}

// within returns the files whose folders do not promise a time outside of the range; at least
// one, as a source without a file has no columns.
func (src *source) within(in timeRange) []located {
	promise := src.view.Source.TimePartitions
	if promise == "" || in == always {
		return src.files
	}
	var out []located
	for _, f := range src.files {
		if first, last, ok := promise.Period(f.Path); !ok || in.meets(timeRange{first, last}) {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		out = append(out, smallest(src.files))
	}
	return out
}

// kept reports files whose footers show rows of another time than their folders promise:
// with such folders left out, rows would be missing.
func (s *session) kept(ctx context.Context, src *source, shapes []shape) error {
	promise := src.view.Source.TimePartitions
	if promise == "" {
		return nil
	}
	times, err := s.eventTimes(ctx, src, shapes)
	if err != nil {
		return err
	}
	for _, sh := range shapes {
		for _, f := range sh.files {
			first, last, ok := promise.Period(f.Path)
			if r := times[f.local]; ok && r != nil && (r.lo < first || r.hi > last) {
				return feature.Problems{withRemedy(problemAt(src.view, "source.time_partitions", "%s holds rows of another time than its folder promises", f.Path),
					"remove time_partitions: without it nothing is left out by the names of folders; or write such rows to the folder of their event time (UTC)")}
			}
		}
	}
	return nil
}

func smallest(files []located) located {
	least := files[0]
	for _, f := range files[1:] {
		if f.Size < least.Size {
			least = f
		}
	}
	return least
}

// footers makes local copies of the footers of remote files, for this operation alone.
func (s *session) footers(ctx context.Context, files []located) ([]located, error) {
	s.serial++
	return s.engine.stage.footers(ctx, files, filepath.Join(s.dir, "footers"+strconv.Itoa(s.serial)))
}

// eventTimes reads the range of event times of each file from the footers, once, by local
// path. Files without statistics, or with rows of which they say nothing, have nil.
func (s *session) eventTimes(ctx context.Context, src *source, shapes []shape) (map[string]*timeRange, error) {
	column, unit := src.view.Source.TimestampField, src.view.Source.TimestampUnit
	byType := map[string][]string{}
	if src.times == nil {
		src.times = map[string]*timeRange{}
	}
	for _, sh := range shapes {
		for _, f := range sh.files {
			if _, ok := src.times[f.local]; !ok {
				src.times[f.local] = nil
				byType[sh.types[column]] = append(byType[sh.types[column]], sql.Literal(f.local))
			}
		}
	}
	for found, list := range byType {
		bound := func(stat string) (string, bool) { return micros(try(stat, found), found, unit) }
		lo, ok := bound("stats_min_value")
		hi, _ := bound("stats_max_value")
		if !ok { // no time, or no such column
			continue
		}
		query := fmt.Sprintf("SELECT file_name, min(%s), max(%s), count(*) FILTER (%s IS NULL OR %s IS NULL) FROM parquet_metadata([%s]) WHERE path_in_schema = %s GROUP BY file_name",
			lo, hi, lo, hi, strings.Join(list, ", "), sql.Literal(column))
		err := s.Each(ctx, query, func(scan func(dest ...any) error) error {
			var (
				name        string
				first, last *int64
				unknown     int64
			)
			err := scan(&name, &first, &last, &unknown)
			if first != nil && last != nil && unknown == 0 {
				src.times[name] = &timeRange{feature.Micros(*first), feature.Micros(*last)}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return src.times, nil
}

// readTimes reads the range of event times of one file from its rows; nil when the file is not
// here, or holds no time.
func (s *session) readTimes(ctx context.Context, src *source, sh shape, f located) (*timeRange, error) {
	event, ok := src.eventOf(sh)
	if !ok || f.footer {
		return nil, nil
	}
	var first, last *int64
	if err := s.QueryRow(ctx, fmt.Sprintf("SELECT min(%s), max(%s) FROM %s", event, event, readParquet([]located{f}, false)), &first, &last); err != nil || first == nil || last == nil {
		return nil, err
	}
	return &timeRange{feature.Micros(*first), feature.Micros(*last)}, nil
}

// mostlyAfter reports whether more than half of a file's rows are newer than a time.
func (s *session) mostlyAfter(ctx context.Context, src *source, sh shape, f located, last feature.Micros) (bool, error) {
	event, ok := src.eventOf(sh)
	if !ok || f.footer {
		return false, nil
	}
	var after, all int64
	if err := s.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FILTER (%s > %d), count(%s) FROM %s", event, int64(last), event, readParquet([]located{f}, false)), &after, &all); err != nil {
		return false, err
	}
	return 2*after > all, nil
}

// eventOf renders the event time of files of a shape.
func (src *source) eventOf(sh shape) (string, bool) {
	name := src.view.Source.TimestampField
	return micros(sql.Ident(name), sh.types[name], src.view.Source.TimestampUnit)
}
