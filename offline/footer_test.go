package offline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/hearthstore/hearth/feature"
)

// dayRow is a feature row of a folder that has a file for each day.
type dayRow struct {
	K   int64  `parquet:"k"`
	At  int64  `parquet:"at,timestamp(microsecond)"`
	A   int64  `parquet:"a"`
	Pad string `parquet:"pad,plain"` // so that a file is much bigger than its footer
}

// days writes a file for each day to a folder, the rows of the day in it; change may alter
// them and how they are written.
func days(t *testing.T, dir string, n int, change func(day int, rows []dayRow) []parquet.WriterOption) []string {
	t.Helper()
	paths := make([]string, n)
	for day := range n {
		rows := make([]dayRow, 5_000)
		for i := range rows {
			rows[i] = dayRow{K: int64(i % 1_000), At: dayOf(day, time.Duration(i)*time.Second), A: int64(day*10_000 + i), Pad: fmt.Sprintf("%x %d", i*7919, day)}
		}
		options := change(day, rows)
		paths[day] = filepath.Join(dir, fmt.Sprintf("day=2021-01-%02d", day+1), "p.parquet")
		if err := os.MkdirAll(filepath.Dir(paths[day]), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := parquet.WriteFile(paths[day], rows, options...); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// dayOf is a time on a day of January 2021, counted from 0.
func dayOf(day int, after time.Duration) int64 {
	return time.Date(2021, 1, 1+day, 0, 0, 0, 0, time.UTC).Add(after).UnixMicro()
}

// Of objects whose footers say that none of their rows can matter to a label, the footer is
// all that is downloaded, and once. What holds a row of the time, whatever its folder is called,
// and what has no statistics is downloaded and read. The rows are those of a build from files.
// Seen red with pruning off (the bytes of every object are served), with the TTL left out of the
// range (day 3 is missed), and with a file without statistics taken for an empty one.
func TestS3PrunedBeforeDownload(t *testing.T) {
	e, b := openEngine(t), newBucket(t)
	dir := t.TempDir()
	paths := days(t, filepath.Join(dir, "facts"), 10, func(day int, rows []dayRow) []parquet.WriterOption {
		switch day {
		case 6: // no statistics of the time
			return []parquet.WriterOption{parquet.SkipPageBounds("at")}
		case 8: // one row came late, about an entity of its own
			rows[7].K, rows[7].At, rows[7].A = 5_000, dayOf(3, time.Hour), 77
		}
		return nil
	})
	key := func(day int) string { return fmt.Sprintf("facts/day=2021-01-%02d/p.parquet", day+1) }
	size := func(day int) int64 {
		info, err := os.Stat(paths[day])
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	for day, path := range paths {
		b.putFile(t, key(day), path)
		if size(day) < 2*footerTail {
			t.Fatalf("day %d has %d bytes, too few for this test", day, size(day))
		}
	}
	copySQL(t, e, "SELECT k, t FROM (VALUES (7, TIMESTAMP '2021-01-04 18:00:00'), (5000, TIMESTAMP '2021-01-04 12:00:00'), (9, NULL), (8, TIMESTAMP '2021-01-05 00:00:00')) l(k, t)", filepath.Join(dir, "labels.parquet"))
	v := &feature.View{Name: "v", Version: 1, TTL: 36 * time.Hour, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}},
		Source:   feature.Source{Path: filepath.Join(dir, "facts"), TimestampField: "at"},
		Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}, {Field: feature.Field{Name: "day", Type: feature.String}}}}
	req := DatasetRequest{Name: "d", Spine: Spine{Path: filepath.Join(dir, "labels.parquet"), TimestampField: "t"}, Output: filepath.Join(dir, "out")}
	build := func(e *Engine) *Manifest {
		t.Helper()
		req.Selection = selectionOf(t, []*feature.View{v}, ref(t, "v:*"))
		m, err := e.BuildDataset(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	want := build(e)
	if want.Views[0].Matched != 3 {
		t.Fatalf("%d matched", want.Views[0].Matched)
	}
	remote := openEngine(t, b.config)
	v.Source.Path = "s3://lake/facts"
	// A check reads schemas, and no more.
	if problems := remote.Check(t.Context(), &feature.Project{Views: []feature.View{*v}}); len(problems) > 0 {
		t.Fatal(problems)
	}
	for day := range paths {
		if n := b.served(key(day)); n == 0 || n > footerTail {
			t.Errorf("the check was served %d bytes of day %d", n, day+1)
		}
	}
	// The labels need 3 January 06:00 (36 hours before the first) to 5 January 00:00.
	needed := []int{2, 3, 4, 6, 8}
	m := build(remote)
	if m.Digest != want.Digest {
		t.Errorf("digest %s, want %s", m.Digest, want.Digest)
	}
	for day := range paths {
		n, isNeeded := b.served(key(day)), slices.Contains(needed, day)
		if isNeeded && n < size(day) || !isNeeded && n > 0 { // the footers are here since the check
			t.Errorf("day %d: %d of %d bytes were served", day+1, n, size(day))
		}
		if f := m.Views[0].Files[day]; f.Skipped == isNeeded || !strings.Contains(f.Path, key(day)) {
			t.Errorf("the manifest says of day %d: %+v", day+1, f)
		}
	}
	// Labels without a time need nothing; the source has its columns all the same.
	copySQL(t, e, "SELECT 7 AS k, NULL::TIMESTAMP AS t", req.Spine.Path)
	if m := build(remote); m.Views[0].Matched != 0 {
		t.Errorf("%d matched", m.Views[0].Matched)
	}
	// A snapshot knows what was there by then: later days are not downloaded, earlier ones are.
	snapshot, err := remote.Snapshot(t.Context(), SnapshotRequest{Name: "s", Selection: req.Selection, At: feature.Micros(dayOf(3, 6*time.Hour)), Output: filepath.Join(dir, "snapshot")})
	if err != nil {
		t.Fatal(err)
	}
	if snapshot.Rows != 1_001 {
		t.Errorf("%d entities", snapshot.Rows)
	}
	for _, day := range []int{5, 7, 9} {
		if n := b.served(key(day)); n > 0 {
			t.Errorf("the snapshot was served %d bytes of day %d", n, day+1)
		}
	}
}

// Folders that promise another time than any label needs are left alone: not even the footers
// of their files are asked for. A folder that breaks the promise is an error, since rows would be
// missing without a word; one whose name says nothing is read.
// Seen red with within answering all files, and with kept not asked.
func TestS3TimePartitions(t *testing.T) {
	e, b := openEngine(t), newBucket(t)
	dir := t.TempDir()
	paths := days(t, filepath.Join(dir, "facts"), 6, func(int, []dayRow) []parquet.WriterOption { return nil })
	key := func(day int) string { return fmt.Sprintf("facts/day=2021-01-%02d/p.parquet", day+1) }
	for day, path := range paths {
		b.putFile(t, key(day), path)
	}
	const unknown = "facts/day=__HIVE_DEFAULT_PARTITION__/p.parquet"
	copySQL(t, e, "SELECT 6 AS k, TIMESTAMP '2021-01-03 12:00:00' AS at, 99 AS a, 'x' AS pad", filepath.Join(dir, "unknown.parquet"))
	b.putFile(t, unknown, filepath.Join(dir, "unknown.parquet"))
	copySQL(t, e, "SELECT unnest([6, 7]) AS k, TIMESTAMP '2021-01-03 18:00:00' AS t", filepath.Join(dir, "labels.parquet"))
	v := &feature.View{Name: "v", Version: 1, TTL: 24 * time.Hour, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}},
		Source:   feature.Source{Path: "s3://lake/facts", TimestampField: "at", TimePartitions: "day=%Y-%m-%d"},
		Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}}}
	req := DatasetRequest{Name: "d", Spine: Spine{Path: filepath.Join(dir, "labels.parquet"), TimestampField: "t"}, Output: filepath.Join(dir, "out")}
	remote := openEngine(t, b.config)
	build := func() (*Manifest, error) {
		req.Selection = selectionOf(t, []*feature.View{v}, ref(t, "v:*"))
		return remote.BuildDataset(t.Context(), req)
	}
	m, err := build()
	if err != nil || m.Views[0].Matched != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	_, rows := contents(t, e, m)
	expect(t, "rows", rows, "6 2021-01-03 18:00:00 99", "7 2021-01-03 18:00:00 24007")
	for day := range paths { // from 2 January 18:00 on
		n, isNeeded := b.served(key(day)), day == 1 || day == 2
		if isNeeded != (n > 0) {
			t.Errorf("day %d: %d bytes were served", day+1, n)
		}
	}
	if b.served(unknown) == 0 {
		t.Error("the folder without a time was not read")
	}
	// Rows of the 5th under the 3rd.
	b.putFile(t, "facts/day=2021-01-03/late.parquet", paths[4])
	if _, err := build(); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), "day=2021-01-03/late.parquet holds rows of another time") {
		t.Errorf("broken promise: %v", err)
	}
	if text := remote.Check(t.Context(), &feature.Project{Views: []feature.View{*v}}).Error(); !strings.Contains(text, "late.parquet holds rows of another time") {
		t.Errorf("check of a broken promise: %q", text)
	}
	v.Source.TimePartitions = ""
	if m, err = build(); err != nil || m.Views[0].Matched != 2 {
		t.Errorf("without a promise: %v", err)
	}
	// The same of local folders.
	v.Source.Path, v.Source.TimePartitions = filepath.Join(dir, "facts"), "day=%Y-%m-%d"
	for _, day := range []int{0, 3, 4, 5} {
		spoil(t, paths[day])
		if err := os.Truncate(paths[day], 100); err != nil { // its footer is gone, too
			t.Fatal(err)
		}
	}
	if m, err = build(); err != nil || m.Views[0].Matched != 2 || !m.Views[0].Files[0].Skipped || m.Views[0].Files[1].Skipped {
		t.Errorf("local folders: %+v, %v", m, err)
	}
}

// A column that the needed objects lack is NULL, of the type that others say in their footers;
// an object whose footer is longer than what is asked for first is asked again.
func TestS3ColumnsOfOtherObjects(t *testing.T) {
	e, b := openEngine(t), newBucket(t)
	dir := t.TempDir()
	copySQL(t, e, `SELECT i AS k, TIMESTAMP '2021-01-01' AS "at", hash(i) AS pad FROM range(20000) r(i)`, filepath.Join(dir, "old.parquet"))
	var wide strings.Builder
	for i := range 1_500 {
		fmt.Fprintf(&wide, ", hash(i + %d) AS a_rather_long_name_of_a_column_%d", i, i)
	}
	copySQL(t, e, `SELECT i AS k, TIMESTAMP '2021-02-01' AS "at", i AS a`+wide.String()+` FROM range(300) r(i)`, filepath.Join(dir, "new.parquet"))
	b.putFile(t, "facts/1.parquet", filepath.Join(dir, "old.parquet"))
	b.putFile(t, "facts/2.parquet", filepath.Join(dir, "new.parquet"))
	copySQL(t, e, "SELECT 7 AS k, TIMESTAMP '2021-01-04' AS t", filepath.Join(dir, "labels.parquet"))
	v := &feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}}, Source: feature.Source{Path: "s3://lake/facts", TimestampField: "at"},
		Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}}}
	m, err := openEngine(t, b.config).BuildDataset(t.Context(), DatasetRequest{Name: "d", Spine: Spine{Path: filepath.Join(dir, "labels.parquet"), TimestampField: "t"},
		Selection: selectionOf(t, []*feature.View{v}, ref(t, "v:*")), Output: filepath.Join(dir, "out")})
	if err != nil || m.Views[0].Matched != 1 || m.Views[0].Features[0].NullRate != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	info, err := os.Stat(filepath.Join(dir, "new.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	if n := b.served("facts/2.parquet"); n <= footerTail || n >= info.Size() {
		t.Errorf("%d of %d bytes of the second object were served: its footer is more than the first request, and less than all", n, info.Size())
	}
}
