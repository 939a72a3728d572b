package online

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/hearthstore/hearth/feature"
)

// slotTag is, for each slot, the smallest number whose slot it is.
var slotTag = sync.OnceValue(func() []string {
	tags := make([]string, slots)
	for n, left := 0, slots; left > 0; n++ {
		tag := strconv.Itoa(n)
		if slot := crc16(tag); tags[slot%slots] == "" {
			tags[slot%slots] = tag
			left--
		}
	}
	return tags
})

// coldSlots is a bitmap of the slots that have to be filled.
type coldSlots []byte

func (c coldSlots) add(slot int)      { c[slot/8] |= 1 << (slot % 8) }
func (c coldSlots) has(slot int) bool { return c[slot/8]&(1<<(slot%8)) != 0 }

// ColdFilter tells which refs a rewarm must bring back: those whose slot is in a shard that
// is cold now, or that is in before, the state that an earlier call returned. It is slots
// that are remembered and not addresses: a slot that moves to a warm shard while the
// rewarm runs, or between two of its runs, takes its emptiness along. A slot whose shard is
// not known counts as cold, because bringing a value twice does no harm. On a single server
// the state is empty. The function is safe for concurrent use.
func (s *Store) ColdFilter(ctx context.Context, before []byte) (cold func(feature.Ref) bool, state []byte, err error) {
	if s.write.cluster == nil {
		w, err := s.Warmth(ctx)
		if err != nil {
			return nil, nil, err
		}
		return func(feature.Ref) bool { return w.Cold }, nil, nil
	}
	set := make(coldSlots, slots/8)
	if len(before) == len(set) {
		copy(set, before)
	} else if len(before) > 0 {
		return nil, nil, fmt.Errorf("cold slots: %w: a state of %d bytes is not of this store", feature.ErrInvalid, len(before))
	}
	// Owners before and after the look: a slot that moves meanwhile is cold if either is.
	owners := s.owners(ctx)
	w, err := s.Warmth(ctx)
	if err != nil {
		return nil, nil, err
	}
	warm := make(map[string]bool, len(w.Shards))
	for _, shard := range w.Shards {
		warm[shard.Addr] = !shard.Cold
	}
	for slot, after := range s.owners(ctx) {
		if !warm[owners[slot]] || !warm[after] {
			set.add(slot)
		}
	}
	return func(ref feature.Ref) bool { return set.has(int(crc16(string(ref.Key))) % slots) }, set, nil
}

// owners gives the address of each slot's master, as the client knows it; "" where it does
// not.
func (s *Store) owners(ctx context.Context) []string {
	out := make([]string, slots)
	for slot, tag := range slotTag() {
		if node, err := s.write.cluster.MasterForKey(ctx, tag); err == nil {
			out[slot] = node.Options().Addr
		}
	}
	return out
}
