package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"

	msqlite "modernc.org/sqlite"
)

// shards is how many virtual shards the keys are spread over, by feature.ShardOf. A scan
// segment is a range of them. It is a property of the file.
const shards = 1024

// applicationID marks a SQLite file as ours ("HRTH"); schemaVersion is its user_version.
const (
	applicationID = 0x48525448
	schemaVersion = 1
)

// The shard comes first in the key, so that a scan segment is one range of the tree.
//
//	s virtual shard · v view@version · e entity key · r version (24 bytes, so that the
//	BLOB comparison, memcmp, is the order of versions) · p payload · h content hash ·
//	x unix second after which Apply deletes the row, NULL for never
var schema = []string{
	`CREATE TABLE IF NOT EXISTS items (
		s INTEGER NOT NULL, v TEXT NOT NULL, e TEXT NOT NULL,
		r BLOB NOT NULL, p BLOB NOT NULL, h INTEGER NOT NULL, x INTEGER,
		PRIMARY KEY (s, v, e)) WITHOUT ROWID`,
	`CREATE INDEX IF NOT EXISTS items_x ON items (x) WHERE x IS NOT NULL`,
	`CREATE TABLE IF NOT EXISTS state (
		k TEXT NOT NULL, n TEXT NOT NULL, b BLOB NOT NULL, rev INTEGER NOT NULL, x INTEGER,
		PRIMARY KEY (k, n)) WITHOUT ROWID`,
}

// Plan reports what Apply would do.
func (s *Store) Plan(ctx context.Context) ([]backing.Action, error) {
	applied, err := s.applied(ctx)
	if err != nil {
		return nil, err
	}
	if !applied {
		return []backing.Action{{Resource: "database", Name: s.cfg.Path, Change: backing.ChangeCreate, Detail: "SQLite file in WAL mode with tables items and state"}}, nil
	}
	expired, err := s.countExpired(ctx)
	if err != nil {
		return nil, err
	}
	actions := []backing.Action{{Resource: "database", Name: s.cfg.Path, Change: backing.ChangeNone}}
	if expired > 0 {
		actions = append(actions, s.expiredAction(expired))
	}
	return actions, nil
}

// Apply creates the file and its tables, and deletes rows whose Retain or ExpireAt has
// passed. It is cheap when there is nothing to do.
func (s *Store) Apply(ctx context.Context) ([]backing.Action, error) {
	applied, err := s.applied(ctx)
	if err != nil {
		return nil, err
	}
	if !applied {
		if err := s.create(ctx); err != nil {
			return nil, err
		}
		return []backing.Action{{Resource: "database", Name: s.cfg.Path, Change: backing.ChangeCreate, Detail: "SQLite file in WAL mode with tables items and state"}}, nil
	}
	removed, err := s.removeExpired(ctx)
	actions := []backing.Action{{Resource: "database", Name: s.cfg.Path, Change: backing.ChangeNone}}
	if removed > 0 {
		actions = append(actions, s.expiredAction(removed))
	}
	return actions, err
}

func (s *Store) expiredAction(n int64) backing.Action {
	return backing.Action{Resource: "expired rows", Name: s.cfg.Path, Change: backing.ChangeRemove, Detail: fmt.Sprintf("%d rows", n)}
}

// applied reports whether the file is a store of ours; a file of somebody else, or of a
// newer release, is an error.
func (s *Store) applied(ctx context.Context) (bool, error) {
	if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("sqlite %s: %w", s.cfg.Path, err)
	}
	var app, version, tables int64
	row := s.reader.QueryRowContext(ctx, `SELECT
		(SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
		(SELECT count(*) FROM sqlite_schema)`)
	if err := row.Scan(&app, &version, &tables); err != nil {
		return false, s.wrap("open", err)
	}
	switch {
	case app == applicationID && version == schemaVersion:
		return true, nil
	case app == applicationID && version > schemaVersion:
		return false, fmt.Errorf("sqlite %s: %w: the file was made by a newer release of Hearth (schema %d, this one knows %d); upgrade this program", s.cfg.Path, feature.ErrUnknownFormat, version, schemaVersion)
	case tables == 0:
		return false, nil // an empty file, or one whose creation was cut short
	}
	return false, fmt.Errorf("sqlite %s: %w: the file is a SQLite database of another program; point backing.sqlite.path elsewhere", s.cfg.Path, feature.ErrInvalid)
}

func (s *Store) create(ctx context.Context) (err error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return fmt.Errorf("sqlite %s: create folder: %w", s.cfg.Path, err)
	}
	db, err := s.open("rwc", 1)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := db.Close(); err == nil && closeErr != nil {
			err = s.wrap("create", closeErr)
		}
	}()
	// WAL is a property of the file, and cannot be set inside a transaction.
	if _, err := db.ExecContext(ctx, "PRAGMA journal_mode=WAL"); err != nil {
		return s.wrap("create", err)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return s.wrap("create", err)
	}
	for _, stmt := range append(schema[:len(schema):len(schema)],
		fmt.Sprintf("PRAGMA application_id=%d", applicationID), fmt.Sprintf("PRAGMA user_version=%d", schemaVersion)) {
		if _, err := tx.ExecContext(ctx, stmt); err != nil {
			return errors.Join(s.wrap("create", err), rollback(tx))
		}
	}
	return s.wrap("create", tx.Commit())
}

const expiredChunk = 5000

func (s *Store) now() int64 { return s.cfg.Clock.Now().Unix() }

func (s *Store) countExpired(ctx context.Context) (n int64, err error) {
	now := s.now()
	err = s.reader.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM items WHERE x IS NOT NULL AND x < ?) + (SELECT count(*) FROM state WHERE x < ?)`, now, now).Scan(&n)
	return n, s.wrap("count expired rows", err)
}

// removeExpired deletes in small transactions, so that writers get in between.
func (s *Store) removeExpired(ctx context.Context) (total int64, err error) {
	now := s.now()
	for {
		res, err := s.writer.ExecContext(ctx, `DELETE FROM items WHERE (s, v, e) IN (SELECT s, v, e FROM items WHERE x IS NOT NULL AND x < ? LIMIT ?)`, now, expiredChunk)
		if err != nil {
			return total, s.wrap("delete expired rows", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return total, s.wrap("delete expired rows", err)
		}
		total += n
		if n < expiredChunk {
			break
		}
	}
	res, err := s.writer.ExecContext(ctx, `DELETE FROM state WHERE x < ?`, now)
	if err != nil {
		return total, s.wrap("delete expired state", err)
	}
	n, err := res.RowsAffected()
	return total + n, s.wrap("delete expired state", err)
}

// rollback undoes tx; a transaction that SQLite has ended by itself is fine.
func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) && !strings.Contains(err.Error(), "no transaction is active") {
		return err
	}
	return nil
}

func isNoTable(e *msqlite.Error) bool { return strings.Contains(e.Error(), "no such table") }

// exactCountBytes is the size up to which Describe counts every row.
const exactCountBytes = 64 << 20

// Describe reports the file's size and its rows: counted when the file is small, else
// estimated from one virtual shard in 64 (within about 1 % for a million rows).
func (s *Store) Describe(ctx context.Context) (backing.Description, error) {
	d := backing.Description{Kind: "sqlite", Name: s.cfg.Path}
	applied, err := s.applied(ctx)
	if err != nil {
		return d, err
	}
	d.Reachable, d.Applied = true, applied
	if !applied {
		return d, nil
	}
	row := s.reader.QueryRowContext(ctx, `SELECT (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size)`)
	if err := row.Scan(&d.Bytes); err != nil {
		d.Reachable = false
		return d, s.wrap("describe", err)
	}
	bound, factor := shards, int64(1)
	if d.Bytes > exactCountBytes {
		bound, factor = shards/64, 64
	}
	if err := s.reader.QueryRowContext(ctx, `SELECT count(*) FROM items WHERE s < ?`, bound).Scan(&d.Items); err != nil {
		d.Reachable = false
		return d, s.wrap("describe", err)
	}
	d.Items *= factor
	return d, nil
}
