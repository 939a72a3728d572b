// Package sketch remembers which stored values are asked for most, in bounded memory: the
// readers record, the state table keeps the encoded sketches, and a rewarm brings the hot
// values back first.
package sketch

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/hearthstore/hearth/feature"
)

// Config says how large a sketch is.
type Config struct {
	// Entries is the most refs that are kept. The hot-first order of a rewarm ends after
	// them, so it should be a sixth or more of the keys that live traffic touches: with
	// Zipf-like traffic that sixth is nearly nine tenths of the requests. Each costs about
	// 130 bytes. Defaults to 200,000: a fifth of a million entities.
	Entries int
	// Sample records one in so many refs, once the sketch has seen the first warmUp × Entries,
	// which are all recorded: so it knows its order after a sixth of the requests that it
	// would take otherwise. Defaults to 8; 1 records all.
	Sample int
}

const (
	stripes = 16 // locks, so that concurrent readers seldom meet
	rows    = 4  // of the counting table
	warmUp  = 8  // refs per entry that are recorded before any are left out
)

// Entry is one hot ref with its weight: how often it was recorded, as an upper estimate.
type Entry struct {
	Ref   feature.Ref
	Count uint64
}

// Sketch counts refs. Counts of all refs live in a small table of shared counters
// (count-min with conservative update), which never underestimates; the refs with the
// highest counts are kept by name. It is safe for concurrent use; recording takes one of
// sixteen locks, for one ref in Config.Sample.
type Sketch struct {
	sample  uint32
	young   atomic.Int64 // refs that are still recorded without sampling; below 1 for none
	stripes [stripes]stripe
}

type stripe struct {
	mu    sync.Mutex
	seats int // most entries
	width uint64
	table []uint32         // rows x width
	heap  []seat           // the kept refs, a min-heap by count
	where map[uint64]int32 // hash -> place in the heap; equal hashes count as one ref
	added uint64           // since the last decay
	_     [64]byte         // keep neighbours' locks on other cache lines
}

// seat is a kept ref with its hash.
type seat struct {
	Entry
	hash uint64
}

// New returns an empty sketch.
func New(cfg Config) *Sketch {
	if cfg.Entries <= 0 {
		cfg.Entries = 200_000
	}
	if cfg.Sample <= 0 {
		cfg.Sample = 8
	}
	s := &Sketch{sample: uint32(cfg.Sample)}
	s.young.Store(warmUp * int64(cfg.Entries))
	seats := (cfg.Entries + stripes - 1) / stripes
	width := uint64(2 * max(seats, 16))
	for i := range s.stripes {
		s.stripes[i] = stripe{seats: seats, width: width, table: make([]uint32, rows*width), where: make(map[uint64]int32)}
	}
	return s
}

// Record counts refs: all while the sketch is young, then each with probability 1/Sample. It
// costs a few nanoseconds for a ref that is not sampled, and keeps no part of the caller's
// memory.
func (s *Sketch) Record(refs ...feature.Ref) {
	for i := range refs {
		if s.sample == 1 || s.young.Load() > 0 && s.young.Add(-1) >= 0 || rand.Uint32N(s.sample) == 0 {
			s.Add(refs[i], 1)
		}
	}
}

// Add counts a ref n times, without sampling.
func (s *Sketch) Add(ref feature.Ref, n uint32) {
	h := hash(ref)
	s.stripes[h%stripes].add(ref, h/stripes, n)
}

func hash(ref feature.Ref) uint64 {
	// The names of views are few; the key carries the entropy.
	h := xxhash.Sum64String(string(ref.Key))
	h ^= xxhash.Sum64String(ref.View.Name) + uint64(ref.View.Version)*0x9e3779b97f4a7c15
	h ^= h >> 31
	h *= 0xbf58476d1ce4e5b9
	return h ^ h>>29
}

func (st *stripe) add(ref feature.Ref, h uint64, n uint32) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.added += uint64(n)
	count := st.count(h, n)
	if i, ok := st.where[h]; ok {
		st.heap[i].Count += uint64(n)
		st.down(int(i))
		return
	}
	if len(st.heap) < st.seats {
		ref.Key = feature.Key(strings.Clone(string(ref.Key)))
		st.heap = append(st.heap, seat{Entry{ref, count}, h})
		st.where[h] = int32(len(st.heap) - 1)
		st.up(len(st.heap) - 1)
		return
	}
	if count > st.heap[0].Count {
		delete(st.where, st.heap[0].hash)
		ref.Key = feature.Key(strings.Clone(string(ref.Key)))
		st.heap[0] = seat{Entry{ref, count}, h}
		st.where[h] = 0
		st.down(0)
	}
}

// count adds n to the counters of h and returns the new estimate. Only counters below the
// estimate grow: that keeps strangers that share one of them from inflating it.
func (st *stripe) count(h uint64, n uint32) uint64 {
	var cells [rows]*uint32
	least := ^uint32(0)
	for i := range cells {
		// Two halves of the hash make as many independent columns as needed.
		column := ((h & 0xffffffff) + uint64(i)*(h>>32|1)) % st.width
		cells[i] = &st.table[uint64(i)*st.width+column]
		least = min(least, *cells[i])
	}
	if least > ^uint32(0)-n {
		return uint64(least)
	}
	least += n
	for _, c := range cells {
		*c = max(*c, least)
	}
	return uint64(least)
}

func (st *stripe) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if st.heap[parent].Count <= st.heap[i].Count {
			return
		}
		st.swap(i, parent)
		i = parent
	}
}

func (st *stripe) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(st.heap) {
			return
		}
		if child+1 < len(st.heap) && st.heap[child+1].Count < st.heap[child].Count {
			child++
		}
		if st.heap[i].Count <= st.heap[child].Count {
			return
		}
		st.swap(i, child)
		i = child
	}
}

func (st *stripe) swap(i, j int) {
	st.heap[i], st.heap[j] = st.heap[j], st.heap[i]
	st.where[st.heap[i].hash], st.where[st.heap[j].hash] = int32(i), int32(j)
}

// Added is how much was recorded since the last decay.
func (s *Sketch) Added() uint64 {
	var n uint64
	for i := range s.stripes {
		st := &s.stripes[i]
		st.mu.Lock()
		n += st.added
		st.mu.Unlock()
	}
	return n
}

// Capacity is the most refs that are kept.
func (s *Sketch) Capacity() int { return stripes * s.stripes[0].seats }

// Decay halves every count, so that what was hot last week makes room. What was counted
// once is forgotten, so decaying too often forgets all but the hottest.
func (s *Sketch) Decay() {
	for i := range s.stripes {
		st := &s.stripes[i]
		st.mu.Lock()
		for j := range st.table {
			st.table[j] /= 2
		}
		kept := st.heap[:0]
		clear(st.where)
		for _, e := range st.heap {
			if e.Count /= 2; e.Count > 0 {
				st.where[e.hash] = int32(len(kept))
				kept = append(kept, e) // halving keeps the heap's order; dropping may not
			}
		}
		clear(st.heap[len(kept):])
		st.heap, st.added = kept, 0
		for j := len(st.heap)/2 - 1; j >= 0; j-- {
			st.down(j)
		}
		st.mu.Unlock()
	}
}

// Top returns the kept entries, hottest first; ties by view and key, so that equal
// sketches give equal lists.
func (s *Sketch) Top() []Entry {
	var all []Entry
	for i := range s.stripes {
		st := &s.stripes[i]
		st.mu.Lock()
		for _, e := range st.heap {
			all = append(all, e.Entry)
		}
		st.mu.Unlock()
	}
	sortEntries(all)
	return all
}

func sortEntries(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int {
		switch {
		case a.Count != b.Count:
			if a.Count > b.Count {
				return -1
			}
			return 1
		case a.Ref.View.Name != b.Ref.View.Name:
			return strings.Compare(a.Ref.View.Name, b.Ref.View.Name)
		case a.Ref.View.Version != b.Ref.View.Version:
			return a.Ref.View.Version - b.Ref.View.Version
		}
		return strings.Compare(string(a.Ref.Key), string(b.Ref.Key))
	})
}

// Merger adds the lists of several sketches (readers behind one load balancer). Its memory
// is bounded by the limit, however many lists there are: once four times as many refs are
// known, the coldest half is dropped.
type Merger struct {
	limit int
	sum   map[feature.Ref]uint64
}

// NewMerger makes one that returns at most limit entries; limit <= 0 means all.
func NewMerger(limit int) *Merger { return &Merger{limit: limit, sum: map[feature.Ref]uint64{}} }

// Add takes one list.
func (m *Merger) Add(list []Entry) {
	for _, e := range list {
		m.sum[e.Ref] += e.Count
	}
	if m.limit > 0 && len(m.sum) > 4*m.limit {
		kept := m.entries()[:2*m.limit]
		clear(m.sum)
		for _, e := range kept {
			m.sum[e.Ref] = e.Count
		}
	}
}

// Entries are the merged entries, hottest first.
func (m *Merger) Entries() []Entry {
	all := m.entries()
	if m.limit > 0 && len(all) > m.limit {
		all = all[:m.limit]
	}
	return all
}

func (m *Merger) entries() []Entry {
	all := make([]Entry, 0, len(m.sum))
	for ref, n := range m.sum {
		all = append(all, Entry{ref, n})
	}
	sortEntries(all)
	return all
}

// Merge adds some lists and returns at most limit entries, hottest first; limit <= 0
// returns all.
func Merge(limit int, lists ...[]Entry) []Entry {
	m := NewMerger(limit)
	for _, list := range lists {
		m.Add(list)
	}
	return m.Entries()
}

// Refs drops the weights.
func Refs(entries []Entry) []feature.Ref {
	refs := make([]feature.Ref, len(entries))
	for i := range entries {
		refs[i] = entries[i].Ref
	}
	return refs
}
