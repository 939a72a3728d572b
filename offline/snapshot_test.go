package offline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

// A snapshot at T equals the reference for a label of every entity at T, known by then.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 3_000, 1)
	e := openEngine(t)
	at := base + 500
	out := filepath.Join(s.dir, "snap")
	req := SnapshotRequest{Name: "snap", Selection: s.req.Selection, At: feature.Micros(at), Output: out, EventTimestamps: true}
	m, err := e.Snapshot(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		K1    string  `parquet:"k1,optional"`
		K2    int64   `parquet:"k2,optional"`
		A     *int64  `parquet:"a,optional"`
		Event *int64  `parquet:"facts__event_timestamp,optional,timestamp(microsecond)"`
		B     *string `parquet:"b,optional"`
	}
	rows := readRows[row](t, filepath.Join(out, "part-00000.parquet"))
	want := map[string]bool{}
	for _, f := range s.facts {
		if *f.Event <= at {
			want[fmt.Sprint(*f.K1, "/", *f.K2)] = true
		}
	}
	if len(rows) != len(want) || m.Snapshot == nil || int64(m.Snapshot.At.Micros) != at {
		t.Fatalf("%d rows, want %d; %+v", len(rows), len(want), m.Snapshot)
	}
	for i, r := range rows {
		if !want[fmt.Sprint(r.K1, "/", r.K2)] {
			t.Fatalf("row %d is of an entity that nobody knows", i)
		}
		delete(want, fmt.Sprint(r.K1, "/", r.K2))
		var best factRow
		if b := reference(labelRow{X: &r.K1, Y: &r.K2, T: &at}, s.facts, s.view.TTL, true); b != nil {
			best = *b
		}
		if !same(r.A, best.A) || !same(r.B, best.B) || !same(r.Event, best.Event) {
			t.Fatalf("row %d: %s", i, show(r))
		}
	}
	// Given entities, in their order.
	csv := filepath.Join(s.dir, "who.csv")
	if err := os.WriteFile(csv, []byte("k1,k2\nu7,1\nnobody,1\nu3,0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	req.Entities = csv
	if _, err := e.Snapshot(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	rows = readRows[row](t, filepath.Join(out, "part-00000.parquet"))
	if len(rows) != 3 || rows[0].K1 != "u7" || rows[1].K1 != "nobody" || rows[1].A != nil || rows[2].K1 != "u3" {
		t.Errorf("given entities: %s", show(rows))
	}
	// Views of different entities cannot be put in one row without being told how.
	req.Entities, req.Selection = "", selectionOf(t, creditViews(0, 0), ref(t, "zipcode_features:city"), ref(t, "credit_history:hard_pulls"))
	if _, err := e.Snapshot(t.Context(), req); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), "name a file of entities") {
		t.Errorf("different entities: %v", err)
	}
}

func TestDatasetDiff(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 2_000, 1_000)
	e := openEngine(t)
	a, b := filepath.Join(s.dir, "a"), filepath.Join(s.dir, "b")
	s.build(t, e, func(r *DatasetRequest) { r.Output = a })
	s.build(t, e, func(r *DatasetRequest) { r.Output, r.PartitionRows = b, 400 })
	diff, err := e.DatasetDiff(t.Context(), a, b, DiffOptions{})
	if err != nil || !diff.Identical {
		t.Fatalf("the same rows in other files: %+v, %v", diff, err)
	}
	before := readJoined(t, a)
	changed := 0
	for i := range s.facts { // one entity changes
		if *s.facts[i].K1 == "u7" {
			s.facts[i].A = ptr(int64(1000))
		}
	}
	writeParquet(t, filepath.Join(s.dir, "facts", "1.parquet"), s.facts)
	s.build(t, e, func(r *DatasetRequest) { r.Output, r.PartitionRows = b, 400 })
	for i, row := range readJoined(t, b) {
		if !same(row.A, before[i].A) {
			changed++
		}
	}
	diff, err = e.DatasetDiff(t.Context(), a, b, DiffOptions{})
	if err != nil || diff.Identical || changed == 0 || diff.Changed != int64(changed) || len(diff.Columns) != 1 || diff.Columns[0].Column != "a" || len(diff.Inputs) != 1 {
		t.Errorf("%d changed: %+v, %v", changed, diff, err)
	}
	// Values are shown only where they were asked for.
	table := func(d *Diff) string {
		var text strings.Builder
		if err := d.WriteTable(&text); err != nil {
			t.Fatal(err)
		}
		return text.String()
	}
	if text := table(diff); strings.Contains(text, "-> 1000\n") {
		t.Errorf("a value is shown:\n%s", text)
	}
	diff, err = e.DatasetDiff(t.Context(), a, b, DiffOptions{Examples: 2})
	if err != nil || len(diff.Columns) != 1 || len(diff.Columns[0].Examples) != 2 {
		t.Fatalf("examples: %+v, %v", diff, err)
	}
	for _, ex := range diff.Columns[0].Examples {
		if ex.RowA != ex.RowB || !same(before[ex.RowA-1].A, number64(t, ex.A)) || *ex.B != "1000" {
			t.Errorf("example %+v", ex)
		}
	}
	if text := table(diff); !strings.Contains(text, "-> 1000\n") || strings.Count(text, "-> 1000\n") != 2 {
		t.Errorf("examples:\n%s", text)
	}
	// The same labels without the first ten and in another order: by position all differ, by
	// id nothing does but what changed above.
	moved := shuffled(s.labels[10:], 3)
	writeParquet(t, s.req.Spine.Path, moved)
	s.build(t, e, func(r *DatasetRequest) { r.Output = b })
	changed = 0
	for _, row := range readJoined(t, b) {
		if !same(row.A, before[row.ID].A) {
			changed++
		}
	}
	diff, err = e.DatasetDiff(t.Context(), a, b, DiffOptions{By: []string{"id"}, Examples: 1})
	if err != nil || diff.Changed != int64(changed) || diff.Compared != 990 || diff.OnlyRowsA != 10 || diff.OnlyRowsB != 0 || len(diff.Columns) != 1 {
		t.Errorf("by id: %+v, %v", diff, err)
	}
	if text := table(diff); !strings.Contains(text, "by id") || !strings.Contains(text, "10 of A, 0 of B") {
		t.Errorf("by id:\n%s", text)
	}
	if _, err := e.DatasetDiff(t.Context(), a, b, DiffOptions{By: []string{"nope"}}); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), "these are: id, ") {
		t.Errorf("by a column that is not there: %v", err)
	}
}

func number64(t *testing.T, text *string) *int64 {
	t.Helper()
	if text == nil {
		return nil
	}
	n, err := strconv.ParseInt(*text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return &n
}

func TestWriteHTML(t *testing.T) {
	t.Parallel()
	s := newSetting(t, 2_000, 1_000)
	m := s.build(t, openEngine(t))
	read, err := ReadManifest(s.req.Output)
	if err != nil {
		t.Fatal(err)
	}
	read.Views[0].Files = []InputFile{{File: feature.File{Path: "1", Size: 10}}, {File: feature.File{Path: "2", Size: 10}}, {File: feature.File{Path: "3", Size: 10}}, {File: feature.File{Path: "4", Size: 10}, Skipped: true}}
	var page strings.Builder
	if err := read.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{m.Digest, "facts@1", "<svg", "leaks", "Labels over time", "Match rate", "4 files · 40 bytes · 1 not read"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, no := range []string{"http://", "https://", "<script", "ZgotmplZ"} {
		if strings.Contains(page.String(), no) {
			t.Errorf("the page holds %q", no)
		}
	}
}
