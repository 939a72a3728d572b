package reader

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/hearthstore/hearth/feature"
)

// entry is one checked value, or one tombstone, as a tier gave it. It never changes.
type entry struct {
	schema    *schema
	version   feature.Version
	tombstone bool
	era       uint32 // in the cache: that of its view when the tier was asked
	features  []byte
	offsets   []uint32 // where each value begins in features
	freshTo   int64    // in the cache: served without asking a tier until then (Unix ns)
	staleTo   int64    // in the cache: served when every tier is out until then
}

// arena hands out entries and offsets from shared blocks: fewer allocations than two each.
// A block is small, so that an entry that stays in the cache keeps little else.
type arena struct {
	left    int // entries that are still to come
	entries []entry
	offsets []uint32
}

const (
	blockEntries = 16
	blockOffsets = 1024
)

func (a *arena) entry() *entry {
	if len(a.entries) == 0 {
		a.entries = make([]entry, min(blockEntries, max(1, a.left)))
	}
	e := &a.entries[0]
	a.entries = a.entries[1:]
	a.left--
	return e
}

// room is an empty slice for n offsets.
func (a *arena) room(n int) []uint32 {
	if n > len(a.offsets) {
		a.offsets = make([]uint32, max(n, min(blockOffsets, n*max(1, a.left))))
	}
	out := a.offsets[:0:n]
	a.offsets = a.offsets[n:]
	return out
}

// parse checks a payload against the schema. The error matches feature.ErrCorrupt, or
// feature.ErrUnknownFormat for another format or another schema.
func parse(s *schema, payload []byte, a *arena) (*entry, error) {
	h, features, err := feature.ParsePayload(payload)
	if err != nil {
		return nil, err
	}
	var offsets []uint32
	if !h.Tombstone { // a deletion holds whatever the schema was
		n := len(s.wires)
		if h.Fingerprint != s.fingerprint {
			if n = s.older[h.Fingerprint]; n == 0 {
				return nil, errSchema
			}
		}
		if offsets, err = index(features, s.wires[:n], a.room(len(s.wires))); err != nil {
			return nil, err
		}
		if n < len(s.wires) { // it was written before the last features were added: they are null
			end := uint32(len(features))
			features = append(slices.Clone(features), mpNil)
			for len(offsets) < len(s.wires) {
				offsets = append(offsets, end)
			}
		}
	}
	e := a.entry()
	*e = entry{schema: s, version: h.Version, tombstone: h.Tombstone, features: features, offsets: offsets}
	return e, nil
}

// fits reports whether an entry that was read under another schema value serves s.
func (e *entry) fits(s *schema) bool {
	return e.schema == s || e.tombstone || e.schema.fingerprint == s.fingerprint
}

// memory is the in-process tier: checked values, and apart from them, small and short, the
// keys that no tier has.
type memory struct {
	values *otter.Cache[feature.Ref, *entry]
	absent *otter.Cache[feature.Ref, absence]
	eras   sync.Map // feature.ViewID -> *atomic.Uint32
	ttl    time.Duration
	stale  time.Duration
	nttl   time.Duration
}

// absence is a key that no tier had.
type absence struct {
	until int64 // Unix ns
	era   uint32
}

func newMemory(c CacheConfig) (*memory, error) {
	m := &memory{ttl: c.TTL, stale: c.ServeStale, nttl: c.NegativeTTL}
	var err error
	if c.MaxEntries > 0 {
		if m.values, err = otter.New(&otter.Options[feature.Ref, *entry]{MaximumSize: c.MaxEntries}); err != nil {
			return nil, err
		}
	}
	if c.NegativeEntries > 0 && c.NegativeTTL > 0 {
		if m.absent, err = otter.New(&otter.Options[feature.Ref, absence]{MaximumSize: c.NegativeEntries}); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// lookup finds what may be served without asking a tier.
func (m *memory) lookup(ref feature.Ref, s *schema, now int64) (e *entry, known bool) {
	era := s.era.Load()
	if m.values != nil {
		if e, ok := m.values.GetIfPresent(ref); ok && now < e.freshTo && e.era == era && e.fits(s) {
			return e, true
		}
	}
	if m.absent != nil {
		if a, ok := m.absent.GetIfPresent(ref); ok && now < a.until && a.era == era {
			return nil, true
		}
	}
	return nil, false
}

// lastKnown finds what may be served when no tier can say.
func (m *memory) lastKnown(ref feature.Ref, s *schema, now int64) *entry {
	if m.values == nil {
		return nil
	}
	if e, ok := m.values.GetIfPresent(ref); ok && now < e.staleTo && e.fits(s) {
		return e
	}
	return nil
}

// put remembers e unless a newer version of the key is there, and returns the newer of
// the two: an answer that was overtaken on its way never turns a reader back. era is that of
// the view before the tier was asked.
func (m *memory) put(ref feature.Ref, e *entry, era uint32, now int64) *entry {
	if m.values == nil {
		return e
	}
	e.era = era
	e.freshTo = now + int64(jittered(m.ttl))
	e.staleTo = e.freshTo + int64(m.stale)
	kept, _ := m.values.Compute(ref, func(old *entry, found bool) (*entry, otter.ComputeOp) {
		if found && now < old.staleTo && old.fits(e.schema) && old.version.Compare(e.version) > 0 {
			return old, otter.CancelOp
		}
		return e, otter.WriteOp
	})
	if kept == nil || !kept.fits(e.schema) {
		return e
	}
	if m.absent != nil {
		m.absent.Invalidate(ref)
	}
	return kept
}

func (m *memory) putAbsent(ref feature.Ref, era uint32, now int64) {
	if m.absent != nil {
		m.absent.Set(ref, absence{until: now + int64(jittered(m.nttl)), era: era})
	}
}

// jittered shortens a life by up to a tenth, so that what was read together is not asked
// for together again.
func jittered(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/10+1))
}

// sizes returns how many values and absences are remembered, about.
func (m *memory) sizes() (values, absent int) {
	if m.values != nil {
		values = m.values.EstimatedSize()
	}
	if m.absent != nil {
		absent = m.absent.EstimatedSize()
	}
	return values, absent
}
