// Package sqlite is the backing tier of a laptop or a single machine: one SQLite file in
// WAL mode that several processes use at once, crash-safe, behind the same interface and
// conformance suite as DynamoDB. It is pure Go and builds without cgo.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"

	msqlite "modernc.org/sqlite"     // the driver
	sqlite3 "modernc.org/sqlite/lib" // result codes
)

// Config configures [Open].
type Config struct {
	// Path of the file. Required. Its folder is made by Apply.
	Path string
	// BusyTimeout is how long a call waits for another process that is writing.
	// Defaults to 10 s.
	BusyTimeout time.Duration
	// Readers is how many connections serve reads. Defaults to 4.
	Readers int
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Clock defaults to the machine's.
	Clock clock.Clock
}

// Store is a backing tier in one file. It implements backing.Store.
//
// The file is written by one connection per process, with BEGIN IMMEDIATE and
// synchronous=FULL: what Put acknowledged survives a power cut. Reads go through their own
// connections and never wait for writers. Values whose Retain has passed are deleted by
// Apply, which materialize calls on this store before each run.
type Store struct {
	cfg    Config
	path   string
	writer *sql.DB
	reader *sql.DB
}

var _ backing.Store = (*Store)(nil)

// Open prepares a store. It does not touch the file: until Apply has made it, the
// operations return errors matching feature.ErrNotApplied.
func Open(_ context.Context, cfg Config) (*Store, error) {
	if cfg.Path == "" {
		return nil, fmt.Errorf("open sqlite store: %w: no path", feature.ErrInvalid)
	}
	if cfg.BusyTimeout <= 0 {
		cfg.BusyTimeout = 10 * time.Second
	}
	if cfg.Readers <= 0 {
		cfg.Readers = 4
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("open sqlite store %s: %w", cfg.Path, err)
	}
	s := &Store{cfg: cfg, path: path}
	// What is deleted or replaced is overwritten in the file: an erased value is gone.
	if s.writer, err = s.open("rw", 1, "secure_delete(1)"); err != nil {
		return nil, err
	}
	if s.reader, err = s.open("rw", cfg.Readers, "query_only(1)"); err != nil {
		return nil, errors.Join(err, s.writer.Close())
	}
	return s, nil
}

// open makes a pool. The pragmas are in the DSN, because each is a property of one
// connection, and busy_timeout comes first, because opening a file that another process
// writes can already be busy.
func (s *Store) open(mode string, conns int, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"mode": {mode}, "_txlock": {"immediate"}}
	q.Add("_pragma", "busy_timeout("+strconv.FormatInt(s.cfg.BusyTimeout.Milliseconds(), 10)+")")
	q.Add("_pragma", "synchronous(FULL)")
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	dsn := "file:" + (&url.URL{Path: s.path}).EscapedPath() + "?" + q.Encode()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, s.wrap("open", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// Close closes the file. The last process to close it folds the WAL into it.
func (s *Store) Close() error {
	if err := errors.Join(s.reader.Close(), s.writer.Close()); err != nil {
		return s.wrap("close", err)
	}
	return nil
}

// wrap turns a SQLite error into one that says what to do, matching the sentinel that
// callers decide on. It is the only place that looks at result codes.
func (s *Store) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("sqlite %s: %s: %w", s.cfg.Path, op, err)
	}
	fail := func(sentinel error, remedy string) error {
		return fmt.Errorf("sqlite %s: %s: %w: %v; %s", s.cfg.Path, op, sentinel, err, remedy)
	}
	var e *msqlite.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("sqlite %s: %s: %w", s.cfg.Path, op, err)
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CANTOPEN:
		if _, statErr := os.Stat(s.path); errors.Is(statErr, fs.ErrNotExist) {
			return s.notApplied(op)
		}
		return fail(feature.ErrDenied, "check that the file and its folder can be read and written by this user")
	case sqlite3.SQLITE_ERROR:
		if isNoTable(e) {
			return s.notApplied(op)
		}
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fail(feature.ErrThrottled, "another process has been writing for "+s.cfg.BusyTimeout.String()+"; nothing was changed, try again")
	case sqlite3.SQLITE_FULL:
		return fail(errDiskFull, "the transaction was rolled back and what was acknowledged before is kept; make room and run again")
	case sqlite3.SQLITE_NOTADB:
		return fail(feature.ErrCorrupt, "the file is no SQLite database; point backing.sqlite.path elsewhere or move the file away")
	case sqlite3.SQLITE_CORRUPT:
		return fail(feature.ErrCorrupt, "the file is damaged; move it away, run `hearth apply` and then `hearth materialize --full`")
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		return fail(feature.ErrDenied, "check that the file and its folder can be written by this user")
	case sqlite3.SQLITE_IOERR:
		return fail(feature.ErrUnreachable, "the disk failed; the transaction was rolled back")
	case sqlite3.SQLITE_INTERRUPT:
		return fmt.Errorf("sqlite %s: %s: %w", s.cfg.Path, op, context.Canceled)
	}
	return fmt.Errorf("sqlite %s: %s: %w", s.cfg.Path, op, err)
}

// errDiskFull has no sentinel in package feature: nobody decides on it, a person reads it.
var errDiskFull = errors.New("the disk is full")

func (s *Store) notApplied(op string) error {
	return fmt.Errorf("sqlite %s: %s: %w; run: hearth apply", s.cfg.Path, op, feature.ErrNotApplied)
}
