package feature

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"github.com/tinylib/msgp/msgp"
)

// The bytes of a stored value, the same in Redis and DynamoDB (docs/FORMAT.md):
//
//	offset 0      format byte: FormatValue, FormatRuns or FormatTombstone
//	offset 1..8   schema fingerprint, big-endian (see [View.Fingerprint])
//	offset 9..32  version (see [Version])
//	offset 33..36 CRC-32C of everything before and after it, big-endian
//	offset 37..   FormatValue: the features as one MessagePack array in declared order
//	              FormatRuns: the same, and at least one element is a run (see MinRun)
const (
	FormatValue     = 0x01
	FormatTombstone = 0x02
	FormatRuns      = 0x03

	// VersionOffset is where the 24 version bytes begin. Scripts rely on it.
	VersionOffset = 9
	// ChecksumOffset is where the 4 bytes of the checksum begin, right after the version.
	ChecksumOffset = VersionOffset + VersionSize
	// HeaderSize is the length of everything before the features.
	HeaderSize = ChecksumOffset + 4
)

// castagnoli is the polynomial that processors have an instruction for: checking a value
// of 500 bytes costs some 50 ns.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal writes the checksum into a whole payload.
func seal(payload []byte) {
	binary.BigEndian.PutUint32(payload[ChecksumOffset:], checksum(payload))
}

func checksum(payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(payload[:ChecksumOffset], castagnoli), castagnoli, payload[HeaderSize:])
}

// Header is the fixed front of a payload.
type Header struct {
	Fingerprint uint64
	Version     Version
	Tombstone   bool // the key was deleted at Version; no features follow
}

// AppendPayload appends the header and the encoded features (see [AppendFeatures]) to dst.
// A tombstone has no features: pass nil. The checksum covers what is passed: features that
// are appended afterwards make a damaged payload.
func AppendPayload(dst []byte, h Header, features []byte) []byte {
	format := byte(FormatValue)
	switch {
	case h.Tombstone:
		format = FormatTombstone
	case hasRuns(features):
		format = FormatRuns
	}
	start := len(dst)
	dst = append(dst, format)
	dst = binary.BigEndian.AppendUint64(dst, h.Fingerprint)
	dst = h.Version.Append(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, features...)
	seal(dst[start:])
	return dst
}

// ParsePayload reads the header and returns the encoded features that follow it. It
// matches ErrUnknownFormat for a format byte of another release and ErrCorrupt for bytes
// that are too short, too long for a tombstone, or not those that were written. The
// features share b.
func ParsePayload(b []byte) (Header, []byte, error) {
	if len(b) == 0 {
		return Header{}, nil, fmt.Errorf("%w: empty payload", ErrCorrupt)
	}
	if b[0] != FormatValue && b[0] != FormatTombstone && b[0] != FormatRuns {
		return Header{}, nil, fmt.Errorf("%w: format byte 0x%02x", ErrUnknownFormat, b[0])
	}
	if len(b) < HeaderSize {
		return Header{}, nil, fmt.Errorf("%w: %d bytes, a header has %d", ErrCorrupt, len(b), HeaderSize)
	}
	if binary.BigEndian.Uint32(b[ChecksumOffset:]) != checksum(b) {
		return Header{}, nil, fmt.Errorf("%w: the checksum does not match", ErrCorrupt)
	}
	v, err := ParseVersion(b[VersionOffset:ChecksumOffset])
	if err != nil {
		return Header{}, nil, err
	}
	h := Header{Fingerprint: binary.BigEndian.Uint64(b[1:VersionOffset]), Version: v, Tombstone: b[0] == FormatTombstone}
	if h.Tombstone && len(b) != HeaderSize {
		return Header{}, nil, fmt.Errorf("%w: tombstone with %d bytes after its header", ErrCorrupt, len(b)-HeaderSize)
	}
	return h, b[HeaderSize:], nil
}

// IsValue reports whether a payload begins as one that holds features does.
func IsValue(payload []byte) bool {
	return len(payload) > 0 && (payload[0] == FormatValue || payload[0] == FormatRuns)
}

// SetVersion overwrites the version inside an encoded payload. It is how a value whose
// content is already stored under an earlier run is sent on with the stored version.
func SetVersion(payload []byte, v Version) {
	v.Append(payload[VersionOffset:VersionOffset])
	seal(payload)
}

// ContentHash is a 64-bit hash of what a payload says apart from its version (and the
// checksum over it): format, fingerprint and features. Equal content under equal times costs no write.
func ContentHash(payload []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	if len(payload) < HeaderSize {
		_, _ = d.Write(payload)
		return d.Sum64()
	}
	_, _ = d.Write(payload[:VersionOffset])
	_, _ = d.Write(payload[HeaderSize:])
	return d.Sum64()
}

// AppendFeatures appends the MessagePack array of values, runs of floats as [PackRuns]
// stores them. Each value must be null or of
// its field's type; another type is an error matching ErrInvalid and dst is unchanged.
func AppendFeatures(dst []byte, fields []Field, values []Value) ([]byte, error) {
	if len(values) != len(fields) {
		return dst, fmt.Errorf("encode features: %w: %d values for %d features", ErrInvalid, len(values), len(fields))
	}
	out := AppendArrayHeader(dst, len(values))
	for i, v := range values {
		if !v.Is(fields[i].Type) {
			return dst, fmt.Errorf("encode feature %q: %w: value is no %s", fields[i].Name, ErrInvalid, fields[i].Type)
		}
		out = AppendValue(out, v)
	}
	return PackRuns(out, len(dst)), nil
}

// AppendArrayHeader starts an array of n values. Together with [AppendValue] and
// [PackRuns] it lets a writer that has typed columns encode without building []Value.
func AppendArrayHeader(dst []byte, n int) []byte { return msgp.AppendArrayHeader(dst, uint32(n)) }

// AppendValue appends one value in MessagePack: nil, int (shortest form), float 64 (9
// bytes), float 32 (5 bytes), str, bool, bin, a timestamp as int of microseconds, array.
func AppendValue(dst []byte, v Value) []byte {
	switch v.kind {
	case kindInt, kindTime:
		return msgp.AppendInt64(dst, int64(v.num))
	case kindFloat64:
		return msgp.AppendFloat64(dst, math.Float64frombits(v.num))
	case kindFloat32:
		return msgp.AppendFloat32(dst, math.Float32frombits(uint32(v.num)))
	case kindString:
		return msgp.AppendString(dst, v.str)
	case kindBool:
		return msgp.AppendBool(dst, v.num == 1)
	case kindBytes:
		return msgp.AppendBytes(dst, unsafeBytes(v.str))
	case kindList:
		dst = msgp.AppendArrayHeader(dst, uint32(len(v.list)))
		for _, e := range v.list {
			dst = AppendValue(dst, e)
		}
		return dst
	}
	return msgp.AppendNil(dst)
}

// DecodeFeatures reads the MessagePack array into dst (reused when it has room), which
// then has one value per field. It matches ErrCorrupt for anything but exactly the
// declared number and types of values with nothing after them; it never guesses. String
// values share b: do not change b while they live.
func DecodeFeatures(b []byte, fields []Field, dst []Value) ([]Value, error) {
	n, rest, err := msgp.ReadArrayHeaderBytes(b)
	if err != nil {
		return nil, fmt.Errorf("%w: features are no array: %v", ErrCorrupt, err)
	}
	if dst = dst[:0]; cap(dst) < len(fields) {
		dst = make([]Value, 0, len(fields))
	}
	elements := 0
	for ; len(dst) < len(fields); elements++ {
		if len(rest) > 0 && IsRun(rest[0]) {
			if dst, rest, err = readRun(rest, fields, dst); err != nil {
				return nil, err
			}
			continue
		}
		i := len(dst)
		var v Value
		if v, rest, err = readValue(rest, fields[i].Type); err != nil {
			return nil, fmt.Errorf("%w: feature %q: %v", ErrCorrupt, fields[i].Name, err)
		}
		dst = append(dst, v)
	}
	if int64(n) != int64(elements) {
		return nil, fmt.Errorf("%w: an array of %d, and %d make up the %d features", ErrCorrupt, n, elements, len(fields))
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%w: %d bytes after the features", ErrCorrupt, len(rest))
	}
	return dst, nil
}

// readRun appends the numbers of the run that begins b.
func readRun(b []byte, fields []Field, dst []Value) ([]Value, []byte, error) {
	i := len(dst)
	r, ok := RunAt(b, 0)
	if !ok {
		return nil, nil, fmt.Errorf("%w: feature %q: not a whole run of floats", ErrCorrupt, fields[i].Name)
	}
	if r.Count > len(fields)-i {
		return nil, nil, fmt.Errorf("%w: feature %q: a run of %d floats, and %d features are left", ErrCorrupt, fields[i].Name, r.Count, len(fields)-i)
	}
	want := r.Type()
	for k := i; k < i+r.Count; k++ {
		if f := &fields[k]; f.Type != want {
			return nil, nil, fmt.Errorf("%w: feature %q: %s in a run of %s", ErrCorrupt, f.Name, f.Type, want)
		}
	}
	dst = dst[:i+r.Count] // it has room for every field
	r.values(dst[i:], b)
	return dst, b[r.First+r.Width*r.Count:], nil
}

func readValue(b []byte, t Type) (Value, []byte, error) {
	if msgp.IsNil(b) {
		rest, err := msgp.ReadNilBytes(b)
		return Null, rest, err
	}
	switch t {
	case Int64, Int32, Timestamp:
		n, rest, err := msgp.ReadInt64Bytes(b)
		if err != nil {
			return Null, b, err
		}
		if t == Timestamp {
			return TimestampValue(Micros(n)), rest, nil
		}
		if v := IntValue(n); v.Is(t) {
			return v, rest, nil
		}
		return Null, b, fmt.Errorf("%d is out of range for %s", n, t)
	case Float64:
		if msgp.NextType(b) != msgp.Float64Type {
			return Null, b, fmt.Errorf("not a float64")
		}
		f, rest, err := msgp.ReadFloat64Bytes(b)
		return Float64Value(f), rest, err
	case Float32:
		if msgp.NextType(b) != msgp.Float32Type {
			return Null, b, fmt.Errorf("not a float32")
		}
		f, rest, err := msgp.ReadFloat32Bytes(b)
		return Float32Value(f), rest, err
	case String:
		s, rest, err := msgp.ReadStringZC(b)
		return Value{kind: kindString, str: unsafeString(s)}, rest, err
	case Bool:
		v, rest, err := msgp.ReadBoolBytes(b)
		return BoolValue(v), rest, err
	case Bytes:
		s, rest, err := msgp.ReadBytesZC(b)
		return Value{kind: kindBytes, str: unsafeString(s)}, rest, err
	}
	if !t.IsList() {
		return Null, b, fmt.Errorf("unknown type %s", t)
	}
	n, rest, err := msgp.ReadArrayHeaderBytes(b)
	if err != nil {
		return Null, b, err
	}
	if int64(n) > int64(len(rest)) { // each element has at least one byte: do not trust n
		return Null, b, fmt.Errorf("list of %d elements in %d bytes", n, len(rest))
	}
	list := make([]Value, n)
	for i := range list {
		if list[i], rest, err = readValue(rest, t.Elem()); err != nil {
			return Null, b, err
		}
	}
	return ListValue(list...), rest, nil
}

// unsafeString views b as a string without copying. The callers document that b must not
// change while the value lives.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
