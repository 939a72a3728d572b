package offline

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// spoil overwrites the rows of a Parquet file and leaves its footer: reading the schema
// and the statistics works, reading a row fails.
func spoil(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	footer := int(b[len(b)-8]) | int(b[len(b)-7])<<8 | int(b[len(b)-6])<<16
	copy(b[4:len(b)-8-footer], bytes.Repeat([]byte{0xff}, len(b)))
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A folder partitioned by day is pruned by the footers of its files: of a file whose times
// lie outside of what the labels need, no row is read; here it could not be read. The
// folder's name decides nothing, since it need not be the day of the event: the rows under
// day=2021-01-09 are older than it says, and are found.
// Seen red with the predicates for pruning left out, and with a needed file spoiled.
func TestPartitionsPruned(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	dir := t.TempDir()
	path := func(day int) string {
		return filepath.Join(dir, "facts", fmt.Sprintf("day=2021-01-%02d", day), "p.parquet")
	}
	for day := 1; day <= 10; day++ {
		at := fmt.Sprintf("TIMESTAMP '2021-01-%02d 00:00:00'", day)
		if day == 9 {
			at = "TIMESTAMP '2021-01-03 12:00:00'" // loaded late
		}
		copySQL(t, e, fmt.Sprintf(`SELECT i AS k, %s AS "at", %d AS a FROM range(1000) r(i)`, at, day), path(day))
	}
	for _, day := range []int{1, 4, 5, 6, 7, 8, 10} {
		spoil(t, path(day))
	}
	copySQL(t, e, "SELECT 7 AS k, TIMESTAMP '2021-01-03 18:00:00' AS t", filepath.Join(dir, "labels.parquet"))
	v := &feature.View{Name: "v", Version: 1, TTL: 2 * 24 * time.Hour, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}},
		Source:   feature.Source{Path: filepath.Join(dir, "facts"), TimestampField: "at"},
		Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}, {Field: feature.Field{Name: "day", Type: feature.String}}}}
	for _, plan := range []Plan{PlanAuto, PlanASOF, PlanBucket, PlanHash} {
		m, err := e.BuildDataset(t.Context(), DatasetRequest{Name: "d", Spine: Spine{Path: filepath.Join(dir, "labels.parquet"), TimestampField: "t"},
			Selection: selectionOf(t, []*feature.View{v}, ref(t, "v:*")), Output: filepath.Join(dir, "out"), Plan: plan})
		if err != nil || m.Views[0].Matched != 1 {
			t.Fatalf("plan %q: %v, %v", plan, m, err)
		}
		type row struct {
			A   int64  `parquet:"a"`
			Day string `parquet:"day"`
		}
		if got := readRows[row](t, filepath.Join(dir, "out", m.Files[0].Path)); len(got) != 1 || got[0] != (row{9, "2021-01-09"}) {
			t.Errorf("plan %q: %+v", plan, got)
		}
	}
}
