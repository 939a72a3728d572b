package feature

import (
	"math"
	"time"
)

// Micros is an instant in microseconds since the Unix epoch, UTC. Microseconds are the
// resolution of every time that Hearth compares: finer source times are truncated
// towards the past, so that a feature never looks older than its label when it is not.
type Micros int64

// NoTime stands for "not known" (an absent created timestamp). It sorts before every
// other instant.
const NoTime = Micros(math.MinInt64)

// MicrosOf converts a time, truncating to microseconds.
func MicrosOf(t time.Time) Micros { return Micros(t.UnixMicro()) }

// Time returns the instant as a UTC time. NoTime gives the zero time.
func (m Micros) Time() time.Time {
	if m == NoTime {
		return time.Time{}
	}
	return time.UnixMicro(int64(m)).UTC()
}

// Add returns m moved by d, saturating at the ends of the range.
func (m Micros) Add(d time.Duration) Micros {
	us := Micros(d / time.Microsecond)
	sum := m + us
	switch {
	case us > 0 && sum < m:
		return math.MaxInt64
	case us < 0 && sum > m:
		return NoTime
	}
	return sum
}

// Sub returns m-o as a duration, saturating.
func (m Micros) Sub(o Micros) time.Duration {
	d := int64(m) - int64(o)
	if (d > 0) != (m > o) && m != o {
		if m > o {
			return math.MaxInt64
		}
		return math.MinInt64
	}
	if d > math.MaxInt64/1000 {
		return math.MaxInt64
	}
	if d < math.MinInt64/1000 {
		return math.MinInt64
	}
	return time.Duration(d) * time.Microsecond
}

// String is RFC 3339 with microseconds, or "-" for NoTime.
func (m Micros) String() string {
	if m == NoTime {
		return "-"
	}
	return m.Time().Format("2006-01-02T15:04:05.999999Z07:00")
}
