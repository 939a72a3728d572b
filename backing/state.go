package backing

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hearthstore/hearth/feature"
)

// StateStore keeps small named items with compare-and-set: the coordination of runs.
// Reads are strongly consistent. Implementations are safe for concurrent use.
type StateStore interface {
	// GetState returns the item, or an error matching feature.ErrNotFound. An item whose
	// ExpireAt has passed may be returned or not.
	GetState(ctx context.Context, kind, name string) (StateItem, error)

	// PutState stores the item if its stored revision is item.Revision; 0 asks that the item
	// does not exist. It returns the item with its new revision, or an error matching
	// feature.ErrConflict, and then nothing changed. A write whose answer was lost and that
	// is repeated within the call is recognised and is no conflict.
	PutState(ctx context.Context, item StateItem) (StateItem, error)

	// DeleteState removes the item if its revision is the given one. An absent item is no
	// error; another revision is one that matches feature.ErrConflict.
	DeleteState(ctx context.Context, kind, name string, revision int64) error

	// ListState returns the items of a kind ordered by name (bytewise).
	ListState(ctx context.Context, kind string, opt ListOptions) ([]StateItem, error)
}

// StateItem is one named item.
type StateItem struct {
	Kind, Name string
	Value      []byte // JSON by convention
	// Revision identifies one write of the item: it is opaque, never 0, and differs for every
	// write, also after a deletion. Compare it only for equality.
	Revision int64
	// ExpireAt is when the store may delete the item by itself; NoTime for never.
	ExpireAt feature.Micros
}

// ListOptions bounds a list. The zero value lists everything, ascending.
type ListOptions struct {
	After      string // only names after this one, in the direction of the list; "" for all
	Prefix     string // only names that begin so
	Limit      int    // at most so many; 0 for all
	Descending bool
}

// Limits of state items, the same in every store (DynamoDB allows a little more).
const (
	MaxStateBytes     = 360 << 10
	MaxStateNameBytes = 1024
	MaxStateKindBytes = 512
)

// CheckState says why an item cannot be stored, or returns nil.
func CheckState(kind, name string, value []byte) error {
	switch {
	case kind == "" || len(kind) > MaxStateKindBytes:
		return fmt.Errorf("%w: a state kind has 1 to %d bytes, not %d", feature.ErrInvalid, MaxStateKindBytes, len(kind))
	case name == "" || len(name) > MaxStateNameBytes:
		return fmt.Errorf("%w: a state name has 1 to %d bytes, not %d", feature.ErrInvalid, MaxStateNameBytes, len(name))
	case len(value) > MaxStateBytes:
		return fmt.Errorf("%w: state %s/%s has %d bytes, the limit is %d", feature.ErrInvalid, kind, name, len(value), MaxStateBytes)
	}
	return nil
}

// NewRevision returns a fresh revision for one write. It is random rather than counted, so
// that two writers that compute the same next value are still told apart when one of them
// repeats a write whose answer it lost, and so that an item deleted and made anew never
// has an old revision.
func NewRevision() (int64, error) {
	var b [8]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return 0, fmt.Errorf("new state revision: %w", err)
		}
		// 53 bits: exact as a JSON number in every tool that may read the table.
		if r := int64(binary.BigEndian.Uint64(b[:]) >> 11); r != 0 {
			return r, nil
		}
	}
}

// LoadJSON reads the item's value into v and returns its revision. An absent item leaves v
// alone and returns revision 0 and no error: what SaveJSON takes to create it.
func LoadJSON(ctx context.Context, s StateStore, kind, name string, v any) (revision int64, err error) {
	item, err := s.GetState(ctx, kind, name)
	if errors.Is(err, feature.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if err := json.Unmarshal(item.Value, v); err != nil {
		return 0, fmt.Errorf("state %s/%s: %w: %v", kind, name, feature.ErrCorrupt, err)
	}
	return item.Revision, nil
}

// SaveJSON stores v as the item's value if its revision is still the given one (0: it does
// not exist) and returns the new revision, or an error matching feature.ErrConflict.
func SaveJSON(ctx context.Context, s StateStore, kind, name string, revision int64, v any) (int64, error) {
	return saveJSON(ctx, s, StateItem{Kind: kind, Name: name, Revision: revision, ExpireAt: feature.NoTime}, v)
}

func saveJSON(ctx context.Context, s StateStore, item StateItem, v any) (int64, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("state %s/%s: %w", item.Kind, item.Name, err)
	}
	item.Value = value
	item, err = s.PutState(ctx, item)
	if err != nil {
		return 0, err
	}
	return item.Revision, nil
}

// UpdateJSON changes an item under contention: it loads v (or leaves it as fresh returns it
// when the item is absent), calls change, and stores the result; on a conflict it begins
// again. An error of change ends it and nothing is stored. Each conflict means that another
// writer got through, so it ends when the writers do, or with ctx.
func UpdateJSON[T any](ctx context.Context, s StateStore, kind, name string, fresh func() T, change func(*T) error) (T, error) {
	for {
		v := fresh()
		revision, err := LoadJSON(ctx, s, kind, name, &v)
		if err != nil {
			return v, err
		}
		if err := change(&v); err != nil {
			return v, err
		}
		if _, err = SaveJSON(ctx, s, kind, name, revision, v); err == nil {
			return v, nil
		}
		if !errors.Is(err, feature.ErrConflict) {
			return v, err
		}
		if ctx.Err() != nil {
			return v, fmt.Errorf("state %s/%s: %w", kind, name, context.Cause(ctx))
		}
	}
}

// DeleteJSON removes an item whatever its revision. An absent item is no error.
func DeleteJSON(ctx context.Context, s StateStore, kind, name string) error {
	for {
		item, err := s.GetState(ctx, kind, name)
		if errors.Is(err, feature.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err = s.DeleteState(ctx, kind, name, item.Revision); !errors.Is(err, feature.ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("state %s/%s: %w", kind, name, context.Cause(ctx))
		}
	}
}
