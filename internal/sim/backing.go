package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hearthstore/hearth/feature"
)

// Backing is a durable tier in memory, with the write condition of the real ones.
type Backing struct {
	Inject Injector
	// Observe, if set, sees every change while the tier is locked. A deletion has no payload.
	Observe func(ref feature.Ref, payload []byte)
	// Force makes the tier store whatever it is given, for tests that break the rule on purpose.
	Force bool

	mu    sync.Mutex
	items map[feature.Ref]backed
}

type backed struct {
	version feature.Version
	hash    uint64
	payload []byte
	retain  feature.Micros
}

// NewBacking returns an empty tier.
func NewBacking() *Backing { return &Backing{items: map[feature.Ref]backed{}} }

// Put stores each record that is newer. The first Apply records of a faulted call take
// effect.
func (b *Backing) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := b.Inject.at("backing.put", len(recs))
	b.mu.Lock()
	defer b.mu.Unlock()
	results := make([]feature.PutResult, len(recs))
	order := make([]int, len(recs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return recs[y].Version.Compare(recs[x].Version) })
	for _, i := range order {
		if f != nil && f.Record == nil && i >= f.Apply {
			continue
		}
		if f != nil && f.Record != nil {
			if err := f.Record(i); err != nil {
				results[i].Err = err
				continue
			}
		}
		results[i] = b.put(&recs[i])
	}
	if f != nil && f.Record == nil {
		return nil, f.Err
	}
	return results, nil
}

func (b *Backing) put(rec *feature.Record) feature.PutResult {
	h, _, err := feature.ParsePayload(rec.Payload)
	if err != nil || h.Version != rec.Version {
		return feature.PutResult{Err: fmt.Errorf("put %s: %w: payload and record disagree: %v", rec.Ref, feature.ErrInvalid, err)}
	}
	hash := feature.ContentHash(rec.Payload)
	old, ok := b.items[rec.Ref]
	if ok && !b.Force && old.version.Compare(rec.Version.Floor()) >= 0 && (old.version.Compare(rec.Version) >= 0 || old.hash == hash) {
		if old.version == rec.Version || old.version.SameTimes(rec.Version) && old.hash == hash {
			return feature.PutResult{Outcome: feature.Unchanged, Stored: old.version}
		}
		return feature.PutResult{Outcome: feature.Older, Stored: old.version}
	}
	// Clones: the caller reuses its memory, and a tier that kept it would see that.
	ref := feature.Ref{View: rec.View, Key: feature.Key(strings.Clone(string(rec.Key)))}
	payload := slices.Clone(rec.Payload)
	b.items[ref] = backed{version: rec.Version, hash: hash, payload: payload, retain: rec.Retain}
	if b.Observe != nil {
		b.Observe(ref, payload)
	}
	return feature.PutResult{Outcome: feature.Written, Stored: rec.Version}
}

// Get reads values. A faulted call with Record fails those refs only.
func (b *Backing) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := b.Inject.at("backing.get", len(refs))
	if f != nil && f.Record == nil {
		return nil, f.Err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	results := make([]feature.GetResult, len(refs))
	for i, ref := range refs {
		if f != nil {
			if results[i].Err = f.Record(i); results[i].Err != nil {
				continue
			}
		}
		if item, ok := b.items[ref]; ok {
			results[i].Payload = slices.Clone(item.payload)
		}
	}
	return results, nil
}

// Scan reads a page in key order; a cursor is the last ref of the page before.
func (b *Backing) Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f := b.Inject.at("backing.scan", 0); f != nil {
		return f.Err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var refs []feature.Ref
	for ref := range b.items {
		if feature.ShardOf(ref.Key, req.Segments) == req.Segment && (len(req.Views) == 0 || slices.Contains(req.Views, ref.View)) &&
			(req.Cursor == nil || ref.String() > string(req.Cursor)) {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(x, y feature.Ref) int { return strings.Compare(x.String(), y.String()) })
	limit := req.Limit
	if limit == 0 {
		limit = 1000
	}
	page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
	for i, ref := range refs {
		if i == limit {
			page.Next = []byte(refs[i-1].String())
			break
		}
		item := b.items[ref]
		page.Records = append(page.Records, feature.Record{Ref: ref, Version: item.version, Payload: slices.Clone(item.payload), Online: feature.NoTime, Retain: item.retain})
		page.ReadUnits += 0.5
	}
	return nil
}

// Delete removes values whatever their version.
func (b *Backing) Delete(ctx context.Context, refs []feature.Ref) ([]error, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if f := b.Inject.at("backing.delete", len(refs)); f != nil {
		return nil, f.Err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ref := range refs {
		delete(b.items, ref)
		if b.Observe != nil {
			b.Observe(ref, nil)
		}
	}
	return make([]error, len(refs)), nil
}

// Expire deletes what may be deleted at now, as DynamoDB does some time later.
func (b *Backing) Expire(now feature.Micros) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ref, item := range b.items {
		if item.retain != feature.NoTime && item.retain <= now {
			delete(b.items, ref)
			if b.Observe != nil {
				b.Observe(ref, nil)
			}
		}
	}
}

// Snapshot returns the payloads.
func (b *Backing) Snapshot() map[feature.Ref][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[feature.Ref][]byte, len(b.items))
	for ref, item := range b.items {
		out[ref] = item.payload
	}
	return out
}
