package duck

import (
	"context"
	"errors"
	"fmt"
	"unsafe"

	mapping "github.com/duckdb/duckdb-go-bindings"
)

// Rows is the streamed result of a statement: a sequence of chunks of up to 2,048 rows, of
// which it is the one at hand.
type Rows struct {
	Chunk
	ctx     context.Context
	stmt    mapping.PreparedStatement
	result  mapping.Result
	release func()
	names   []string
	err     error
	closed  bool
}

// Chunk is some rows, column by column.
type Chunk struct {
	data    mapping.DataChunk
	columns []Column
	n       int
}

// Len is the number of rows of the chunk.
func (c *Chunk) Len() int { return c.n }

// Column returns the i-th column. It is valid as long as the chunk is.
func (c *Chunk) Column(i int) *Column { return &c.columns[i] }

// Columns is the number of columns.
func (c *Chunk) Columns() int { return len(c.columns) }

func (r *Rows) open() {
	n := int(mapping.ColumnCount(&r.result))
	r.columns, r.names = make([]Column, n), make([]string, n)
	for i := range n {
		r.names[i] = mapping.ColumnName(&r.result, mapping.IdxT(i))
		logical := mapping.ColumnLogicalType(&r.result, mapping.IdxT(i))
		r.columns[i].describe(logical)
		mapping.DestroyLogicalType(&logical)
	}
}

// Names returns the names of the columns.
func (r *Rows) Names() []string { return r.names }

// Next moves to the next chunk. The columns of the chunk before are no longer valid.
func (r *Rows) Next() bool {
	if r.closed || r.err != nil {
		return false
	}
	mapping.DestroyDataChunk(&r.data)
	for {
		r.data = mapping.FetchChunk(r.result)
		if r.data.Ptr == nil {
			// A failure in mid-stream looks like the end of the rows; the error tells them apart.
			if message := mapping.ResultError(&r.result); message != "" {
				r.err = r.explain(newError(message))
			}
			return false
		}
		if r.n = int(mapping.DataChunkGetSize(r.data)); r.n > 0 {
			break
		}
		mapping.DestroyDataChunk(&r.data)
	}
	for i := range r.columns {
		r.columns[i].load(mapping.DataChunkGetVector(r.data, mapping.IdxT(i)))
	}
	return true
}

// Close ends the stream and returns the error that ended it early, if any.
func (r *Rows) Close() error {
	if r.closed {
		return r.err
	}
	r.closed = true
	r.release()
	mapping.DestroyDataChunk(&r.data)
	mapping.DestroyResult(&r.result)
	mapping.DestroyPrepare(&r.stmt)
	return r.err
}

func (r *Rows) fail(err error) error {
	r.err = r.explain(err)
	return r.Close()
}

func (r *Rows) explain(err error) error {
	if IsKind(err, Interrupted) && r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return err
}

// Column is one column of a chunk.
type Column struct {
	Type  mapping.Type
	Child *Column // of a list
	size  int     // of a fixed-size array
	data  unsafe.Pointer
	valid unsafe.Pointer
}

func (c *Column) describe(logical mapping.LogicalType) {
	c.Type = mapping.GetTypeId(logical)
	var child mapping.LogicalType
	switch c.Type {
	case mapping.TypeList:
		child = mapping.ListTypeChildType(logical)
	case mapping.TypeArray:
		child = mapping.ArrayTypeChildType(logical)
		c.size = int(mapping.ArrayTypeArraySize(logical))
	default:
		return
	}
	c.Child = &Column{}
	c.Child.describe(child)
	mapping.DestroyLogicalType(&child)
}

func (c *Column) load(v mapping.Vector) {
	c.data = mapping.VectorGetData(v)
	c.valid = mapping.VectorGetValidity(v)
	switch {
	case c.Child == nil:
	case c.Type == mapping.TypeArray:
		c.Child.load(mapping.ArrayVectorGetChild(v))
	default:
		c.Child.load(mapping.ListVectorGetChild(v))
	}
}

func at[T any](c *Column, i int) T {
	return *(*T)(unsafe.Add(c.data, uintptr(i)*unsafe.Sizeof(*new(T))))
}

// Null reports whether row i is NULL.
func (c *Column) Null(i int) bool {
	if c.valid == nil {
		return false
	}
	word := *(*uint64)(unsafe.Add(c.valid, uintptr(i/64)*8))
	return word&(1<<(i%64)) == 0
}

// Int returns row i of an integer, date or timestamp column.
func (c *Column) Int(i int) int64 {
	switch c.Type {
	case mapping.TypeTinyInt:
		return int64(at[int8](c, i))
	case mapping.TypeSmallInt:
		return int64(at[int16](c, i))
	case mapping.TypeInteger, mapping.TypeDate:
		return int64(at[int32](c, i))
	case mapping.TypeUTinyInt:
		return int64(at[uint8](c, i))
	case mapping.TypeUSmallInt:
		return int64(at[uint16](c, i))
	case mapping.TypeUInteger:
		return int64(at[uint32](c, i))
	case mapping.TypeHugeInt: // the lower half: callers ask only where the value is known to fit
		return at[int64](c, i*2)
	}
	return at[int64](c, i)
}

// Int64s returns the first n rows of a BIGINT column; those of NULLs have no meaning. It is
// valid as long as the chunk.
func (c *Column) Int64s(n int) []int64 { return unsafe.Slice((*int64)(c.data), n) }

// Bools returns the first n rows of a BOOLEAN column, as Int64s does.
func (c *Column) Bools(n int) []bool { return unsafe.Slice((*bool)(c.data), n) }

// Float64 returns row i of a DOUBLE column.
func (c *Column) Float64(i int) float64 { return at[float64](c, i) }

// Float32 returns row i of a FLOAT column.
func (c *Column) Float32(i int) float32 { return at[float32](c, i) }

// Bool returns row i of a BOOLEAN column.
func (c *Column) Bool(i int) bool { return at[uint8](c, i) != 0 }

// Bytes returns row i of a VARCHAR or BLOB column. It is valid as long as the chunk.
func (c *Column) Bytes(i int) []byte {
	p := unsafe.Add(c.data, uintptr(i)*16)
	n := *(*uint32)(p)
	if n <= 12 {
		return unsafe.Slice((*byte)(unsafe.Add(p, 4)), n)
	}
	return unsafe.Slice(*(**byte)(unsafe.Add(p, 8)), n)
}

// List returns where the elements of row i of a list or array column stand in Child.
func (c *Column) List(i int) (offset, n int) {
	if c.Type == mapping.TypeArray {
		return i * c.size, c.size
	}
	e := at[[2]uint64](c, i)
	return int(e[0]), int(e[1])
}

// ErrNoRows says that a statement that must return a row returned none.
var ErrNoRows = errors.New("no row")

// QueryRow runs a statement and reads its first row into dest: *int64, *float64, *string,
// *bool, or a pointer to a pointer of those for columns that may be NULL. A NULL for a
// plain destination leaves it as it is.
func (c *Conn) QueryRow(ctx context.Context, sql string, dest ...any) error {
	found := false
	err := c.Each(ctx, sql, func(scan func(dest ...any) error) error {
		if found {
			return nil
		}
		found = true
		return scan(dest...)
	})
	if err == nil && !found {
		return ErrNoRows
	}
	return err
}

// Each runs a statement and calls fn for each row; scan reads the row as QueryRow does.
// It is for small results; large ones read the columns.
func (c *Conn) Each(ctx context.Context, sql string, fn func(scan func(dest ...any) error) error) error {
	rows, err := c.Query(ctx, sql)
	if err != nil {
		return err
	}
	var fnErr error
	for fnErr == nil && rows.Next() {
		for i := 0; i < rows.Len() && fnErr == nil; i++ {
			fnErr = fn(func(dest ...any) error { return rows.scan(i, dest) })
		}
	}
	return errors.Join(fnErr, rows.Close())
}

func (r *Rows) scan(row int, dest []any) error {
	if len(dest) > len(r.columns) {
		return fmt.Errorf("scan: %d destinations for %d columns", len(dest), len(r.columns))
	}
	for i, d := range dest {
		c := &r.columns[i]
		null := c.Null(row)
		switch d := d.(type) {
		case **int64:
			*d = nil
			if !null {
				v := c.Int(row)
				*d = &v
			}
		case **float64:
			*d = nil
			if !null {
				v := c.Float64(row)
				*d = &v
			}
		case **string:
			*d = nil
			if !null {
				v := string(c.Bytes(row))
				*d = &v
			}
		case *int64:
			if !null {
				*d = c.Int(row)
			}
		case *float64:
			if !null {
				*d = c.Float64(row)
			}
		case *string:
			if !null {
				*d = string(c.Bytes(row))
			}
		case *bool:
			if !null {
				*d = c.Bool(row)
			}
		default:
			return fmt.Errorf("scan: destination %d has type %T", i, d)
		}
	}
	return nil
}

// Family says which accessor reads a column.
type Family int

// The families.
const (
	KindInt     Family = iota // Int
	KindBool                  // Bool
	KindFloat32               // Float32
	KindFloat64               // Float64
	KindBytes                 // Bytes
	KindList                  // List and Child
)

// Kind returns the family of the column's type.
func (c *Column) Kind() Family {
	switch c.Type {
	case mapping.TypeBoolean:
		return KindBool
	case mapping.TypeFloat:
		return KindFloat32
	case mapping.TypeDouble:
		return KindFloat64
	case mapping.TypeVarchar, mapping.TypeBlob:
		return KindBytes
	case mapping.TypeList, mapping.TypeArray:
		return KindList
	}
	return KindInt
}
