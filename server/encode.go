package server

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"

	"github.com/hearthstore/hearth/feature"
)

// The media types of answers.
const (
	typeJSON    = "application/json"
	typeMsgpack = "application/msgpack"
)

// encoder appends one document. An answer to a feature read holds thousands of values, so
// it is written straight into its bytes, with no tree of Go values in between.
type encoder interface {
	object(members int) // then, for each member, key and one value; then end
	key(name string)
	array(elements int) // then that many values; then end
	end()

	null()
	integer(int64)
	number64(float64)
	number32(float32)
	text(string)
	boolean(bool)
	binary([]byte)

	bytes() []byte
}

// jsonEncoder writes JSON. A float is written as one ("1.0", not "1"): clients that infer
// a type from each value, as Feast's does, would else see integers in between.
type jsonEncoder struct {
	b     []byte
	ends  []byte // what closes each open object and array
	comma bool
	// special is how NaN and the infinities are written, for which JSON has no numbers:
	// as strings, or as null for a client that could not take those.
	special bool
}

func (e *jsonEncoder) separate() {
	if e.comma {
		e.b = append(e.b, ',')
	}
	e.comma = true
}

func (e *jsonEncoder) open(begin, end byte) {
	e.separate()
	e.b, e.ends, e.comma = append(e.b, begin), append(e.ends, end), false
}

func (e *jsonEncoder) object(int) { e.open('{', '}') }
func (e *jsonEncoder) array(int)  { e.open('[', ']') }

func (e *jsonEncoder) end() {
	last := len(e.ends) - 1
	e.b, e.ends, e.comma = append(e.b, e.ends[last]), e.ends[:last], true
}

func (e *jsonEncoder) key(name string) {
	e.separate()
	e.b, e.comma = append(appendJSONText(e.b, name), ':'), false
}

func (e *jsonEncoder) null()              { e.separate(); e.b = append(e.b, "null"...) }
func (e *jsonEncoder) integer(n int64)    { e.separate(); e.b = strconv.AppendInt(e.b, n, 10) }
func (e *jsonEncoder) boolean(v bool)     { e.separate(); e.b = strconv.AppendBool(e.b, v) }
func (e *jsonEncoder) text(s string)      { e.separate(); e.b = appendJSONText(e.b, s) }
func (e *jsonEncoder) number64(f float64) { e.float(f, 64) }
func (e *jsonEncoder) number32(f float32) { e.float(float64(f), 32) } // the shortest text of a float32

func (e *jsonEncoder) binary(p []byte) {
	e.separate()
	e.b = append(e.b, '"')
	e.b = base64.StdEncoding.AppendEncode(e.b, p)
	e.b = append(e.b, '"')
}

func (e *jsonEncoder) float(f float64, bits int) {
	e.separate()
	switch {
	case !math.IsNaN(f) && !math.IsInf(f, 0):
		begin := len(e.b)
		e.b = strconv.AppendFloat(e.b, f, 'g', -1, bits)
		for _, c := range e.b[begin:] {
			if c == '.' || c == 'e' {
				return
			}
		}
		e.b = append(e.b, ".0"...)
	case !e.special:
		e.b = append(e.b, "null"...)
	case math.IsNaN(f):
		e.b = append(e.b, `"NaN"`...)
	case f > 0:
		e.b = append(e.b, `"Infinity"`...)
	default:
		e.b = append(e.b, `"-Infinity"`...)
	}
}

func (e *jsonEncoder) bytes() []byte { return e.b }

// appendJSONText writes plain text as it is, and leaves the rest to the library.
func appendJSONText(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, err := json.Marshal(s)
			if err != nil {
				return append(b, `""`...) // a string always has a form
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// msgpackEncoder writes MessagePack: bytes are bin, a float32 takes 5 bytes, NaN is NaN.
type msgpackEncoder struct{ b []byte }

func (e *msgpackEncoder) object(members int) { e.b = msgp.AppendMapHeader(e.b, uint32(members)) }
func (e *msgpackEncoder) array(elements int) { e.b = msgp.AppendArrayHeader(e.b, uint32(elements)) }
func (e *msgpackEncoder) end()               {}
func (e *msgpackEncoder) key(name string)    { e.b = msgp.AppendString(e.b, name) }
func (e *msgpackEncoder) null()              { e.b = msgp.AppendNil(e.b) }
func (e *msgpackEncoder) integer(n int64)    { e.b = msgp.AppendInt64(e.b, n) }
func (e *msgpackEncoder) number64(f float64) { e.b = msgp.AppendFloat64(e.b, f) }
func (e *msgpackEncoder) number32(f float32) { e.b = msgp.AppendFloat32(e.b, f) }
func (e *msgpackEncoder) text(s string)      { e.b = msgp.AppendString(e.b, s) }
func (e *msgpackEncoder) boolean(v bool)     { e.b = msgp.AppendBool(e.b, v) }
func (e *msgpackEncoder) binary(p []byte)    { e.b = msgp.AppendBytes(e.b, p) }
func (e *msgpackEncoder) bytes() []byte      { return e.b }

// encodeValue writes a value; timestamps are RFC 3339.
func encodeValue(e encoder, v feature.Value) {
	switch {
	case v.IsNull():
		e.null()
	case v.Is(feature.Float64):
		e.number64(v.Float())
	case v.Is(feature.Int64):
		e.integer(v.Int())
	case v.Is(feature.Float32):
		e.number32(v.Float32())
	case v.Is(feature.String):
		e.text(v.Str())
	case v.Is(feature.Bool):
		e.boolean(v.Bool())
	case v.Is(feature.Bytes):
		e.binary(v.Bytes())
	case v.Is(feature.Timestamp):
		e.text(v.Micros().String())
	default:
		e.array(len(v.List()))
		for _, elem := range v.List() {
			encodeValue(e, elem)
		}
		e.end()
	}
}

// encodeFeast writes a value as Feast does: seconds for a timestamp, and null for an empty
// list, of which Feast's client cannot tell the type.
func encodeFeast(e encoder, v feature.Value) {
	switch {
	case v.IsNull():
		e.null()
	case v.Is(feature.Timestamp):
		e.integer(v.Micros().Time().Unix())
	case v.List() != nil:
		if len(v.List()) == 0 {
			e.null()
			return
		}
		e.array(len(v.List()))
		for _, elem := range v.List() {
			encodeFeast(e, elem)
		}
		e.end()
	default:
		encodeValue(e, v)
	}
}

// buffers keeps the memory of answers.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

// maxKept is the largest buffer that is kept for another answer.
const maxKept = 4 << 20

func takeBuffer() *[]byte { return buffers.Get().(*[]byte) }

func giveBuffer(p *[]byte, used []byte) {
	if cap(used) <= maxKept {
		*p = used[:0]
		buffers.Put(p)
	}
}
