package backing

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hearthstore/hearth/feature"
)

const (
	kindErasure = "erasure" // one item per erasure, named by its time and run; never expires
	kindSecret  = "secret"
	erasureKey  = "erasure"

	digestScheme = "hmac-sha256:"
)

// Erasure is the lasting record that an entity was erased. It names the entity by a digest
// only: HMAC-SHA-256 under a random key of the project, which lives in the state table. Keys
// are guessable (an account number has few digits), so a plain hash would give them away;
// with the state table, and only with it, one can check whether a given key was erased.
type Erasure struct {
	Run        uint64           `json:"run"`
	At         time.Time        `json:"at"`
	Holder     string           `json:"holder"`
	Entity     string           `json:"entity"` // the digest
	Status     string           `json:"status"` // running: it was begun, and nothing says that it ended
	Views      []feature.ViewID `json:"views"`
	GuardUntil *time.Time       `json:"guard_until,omitempty"`
}

type secret struct {
	Key []byte `json:"key"`
}

// Digester names keys without telling them.
type Digester struct{ key []byte }

// NewDigester loads the project's key, and makes it when there is none.
func NewDigester(ctx context.Context, s StateStore) (Digester, error) {
	made, err := UpdateJSON(ctx, s, kindSecret, erasureKey, func() secret { return secret{} }, func(k *secret) error {
		if len(k.Key) != 0 {
			return errKept
		}
		k.Key = make([]byte, sha256.Size)
		_, err := rand.Read(k.Key)
		return err
	})
	if err != nil && !errors.Is(err, errKept) {
		return Digester{}, fmt.Errorf("load the key of the erasure records: %w", err)
	}
	return Digester{made.Key}, nil
}

// errKept ends an update that has nothing to change.
var errKept = errors.New("kept as it is")

// Of is the digest of a key.
func (d Digester) Of(key feature.Key) string {
	h := hmac.New(sha256.New, d.key)
	h.Write([]byte(key))
	return digestScheme + hex.EncodeToString(h.Sum(nil))
}

// RecordErasure stores the record of an erasure, or replaces it when it ends.
func RecordErasure(ctx context.Context, s StateStore, e Erasure) error {
	e.At = e.At.UTC().Truncate(time.Microsecond)
	_, err := UpdateJSON(ctx, s, kindErasure, erasureName(e.At, e.Run, e.Entity), func() Erasure { return Erasure{} }, func(stored *Erasure) error {
		*stored = e
		return nil
	})
	if err != nil {
		return fmt.Errorf("record the erasure of %s: %w", e.Entity, err)
	}
	return nil
}

// Erasures returns the records since a time (the zero time: all), oldest first.
func Erasures(ctx context.Context, s StateStore, since time.Time) ([]Erasure, error) {
	opt := ListOptions{}
	if !since.IsZero() {
		opt.After = since.UTC().Format(dueLayout)
	}
	items, err := s.ListState(ctx, kindErasure, opt)
	if err != nil {
		return nil, fmt.Errorf("list erasures: %w", err)
	}
	out := make([]Erasure, len(items))
	for i, item := range items {
		if err := json.Unmarshal(item.Value, &out[i]); err != nil {
			return nil, fmt.Errorf("erasure %s: %w: %v", item.Name, feature.ErrCorrupt, err)
		}
	}
	return out, nil
}

// ErasedSince returns a function that tells the keys that were erased since a time; nil when
// there are none. Who keeps copies of keys asks it before storing them again.
func ErasedSince(ctx context.Context, s StateStore, since time.Time) (func(feature.Key) bool, error) {
	list, err := Erasures(ctx, s, since)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	digester, err := NewDigester(ctx, s)
	if err != nil {
		return nil, err
	}
	digests := make([]string, len(list))
	for i, e := range list {
		digests[i] = e.Entity
	}
	slices.Sort(digests)
	return func(key feature.Key) bool {
		_, found := slices.BinarySearch(digests, digester.Of(key))
		return found
	}, nil
}

// Guards returns a function that says until which moment the facts about a key are erased;
// nil when no guard is in force at now. Whoever writes rows asks it, because the deletions in
// the table cover only the view versions that existed when the entity was erased.
func Guards(ctx context.Context, s StateStore, now time.Time) (func(feature.Key) (feature.Micros, bool), error) {
	list, err := Erasures(ctx, s, time.Time{})
	if err != nil {
		return nil, err
	}
	erased := map[string]feature.Micros{}
	for _, e := range list {
		if e.GuardUntil != nil && e.GuardUntil.Before(now) {
			continue
		}
		// One that was begun and never ended may have erased something: it counts.
		erased[e.Entity] = max(feature.MicrosOf(e.At), erased[e.Entity])
	}
	if len(erased) == 0 {
		return nil, nil
	}
	digester, err := NewDigester(ctx, s)
	if err != nil {
		return nil, err
	}
	return func(key feature.Key) (feature.Micros, bool) {
		at, ok := erased[digester.Of(key)]
		return at, ok
	}, nil
}

func erasureName(at time.Time, run uint64, entity string) string {
	return at.UTC().Format(dueLayout) + "/" + runName(run) + "/" + entity[len(digestScheme):][:16]
}

// ScrubRuns passes every text of every ledger entry through replace, and stores the entries
// that it changed. It returns how many those were. The claims of due times name no keys.
func ScrubRuns(ctx context.Context, s StateStore, replace func(string) string) (changed int, err error) {
	jobs, err := s.ListState(ctx, kindJob, ListOptions{})
	if err != nil {
		return 0, fmt.Errorf("scrub the ledger: %w", err)
	}
	for _, job := range jobs {
		items, err := s.ListState(ctx, kindRuns+job.Name, ListOptions{})
		if err != nil {
			return changed, fmt.Errorf("scrub the ledger: %w", err)
		}
		for _, item := range items {
			did, err := scrubItem(ctx, s, item, replace)
			if err != nil {
				return changed, fmt.Errorf("scrub the ledger: run %s of %s: %w", item.Name, job.Name, err)
			}
			if did {
				changed++
			}
		}
	}
	return changed, nil
}

func scrubItem(ctx context.Context, s StateStore, item StateItem, replace func(string) string) (bool, error) {
	for {
		value, did, err := scrubJSON(item.Value, replace)
		if err != nil || !did {
			return false, err
		}
		item.Value = value
		_, err = s.PutState(ctx, item)
		if !errors.Is(err, feature.ErrConflict) {
			return err == nil, err
		}
		item, err = s.GetState(ctx, item.Kind, item.Name)
		if errors.Is(err, feature.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// scrubJSON replaces within the strings of a document, member names included.
func scrubJSON(doc []byte, replace func(string) string) (out []byte, changed bool, err error) {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber() // run numbers are larger than a float64 holds
	var v any
	if err := dec.Decode(&v); err != nil {
		return doc, false, fmt.Errorf("%w: %v", feature.ErrCorrupt, err)
	}
	var walk func(any) any
	text := func(s string) string {
		r := replace(s)
		changed = changed || r != s
		return r
	}
	walk = func(v any) any {
		switch x := v.(type) {
		case string:
			return text(x)
		case []any:
			for i := range x {
				x[i] = walk(x[i])
			}
		case map[string]any:
			clean := make(map[string]any, len(x))
			for name, member := range x {
				clean[text(name)] = walk(member)
			}
			return clean
		}
		return v
	}
	if v = walk(v); !changed {
		return doc, false, nil
	}
	out, err = json.Marshal(v)
	return out, true, err
}
