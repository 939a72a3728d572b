package offline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/sql"
)

// copySQL writes the result of a query as Parquet, for types that the fixtures lack.
func copySQL(t testing.TB, e *Engine, query, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := e.session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = s.Exec(t.Context(), "COPY ("+query+") TO "+sql.Literal(path)+" (FORMAT parquet)")
	if err = errors.Join(err, s.close()); err != nil {
		t.Fatal(err)
	}
}

type latestResult struct {
	rows    map[feature.Key]feature.Row
	rejects []feature.Reject
	stats   feature.LatestStats
}

func latestOf(t testing.TB, e *Engine, v *feature.View, change ...func(*feature.LatestRequest)) (latestResult, error) {
	t.Helper()
	files, err := e.Files(t.Context(), v)
	if err != nil {
		return latestResult{}, err
	}
	r := latestResult{rows: map[feature.Key]feature.Row{}}
	req := feature.LatestRequest{View: v, Files: files, Start: feature.NoTime, End: feature.NoTime, Reject: func(x feature.Reject) { r.rejects = append(r.rejects, x) }}
	for _, f := range change {
		f(&req)
	}
	r.stats, err = e.Latest(t.Context(), req, func(rows []feature.Row) error {
		if len(rows) > 4096 {
			t.Errorf("a batch of %d rows", len(rows))
		}
		for _, row := range rows {
			if _, twice := r.rows[row.Key]; twice {
				t.Errorf("key %s came twice", row.Key)
			}
			row.Features = append([]byte(nil), row.Features...)
			r.rows[row.Key] = row
		}
		return nil
	})
	return r, err
}

// Latest equals the slow reference, for any split into files and any order of rows, and
// counts every row that it leaves out. Shards are a partition.
//
// Seen red with: the order by created dropped; the digest dropped; NULLS LAST dropped;
// rejects counted after the End bound was forgotten; a shard that takes every key.
func TestLatestEqualsReference(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := openEngine(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		facts := genFacts(rt)
		run++
		at := filepath.Join(dir, fmt.Sprint(run))
		cut := rapid.IntRange(0, len(facts)).Draw(rt, "cut")
		writeParquet(t, filepath.Join(at, "1.parquet"), facts[:cut])
		writeParquet(t, filepath.Join(at, "2.parquet"), shuffled(facts[cut:], rapid.Uint64().Draw(rt, "shuffle")))
		view := factsView(at, time.Hour)
		start, end := feature.NoTime, feature.NoTime
		if rapid.Bool().Draw(rt, "bounded") {
			start, end = feature.Micros(base+5), feature.Micros(base+30)
		}
		want := map[feature.Key]factRow{}
		var read, rejected int64
		future := map[int]bool{}
		for i, f := range facts {
			if f.Event != nil && end != feature.NoTime && feature.Micros(*f.Event) > end {
				if i < cut {
					future[1] = true
				} else {
					future[2] = true
				}
				continue
			}
			read++
			if f.Event != nil && start != feature.NoTime && feature.Micros(*f.Event) < start {
				continue
			}
			if f.K1 == nil || f.K2 == nil || f.Event == nil {
				rejected++
				continue
			}
			key, err := view.Key(map[string]string{"k1": *f.K1, "k2": fmt.Sprint(*f.K2)})
			if err != nil {
				rt.Fatal(err)
			}
			if best, ok := want[key]; !ok || newer(f, best) > 0 {
				want[key] = f
			}
		}
		shards := rapid.IntRange(1, 3).Draw(rt, "shards")
		got := latestResult{rows: map[feature.Key]feature.Row{}}
		for shard := range shards {
			part, err := latestOf(t, e, view, func(r *feature.LatestRequest) {
				r.Start, r.End, r.Shard, r.Shards = start, end, shard, shards
			})
			if err != nil {
				rt.Fatal(err)
			}
			for k, row := range part.rows {
				if _, twice := got.rows[k]; twice {
					rt.Fatalf("key %s is in two shards", k)
				}
				got.rows[k] = row
			}
			got.rejects = append(got.rejects, part.rejects...)
			got.stats.Rejected += part.stats.Rejected
			if part.stats.RowsRead != read || part.stats.Emitted != int64(len(part.rows)) || len(part.stats.Future) != len(future) {
				rt.Fatalf("stats %+v: want %d read, %d files in the future", part.stats, read, len(future))
			}
		}
		if got.stats.Rejected != rejected || int64(len(got.rejects)) != rejected {
			rt.Fatalf("%d rejected, %d reported, want %d", got.stats.Rejected, len(got.rejects), rejected)
		}
		if len(got.rows) != len(want) {
			rt.Fatalf("%d keys, want %d", len(got.rows), len(want))
		}
		for key, f := range want {
			row, ok := got.rows[key]
			if !ok || int64(row.Event) != *f.Event || (f.Created == nil) != (row.Created == feature.NoTime) || f.Created != nil && int64(row.Created) != *f.Created {
				rt.Fatalf("key %s: got %+v, want %s", key, row, f.text())
			}
			if row.Deleted != (f.Deleted != nil && *f.Deleted) {
				rt.Fatalf("key %s: deleted %t", key, row.Deleted)
			}
			if row.Deleted {
				if len(row.Features) != 0 {
					rt.Fatalf("key %s: a tombstone with features", key)
				}
				continue
			}
			values, err := feature.DecodeFeatures(row.Features, view.Fields(), nil)
			if err != nil {
				rt.Fatal(err)
			}
			a, b := feature.Null, feature.Null
			if f.A != nil {
				a = feature.IntValue(*f.A)
			}
			if f.B != nil {
				b = feature.StringValue(*f.B)
			}
			if !values[0].Equal(a) || !values[1].Equal(b) {
				rt.Fatalf("key %s: got %v, want %s", key, values, f.text())
			}
		}
	})
}

// Every declared type reads every column type that fits it, and the bytes are those that
// feature.AppendValue writes.
func TestLatestTypes(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	path := filepath.Join(t.TempDir(), "types.parquet")
	copySQL(t, e, `SELECT 7::UTINYINT AS k, TIMESTAMP_NS '2021-01-01 00:00:00.123456789' AS at,
		-5::TINYINT AS i8, 5000000000::BIGINT AS i64, 9::BIGINT AS narrow, 12345678901234567890::DECIMAL(20,0) - 12345678901234567000::DECIMAL(20,0) AS whole,
		1.5::FLOAT AS f32, 0.1::DOUBLE AS f64, 0.25::DOUBLE AS thin, 12.34::DECIMAL(9,2) AS money, 'NaN'::DOUBLE AS nan, '-inf'::DOUBLE AS inf,
		'text'::VARCHAR AS s, 'red'::ENUM('red','green') AS e, '6ba7b810-9dad-11d1-80b4-00c04fd430c8'::UUID AS u, true AS b, '\xFF\x00'::BLOB AS bin,
		TIMESTAMPTZ '2021-02-03 04:05:06.000007+00' AS ts, DATE '1969-12-31' AS day, TIMESTAMP_NS '1969-12-31 23:59:59.999999999' AS ns,
		[1, NULL, 3]::INT[] AS li, ['a', '']::VARCHAR[] AS ls, [TIMESTAMP '1970-01-01 00:00:01'] AS lt, [0.5, 1]::FLOAT[2] AS arr, NULL::BIGINT AS nothing, []::DOUBLE[] AS empty`, path)
	want := []struct {
		name string
		kind feature.Type
		v    feature.Value
	}{
		{"i8", feature.Int64, feature.IntValue(-5)}, {"i64", feature.Int64, feature.IntValue(5_000_000_000)},
		{"narrow", feature.Int32, feature.IntValue(9)}, {"whole", feature.Int64, feature.IntValue(890)},
		{"f32", feature.Float32, feature.Float32Value(1.5)}, {"f64", feature.Float64, feature.Float64Value(0.1)},
		{"thin", feature.Float32, feature.Float32Value(0.25)}, {"money", feature.Float64, feature.Float64Value(12.34)},
		{"nan", feature.Float64, feature.Float64Value(math.NaN())}, {"inf", feature.Float32, feature.Float32Value(float32(math.Inf(-1)))},
		{"s", feature.String, feature.StringValue("text")}, {"e", feature.String, feature.StringValue("red")},
		{"u", feature.String, feature.StringValue("6ba7b810-9dad-11d1-80b4-00c04fd430c8")}, {"b", feature.Bool, feature.BoolValue(true)},
		{"bin", feature.Bytes, feature.BytesValue([]byte{0xff, 0})},
		{"ts", feature.Timestamp, feature.TimestampValue(1612325106000007)}, {"day", feature.Timestamp, feature.TimestampValue(-86_400_000_000)},
		{"ns", feature.Timestamp, feature.TimestampValue(-1)},
		{"li", "list<int64>", feature.ListValue(feature.IntValue(1), feature.Null, feature.IntValue(3))},
		{"ls", "list<string>", feature.ListValue(feature.StringValue("a"), feature.StringValue(""))},
		{"lt", "list<timestamp>", feature.ListValue(feature.TimestampValue(1_000_000))},
		{"arr", "list<float32>", feature.ListValue(feature.Float32Value(0.5), feature.Float32Value(1))},
		{"nothing", feature.Int64, feature.Null}, {"empty", "list<float64>", feature.ListValue()},
	}
	v := &feature.View{Name: "t", Version: 1, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}}, Source: feature.Source{Path: path, TimestampField: "at"}}
	for _, w := range want {
		v.Features = append(v.Features, feature.Feature{Field: feature.Field{Name: w.name, Type: w.kind}})
	}
	if problems := e.Check(t.Context(), &feature.Project{Views: []feature.View{*v}}); len(problems) > 0 {
		t.Fatal(problems)
	}
	got, err := latestOf(t, e, v)
	if err != nil {
		t.Fatal(err)
	}
	row := got.rows["k=7"]
	if row.Event != 1609459200123456 {
		t.Errorf("event %d: nanoseconds must be cut towards the past", row.Event)
	}
	values, err := feature.DecodeFeatures(row.Features, v.Fields(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range want {
		if !values[i].Equal(w.v) && !(w.name == "nan" && math.IsNaN(values[i].Float())) {
			t.Errorf("%s: got %v, want %v", w.name, values[i], w.v)
		}
	}
	encoded, err := feature.AppendFeatures(nil, v.Fields(), values)
	if err != nil || string(encoded) != string(row.Features) {
		t.Errorf("the bytes differ from what feature.AppendFeatures writes (%v)", err)
	}
}

// Rows that cannot become a value are rejected with file, row and reason, and the row
// before them wins. Seen red with the range check of int32 dropped.
func TestLatestRejects(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	path := filepath.Join(t.TempDir(), "r.parquet")
	long := strings.Repeat("x", 3000)
	copySQL(t, e, `SELECT * FROM (VALUES
		('a', TIMESTAMP '2021-01-01 00:00:00', 1::BIGINT, 1.0::DOUBLE, [1]::BIGINT[]),
		('a', TIMESTAMP '2021-01-02 00:00:00', 3000000000, 1.0, [1]),
		('b', TIMESTAMP 'infinity', 1, 1.0, [1]),
		('c', NULL, 1, 1.0, [1]),
		(NULL, TIMESTAMP '2021-01-01 00:00:00', 1, 1.0, [1]),
		('d', TIMESTAMP '2021-01-01 00:00:00', 1, 1e300, [1]),
		('e', TIMESTAMP '2021-01-01 00:00:00', 1, 1.0, [1, 3000000000]),
		('`+long+`', TIMESTAMP '2021-01-01 00:00:00', 1, 1.0, [1])) t(k, "at", small, thin, li)`, path)
	v := &feature.View{Name: "r", Version: 1, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.String}}, Source: feature.Source{Path: path, TimestampField: "at"},
		Features: []feature.Feature{{Field: feature.Field{Name: "small", Type: feature.Int32}}, {Field: feature.Field{Name: "thin", Type: feature.Float32}}, {Field: feature.Field{Name: "li", Type: "list<int32>"}}}}
	got, err := latestOf(t, e, v)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.rows) != 1 || got.rows["k=a"].Event != 1609459200000000 {
		t.Errorf("rows %v, want only the first of a", got.rows)
	}
	want := map[string]int64{
		`join key "k" is null`: 1, "event time is null": 1, "event time is infinite or out of range": 1,
		`feature "small" is out of range for int32`: 1, `feature "thin" is out of range for float32`: 1, `feature "li" is out of range for list<int32>`: 1,
		"entity key is longer than 2048 bytes": 1,
	}
	if fmt.Sprint(got.stats.Reasons) != fmt.Sprint(want) || got.stats.Rejected != 7 || len(got.rejects) != 7 {
		t.Errorf("reasons %v, want %v", got.stats.Reasons, want)
	}
	for _, r := range got.rejects {
		if r.Reason == `feature "small" is out of range for int32` && (r.Row != 2 || r.File != path || r.Key != "k=a" || r.View != "r@1") {
			t.Errorf("reject %+v does not say where", r)
		}
		if strings.Contains(r.Reason, "3000000000") {
			t.Errorf("a feature value is in the reason %q", r.Reason)
		}
	}
}

func TestLatestStops(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	path := filepath.Join(t.TempDir(), "many.parquet")
	copySQL(t, e, `SELECT i AS k, TIMESTAMP '2021-01-01 00:00:00' AS at, i AS a FROM range(200000) r(i)`, path)
	v := &feature.View{Name: "m", Version: 1, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}}, Source: feature.Source{Path: path, TimestampField: "at"},
		Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}}}
	files, err := e.Files(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	req := feature.LatestRequest{View: v, Files: files, Start: feature.NoTime, End: feature.NoTime}
	stop, calls := errors.New("stop"), 0
	if _, err := e.Latest(t.Context(), req, func([]feature.Row) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		t.Errorf("emit error: %v after %d calls", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := e.Latest(ctx, req, func([]feature.Row) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// A file that changes between listing and reading is an error, not a surprise.
	req.Files[0].Size++
	if _, err := e.Latest(t.Context(), req, func([]feature.Row) error { return nil }); !errors.Is(err, errChanged) {
		t.Errorf("changed before: %v", err)
	}
	req.Files[0].Size--
	_, err = e.Latest(t.Context(), req, func([]feature.Row) error {
		return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0))
	})
	if !errors.Is(err, errChanged) {
		t.Errorf("changed while reading: %v", err)
	}
}
