package backing

import (
	"context"
	"fmt"

	"github.com/hearthstore/hearth/feature"
)

// Store is one backing tier. Implementations are safe for concurrent use, by several
// processes at once, and keep the invariant that the version of a key never decreases.
type Store interface {
	// Put stores each record that is newer than what the store holds. A record is written
	// if and only if
	//
	//	the key is absent, or
	//	stored.r < record.Version.Floor()                             (older times), or
	//	stored.r < record.Version and stored.h <> ContentHash(record) (a correction).
	//
	// Otherwise the outcome is Unchanged (the same times and content under any run, or this
	// very version), with Stored the version that the store holds, or Older, with Stored the
	// newer version. Put is idempotent: sending a batch again, also after a lost answer,
	// reports Unchanged for what is there.
	//
	// The results are aligned with recs. Of a key that occurs more than once in recs only the
	// newest record is written; the others are judged against it ([LoserResult]). A record that fails does not stop the others: its result
	// is Failed with the reason, and it may or may not have reached the store (a later Put of
	// the same record is right in either case).
	//
	// The error is not nil only if nothing could be tried, and then the results are nil
	// (feature.ErrNotApplied, feature.ErrDenied, feature.ErrUnreachable), or if ctx ended:
	// then the results say what was done and the rest is Failed.
	Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error)

	// Get reads the values of refs. The results are aligned with refs; a ref given twice is
	// read once. What the store did not get to is retried until ctx ends and then has
	// Err matching feature.ErrThrottled or feature.ErrUnreachable: never "not found".
	// Tombstones are returned as they are. The error is not nil only if nothing could be
	// read at all; the results are nil then.
	Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error)

	// Scan reads one page of one segment into page, whose memory it reuses. Every value that
	// is in the store from before the first page of the first segment until after the last
	// page of the last one is returned at least once, over all segments and pages; values
	// written or deleted meanwhile may or may not be. There is no order. A page may be empty
	// and yet have Next. Record.Online is not filled; Record.Version is read from the
	// payload, and is zero if the payload is not readable.
	// A cursor is opaque, and good for the same Segment, Segments and Views, also in another
	// process and at another time.
	Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error

	// ViewsOf returns the view versions that hold a value or a tombstone of key, declared or not,
	// in any order.
	ViewsOf(ctx context.Context, key feature.Key) ([]feature.ViewID, error)

	// Delete removes values whatever their version. Absent ones are no error. It is meant for
	// erasing an entity and for retiring a view version, which are not bound by versions.
	// The results are aligned: nil is gone. The error is as in Put.
	Delete(ctx context.Context, refs []feature.Ref) ([]error, error)

	// Describe says what the store is and roughly how much it holds. The description is
	// usable also when there is an error: Reachable says whether the store answered.
	Describe(ctx context.Context) (Description, error)

	// Plan reports what Apply would do, and changes nothing. Apply creates what is missing
	// (tables, attributes, protections) and removes what has expired where the store does not
	// do that by itself; it is idempotent, and returns what it did. A table that exists with
	// another key schema is an error that names both.
	Plan(ctx context.Context) ([]Action, error)
	Apply(ctx context.Context) ([]Action, error)

	StateStore

	// Close releases connections. No other call may be running or follow.
	Close() error
}

// Description says what a store is.
type Description struct {
	Kind      string `json:"kind"`              // "dynamodb" or "sqlite"
	Name      string `json:"name"`              // the table or file
	Location  string `json:"location"`          // region and endpoint; "" for a file
	Reachable bool   `json:"reachable"`         // it answered
	Applied   bool   `json:"applied"`           // its tables exist
	Items     int64  `json:"items_estimate"`    // values, estimated
	Bytes     int64  `json:"bytes_estimate"`    // stored bytes, estimated
	Billing   string `json:"billing,omitempty"` // "on-demand", "provisioned" or ""
}

// The changes that an Action can be.
const (
	ChangeCreate      = "create"      // the resource is missing
	ChangeUpdate      = "update"      // the resource exists and differs
	ChangeRemove      = "remove"      // the resource is no longer needed
	ChangeNone        = "none"        // the resource is as it should be
	ChangeUnsupported = "unsupported" // the endpoint does not know this feature (emulators)
)

// Action is one step of a plan.
type Action struct {
	Resource string `json:"resource"` // "table", "ttl", "point-in-time recovery", …
	Name     string `json:"name"`     // the table or file that it belongs to
	Change   string `json:"change"`   // one of the Change constants
	Detail   string `json:"detail,omitempty"`
}

func (a Action) String() string {
	s := a.Change + " " + a.Resource + " of " + a.Name
	if a.Detail != "" {
		s += ": " + a.Detail
	}
	return s
}

// Limits that every store keeps, so that what works on a laptop works in production.
// They are DynamoDB's.
const (
	MaxItemBytes = 400 << 10 // one value with its key and attribute names
	MaxKeyBytes  = 2048      // the entity key
	MaxViewBytes = 1024      // the view and version
)

// itemOverhead is the size of the attribute names and fixed values of one item: names e, v,
// r, p, h, x; 24 bytes of version, 8 of hash, and the largest size of a number.
const itemOverhead = 6 + feature.VersionSize + 8 + 21

// CheckRecord says why a record cannot be stored, or returns nil. The error matches
// feature.ErrInvalid or feature.ErrCorrupt and names no feature value.
func CheckRecord(r *feature.Record) error {
	if err := CheckRef(r.Ref); err != nil {
		return err
	}
	h, _, err := feature.ParsePayload(r.Payload)
	if err != nil {
		return err
	}
	if h.Version != r.Version {
		return fmt.Errorf("%w: record says version %s, its payload %s", feature.ErrInvalid, r.Version, h.Version)
	}
	if size := itemOverhead + len(r.Key) + len(r.View.Name) + 12 + len(r.Payload); size > MaxItemBytes {
		return fmt.Errorf("%w: the item has %d bytes, the limit is %d; split the view", feature.ErrInvalid, size, MaxItemBytes)
	}
	return nil
}

// CheckRef says why a ref cannot name a stored value, or returns nil.
func CheckRef(r feature.Ref) error {
	switch {
	case r.Key == "":
		return fmt.Errorf("%w: empty entity key", feature.ErrInvalid)
	case len(r.Key) > MaxKeyBytes:
		return fmt.Errorf("%w: the entity key has %d bytes, the limit is %d", feature.ErrInvalid, len(r.Key), MaxKeyBytes)
	case r.View.Name == "" || r.View.Version < 1:
		return fmt.Errorf("%w: %q names no view version", feature.ErrInvalid, r.View.String())
	case len(r.View.Name) > MaxViewBytes-12:
		return fmt.Errorf("%w: the view name has %d bytes, the limit is %d", feature.ErrInvalid, len(r.View.Name), MaxViewBytes-12)
	}
	return nil
}

// Judge says what a refused write means, given what the store holds. again is true when
// the stored value does not explain the refusal (it changed meanwhile): the write condition
// holds now, so try again.
func Judge(stored feature.Version, storedHash uint64, v feature.Version, hash uint64) (outcome feature.Outcome, again bool) {
	switch order := stored.Compare(v); {
	case order == 0, stored.SameTimes(v) && storedHash == hash:
		return feature.Unchanged, false
	case order > 0:
		return feature.Older, false
	}
	return feature.Failed, true
}
