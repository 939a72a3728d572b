package sql_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/sql"
)

// Every template, in every form that changes its text, as it is sent to the engine. The
// files are meant to be read: UPDATE_GOLDEN=1 writes them anew.
func TestGolden(t *testing.T) {
	t.Parallel()
	join := sql.Join{
		N:     0,
		Spine: sql.Spine{From: "read_parquet(['labels.parquet'])", RowID: "file_row_number", Time: `epoch_us("event_timestamp")`},
		Keys:  []string{`"driver"::BIGINT`, `"region"::VARCHAR`},
		Scan: sql.Scan{
			From: "read_parquet(['features.parquet'])", Keys: []string{`"driver_id"::BIGINT`, `"region"::VARCHAR`},
			Event: `epoch_us("event_timestamp")`, Created: `epoch_us("created")`, Deleted: `coalesce("is_deleted", false)`,
			Place: "file_row_number", Features: []string{`"trips"::BIGINT`, `"rating"::DOUBLE`, `"city"::VARCHAR`},
		},
		Bounds: sql.Bounds{`"event_timestamp" <= TIMESTAMPTZ '2021-08-25 00:00:00.000000+00'`},
		TTL:    259_200_000_000,
		Fetch:  []int{0, 2},
		Limit:  3000,
		Call:   sql.Named("call"),
	}
	with := func(change func(*sql.Join)) sql.Join { j := join; change(&j); return j }
	indexed := sql.Winners{N: 1, From: "(SELECT place, ev, f2 FROM picked)", Place: sql.Named("winner"), Event: sql.Named("event")}
	for name, c := range map[string]struct {
		template string
		data     any
	}{
		"spine":              {"spine", join},
		"spine_no_ttl":       {"spine", with(func(j *sql.Join) { j.TTL = 0 })},
		"winner_asof":        {"winner_asof", join},
		"winner_asof_known":  {"winner_asof", with(func(j *sql.Join) { j.KnownAt = true })},
		"winner_asof_no_ttl": {"winner_asof", with(func(j *sql.Join) { j.TTL = 0 })},
		"winner_bucket":      {"winner_hash", with(func(j *sql.Join) { j.Bucket = true })},
		"winner_hash":        {"winner_hash", join},
		"winner_hash_known":  {"winner_hash", with(func(j *sql.Join) { j.KnownAt = true })},
		"fetch":              {"fetch", join},
		"fetch_known":        {"fetch", with(func(j *sql.Join) { j.KnownAt, j.Limit = true, 0 })},
		"fetch_tied":         {"fetch_tied", join},
		"ties":               {"ties", join},
		"ties_here":          {"ties_here", join},
		"ties_known":         {"ties", with(func(j *sql.Join) { j.KnownAt = true })},
		"latest":             {"latest", sql.Latest{Scan: join.Scan}},
		"entities":           {"entities", join},
		"place":              {"place", join},
		"sample":             {"sample", join},
		"gather":             {"gather", join},
		"offer":              {"offer", join},
		"offer_gathered":     {"offer", join.Over()},
		"tied":               {"tied", join},
		"picked":             {"picked", join},
		"picked_known":       {"picked", with(func(j *sql.Join) { j.KnownAt = true })},
		"picked_gathered":    {"picked", join.Over()},
		"output_index": {"output", sql.Output{Spine: join.Spine, Joins: []sql.Winners{{N: 0}, indexed}, Columns: []string{`s."label"`, `m0.f0 AS "trips"`, `m1.f2 AS "city"`},
			Path: "out.parquet", Options: []string{"FORMAT parquet"}}},
		"shelf_index": {"shelf", sql.Shelf{Join: join, Winners: indexed, Path: "v1.parquet", Options: []string{"FORMAT parquet"}}},
		"output": {"output", sql.Output{Spine: join.Spine, Joins: []sql.Winners{{N: 0}, {N: 1}}, Columns: []string{`s."label"`, `m0.f0 AS "trips"`, `coalesce(m1.f2, '') AS "city"`},
			Path: "it's out.parquet", Options: []string{"FORMAT parquet", "COMPRESSION zstd"}}},
		"output_part": {"output", sql.Output{Spine: join.Spine, Joins: []sql.Winners{{N: 0}}, Columns: []string{`s."label"`}, Path: "part.parquet", Options: []string{"FORMAT parquet"},
			Where: "s.row_id__ >= 0 AND s.row_id__ < 100"}},
		"output_stack": {"output_stack", sql.Output{Columns: []string{`s."label"`, `m0.f0 AS "trips"`}, Shelf: "read_parquet(['spine.parquet'])",
			Shelves: []string{"read_parquet(['v0.parquet'])", "read_parquet(['v1.parquet'])"}, Path: "part.parquet", Options: []string{"FORMAT parquet"}}},
		"shelf":       {"shelf", sql.Shelf{Join: join, Path: "v0.parquet", Options: []string{"FORMAT parquet"}}},
		"shelf_spine": {"shelf_spine", sql.Shelf{Join: join, Path: "spine.parquet", Options: []string{"FORMAT parquet"}}},
	} {
		got, err := sql.DuckDB(c.template, c.data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got = strings.TrimSpace(got) + "\n"
		path := filepath.Join("duckdb", "golden", name+".sql")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s changed:\n%s", name, got)
		}
	}
}

func TestQuoting(t *testing.T) {
	t.Parallel()
	if got := sql.Ident(`a"b`); got != `"a""b"` {
		t.Error(got)
	}
	if got := sql.Literal(`it's`); got != `'it''s'` {
		t.Error(got)
	}
}
