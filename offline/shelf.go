package offline

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/sql"
)

// Assembly is how the views' features come together in the last step. Both ways write the
// same rows.
type Assembly string

// The ways.
const (
	assemblyAuto Assembly = ""
	// AssemblyJoin joins all views to the spine in one statement. Every join pins some
	// megabytes, and tables that do not fit are spilled.
	AssemblyJoin Assembly = "join"
	// AssemblyShelf writes each view, as soon as it is found, to a scratch file in the spine's
	// order; the last step reads the files side by side. Its memory does not grow with
	// the number of views, save for the columns of one row group.
	AssemblyShelf Assembly = "shelf"
)

const (
	// joinPin is what one hash join holds at least, per thread: DuckDB partitions the build
	// side 16 ways, and a block of 256 KiB of each partition stays in memory.
	joinPin = 16 * 256 << 10
	// pinnedShare of DuckDB's memory may be pinned by joins; more than that was seen to fail.
	pinnedShare = 5
	// rowGroupBytes is the size of an output row group before compression, about: DuckDB
	// holds one per thread while it writes. Rows follow from the columns alone, so that the
	// bytes of a training set do not depend on the memory it was built with.
	rowGroupBytes = 48 << 20
	rowGroupRows  = 122_880 // DuckDB's own; never more
	// rowGroups is how many a file has at least, so that all processors have work when it is
	// written and read, unless each had fewer rows than rowGroupLeast then.
	rowGroups     = 16
	rowGroupLeast = 32_768
	// shelfGroupBytes bounds what one row group of all shelved files takes together.
	shelfGroupBytes = 16 << 20
	shelfGroupRows  = 8_192
	vector          = 2_048 // rows; row groups are a multiple of it
)

// width estimates the bytes of one value of a declared type.
func width(t feature.Type) int64 {
	switch {
	case t.IsList():
		return 64
	case t == feature.String || t == feature.Bytes:
		return 24
	}
	return 8
}

// rowWidth estimates the bytes of one row of the output: the spine's columns count as
// text, which they may be.
func (d *dataset) rowWidth() int64 {
	n := int64(24 * len(d.spine.names))
	for _, c := range d.columns {
		n += width(feature.Type(c.kind))
	}
	return n
}

// rowGroupOf is how many rows a row group of a file of so many rows has at most.
func rowGroupOf(rows int64) int64 {
	return min(max(rows/rowGroups/vector*vector, rowGroupLeast), rowGroupRows)
}

// groupRows fits a row group into so many bytes.
func groupRows(bytes, rowWidth, least, most int64) int64 {
	return max(least, min(most, bytes/max(rowWidth, 1)/vector*vector))
}

// assemble decides how the features come together, from what is known before the first
// view is read.
func (d *dataset) assemble() Assembly {
	if d.req.assembly != assemblyAuto {
		return d.req.assembly
	}
	n, limit := int64(len(d.req.Selection.Groups)), duckMemory(d.engine.config.MemoryBytes)
	if n*joinPin*int64(d.engine.config.Threads) > limit/pinnedShare {
		return AssemblyShelf
	}
	// One or two joins over more than the memory spill well; many do not.
	if n > 2 && d.spine.total > limit/2/d.rowWidth() {
		return AssemblyShelf
	}
	return AssemblyJoin
}

// shelve moves the winners of a view from table m<i> to a scratch file, under the same name.
func (d *dataset) shelve(ctx context.Context, i int, j sql.Join) error {
	out := sql.Shelf{Join: j, Winners: d.winners[i], Path: filepath.Join(d.dir, fmt.Sprintf("shelf%d.parquet", i)), Options: d.shelfOptions()}
	if err := d.run(ctx, "shelf", out); err != nil {
		return fmt.Errorf("keep winners: %w", changedSource(err))
	}
	d.shelves = append(d.shelves, readParquet([]located{{local: out.Path}}, false))
	if d.indexes[i] != nil {
		if err := d.closeIndex(ctx, i); err != nil {
			return err
		}
	} else if err := d.Exec(ctx, fmt.Sprintf("DROP TABLE m%d", i)); err != nil {
		return err
	}
	return d.Exec(ctx, fmt.Sprintf("CREATE TEMP VIEW m%d AS SELECT * FROM %s WHERE ev IS NOT NULL", i, d.shelves[i]))
}

// shelveSpine does the same for the spine.
func (d *dataset) shelveSpine(ctx context.Context) (from string, err error) {
	out := sql.Shelf{Path: filepath.Join(d.dir, "shelf.parquet"), Options: d.shelfOptions()}
	out.Spine = sql.Spine{From: d.spine.from, RowID: d.spine.rowID}
	if err := d.run(ctx, "shelf_spine", out); err != nil {
		return "", fmt.Errorf("keep spine: %w", err)
	}
	return readParquet([]located{{local: out.Path}}, false), nil
}

func (d *dataset) shelfOptions() []string {
	rows := groupRows(shelfGroupBytes, d.rowWidth(), vector, shelfGroupRows)
	return []string{"FORMAT parquet", "COMPRESSION lz4", fmt.Sprintf("ROW_GROUP_SIZE %d", rows)}
}

// between restricts a shelved file to a range of rows.
func between(from, column string, lo, hi int64) string {
	return fmt.Sprintf("(SELECT * FROM %s WHERE %s >= %d AND %s < %d)", from, column, lo, column, hi)
}

// stack fills the files of the last step over shelves, for the rows [lo, hi) or for all.
func (d *dataset) stack(out *sql.Output, spine string, lo, hi int64, part bool) {
	out.Shelf, out.Shelves = spine, d.shelves
	if !part {
		return
	}
	out.Shelf, out.Shelves = between(spine, "row_id__", lo, hi), make([]string, len(d.shelves))
	for i, s := range d.shelves {
		out.Shelves[i] = between(s, "row_id", lo, hi)
	}
}
