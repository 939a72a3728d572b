package reader

import (
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
