package feature

import (
	"encoding/binary"
	"math"

	"github.com/tinylib/msgp/msgp"
)

// Consecutive numbers of one width are stored without a byte in front of each: MinRun or
// more floats of the same type, none of them null, are one element of the array, a
// MessagePack extension whose type is their width and whose data are their bits,
// big-endian. From MinRun on that is always shorter than the numbers one by one, and since
// the longest run is always taken, equal values give equal bytes. Lists hold no runs.
const (
	// RunFloat32 and RunFloat64 are the extension types of a run: the width of its numbers.
	RunFloat32 = 4
	RunFloat64 = 8
	// MinRun is the least number of floats that is stored as a run. A fourth float32 makes
	// up for the header of 2 or 3 bytes, and so does a fourth float64.
	MinRun = 4
)

const (
	mpFloat32  = 0xca
	mpFloat64  = 0xcb
	mpExt8     = 0xc7
	mpExt32    = 0xc9
	mpFixExt1  = 0xd4
	mpFixExt16 = 0xd8
)

// Run is one element that holds several features.
type Run struct {
	Width int // RunFloat32 or RunFloat64
	First int // where the first number begins
	Count int // at least 1; the element ends at First + Width*Count
}

// IsRun reports whether an element that begins with lead can be a run.
func IsRun(lead byte) bool {
	return lead >= mpExt8 && lead <= mpExt32 || lead >= mpFixExt1 && lead <= mpFixExt16
}

// RunAt reads the run that begins at b[pos]; ok is false for anything else, another
// extension, no numbers, part of one, or more than there are bytes.
func RunAt(b []byte, pos int) (r Run, ok bool) {
	if pos >= len(b) || !IsRun(b[pos]) {
		return Run{}, false
	}
	var size uint64
	data := b[pos+1:]
	if lead := b[pos]; lead >= mpFixExt1 {
		size = 1 << (lead - mpFixExt1)
	} else {
		field := 1 << (lead - mpExt8)
		if len(data) < field {
			return Run{}, false
		}
		switch field {
		case 1:
			size = uint64(data[0])
		case 2:
			size = uint64(binary.BigEndian.Uint16(data))
		default:
			size = uint64(binary.BigEndian.Uint32(data))
		}
		data = data[field:]
	}
	if len(data) == 0 || size == 0 || size > uint64(len(data)-1) {
		return Run{}, false
	}
	r.Width = int(data[0])
	if r.Width != RunFloat32 && r.Width != RunFloat64 || size%uint64(r.Width) != 0 {
		return Run{}, false
	}
	r.First, r.Count = len(b)-len(data)+1, int(size)/r.Width
	return r, true
}

// Type is the type of the features that the run holds.
func (r Run) Type() Type {
	if r.Width == RunFloat32 {
		return Float32
	}
	return Float64
}

// values writes the run's numbers over dst, which has Count places.
func (r Run) values(dst []Value, b []byte) {
	data := b[r.First : r.First+r.Width*r.Count]
	if r.Width == RunFloat32 {
		for i := range dst {
			dst[i] = Value{kind: kindFloat32, num: uint64(binary.BigEndian.Uint32(data[4*i:]))}
		}
		return
	}
	for i := range dst {
		dst[i] = Value{kind: kindFloat64, num: binary.BigEndian.Uint64(data[8*i:])}
	}
}

// PackRuns stores the runs of floats in the array that begins at b[start:] and ends with
// b, as a writer leaves it that appended its values one by one. It returns b with the
// shorter array in its place; bytes that are no array stay as they are.
func PackRuns(b []byte, start int) []byte {
	singles := b[start:]
	n, pos, ok := arrayHeader(singles)
	if !ok {
		return b
	}
	// First what the runs save in elements: the header comes before them.
	elements, at := 0, pos
	for left := n; left > 0; elements++ {
		k := floats(singles, at, left)
		if k < MinRun {
			k = 1
			if at = skip(singles, at); at < 0 {
				return b
			}
		} else {
			at += k * (1 + width(singles[at]))
		}
		left -= k
	}
	if elements == n || at != len(singles) {
		return b
	}
	end := len(b)
	out := AppendArrayHeader(b, elements)
	for left := n; left > 0; {
		k := floats(singles, pos, left)
		if k < MinRun {
			next := skip(singles, pos)
			out = append(out, singles[pos:next]...)
			pos, left = next, left-1
			continue
		}
		out = appendRunHeader(out, width(singles[pos]), k)
		left -= k
		if singles[pos] == mpFloat32 {
			for ; k > 0; k-- {
				out = binary.BigEndian.AppendUint32(out, binary.BigEndian.Uint32(singles[pos+1:]))
				pos += 5
			}
			continue
		}
		for ; k > 0; k-- {
			out = binary.BigEndian.AppendUint64(out, binary.BigEndian.Uint64(singles[pos+1:]))
			pos += 9
		}
	}
	return append(out[:start], out[end:]...)
}

func appendRunHeader(dst []byte, width, count int) []byte {
	size := width * count
	switch {
	case size == 16: // the only fixed size that a run of four or more has
		return append(dst, mpFixExt16, byte(width))
	case size <= math.MaxUint8:
		return append(dst, mpExt8, byte(size), byte(width))
	case size <= math.MaxUint16:
		return append(binary.BigEndian.AppendUint16(append(dst, mpExt8+1), uint16(size)), byte(width))
	}
	return append(binary.BigEndian.AppendUint32(append(dst, mpExt32), uint32(size)), byte(width))
}

// floats is how many of the next values, of most, are floats of one type.
func floats(b []byte, pos, most int) int {
	if pos >= len(b) || b[pos] != mpFloat32 && b[pos] != mpFloat64 {
		return 0
	}
	lead, step := b[pos], 1+width(b[pos])
	k := 0
	for k < most && pos+step <= len(b) && b[pos] == lead {
		k++
		pos += step
	}
	return k
}

func width(lead byte) int {
	if lead == mpFloat32 {
		return RunFloat32
	}
	return RunFloat64
}

// hasRuns reports whether the array has an element that is a run. It is what decides the
// format byte, so it must say the same of the same bytes, whatever they are.
func hasRuns(features []byte) bool {
	n, pos, ok := arrayHeader(features)
	if !ok {
		return false
	}
	for ; n > 0 && pos >= 0 && pos < len(features); n-- {
		if IsRun(features[pos]) {
			return true
		}
		pos = skip(features, pos)
	}
	return false
}

func arrayHeader(b []byte) (n, next int, ok bool) {
	size, rest, err := msgp.ReadArrayHeaderBytes(b)
	return int(size), len(b) - len(rest), err == nil
}

// skip returns the position after the element at pos, -1 where there is none that is whole.
func skip(b []byte, pos int) int {
	if pos >= len(b) {
		return -1
	}
	var size int
	switch lead := b[pos]; {
	case lead <= 0x7f || lead >= 0xe0 || lead == 0xc0 || lead == 0xc2 || lead == 0xc3:
		size = 1
	case lead == mpFloat32:
		size = 5
	case lead == mpFloat64:
		size = 9
	case lead&0xe0 == 0xa0:
		size = 1 + int(lead&0x1f)
	default:
		rest, err := msgp.Skip(b[pos:])
		if err != nil {
			return -1
		}
		return len(b) - len(rest)
	}
	if pos+size > len(b) {
		return -1
	}
	return pos + size
}
