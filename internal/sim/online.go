package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// Online is a fast tier in memory, with the semantics of the real one: add or newer,
// absolute expiry, deletions as markers with a short life, everything lost on Flush.
type Online struct {
	Inject Injector
	// Observe, if set, sees every change while the tier is locked. A loss has no payload.
	Observe func(ref feature.Ref, payload []byte, expiry feature.Micros)
	// TombstoneTTL is the life of a deletion's marker. Defaults to an hour.
	TombstoneTTL time.Duration
	// Compare orders the stored and a new version. Defaults to the order of versions; tests
	// break the rule with another.
	Compare func(stored, put feature.Version) int

	clock clock.Clock
	mu    sync.Mutex
	items map[feature.Ref]cached
	warm  uint64 // the run that marked it; 0: cold
}

type cached struct {
	version feature.Version
	payload []byte
	expiry  feature.Micros
}

// NewOnline returns an empty tier.
func NewOnline(c clock.Clock) *Online {
	return &Online{clock: c, TombstoneTTL: time.Hour, items: map[feature.Ref]cached{}}
}

// Put stores each record that is newer. The first Apply records of a faulted call take
// effect.
func (o *Online) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := o.Inject.at("online.put", len(recs))
	o.mu.Lock()
	defer o.mu.Unlock()
	results := make([]feature.PutResult, len(recs))
	for i := range recs {
		if f != nil && f.Record == nil && i >= f.Apply {
			break
		}
		if f != nil && f.Record != nil {
			if err := f.Record(i); err != nil {
				results[i].Err = err
				continue
			}
		}
		results[i] = o.put(&recs[i])
	}
	if f != nil && f.Record == nil {
		return nil, f.Err
	}
	return results, nil
}

func (o *Online) put(rec *feature.Record) feature.PutResult {
	h, _, err := feature.ParsePayload(rec.Payload)
	if err != nil || h.Version != rec.Version {
		return feature.PutResult{Err: fmt.Errorf("put %s: %w: payload and record disagree: %v", rec.Ref, feature.ErrInvalid, err)}
	}
	now := feature.MicrosOf(o.clock.Now())
	expiry := rec.Online
	if rec.Tombstone() {
		expiry = now.Add(o.TombstoneTTL)
	} else if expiry != feature.NoTime && expiry <= now {
		return feature.PutResult{Outcome: feature.Expired}
	}
	if old, ok := o.live(rec.Ref, now); ok {
		compare := feature.Version.Compare
		if o.Compare != nil {
			compare = o.Compare
		}
		switch order := compare(old.version, rec.Version); {
		case order == 0:
			return feature.PutResult{Outcome: feature.Unchanged, Stored: old.version}
		case order > 0:
			return feature.PutResult{Outcome: feature.Older}
		}
	}
	ref := feature.Ref{View: rec.View, Key: feature.Key(strings.Clone(string(rec.Key)))}
	payload := slices.Clone(rec.Payload)
	o.items[ref] = cached{version: rec.Version, payload: payload, expiry: expiry}
	if o.Observe != nil {
		o.Observe(ref, payload, expiry)
	}
	return feature.PutResult{Outcome: feature.Written, Stored: rec.Version}
}

func (o *Online) live(ref feature.Ref, now feature.Micros) (cached, bool) {
	item, ok := o.items[ref]
	if ok && item.expiry != feature.NoTime && item.expiry <= now {
		delete(o.items, ref)
		if o.Observe != nil {
			o.Observe(ref, nil, feature.NoTime)
		}
		return cached{}, false
	}
	return item, ok
}

// Get reads values. A faulted call with Record fails those refs only.
func (o *Online) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := o.Inject.at("online.get", len(refs))
	if f != nil && f.Record == nil {
		return nil, f.Err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := feature.MicrosOf(o.clock.Now())
	results := make([]feature.GetResult, len(refs))
	for i, ref := range refs {
		if f != nil {
			if results[i].Err = f.Record(i); results[i].Err != nil {
				continue
			}
		}
		if item, ok := o.live(ref, now); ok {
			results[i].Payload = slices.Clone(item.payload)
		}
	}
	return results, nil
}

// Scan reports the refs of a view, all at once.
func (o *Online) Scan(ctx context.Context, view feature.ViewID, fn func([]feature.Ref) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f := o.Inject.at("online.scan", 0); f != nil {
		return f.Err
	}
	var refs []feature.Ref
	for ref := range o.Snapshot() {
		if ref.View == view {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b feature.Ref) int { return strings.Compare(string(a.Key), string(b.Key)) })
	if len(refs) == 0 {
		return nil
	}
	return fn(refs)
}

// Delete removes values whatever their version.
func (o *Online) Delete(ctx context.Context, refs []feature.Ref) ([]error, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if f := o.Inject.at("online.delete", len(refs)); f != nil {
		return nil, f.Err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, ref := range refs {
		delete(o.items, ref)
		if o.Observe != nil {
			o.Observe(ref, nil, feature.NoTime)
		}
	}
	return make([]error, len(refs)), nil
}

// MarkWarm leaves the markers.
func (o *Online) MarkWarm(ctx context.Context, run uint64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f := o.Inject.at("online.markwarm", 0); f != nil {
		return f.Err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.warm = run
	return nil
}

// MarkerRun returns the run that left the markers; 0 when there are none.
func (o *Online) MarkerRun() uint64 { o.mu.Lock(); defer o.mu.Unlock(); return o.warm }

// Flush loses everything.
func (o *Online) Flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for ref := range o.items {
		if o.Observe != nil {
			o.Observe(ref, nil, feature.NoTime)
		}
	}
	o.items, o.warm = map[feature.Ref]cached{}, 0
}

// Evict loses one value.
func (o *Online) Evict(ref feature.Ref) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.items, ref)
	if o.Observe != nil {
		o.Observe(ref, nil, feature.NoTime)
	}
}

// Snapshot returns the payloads that are alive.
func (o *Online) Snapshot() map[feature.Ref][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := feature.MicrosOf(o.clock.Now())
	out := make(map[feature.Ref][]byte, len(o.items))
	for ref := range o.items {
		if item, ok := o.live(ref, now); ok {
			out[ref] = item.payload
		}
	}
	return out
}

// Expiry returns when a value expires.
func (o *Online) Expiry(ref feature.Ref) feature.Micros {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.items[ref].expiry
}
