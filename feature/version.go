package feature

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// VersionSize is the length of an encoded [Version] in bytes.
const VersionSize = 24

// Version decides which of two values of one key is newer, in every tier. The order is
// event timestamp, then created timestamp, then run number.
//
// The run number makes a correction (same times, other content, later run) win and makes
// a stale run lose even without its lease.
type Version struct {
	Event   Micros // when the fact held
	Created Micros // when the row became known; NoTime when the source does not say
	Run     uint64 // the fencing number of the run that wrote it; only grows
}

// Append appends the 24 order-preserving big-endian bytes of v: comparing the bytes as
// unsigned numbers is comparing the versions.
func (v Version) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.Event)^(1<<63))
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.Created)^(1<<63))
	return binary.BigEndian.AppendUint64(dst, v.Run)
}

// Bytes returns the 24 bytes of v.
func (v Version) Bytes() []byte { return v.Append(make([]byte, 0, VersionSize)) }

// ParseVersion reads the 24 bytes that [Version.Append] wrote. Any other length is an error.
func ParseVersion(b []byte) (Version, error) {
	if len(b) != VersionSize {
		return Version{}, fmt.Errorf("%w: a version has %d bytes, not %d", ErrCorrupt, VersionSize, len(b))
	}
	return Version{
		Event:   Micros(binary.BigEndian.Uint64(b[0:8]) ^ (1 << 63)),
		Created: Micros(binary.BigEndian.Uint64(b[8:16]) ^ (1 << 63)),
		Run:     binary.BigEndian.Uint64(b[16:24]),
	}, nil
}

// Compare returns -1, 0 or +1 as v is older than, equal to or newer than o.
func (v Version) Compare(o Version) int {
	var a, b [VersionSize]byte
	return bytes.Compare(v.Append(a[:0]), o.Append(b[:0]))
}

// Floor is v with run 0: the smallest version with the same times. Stored versions below
// it are older in time; those at or above it (and below v) differ only by run.
func (v Version) Floor() Version { v.Run = 0; return v }

// SameTimes reports whether both versions have the same event and created timestamps.
func (v Version) SameTimes(o Version) bool { return v.Event == o.Event && v.Created == o.Created }

// IsZero reports whether v is the zero Version, which no stored value carries.
func (v Version) IsZero() bool { return v == Version{} }

// String shows the version for people; it is not a format.
func (v Version) String() string {
	return fmt.Sprintf("%s/%s/run %d", v.Event, v.Created, v.Run)
}

// Hex is the lower-case hexadecimal of the encoded bytes (the hash layout stores this).
func (v Version) Hex() string { return hex.EncodeToString(v.Bytes()) }
