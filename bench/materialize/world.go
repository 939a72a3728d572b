package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	_ "github.com/duckdb/duckdb-go/v2" // writes the source
	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/bench/internal/lab"
	"github.com/hearthstore/hearth/internal/testservers"
)

// start runs the servers on free loopback ports.
func (b *bench) start(ctx context.Context) (err error) {
	b.memory = map[string]int64{}
	server, err := lab.Redis(ctx)
	if err != nil {
		return err
	}
	b.addr, b.servers = server.Addr, append(b.servers, server)
	b.redis = redis.NewClient(&redis.Options{Addr: b.addr})
	switch b.o.backing {
	case "sqlite":
		b.backing = "sqlite: {path: backing.db}" // in the round's folder
	case "dynamodb":
		home, err := testservers.DynoxideDir()
		if err != nil {
			return err
		}
		server, err := lab.Start(ctx, filepath.Join(home, "dynoxide"), "--port")
		if err != nil {
			return fmt.Errorf("%w; run make deps, or try -backing sqlite", err)
		}
		b.servers = append(b.servers, server)
		b.backing = fmt.Sprintf("dynamodb: {table: bench-%%d, region: %s, endpoint: %q}", testservers.AWSRegion, "http://"+server.Addr)
	default:
		return fmt.Errorf("backing %q: dynamodb or sqlite", b.o.backing)
	}
	return nil
}

func (b *bench) stop() (err error) {
	if b.redis != nil {
		err = b.redis.Close()
	}
	for _, s := range b.servers {
		s.Stop()
	}
	return err
}

// flush empties Redis and returns what it holds then.
func (b *bench) flush(ctx context.Context) (int64, error) {
	if err := b.redis.FlushAll(ctx).Err(); err != nil {
		return 0, err
	}
	return lab.Info(ctx, b.redis, "memory", "used_memory")
}

func (b *bench) config(round int) []byte {
	var y bytes.Buffer
	fmt.Fprintf(&y, `project: bench
entities: [{name: thing, join_keys: [{name: id, type: int64}]}]
feature_views:
  - name: v
    entities: [thing]
    ttl: 3650d
    source: {path: %q, timestamp_field: event_timestamp}
    features:
`, b.o.source()+"/*.parquet")
	for i := range b.o.features {
		fmt.Fprintf(&y, "      - {name: f%d, type: float32}\n", i)
	}
	fmt.Fprintf(&y, "online: {redis: {addrs: [%q]}}\n", b.addr)
	backing := b.backing
	if strings.Contains(backing, "%d") {
		backing = fmt.Sprintf(backing, round)
	}
	fmt.Fprintf(&y, "backing: {%s}\noffline: {memory: %dMB}\n", backing, b.o.memoryMB)
	return y.Bytes()
}

// generate writes the source, in files of at most two million rows, and the file with new rows. Values are
// hashes of the row's number: the same in every run.
func generate(ctx context.Context, o options) (err error) {
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	write := func(path string, from, to int, start string) error {
		if _, err := os.Stat(path); err == nil {
			return nil // an earlier run with the same -dir
		}
		columns := ""
		for i := range o.features {
			columns += fmt.Sprintf(", ((hash(range, %d) %% 1000000) / 7.0)::FLOAT AS f%d", i, i)
		}
		query := fmt.Sprintf(`COPY (SELECT range %% %d AS id, TIMESTAMPTZ '%s' + to_milliseconds(range) AS event_timestamp%s FROM range(%d, %d)) TO '%s' (FORMAT parquet, COMPRESSION zstd)`,
			o.entities, start, columns, from, to, path)
		_, err := db.ExecContext(ctx, query)
		return err
	}
	if _, err := db.ExecContext(ctx, "SET preserve_insertion_order = false"); err != nil {
		return err
	}
	for n, from := 0, 0; from < o.rows; n, from = n+1, from+o.rowsOfFile() {
		path := filepath.Join(o.source(), fmt.Sprintf("part-%03d.parquet", n))
		if err := write(path, from, min(from+o.rowsOfFile(), o.rows), "2025-01-01 00:00:00+00"); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return write(o.newRows(), 0, o.changed(), "2025-06-01 00:00:00+00")
}
