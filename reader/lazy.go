package reader

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/hearthstore/hearth/feature"
)

// The payload's features are checked once, when they arrive, and decoded one by one, when
// they are asked for: a cached vector of 50 numbers costs 50 offsets and its own bytes
// instead of 50 decoded values. The walk below accepts exactly what
// [feature.DecodeFeatures] accepts; a differential test holds the two together.

// wire says how values of one type lie in MessagePack.
type wire struct {
	class wireClass
	list  bool
}

type wireClass uint8

const (
	wireInvalid wireClass = iota
	wireInt64
	wireInt32
	wireTime
	wireFloat64
	wireFloat32
	wireString
	wireBool
	wireBytes
)

func wireOf(t feature.Type) wire {
	w := wire{list: t.IsList()}
	switch t.Elem() {
	case feature.Int64:
		w.class = wireInt64
	case feature.Int32:
		w.class = wireInt32
	case feature.Timestamp:
		w.class = wireTime
	case feature.Float64:
		w.class = wireFloat64
	case feature.Float32:
		w.class = wireFloat32
	case feature.String:
		w.class = wireString
	case feature.Bool:
		w.class = wireBool
	case feature.Bytes:
		w.class = wireBytes
	}
	return w
}

const (
	mpNil     = 0xc0
	mpFloat32 = 0xca
	mpFloat64 = 0xcb
)

// inRun marks an offset at which the bits of a float lie, as a run has them, without the
// byte that says what follows. Payloads are far shorter than the offsets below it.
const inRun = 1 << 31

// index checks that b is one array of exactly the given wires with nothing after it, and
// returns where each value begins. The error matches feature.ErrCorrupt.
func index(b []byte, wires []wire, dst []uint32) ([]uint32, error) {
	n, pos, ok := arrayHeader(b, 0)
	if !ok || len(b) >= inRun {
		return nil, fmt.Errorf("%w: features are no array of %d", feature.ErrCorrupt, len(wires))
	}
	elements := 0
	for i := 0; i < len(wires); elements++ {
		w := wires[i]
		// The common case, 8-byte floats, without a call.
		if w.class == wireFloat64 && !w.list && pos+9 <= len(b) && b[pos] == mpFloat64 {
			dst = append(dst, uint32(pos))
			pos += 9
			i++
			continue
		}
		if pos < len(b) && feature.IsRun(b[pos]) {
			run, ok := feature.RunAt(b, pos)
			if !ok || run.Count > len(wires)-i || !runFits(run, wires[i:i+run.Count]) {
				return nil, fmt.Errorf("%w: a run that begins with feature %d", feature.ErrCorrupt, i)
			}
			pos = run.First
			for range run.Count {
				dst = append(dst, uint32(pos)|inRun)
				pos += run.Width
			}
			i += run.Count
			continue
		}
		dst = append(dst, uint32(pos))
		if pos = skip(b, pos, w); pos < 0 {
			return nil, fmt.Errorf("%w: feature %d", feature.ErrCorrupt, i)
		}
		i++
	}
	if n != elements {
		return nil, fmt.Errorf("%w: an array of %d, and %d make up the %d features", feature.ErrCorrupt, n, elements, len(wires))
	}
	if pos != len(b) {
		return nil, fmt.Errorf("%w: %d bytes after the features", feature.ErrCorrupt, len(b)-pos)
	}
	return dst, nil
}

// runFits reports whether the numbers of a run can be values of the wires.
func runFits(run feature.Run, wires []wire) bool {
	want := wire{class: wireFloat64}
	if run.Width == feature.RunFloat32 {
		want.class = wireFloat32
	}
	for _, w := range wires {
		if w != want {
			return false
		}
	}
	return true
}

// skip returns the position after the value at pos, or -1 when it is none of type w.
func skip(b []byte, pos int, w wire) int {
	if pos < len(b) && b[pos] == mpNil {
		return pos + 1
	}
	if !w.list {
		return skipScalar(b, pos, w.class)
	}
	n, pos, ok := arrayHeader(b, pos)
	if !ok {
		return -1
	}
	for range n { // however large n claims to be, it ends with the bytes
		if pos < len(b) && b[pos] == mpNil {
			pos++
			continue
		}
		if pos = skipScalar(b, pos, w.class); pos < 0 {
			return -1
		}
	}
	return pos
}

func skipScalar(b []byte, pos int, c wireClass) int {
	if pos >= len(b) {
		return -1
	}
	end := -1
	switch c {
	case wireInt64, wireTime:
		_, end = integer(b, pos)
	case wireInt32:
		var n int64
		if n, end = integer(b, pos); n < math.MinInt32 || n > math.MaxInt32 {
			return -1
		}
	case wireFloat64:
		if b[pos] == mpFloat64 {
			end = pos + 9
		}
	case wireFloat32:
		if b[pos] == mpFloat32 {
			end = pos + 5
		}
	case wireBool:
		if b[pos] == 0xc2 || b[pos] == 0xc3 {
			end = pos + 1
		}
	case wireString, wireBytes:
		_, end = text(b, pos, c)
	}
	if end > len(b) {
		return -1
	}
	return end
}

func arrayHeader(b []byte, pos int) (n, next int, ok bool) {
	switch rest := len(b) - pos; {
	case rest >= 1 && b[pos]&0xf0 == 0x90:
		return int(b[pos] & 0x0f), pos + 1, true
	case rest >= 3 && b[pos] == 0xdc:
		return int(binary.BigEndian.Uint16(b[pos+1:])), pos + 3, true
	case rest >= 5 && b[pos] == 0xdd:
		return int(binary.BigEndian.Uint32(b[pos+1:])), pos + 5, true
	}
	return 0, 0, false
}

// integer reads any MessagePack integer that fits an int64; end is -1 for anything else.
func integer(b []byte, pos int) (n int64, end int) {
	lead := b[pos]
	if lead <= 0x7f || lead >= 0xe0 {
		return int64(int8(lead)), pos + 1
	}
	rest := b[pos+1:]
	switch lead {
	case 0xcc:
		if len(rest) >= 1 {
			return int64(rest[0]), pos + 2
		}
	case 0xcd:
		if len(rest) >= 2 {
			return int64(binary.BigEndian.Uint16(rest)), pos + 3
		}
	case 0xce:
		if len(rest) >= 4 {
			return int64(binary.BigEndian.Uint32(rest)), pos + 5
		}
	case 0xcf:
		if len(rest) >= 8 {
			if u := binary.BigEndian.Uint64(rest); u <= math.MaxInt64 {
				return int64(u), pos + 9
			}
		}
	case 0xd0:
		if len(rest) >= 1 {
			return int64(int8(rest[0])), pos + 2
		}
	case 0xd1:
		if len(rest) >= 2 {
			return int64(int16(binary.BigEndian.Uint16(rest))), pos + 3
		}
	case 0xd2:
		if len(rest) >= 4 {
			return int64(int32(binary.BigEndian.Uint32(rest))), pos + 5
		}
	case 0xd3:
		if len(rest) >= 8 {
			return int64(binary.BigEndian.Uint64(rest)), pos + 9
		}
	}
	return 0, -1
}

// text reads a string or a byte string; end is -1 for anything else.
func text(b []byte, pos int, c wireClass) (s []byte, end int) {
	lead, rest := b[pos], b[pos+1:]
	size, n := -1, 0
	if c == wireString && lead&0xe0 == 0xa0 {
		size, n = 0, int(lead&0x1f)
	} else {
		first := byte(0xd9)
		if c == wireBytes {
			first = 0xc4
		}
		switch {
		case lead == first && len(rest) >= 1:
			size, n = 1, int(rest[0])
		case lead == first+1 && len(rest) >= 2:
			size, n = 2, int(binary.BigEndian.Uint16(rest))
		case lead == first+2 && len(rest) >= 4:
			size, n = 4, int(binary.BigEndian.Uint32(rest))
		}
	}
	if size < 0 || n > len(rest)-size {
		return nil, -1
	}
	return rest[size : size+n], pos + 1 + size + n
}

// valueAt decodes the value that index found at offset. Strings share b.
func valueAt(b []byte, offset uint32, w wire) feature.Value {
	pos := int(offset &^ inRun)
	if offset&inRun != 0 {
		if w.class == wireFloat32 {
			return feature.Float32Value(math.Float32frombits(binary.BigEndian.Uint32(b[pos:])))
		}
		return feature.Float64Value(math.Float64frombits(binary.BigEndian.Uint64(b[pos:])))
	}
	if b[pos] == mpNil {
		return feature.Null
	}
	if !w.list {
		v, _ := scalarAt(b, pos, w.class)
		return v
	}
	n, pos, _ := arrayHeader(b, pos)
	list := make([]feature.Value, n)
	for i := range list {
		if b[pos] == mpNil {
			pos++
			continue
		}
		list[i], pos = scalarAt(b, pos, w.class)
	}
	return feature.ListValue(list...)
}

func scalarAt(b []byte, pos int, c wireClass) (feature.Value, int) {
	switch c {
	case wireInt64, wireInt32:
		n, end := integer(b, pos)
		return feature.IntValue(n), end
	case wireTime:
		n, end := integer(b, pos)
		return feature.TimestampValue(feature.Micros(n)), end
	case wireFloat64:
		return feature.Float64Value(math.Float64frombits(binary.BigEndian.Uint64(b[pos+1:]))), pos + 9
	case wireFloat32:
		return feature.Float32Value(math.Float32frombits(binary.BigEndian.Uint32(b[pos+1:]))), pos + 5
	case wireBool:
		return feature.BoolValue(b[pos] == 0xc3), pos + 1
	case wireString:
		s, end := text(b, pos, c)
		return feature.StringValue(unsafe.String(unsafe.SliceData(s), len(s))), end // payloads never change
	}
	s, end := text(b, pos, c)
	return feature.BytesValue(s), end
}

// float32At is valueAt for a model's input: a number or bool, NaN for null and for what is
// no number. [Vector.Fill] has its common cases once more, without the call.
func float32At(b []byte, offset uint32, w wire) float32 {
	pos := int(offset &^ inRun)
	switch {
	case offset&inRun != 0 && w.class == wireFloat32:
		return math.Float32frombits(binary.BigEndian.Uint32(b[pos:]))
	case offset&inRun != 0:
		return float32(math.Float64frombits(binary.BigEndian.Uint64(b[pos:])))
	case w.list || b[pos] == mpNil:
		return float32(math.NaN())
	case b[pos] == mpFloat64:
		return float32(math.Float64frombits(binary.BigEndian.Uint64(b[pos+1:])))
	case b[pos] == mpFloat32:
		return math.Float32frombits(binary.BigEndian.Uint32(b[pos+1:]))
	}
	v, _ := scalarAt(b, pos, w.class)
	return v.Float32()
}
