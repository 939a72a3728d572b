package feature

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

type kind uint8

const (
	kindNull kind = iota
	kindInt
	kindFloat64
	kindFloat32
	kindString
	kindBool
	kindBytes
	kindTime
	kindList
)

// Value is one feature value: null, or a value of one of the [Type]s. The zero Value is
// null. Values are small and are passed by value; a Value that came from
// [DecodeFeatures] shares the payload's bytes.
type Value struct {
	kind kind
	num  uint64
	str  string
	list []Value
}

// Null is the null value.
var Null = Value{}

// IntValue makes an int64 or int32 value.
func IntValue(n int64) Value { return Value{kind: kindInt, num: uint64(n)} }

// Float64Value makes a float64 value. NaN and infinities are kept as they are.
func Float64Value(f float64) Value { return Value{kind: kindFloat64, num: math.Float64bits(f)} }

// Float32Value makes a float32 value.
func Float32Value(f float32) Value {
	return Value{kind: kindFloat32, num: uint64(math.Float32bits(f))}
}

// StringValue makes a string value.
func StringValue(s string) Value { return Value{kind: kindString, str: s} }

// BoolValue makes a bool value.
func BoolValue(b bool) Value {
	v := Value{kind: kindBool}
	if b {
		v.num = 1
	}
	return v
}

// BytesValue makes a bytes value holding a copy of b.
func BytesValue(b []byte) Value { return Value{kind: kindBytes, str: string(b)} }

// TimestampValue makes a timestamp value.
func TimestampValue(m Micros) Value { return Value{kind: kindTime, num: uint64(m)} }

// ListValue makes a list value. The elements are not copied.
func ListValue(elems ...Value) Value { return Value{kind: kindList, list: elems} }

// IsNull reports whether v is null.
func (v Value) IsNull() bool { return v.kind == kindNull }

// Int returns an int64/int32 value; 0 for any other kind.
func (v Value) Int() int64 {
	if v.kind == kindInt {
		return int64(v.num)
	}
	return 0
}

// Float returns a numeric or bool value as float64 (for model input); NaN for null and
// for what is no number.
func (v Value) Float() float64 {
	switch v.kind {
	case kindInt:
		return float64(int64(v.num))
	case kindFloat64:
		return math.Float64frombits(v.num)
	case kindFloat32:
		return float64(math.Float32frombits(uint32(v.num)))
	case kindBool:
		return float64(v.num)
	}
	return math.NaN()
}

// Float32 returns a float32 value exactly, and any other number converted.
func (v Value) Float32() float32 {
	if v.kind == kindFloat32 {
		return math.Float32frombits(uint32(v.num))
	}
	return float32(v.Float())
}

// Str returns a string value; "" for any other kind.
func (v Value) Str() string {
	if v.kind == kindString {
		return v.str
	}
	return ""
}

// Bool returns a bool value; false for any other kind.
func (v Value) Bool() bool { return v.kind == kindBool && v.num == 1 }

// Bytes returns a copy of a bytes value; nil for any other kind.
func (v Value) Bytes() []byte {
	if v.kind == kindBytes {
		return []byte(v.str)
	}
	return nil
}

// Micros returns a timestamp value; NoTime for any other kind.
func (v Value) Micros() Micros {
	if v.kind == kindTime {
		return Micros(v.num)
	}
	return NoTime
}

// List returns the elements of a list value; nil for any other kind.
func (v Value) List() []Value { return v.list }

// Is reports whether v is null or of type t.
func (v Value) Is(t Type) bool {
	if v.kind == kindNull {
		return true
	}
	switch t {
	case Int64:
		return v.kind == kindInt
	case Int32:
		return v.kind == kindInt && int64(v.num) >= math.MinInt32 && int64(v.num) <= math.MaxInt32
	case Float64:
		return v.kind == kindFloat64
	case Float32:
		return v.kind == kindFloat32
	case String:
		return v.kind == kindString
	case Bool:
		return v.kind == kindBool
	case Bytes:
		return v.kind == kindBytes
	case Timestamp:
		return v.kind == kindTime
	}
	if v.kind != kindList || !t.IsList() {
		return false
	}
	for _, e := range v.list {
		if !e.Is(t.Elem()) {
			return false
		}
	}
	return true
}

// Equal compares content exactly: NaN equals a NaN of the same bits, -0 differs from +0.
func (v Value) Equal(o Value) bool {
	if v.kind != o.kind || v.num != o.num || v.str != o.str || len(v.list) != len(o.list) {
		return false
	}
	for i := range v.list {
		if !v.list[i].Equal(o.list[i]) {
			return false
		}
	}
	return true
}

// Any returns the natural Go value: nil, int64, float64, float32, string, bool, []byte,
// time.Time (UTC) or []any.
func (v Value) Any() any {
	switch v.kind {
	case kindInt:
		return int64(v.num)
	case kindFloat64:
		return math.Float64frombits(v.num)
	case kindFloat32:
		return math.Float32frombits(uint32(v.num))
	case kindString:
		return v.str
	case kindBool:
		return v.num == 1
	case kindBytes:
		return []byte(v.str)
	case kindTime:
		return Micros(v.num).Time()
	case kindList:
		out := make([]any, len(v.list))
		for i, e := range v.list {
			out[i] = e.Any()
		}
		return out
	}
	return nil
}

// String shows the value for people: null, numbers, text as it is, RFC 3339 times.
func (v Value) String() string {
	switch v.kind {
	case kindNull:
		return "null"
	case kindString:
		return v.str
	}
	b, err := v.MarshalJSON()
	if err != nil {
		return fmt.Sprintf("%%!(%v)", err)
	}
	return string(bytes.Trim(b, `"`))
}

// MarshalJSON writes numbers as JSON numbers (int64 exactly), timestamps as RFC 3339,
// bytes as base64, and NaN and the infinities, which JSON has no numbers for, as the
// strings "NaN", "Infinity" and "-Infinity".
func (v Value) MarshalJSON() ([]byte, error) {
	switch v.kind {
	case kindInt:
		return strconv.AppendInt(nil, int64(v.num), 10), nil
	case kindFloat64:
		return appendJSONFloat(math.Float64frombits(v.num), 64), nil
	case kindFloat32:
		return appendJSONFloat(float64(math.Float32frombits(uint32(v.num))), 32), nil
	case kindString:
		return json.Marshal(v.str)
	case kindBool:
		return strconv.AppendBool(nil, v.num == 1), nil
	case kindBytes:
		return json.Marshal(base64.StdEncoding.EncodeToString([]byte(v.str)))
	case kindTime:
		return json.Marshal(Micros(v.num).String())
	case kindList:
		if v.list == nil {
			return []byte("[]"), nil
		}
		return json.Marshal(v.list)
	}
	return []byte("null"), nil
}

func appendJSONFloat(f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return []byte(`"NaN"`)
	case math.IsInf(f, 1):
		return []byte(`"Infinity"`)
	case math.IsInf(f, -1):
		return []byte(`"-Infinity"`)
	}
	return strconv.AppendFloat(nil, f, 'g', -1, bits)
}

// ValueOf converts what a person or a request wrote (the Go values of JSON or YAML, or
// text) to a value of type t. nil is null. The error matches ErrInvalid and names t.
func ValueOf(t Type, x any) (Value, error) {
	bad := func() (Value, error) {
		return Value{}, fmt.Errorf("%w: %v (%T) is no %s", ErrInvalid, x, x, t)
	}
	if x == nil {
		return Null, nil
	}
	if t.IsList() {
		items, ok := x.([]any)
		if !ok {
			return bad()
		}
		list := make([]Value, len(items))
		for i, item := range items {
			v, err := ValueOf(t.Elem(), item)
			if err != nil {
				return Value{}, fmt.Errorf("element %d: %w", i, err)
			}
			list[i] = v
		}
		return ListValue(list...), nil
	}
	switch t {
	case Int64, Int32:
		n, ok := toInt(x)
		if !ok || (t == Int32 && (n < math.MinInt32 || n > math.MaxInt32)) {
			return bad()
		}
		return IntValue(n), nil
	case Float64, Float32:
		f, ok := toFloat(x)
		if !ok {
			return bad()
		}
		if t == Float32 {
			return Float32Value(float32(f)), nil
		}
		return Float64Value(f), nil
	case String:
		if s, ok := x.(string); ok {
			return StringValue(s), nil
		}
	case Bool:
		switch b := x.(type) {
		case bool:
			return BoolValue(b), nil
		case string:
			if p, err := strconv.ParseBool(b); err == nil {
				return BoolValue(p), nil
			}
		}
	case Bytes:
		switch b := x.(type) {
		case []byte:
			return BytesValue(b), nil
		case string:
			if p, err := base64.StdEncoding.DecodeString(b); err == nil {
				return BytesValue(p), nil
			}
		}
	case Timestamp:
		switch b := x.(type) {
		case time.Time:
			return TimestampValue(MicrosOf(b)), nil
		case string:
			if p, err := ParseTime(b); err == nil {
				return TimestampValue(p), nil
			}
		}
	}
	return bad()
}

func toInt(x any) (int64, bool) {
	switch n := x.(type) {
	case int:
		return int64(n), true
	case int32:
		return int64(n), true
	case int64:
		return n, true
	case uint64:
		return int64(n), n <= math.MaxInt64
	case json.Number:
		i, err := n.Int64()
		return i, err == nil
	case float64:
		i := int64(n)
		return i, float64(i) == n && math.Abs(n) < 1<<53
	case string:
		i, err := strconv.ParseInt(n, 10, 64)
		return i, err == nil
	}
	return 0, false
}

func toFloat(x any) (float64, bool) {
	switch n := x.(type) {
	case float64:
		return n, true
	case float32:
		return float64(n), true
	case json.Number:
		f, err := n.Float64()
		return f, err == nil
	case string:
		f, err := strconv.ParseFloat(n, 64)
		return f, err == nil
	}
	i, ok := toInt(x)
	return float64(i), ok
}

// ParseTime reads RFC 3339, "2006-01-02 15:04:05[.ffffff]" or "2006-01-02"; without a
// zone the time is UTC.
func ParseTime(s string) (Micros, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00",
		"2006-01-02 15:04:05.999999999", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return MicrosOf(t), nil
		}
	}
	return 0, fmt.Errorf("%w: %q is no time; write RFC 3339, for example 2021-08-25T12:00:00Z", ErrInvalid, s)
}
