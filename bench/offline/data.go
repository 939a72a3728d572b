package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// generate writes the data once per folder. hash() of the row number is the seed.
func generate(ctx context.Context, o options) (err error) {
	if _, err := os.Stat(filepath.Join(o.dir, "spine.parquet")); err == nil {
		return nil
	}
	conn, closeAll, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	rows, entities, labels := int64(5_000_000*o.scale), cmp.Or(o.entities, max(int64(100_000*o.scale), 10)), cmp.Or(o.labels, int64(1_000_000*o.scale))
	const day = 24 * 3_600_000_000
	span, labelsFrom, labelSpan, target := 30*day, 0, 30*day, "FORMAT parquet, COMPRESSION zstd"
	key := func(row, salt string, of int64) string {
		return fmt.Sprintf("(hash(%s, '%s') %% %d)::BIGINT", row, salt, of)
	}
	featureKey, labelKey := key("j", "k", entities), key("range", "sk", entities)
	switch o.shape {
	case "long":
		entities = max(entities/20, 10)
		featureKey, labelKey = key("j", "k", entities), key("range", "sk", entities)
	case "hot":
		featureKey = "CASE WHEN hash(j, 'hot') % 10 < 3 THEN 0 ELSE " + featureKey + " END"
		labelKey = "CASE WHEN hash(range, 'hot') % 10 < 1 THEN 0 ELSE " + labelKey + " END"
	case "few":
		labels /= 10
		labelKey = "100 * " + key("range", "sk", max(entities/100, 1)) // all over the keys: a range of them would be found by its ends
	case "wide":
		rows, labels = rows/5, labels/5
	case "hive":
		span, labelsFrom, labelSpan = 365*day, 300*day, 7*day
		target += ", PARTITION_BY (day)"
		if _, err := conn.ExecContext(ctx, "SET threads = 1; SET partitioned_write_max_open_files = 400"); err != nil { // a file per day
			return err
		}
	case "even":
	default:
		return fmt.Errorf("unknown shape %q: even, long, hot, few, wide or hive", o.shape)
	}
	at := func(salt string, from, span int) string {
		return fmt.Sprintf("make_timestamptz(1609459200000000 + %d + (hash(i, '%s') %% %d)::BIGINT)", from, salt, span)
	}
	for _, name := range []string{"a", "b"} {
		var list []string
		for i, f := range view(o, name, 0).Features {
			expr := fmt.Sprintf("(hash(i, '%s') %% 1000000) / 1000.0", f.Name)
			if i%10 >= 7 {
				expr = fmt.Sprintf("'v' || (hash(i, '%s') %% 5000)", f.Name)
			}
			list = append(list, expr+" AS "+f.Name)
		}
		// One row in a hundred shares key and event time with the one before.
		event := strings.ReplaceAll(at(name, 0, span), "hash(i,", "hash(j,")
		if o.shape == "hive" {
			list = append(list, fmt.Sprintf("strftime(%s, '%%Y-%%m-%%d') AS day", event))
		}
		query := fmt.Sprintf(`COPY (SELECT %s AS driver_id, (hash(j, 'r') %% 3)::BIGINT AS region_id, %s AS event_timestamp, %s AS created, %s
			FROM (SELECT range AS i, CASE WHEN range %% 100 = 1 THEN range - 1 ELSE range END AS j FROM range(%d))) TO '%s' (%s)`,
			featureKey, event, at("c"+name, 0, span), strings.Join(list, ", "), rows, o.path(name), target)
		if _, err := conn.ExecContext(ctx, query); err != nil {
			return err
		}
	}
	_, err = conn.ExecContext(ctx, fmt.Sprintf(`COPY (SELECT range AS label_id, %s AS driver_id, (hash(range, 'sr') %% 3)::BIGINT AS region_id, %s AS event_timestamp
		FROM (SELECT range, range AS i FROM range(%d))) TO '%s' (FORMAT parquet, COMPRESSION zstd)`, labelKey, at("s", labelsFrom, labelSpan), labels, filepath.Join(o.dir, "spine.parquet")))
	return err
}
