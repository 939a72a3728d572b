package duck

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T) *Conn {
	t.Helper()
	db, err := Open(map[string]string{"threads": "2"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := db.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); db.Close() })
	return c
}

func TestColumns(t *testing.T) {
	t.Parallel()
	c := open(t)
	rows, err := c.Query(t.Context(), `SELECT i, CASE WHEN i % 3 = 0 THEN NULL ELSE i * 0.5::DOUBLE END, repeat('x', i::INT), [i, NULL], i % 2 = 0, i::FLOAT
		FROM range(5000) r(i) ORDER BY i`)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		for i := range rows.Len() {
			if got := rows.Column(0).Int(i); got != int64(n) {
				t.Fatalf("row %d: int %d", n, got)
			}
			if null := rows.Column(1).Null(i); null != (n%3 == 0) || !null && rows.Column(1).Float64(i) != float64(n)/2 {
				t.Fatalf("row %d: double", n)
			}
			if got := rows.Column(2).Bytes(i); len(got) != n || strings.Trim(string(got), "x") != "" {
				t.Fatalf("row %d: string of %d bytes", n, len(got))
			}
			off, size := rows.Column(3).List(i)
			child := rows.Column(3).Child
			if size != 2 || child.Int(off) != int64(n) || !child.Null(off+1) {
				t.Fatalf("row %d: list", n)
			}
			if rows.Column(4).Bool(i) != (n%2 == 0) || rows.Column(5).Float32(i) != float32(n) {
				t.Fatalf("row %d: bool or float", n)
			}
			n++
		}
	}
	if err := rows.Close(); err != nil || n != 5000 {
		t.Fatalf("%d rows, err %v", n, err)
	}
}

// A failure in mid-stream must not look like a short result. Seen red without the
// ResultError check in Next.
func TestErrorInMidStream(t *testing.T) {
	t.Parallel()
	c := open(t)
	rows, err := c.Query(t.Context(), `SELECT CASE WHEN i = 900000 THEN error('boom') ELSE i END FROM range(1000000) r(i)`)
	if err == nil {
		for rows.Next() { // drain
		}
		err = rows.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "boom") {
		t.Fatalf("err %v, want boom", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	c := open(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	timer := time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	defer timer.Stop()
	// It would run for days: that it returns at all is the interrupt.
	err := c.Exec(ctx, `SELECT sum(a.i * b.i) FROM range(100000000) a(i), range(100000000) b(i)`)
	if !errors.Is(err, cause) {
		t.Fatalf("err %v, want the cause", err)
	}
	var n int64
	if err := c.QueryRow(t.Context(), "SELECT 7", &n); err != nil || n != 7 {
		t.Fatalf("the connection does not work after a cancel: %d, %v", n, err)
	}
}

// A long statement says that it runs and how far it is, and says nothing once its rows are
// closed. DuckDB does not always know how far it is, so that several statements are asked.
// Seen red without the progress bar's setting.
func TestWatch(t *testing.T) {
	t.Parallel()
	c := open(t)
	known := 0
	for try := 0; known == 0 && try < 20; try++ {
		ctx, cancel := context.WithCancel(t.Context())
		reports := 0
		err := c.Watch(ctx, func(done, total int64) {
			if done < 0 || done > total {
				t.Errorf("%d of %d", done, total)
			}
			if total > 0 {
				known++
			}
			if reports++; reports == 3 {
				cancel() // heard enough: the statement would run for days
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Exec(ctx, `SELECT sum(a.i * b.i) FROM range(100000000) a(i), range(100000000) b(i)`); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		cancel()
	}
	if known == 0 {
		t.Error("no statement said how far it is")
	}
	if err := c.Watch(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsHideValues(t *testing.T) {
	t.Parallel()
	c := open(t)
	err := c.Exec(t.Context(), `CREATE TABLE x AS SELECT 'top-secret-' || i AS v FROM range(3) r(i); SELECT v::INT FROM x`)
	if err == nil || strings.Contains(err.Error(), "top-secret") {
		t.Fatalf("err %v", err)
	}
	if err := c.Exec(t.Context(), `SELECT nonsense`); !IsKind(err, Catalog) {
		t.Fatalf("err %v, want kind Catalog", err)
	}
}
