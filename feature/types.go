package feature

import (
	"fmt"
	"strings"
)

// Type is the declared type of a feature or join key, as written in hearth.yaml:
// int64, int32, float64, float32, string, bool, bytes, timestamp, or list<T> of one of
// them. Lists of lists do not exist.
type Type string

// The scalar types.
const (
	Int64     Type = "int64"
	Int32     Type = "int32"
	Float64   Type = "float64"
	Float32   Type = "float32"
	String    Type = "string"
	Bool      Type = "bool"
	Bytes     Type = "bytes"
	Timestamp Type = "timestamp" // microseconds UTC
)

// ScalarTypes lists the scalar types in the order that documents use.
var ScalarTypes = [...]Type{Int64, Int32, Float64, Float32, String, Bool, Bytes, Timestamp}

// ListOf returns list<elem>.
func ListOf(elem Type) Type { return "list<" + elem + ">" }

// IsList reports whether t is list<…>.
func (t Type) IsList() bool { return strings.HasPrefix(string(t), "list<") }

// Elem returns the element type of a list, and t itself for a scalar.
func (t Type) Elem() Type {
	if t.IsList() {
		return t[len("list<") : len(t)-1]
	}
	return t
}

// CanKey reports whether t can be the type of a join key.
func (t Type) CanKey() bool {
	switch t {
	case Int64, Int32, String, Bool, Bytes:
		return true
	}
	return false
}

// ParseType checks a type name. The error matches ErrInvalid and lists what is allowed.
func ParseType(s string) (Type, error) {
	t := Type(s)
	if t.IsList() && !strings.HasSuffix(s, ">") {
		return "", unknownType(s)
	}
	for _, scalar := range ScalarTypes {
		if t.Elem() == scalar {
			return t, nil
		}
	}
	return "", unknownType(s)
}

func unknownType(s string) error {
	names := make([]string, len(ScalarTypes))
	for i, t := range ScalarTypes {
		names[i] = string(t)
	}
	return fmt.Errorf("%w: unknown type %q; use one of %s, or list<T> of one of them", ErrInvalid, s, strings.Join(names, ", "))
}
