package duck

/*
// What the exported function is in C; its types are those of duckdb.h, as they are there:
// handles without a content.
void hearthCall(void *info, void *input, void *output);
typedef void (*hearth_call_t)(void *, void *, void *);
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime/cgo"
	"sync"
	"unsafe"

	mapping "github.com/duckdb/duckdb-go-bindings"
)

// Func is a function of Go that statements call, many rows at a time: from several of DuckDB's threads
// at once, in no order, and with some rows of a statement or with all. What it returns for a
// row must depend on that row alone. in holds the arguments, and is the function's until it returns.
// A panic fails the statement.
type Func func(in *Chunk, out *Result)

// Result takes what a [Func] returns: a BIGINT per row.
type Result struct {
	values []int64
	vector mapping.Vector
	valid  unsafe.Pointer // nil until there is a NULL
}

// Fill gives every row one value.
func (r *Result) Fill(v int64) {
	for i := range r.values {
		r.values[i] = v
	}
}

// Set gives row i its value.
func (r *Result) Set(i int, v int64) { r.values[i] = v }

// SetNull makes row i NULL.
func (r *Result) SetNull(i int) {
	if r.valid == nil {
		mapping.VectorEnsureValidityWritable(r.vector)
		r.valid = mapping.VectorGetValidity(r.vector)
	}
	*(*uint64)(unsafe.Add(r.valid, uintptr(i/64)*8)) &^= 1 << (i % 64)
}

// callName is the one function that DuckDB knows: its first argument says which Func is meant.
const callName = "hearth_call"

// Call is a Func that statements of one database can name.
type Call struct {
	handle cgo.Handle
	free   func()
}

// Register makes a Func known. Free it when no statement that names it runs.
func Register(f Func) *Call {
	h := cgo.NewHandle(f)
	return &Call{handle: h, free: sync.OnceFunc(h.Delete)}
}

// SQL renders a call with arguments that are SQL: a BIGINT. A NULL argument is passed on.
func (c *Call) SQL(args ...string) string {
	text := fmt.Sprintf("%s(%d", callName, uintptr(c.handle))
	for _, a := range args {
		text += ", " + a
	}
	return text + ")"
}

// Free forgets the Func. It may be called more than once.
func (c *Call) Free() { c.free() }

// registerCall makes the one function known to a database.
func registerCall(db mapping.Database) error {
	var conn mapping.Connection
	if mapping.Connect(db, &conn) == mapping.StateError {
		return errors.New("register functions: no connection")
	}
	defer mapping.Disconnect(&conn)
	f := mapping.CreateScalarFunction()
	defer mapping.DestroyScalarFunction(&f)
	bigint, whatever := mapping.CreateLogicalType(mapping.TypeBigInt), mapping.CreateLogicalType(mapping.TypeAny)
	defer mapping.DestroyLogicalType(&bigint)
	defer mapping.DestroyLogicalType(&whatever)
	mapping.ScalarFunctionSetName(f, callName)
	mapping.ScalarFunctionAddParameter(f, bigint)
	mapping.ScalarFunctionSetVarargs(f, whatever)
	mapping.ScalarFunctionSetReturnType(f, bigint)
	mapping.ScalarFunctionSetSpecialHandling(f) // of NULLs, which else would never arrive
	mapping.ScalarFunctionSetFunction(f, unsafe.Pointer(C.hearth_call_t(C.hearthCall)))
	if mapping.RegisterScalarFunction(conn, f) == mapping.StateError {
		return errors.New("register functions: refused")
	}
	return nil
}

//export hearthCall
func hearthCall(info, input, output unsafe.Pointer) {
	defer func() {
		if v := recover(); v != nil {
			mapping.ScalarFunctionSetError(mapping.FunctionInfo{Ptr: info}, fmt.Sprint("a function of Hearth failed: ", v))
		}
	}()
	data := mapping.DataChunk{Ptr: input}
	in := Chunk{data: data, n: int(mapping.DataChunkGetSize(data)), columns: make([]Column, int(mapping.DataChunkGetColumnCount(data))-1)}
	if in.n == 0 {
		return
	}
	handle := *(*int64)(mapping.VectorGetData(mapping.DataChunkGetVector(data, 0)))
	for i := range in.columns {
		v := mapping.DataChunkGetVector(data, mapping.IdxT(i+1))
		logical := mapping.VectorGetColumnType(v)
		in.columns[i].describe(logical)
		mapping.DestroyLogicalType(&logical)
		in.columns[i].load(v)
	}
	vector := mapping.Vector{Ptr: output}
	out := &Result{values: unsafe.Slice((*int64)(mapping.VectorGetData(vector)), in.n), vector: vector}
	f, _ := cgo.Handle(uintptr(handle)).Value().(Func)
	f(&in, out)
}
