package reader

import (
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/hearthstore/hearth/feature"
)

// Forget makes the next read of each ref ask the tiers, as after a write by this process:
// who has just written a value wants to read it. What the cache had stays for the case
// that no tier answers, and still keeps older answers out.
func (r *Reader) Forget(refs ...feature.Ref) {
	for _, ref := range refs {
		r.memory.forget(ref)
	}
}

// ForgetViews is Forget for every key of the views, as after a run by this process, which
// does not know whose values it has changed. An answer that was asked for before is not
// remembered, whenever it arrives.
func (r *Reader) ForgetViews(ids ...feature.ViewID) {
	for _, id := range ids {
		r.memory.era(id).Add(1)
	}
}

// era counts how often a view was forgotten: what the cache holds of an era that is over is
// for outages alone.
func (m *memory) era(id feature.ViewID) *atomic.Uint32 {
	if n, ok := m.eras.Load(id); ok {
		return n.(*atomic.Uint32)
	}
	n, _ := m.eras.LoadOrStore(id, new(atomic.Uint32))
	return n.(*atomic.Uint32)
}

func (m *memory) forget(ref feature.Ref) {
	if m.absent != nil {
		m.absent.Invalidate(ref)
	}
	if m.values == nil {
		return
	}
	m.values.ComputeIfPresent(ref, func(old *entry) (*entry, otter.ComputeOp) {
		passed := *old // entries never change: others may be reading it
		passed.freshTo = 0
		return &passed, otter.WriteOp
	})
}
