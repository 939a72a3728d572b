package feature

import (
	"fmt"
	"math"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Ref names one stored value: an entity in one view version.
type Ref struct {
	View ViewID
	Key  Key
}

func (r Ref) String() string { return r.View.String() + "/" + string(r.Key) }

// Record is one value on its way to or from a tier.
type Record struct {
	Ref
	Version Version // equals the version inside Payload
	Payload []byte  // the stored bytes, header included; see [AppendPayload]
	// Online is the instant at which the online tier may forget the value (see
	// [OnlineExpiry]); NoTime for never. It is not stored in the backing tier.
	Online Micros
	// Retain is the instant after which the backing tier may delete the value; NoTime for
	// never. DynamoDB rounds it up to whole seconds.
	Retain Micros
}

// Tombstone reports whether the record says that the key was deleted.
func (r Record) Tombstone() bool { return len(r.Payload) > 0 && r.Payload[0] == FormatTombstone }

// NewRecord makes the record of a payload, with the lives that the view gives it. The
// version is read from the payload.
func NewRecord(v *View, key Key, payload []byte) (Record, error) {
	h, _, err := ParsePayload(payload)
	if err != nil {
		return Record{}, fmt.Errorf("record %s/%s: %w", v.ID(), key, err)
	}
	r := Record{Ref: Ref{View: v.ID(), Key: key}, Version: h.Version, Payload: payload, Online: NoTime, Retain: NoTime}
	if at, ok := OnlineExpiry(key, h.Version, v.TTL); ok {
		r.Online = at
	}
	if v.Retain > 0 {
		r.Retain = h.Version.Event.Add(v.Retain)
		// Redis never holds what the table no longer does. A tombstone is no value: its
		// marker lives as long as the online tier's guard against older writes.
		if !r.Tombstone() && (r.Online == NoTime || r.Retain < r.Online) {
			r.Online = r.Retain
		}
	}
	return r, nil
}

// Outcome is what a tier did with one record.
type Outcome uint8

// The outcomes of a put. Zero is Failed, so that a forgotten result is never success.
const (
	Failed    Outcome = iota // not stored; PutResult.Err says why
	Written                  // stored
	Unchanged                // the same content, or this very version, was there; nothing was written
	Older                    // the tier holds a newer version; nothing was written
	Expired                  // the value's life in this tier is over; nothing was written
)

func (o Outcome) String() string {
	return [...]string{"failed", "written", "unchanged", "older", "expired"}[o]
}

// PutResult is the outcome of one record.
type PutResult struct {
	Outcome Outcome
	// Stored is the version that the tier holds after the call, where the tier says it:
	// always for Written, and for Unchanged from the backing tier; else it may be zero.
	Stored Version
	Err    error // set exactly for Failed
}

// GetResult is the answer for one [Ref]. Exactly one of three holds: Err is set (the tier
// could not say), Payload is set (found; it may be a tombstone), or both are nil (the tier
// does not have it).
type GetResult struct {
	Payload []byte
	Err     error
}

// Tier names where an answer came from.
type Tier string

// The tiers of a read, from fast to durable.
const (
	TierCache   Tier = "cache"
	TierOnline  Tier = "online"
	TierBacking Tier = "backing"
	TierDefault Tier = "default"
)

// Status is the verdict on one value of an answer. The names are Feast's.
type Status string

// The statuses.
const (
	Present       Status = "PRESENT"
	NullValue     Status = "NULL_VALUE"
	NotFound      Status = "NOT_FOUND"
	OutsideMaxAge Status = "OUTSIDE_MAX_AGE"
	// Unknown says that no reachable tier had the value and at least one tier that could
	// have had it did not answer. The value is the default and must not be read as absent.
	Unknown Status = "UNKNOWN"
)

// maxSpread bounds how much longer than its TTL a value may stay in the online tier.
const maxSpread = 24 * time.Hour

// OnlineExpiry is the instant at which the online tier forgets a value: event time + TTL,
// plus up to 10 % of the TTL (at most a day) that depends on the key alone. It spreads the
// expiries of a batch that shares one event time. ok is false when the TTL is unbounded.
//
// It is a pure function, so materialize, rewarm and read repair give one value one
// absolute expiry and none of them prolongs a life; and it grows with the event time, so
// an older version of a key never outlives a newer one (docs/decisions). The spread only
// prolongs: a fresh value is always online, and a stale one is judged by its event time.
func OnlineExpiry(key Key, v Version, ttl time.Duration) (at Micros, ok bool) {
	if ttl <= 0 {
		return NoTime, false
	}
	spread := min(ttl/10, maxSpread)
	share := float64(xxhash.Sum64String(string(key))>>11) / (1 << 53)
	at = v.Event.Add(ttl).Add(time.Duration(share * float64(spread)))
	return at, at != math.MaxInt64
}

// ScanRequest asks the backing tier for one page of one segment.
type ScanRequest struct {
	Segment, Segments int    // 0 <= Segment < Segments
	Cursor            []byte // nil to begin; else ScanPage.Next of the page before
	Limit             int    // most records looked at in this page; 0 lets the tier choose
	Views             []ViewID
}

// ScanPage is one page. A caller passes the same ScanPage again to reuse its memory:
// Records and their payloads are valid until then. The memory of a payload belongs to the
// place of its record: a caller does not move records within the page.
type ScanPage struct {
	Records   []Record
	Next      []byte  // nil: the segment is done
	ReadUnits float64 // consumed read capacity; 0 where the tier has none
}

// Row is the latest (or a pushed) value of one entity as the offline side hands it over.
type Row struct {
	Key      Key
	Event    Micros
	Created  Micros // NoTime when the source has no created timestamp
	Deleted  bool   // a tombstone; Features is nil
	Features []byte // one MessagePack array in declared order; see [AppendFeatures]
}

// Reject is a source row that cannot become a value. It names the place and the reason,
// never a feature value.
type Reject struct {
	View   string `json:"view"`
	File   string `json:"file,omitempty"`
	Row    int64  `json:"row,omitempty"` // 1-based within the file; 0 when unknown
	Key    string `json:"key,omitempty"`
	Reason string `json:"reason"`
}

// File is one source file as a run saw it. Two Files with equal Path, Size, Modified and
// ETag have the same content, as far as a file system can tell.
type File struct {
	Path     string `json:"path"`
	Size     int64  `json:"size"`
	Modified Micros `json:"modified"`
	ETag     string `json:"etag,omitempty"`
}

// LatestRequest asks the offline side for the newest row per entity.
type LatestRequest struct {
	View  *View
	Files []File // the files to read; at least one
	// Start and End bound the event time, both inclusive; NoTime for no bound. A row after
	// End is not read, and its file is reported in LatestStats.Future.
	Start, End Micros
	Shard      int // with Shards > 1: only the entities of this shard, by key hash
	Shards     int
	Reject     func(Reject) // may be nil
	// Downloaded is told, before the first row, how many bytes are here of those that the read
	// has to download, from one goroutine at a time. May be nil.
	Downloaded func(done, total int64)
}

// LatestStats is what a read of latest values saw.
type LatestStats struct {
	RowsRead int64            `json:"rows_read"`
	Emitted  int64            `json:"emitted"`
	Rejected int64            `json:"rejected"`
	Reasons  map[string]int64 `json:"reasons,omitempty"`
	// Future lists the files that hold rows after LatestRequest.End: they stay pending.
	Future []string `json:"future,omitempty"`
	Newest Micros   `json:"newest"` // the newest event time emitted; NoTime when none
}

// ShardOf says which of n shards a key belongs to. Materialize shards and the SQLite
// scan segments use it, so that they can be spread over machines.
func ShardOf(key Key, n int) int {
	if n <= 1 {
		return 0
	}
	return int(xxhash.Sum64String(string(key)) % uint64(n))
}
