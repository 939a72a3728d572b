package duck

import (
	"strings"
	"sync/atomic"
	"testing"
)

// A statement calls a function of Go with every row once, from whatever thread; NULLs go
// both ways. Seen red with the NULLs of the result not set, and with default handling of NULLs.
func TestFunction(t *testing.T) {
	t.Parallel()
	c := open(t)
	var calls, seen atomic.Int64
	f := Register(func(in *Chunk, out *Result) {
		calls.Add(1)
		for i := range in.Len() {
			seen.Add(1)
			if in.Column(0).Null(i) {
				out.Set(i, -1)
				continue
			}
			v := in.Column(0).Int(i)
			if v%10 == 0 {
				out.SetNull(i)
				continue
			}
			out.Set(i, v+int64(len(in.Column(1).Bytes(i))))
		}
	})
	defer f.Free()
	var sum, nulls, fromNull int64
	err := c.QueryRow(t.Context(), "SELECT sum(v) FILTER (i IS NOT NULL), count(*) FILTER (v IS NULL), count(*) FILTER (v = -1) FROM (SELECT i, "+f.SQL("i", "repeat('x', 20)")+
		" AS v FROM (SELECT CASE WHEN i % 10 = 5 THEN NULL ELSE i END AS i FROM range(100000) r(i)))", &sum, &nulls, &fromNull)
	if err != nil {
		t.Fatal(err)
	}
	var constant int64
	if err := c.QueryRow(t.Context(), "SELECT "+f.SQL("NULL::BIGINT", "'x'"), &constant); err != nil || constant != -1 {
		t.Errorf("of a constant NULL: %d, %v", constant, err)
	}
	want := int64(0)
	for i := range int64(100_000) {
		if i%5 != 0 {
			want += i + 20
		}
	}
	if sum != want || nulls != 10_000 || fromNull != 10_000 || seen.Load() != 100_001 || calls.Load() < 40 {
		t.Errorf("sum %d (want %d), %d NULLs out, %d in, %d rows seen in %d calls", sum, want, nulls, fromNull, seen.Load(), calls.Load())
	}
}

// A panic and a function that is gone fail the statement, not the process. Seen red without
// recover (the process died).
func TestFunctionFails(t *testing.T) {
	t.Parallel()
	c := open(t)
	f := Register(func(*Chunk, *Result) { panic("broken") })
	err := c.Exec(t.Context(), "SELECT "+f.SQL("i")+" FROM range(10) r(i)")
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("err %v", err)
	}
	f.Free()
	f.Free()
	if err := c.Exec(t.Context(), "SELECT "+f.SQL("i")+" FROM range(10) r(i)"); err == nil {
		t.Error("a function that was freed was called")
	}
	var n int64
	if err := c.QueryRow(t.Context(), "SELECT 7", &n); err != nil || n != 7 {
		t.Errorf("the connection does not work any more: %d, %v", n, err)
	}
}
