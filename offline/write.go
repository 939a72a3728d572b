package offline

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hearthstore/hearth/sql"
)

// write runs the last step: the spine with all features, in the spine's order.
func (d *dataset) write(ctx context.Context, dir string) error {
	d.begin("write")
	out := sql.Output{Spine: sql.Spine{From: d.spine.from, RowID: d.spine.rowID}, Joins: d.winners}
	for _, name := range d.spine.names {
		out.Columns = append(out.Columns, "s."+sql.Ident(name))
	}
	for _, c := range d.columns {
		out.Columns = append(out.Columns, c.expr+" AS "+sql.Ident(c.name))
	}
	step := d.req.PartitionRows // rows per file
	if step == 0 {
		step = max(d.spine.total, 1)
	}
	out.Options = []string{"FORMAT parquet", "COMPRESSION zstd", "WRITE_BLOOM_FILTER false",
		fmt.Sprintf("ROW_GROUP_SIZE %d", groupRows(rowGroupBytes, d.rowWidth(), 4*vector, rowGroupOf(min(step, d.spine.total)))), d.metadata()}
	template, shelf := "output", ""
	if d.assembly == AssemblyShelf {
		var err error
		if shelf, err = d.shelveSpine(ctx); err != nil {
			return err
		}
		template = "output_stack"
	}
	for n, from := 0, int64(0); n == 0 || from < d.spine.total; n, from = n+1, from+step {
		name := fmt.Sprintf("part-%05d.parquet", n)
		out.Path = filepath.Join(dir, name)
		if d.req.PartitionRows > 0 {
			out.Where = fmt.Sprintf("s.row_id__ >= %d AND s.row_id__ < %d", from, from+step)
		}
		d.stack(&out, shelf, from, from+step, d.req.PartitionRows > 0)
		text, err := sql.DuckDB(template, out)
		if err != nil {
			return err
		}
		if err := d.Exec(ctx, text); err != nil {
			return changedSource(err)
		}
		d.manifest.Files = append(d.manifest.Files, OutputFile{Path: name, Rows: min(step, d.spine.total-from)})
	}
	return nil
}

// convertOutput turns the audited Parquet files into CSV files.
func (d *dataset) convertOutput(ctx context.Context, from, to string) error {
	d.begin("write CSV")
	for i := range d.manifest.Files {
		f := &d.manifest.Files[i]
		source := readParquet([]located{{local: filepath.Join(from, f.Path)}}, false)
		f.Path = strings.TrimSuffix(f.Path, ".parquet") + ".csv"
		if err := d.Exec(ctx, fmt.Sprintf("COPY (SELECT * FROM %s ORDER BY file_row_number) TO %s (FORMAT csv, HEADER true)", source, sql.Literal(filepath.Join(to, f.Path)))); err != nil {
			return err
		}
	}
	return nil
}

// metadata renders the key-value metadata of the Parquet files.
func (d *dataset) metadata() string {
	pairs := [][2]string{{"hearth.project", d.req.Project}, {"hearth.dataset", d.req.Name}, {"hearth.service", d.req.Service},
		{"hearth.config_digest", d.req.ConfigDigest}}
	if d.req.Run > 0 { // a person's build has none, so that the same inputs give the same bytes
		pairs = append(pairs, [2]string{"hearth.run", strconv.FormatUint(d.req.Run, 10)})
	}
	items := make([]string, len(pairs))
	for i, p := range pairs {
		items[i] = sql.Ident(p[0]) + ": " + sql.Literal(p[1])
	}
	return "KV_METADATA {" + strings.Join(items, ", ") + "}"
}
