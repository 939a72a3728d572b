// Package duck is the thin layer over the DuckDB C bindings: statements that obey a
// context, and results that are streamed chunk by chunk.
//
// It does not use database/sql, because that driver materialises every result outside
// DuckDB's memory limit before the first row is seen.
package duck

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	mapping "github.com/duckdb/duckdb-go-bindings"

	"github.com/hearthstore/hearth/internal/clock"
)

// Error is what DuckDB said about a statement. Text that may quote a value of a row is
// replaced: values never reach logs.
type Error struct {
	Kind    Kind
	Message string
}

func (e *Error) Error() string { return e.Message }

// Kind groups DuckDB's errors by what a caller would do about them.
type Kind int

// The kinds.
const (
	Other       Kind = iota
	Interrupted      // the statement was cancelled
	Memory           // memory_limit was too small for it
	IO               // a file could not be read or written
	Catalog          // a name in the SQL does not exist, or the SQL cannot be parsed
)

// Version is the version of the linked DuckDB.
func Version() string { return mapping.LibraryVersion() }

// DB is one in-memory database. It is safe for concurrent use; its connections are not.
type DB struct {
	mu     sync.Mutex
	db     mapping.Database
	closed bool
}

// Open opens an in-memory database with the given settings, for example "threads": "2".
func Open(settings map[string]string) (*DB, error) {
	var config mapping.Config
	if mapping.CreateConfig(&config) == mapping.StateError {
		return nil, errors.New("open DuckDB: no configuration could be made")
	}
	defer mapping.DestroyConfig(&config)
	for name, value := range settings {
		if mapping.SetConfig(config, name, value) == mapping.StateError {
			return nil, fmt.Errorf("open DuckDB: setting %s=%q was refused", name, value)
		}
	}
	d := &DB{}
	var message string
	if mapping.OpenExt(":memory:", &d.db, config, &message) == mapping.StateError {
		mapping.Close(&d.db)
		return nil, fmt.Errorf("open DuckDB: %s", message)
	}
	if err := registerCall(d.db); err != nil {
		d.Close()
		return nil, fmt.Errorf("open DuckDB: %w", err)
	}
	return d, nil
}

// Close closes the database. Connections must be closed before.
func (d *DB) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		mapping.Close(&d.db)
	}
}

// Conn is one connection: a session with its own temporary tables. One statement at a time.
type Conn struct {
	conn mapping.Connection
	// watch is told, now and then, how far the running statement is.
	watch func(done, total int64)
}

// progressEvery is how often a running statement is asked how far it is.
const progressEvery = 200 * time.Millisecond

// Watch reports the progress of the statements that follow: rows done of rows in total, as
// DuckDB estimates them; 0 of 0 says that a statement runs of which it knows nothing, which
// it may do for as long as the statement takes. watch is called from a goroutine of its own
// that has ended when the statement's rows are closed. A nil watch ends the reports.
func (c *Conn) Watch(ctx context.Context, watch func(done, total int64)) error {
	c.watch = nil
	if watch == nil {
		return nil
	}
	if err := c.Exec(ctx, "SET enable_progress_bar = true; SET enable_progress_bar_print = false"); err != nil {
		return err
	}
	c.watch = watch
	return nil
}

// follow asks for the progress of the running statement until the returned function is called.
func (c *Conn) follow() (release func()) {
	if c.watch == nil {
		return func() {}
	}
	watch := c.watch
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-clock.System.After(progressEvery):
			}
			p := mapping.QueryProgress(c.conn)
			share, done, total := mapping.QueryProgressTypeMembers(&p)
			if share < 0 { // DuckDB does not know, and both counts are meaningless
				done, total = 0, 0
			}
			watch(int64(min(done, total)), int64(total))
		}
	}()
	return sync.OnceFunc(func() { close(stop); <-stopped })
}

// Connect opens a connection.
func (d *DB) Connect() (*Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.New("connect to DuckDB: it is closed")
	}
	c := &Conn{}
	if mapping.Connect(d.db, &c.conn) == mapping.StateError {
		return nil, errors.New("connect to DuckDB: refused")
	}
	return c, nil
}

// Close closes the connection and drops its temporary tables.
func (c *Conn) Close() { mapping.Disconnect(&c.conn) }

// Exec runs one or more statements, separated by ';', and discards what they return.
func (c *Conn) Exec(ctx context.Context, sql string) error {
	var statements mapping.ExtractedStatements
	n := mapping.ExtractStatements(c.conn, sql, &statements)
	defer mapping.DestroyExtracted(&statements)
	if n == 0 {
		return &Error{Kind: Catalog, Message: "parse SQL: " + mapping.ExtractStatementsError(statements)}
	}
	for i := range n {
		var stmt mapping.PreparedStatement
		if mapping.PrepareExtractedStatement(c.conn, statements, i, &stmt) == mapping.StateError {
			err := newError(mapping.PrepareError(stmt))
			mapping.DestroyPrepare(&stmt)
			return err
		}
		rows, err := c.run(ctx, stmt)
		if err != nil {
			return err
		}
		for rows.Next() { // the statement runs while its result is drained
		}
		if err := rows.Close(); err != nil {
			return err
		}
	}
	return nil
}

// Query starts one statement and returns its rows as a stream. The connection runs
// nothing else until the rows are closed.
func (c *Conn) Query(ctx context.Context, sql string) (*Rows, error) {
	var stmt mapping.PreparedStatement
	if mapping.Prepare(c.conn, sql, &stmt) == mapping.StateError {
		err := newError(mapping.PrepareError(stmt))
		mapping.DestroyPrepare(&stmt)
		return nil, err
	}
	return c.run(ctx, stmt)
}

func (c *Conn) run(ctx context.Context, stmt mapping.PreparedStatement) (*Rows, error) {
	if err := ctx.Err(); err != nil {
		mapping.DestroyPrepare(&stmt)
		return nil, context.Cause(ctx)
	}
	r := &Rows{ctx: ctx, stmt: stmt}
	interrupts, reports := c.interruptOnDone(ctx), c.follow()
	r.release = func() { interrupts(); reports() }
	var pending mapping.PendingResult
	if mapping.PendingPreparedStreaming(stmt, &pending) == mapping.StateError {
		err := newError(mapping.PendingError(pending))
		mapping.DestroyPending(&pending)
		return nil, r.fail(err)
	}
	state := mapping.ExecutePending(pending, &r.result)
	mapping.DestroyPending(&pending)
	if state == mapping.StateError {
		return nil, r.fail(newError(mapping.ResultError(&r.result)))
	}
	r.open()
	return r, nil
}

// interruptOnDone interrupts the running statement when ctx ends, again and again until
// the returned function is called: an interrupt that arrives just before the statement
// starts is forgotten by DuckDB.
func (c *Conn) interruptOnDone(ctx context.Context) (release func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-stop:
			return
		case <-ctx.Done():
		}
		for {
			mapping.Interrupt(c.conn)
			select {
			case <-stop:
				return
			case <-clock.System.After(20 * time.Millisecond):
			}
		}
	}()
	return sync.OnceFunc(func() { close(stop); <-stopped })
}

func newError(message string) *Error {
	e := &Error{Message: message}
	if strings.HasPrefix(message, "IO Error") || strings.HasPrefix(message, "Invalid Input Error") {
		e.Message, _, _ = strings.Cut(message, "\n\nLINE ") // the statement, which is not the user's
	}
	prefix, _, _ := strings.Cut(message, ":")
	switch prefix {
	case "INTERRUPT Error":
		e.Kind = Interrupted
	case "Out of Memory Error":
		e.Kind = Memory
		e.Message, _, _ = strings.Cut(message, "\n") // what follows is advice for users of SQL
	case "IO Error", "Invalid Input Error", "HTTP Error":
		e.Kind = IO
	case "Binder Error", "Catalog Error", "Parser Error":
		e.Kind = Catalog
	case "Conversion Error", "Out of Range Error", "Constraint Error":
		e.Message = prefix + ": a value could not be converted; it is not shown here, because values never reach logs"
	}
	return e
}

// IsKind reports whether err is a DuckDB error of kind k.
func IsKind(err error, k Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == k
}
