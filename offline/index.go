package offline

import (
	"cmp"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/offline/internal/duck"
)

// labelIndex holds the labels of one join by entity and time, and finds for each of them the
// newest feature row that it can see, in one pass over rows that come in any order and from
// several threads.
//
// A feature row is offered to the first label of its entity that can see it: all later ones can
// see it too. When all rows were offered, one walk over the labels of each entity hands the
// best row so far on to the next.
//
// Its use: count, place for every label, sort, offer for every feature row, settle, then
// winner, event and keep.
type labelIndex struct {
	ttl     int64 // microseconds; 0: none
	knownAt bool
	threads int

	start  []uint32 // the labels of entity id are [start[id], start[id+1])
	filled []uint32 // labels placed per entity
	labels []label  // until they are sorted: then their times and rows
	times  []int64
	rows   []uint32
	best   []candidate
	locks  [1024]sync.Mutex // of the labels of the entities with this remainder

	mu       sync.Mutex
	tied     map[uint32][]int64 // label -> further rows of the same two times as the best one
	tiedRows int
	crowded  atomic.Bool // more ties than are worth holding

	// By row of the spine, after settle.
	events, created, sources []int64

	frees []func() // of what is left
}

// label is one row of the spine.
type label struct {
	t   int64
	row uint32
}

// candidate is the best feature row that was offered to a label.
type candidate struct {
	event, created int64 // created is feature.NoTime where it is not known
	source         int64 // the row's place in its source, and flags; negative: none
}

// The place of a feature row is its file's number times 2^fileShift plus the row's in the file.
const (
	fileShift  = 40
	maxFiles   = 1 << 20
	flagDead   = 1 << 60 // the row says that there is no value any more
	flagTwin   = 1 << 61 // another row has its event time
	flagTied   = 1 << 62 // another row has both its times: see tied
	sourceMask = flagDead - 1
	noSource   = -1

	// maxTied bounds the rows that are held for their content to choose. Where ties are the
	// rule, SQL breaks them.
	maxTied = 1 << 18
)

// newLabelIndex makes room for the labels of entities with so many labels each. Close it.
func newLabelIndex(counts []uint32, ttl int64, knownAt bool, threads int) (x *labelIndex, err error) {
	x = &labelIndex{ttl: ttl, knownAt: knownAt, threads: threads, start: make([]uint32, len(counts)+1), filled: make([]uint32, len(counts)), tied: map[uint32][]int64{}}
	for i, n := range counts {
		x.start[i+1] = x.start[i] + n
	}
	if x.labels, err = room[label](x, int(x.start[len(counts)])); err != nil {
		return nil, err
	}
	return x, nil
}

// room makes a slice that lives until close.
func room[T any](x *labelIndex, n int) ([]T, error) {
	s, free, err := pages[T](n)
	if err == nil {
		x.frees = append(x.frees, free)
	}
	return s, err
}

// close lets go of the memory. No statement that calls the index may be running.
func (x *labelIndex) close() {
	for _, free := range x.frees {
		free()
	}
	x.frees, x.labels, x.times, x.rows, x.best, x.events, x.created, x.sources = nil, nil, nil, nil, nil, nil, nil, nil
}

// indexBytes is about what an index holds at most, and what is left of it after settle.
func indexBytes(labels, rows int64, knownAt bool) (peak, kept int64) {
	kept = 16 * rows
	if knownAt {
		kept += 8 * rows
	}
	return 40*labels + 8*labels + kept, kept // labels and candidates, entities, results
}

// place puts labels: entity, time and row of the spine. It is a [duck.Func].
func (x *labelIndex) place(in *duck.Chunk, out *duck.Result) {
	ids, times, rows := in.Column(0).Int64s(in.Len()), in.Column(1).Int64s(in.Len()), in.Column(2).Int64s(in.Len())
	var at [duck.MaxRows]uint32
	for i, id := range ids {
		at[i] = x.start[id] + atomic.AddUint32(&x.filled[id], 1) - 1
	}
	for i := range ids {
		x.labels[at[i]] = label{times[i], uint32(rows[i])}
		out.Set(i, 1)
	}
}

// sort puts the labels of each entity in order of time, and makes room for their candidates.
func (x *labelIndex) sort() (err error) {
	x.spread(func(from, to int) {
		for id := from; id < to; id++ {
			slices.SortFunc(x.labels[x.start[id]:x.start[id+1]], func(a, b label) int { return cmp.Compare(a.t, b.t) })
		}
	})
	n, unsorted := len(x.labels), x.frees
	x.frees = nil
	if x.times, err = room[int64](x, n); err == nil {
		x.rows, err = room[uint32](x, n)
	}
	if err == nil {
		for i, l := range x.labels {
			x.times[i], x.rows[i] = l.t, l.row
		}
	}
	for _, free := range unsorted {
		free()
	}
	x.labels, x.filled = nil, nil
	if err == nil {
		x.best, err = room[candidate](x, n)
	}
	for i := range x.best {
		x.best[i] = candidate{int64(feature.NoTime), int64(feature.NoTime), noSource}
	}
	return err
}

// offer takes feature rows: entity, event time, created time (may be NULL), place in the
// source, and whether it says that there is no value any more. It is a [duck.Func].
//
// What it looks up lies all over memory. So it goes over the rows step by step, without a
// branch between two of them that depends on what was looked up: then the processor has many
// of these accesses under way at a time.
func (x *labelIndex) offer(in *duck.Chunk, out *duck.Result) {
	n := in.Len()
	ids, events, created, sources := in.Column(0).Int64s(n), in.Column(1).Int64s(n), in.Column(2), in.Column(3).Int64s(n)
	var (
		from, at, found [duck.MaxRows]uint32
		seen            int64
	)
	for i, id := range ids {
		from[i], at[i] = x.start[id], x.start[id+1]
		seen += x.times[from[i]] // an entity has a label
	}
	for i := range ids {
		visible := events[i]
		if x.knownAt && !created.Null(i) {
			visible = max(visible, created.Int(i))
		}
		at[i] = x.search(from[i], at[i], visible)
		if in.Column(1).Null(i) { // no time, no label
			at[i] = x.start[ids[i]+1]
		}
	}
	better := found[:0]
	last := uint32(len(x.times) - 1)
	for i, id := range ids {
		to, label := x.start[id+1], min(at[i], last)
		worse := at[i] == to || x.stale(x.times[label], events[i]) || atomic.LoadInt64(&x.best[label].event) > events[i]
		better = better[:len(better)+1]
		better[len(better)-1] = uint32(i)
		if worse {
			better = better[:len(better)-1]
		}
		out.Set(i, 1)
	}
	runtime.KeepAlive(seen) // or nothing would be read
	for _, i := range better {
		c := candidate{events[i], int64(feature.NoTime), sources[i]}
		if !created.Null(int(i)) {
			c.created = created.Int(int(i))
		}
		if in.Column(4).Bool(int(i)) {
			c.source |= flagDead
		}
		lock := &x.locks[ids[i]%int64(len(x.locks))]
		lock.Lock()
		x.improve(at[i], c)
		lock.Unlock()
	}
}

// search returns the first label in [from, to) at or after a time, or to.
func (x *labelIndex) search(from, to uint32, t int64) uint32 {
	for n := to - from; n > 0; {
		half := (n + 1) / 2
		from += half * before(x.times[from+half-1], t)
		n -= half
	}
	return from
}

// before is 1 if a < b, else 0, without a branch.
func before(a, b int64) uint32 {
	_, borrow := bits.Sub64(uint64(a)^1<<63, uint64(b)^1<<63, 0)
	return uint32(borrow)
}

// stale reports whether an event is too old for a label at or after it.
func (x *labelIndex) stale(label, event int64) bool {
	return x.ttl > 0 && uint64(label)-uint64(event) > uint64(x.ttl)
}

// improve replaces the best row of a label by a newer one. Rows of the same two times are noted.
func (x *labelIndex) improve(at uint32, c candidate) {
	best := &x.best[at]
	switch order := c.compare(*best); {
	case best.source == noSource:
	case order < 0:
		if c.event == best.event {
			best.source |= flagTwin
		}
		return
	case order == 0:
		best.source |= flagTwin | flagTied
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.tiedRows++; x.tiedRows > maxTied {
			x.crowded.Store(true)
			return
		}
		x.tied[at] = append(x.tied[at], c.source)
		return
	case c.event == best.event:
		c.source |= flagTwin
	}
	if best.source != noSource && best.source&flagTied != 0 {
		x.mu.Lock()
		x.tiedRows -= len(x.tied[at])
		delete(x.tied, at)
		x.mu.Unlock()
	}
	atomic.StoreInt64(&best.event, c.event)
	best.created, best.source = c.created, c.source
}

// compare orders candidates by event time, then by created time, a known one after an unknown one.
func (c candidate) compare(o candidate) int {
	return cmp.Or(cmp.Compare(c.event, o.event), cmp.Compare(c.created, o.created))
}

// tiedSources returns the places of all rows between which only their content can choose.
func (x *labelIndex) tiedSources() (sources []int64) {
	for at, more := range x.tied {
		sources = append(sources, x.best[at].source&sourceMask)
		for _, s := range more {
			sources = append(sources, s&sourceMask)
		}
	}
	return sources
}

// breakTies chooses between tied rows: the one of the greatest digest wins.
func (x *labelIndex) breakTies(digests map[int64]string) error {
	for at, more := range x.tied {
		best := &x.best[at]
		for _, s := range append(more, best.source) {
			if _, ok := digests[s&sourceMask]; !ok {
				return fmt.Errorf("%w: a row that was read before is not there", errChanged)
			}
			// Rows of one digest are equal: any of them will do, and the first one is always the same.
			if order := strings.Compare(digests[s&sourceMask], digests[best.source&sourceMask]); order > 0 || order == 0 && s&sourceMask < best.source&sourceMask {
				best.source = best.source&^(sourceMask|flagDead) | s&(sourceMask|flagDead)
			}
		}
	}
	x.tied = nil
	return nil
}

// spread calls work with all entities, in ranges [from, to), from as many goroutines as there
// are threads.
func (x *labelIndex) spread(work func(from, to int)) {
	const step = 1024
	var (
		next    atomic.Int64
		running sync.WaitGroup
	)
	for range x.threads {
		running.Go(func() {
			for {
				from := int(next.Add(step)) - step
				if from >= len(x.start)-1 {
					return
				}
				work(from, min(from+step, len(x.start)-1))
			}
		})
	}
	running.Wait()
}

// settled says what settle found.
type settled struct {
	winners int64 // labels with a row that counts
	twins   int64 // labels whose row shares its event time with another one
	dead    int64 // labels whose newest row says that there is no value
}

// settle hands the best rows on from label to label, keeps the results by row of the spine,
// which has so many rows, and lets go of everything else.
func (x *labelIndex) settle(rows int) (found settled, err error) {
	working := x.frees
	x.frees = nil
	defer func() {
		for _, free := range working {
			free()
		}
		x.start, x.times, x.rows, x.best = nil, nil, nil, nil
	}()
	results := []*[]int64{&x.events, &x.sources}
	if x.knownAt {
		results = append(results, &x.created)
	}
	for _, r := range results {
		if *r, err = room[int64](x, rows); err != nil {
			return found, err
		}
	}
	for i := range x.sources {
		x.events[i], x.sources[i] = int64(feature.NoTime), noSource
	}
	var mu sync.Mutex
	x.spread(func(from, to int) {
		var part settled
		for id := from; id < to; id++ {
			x.settleEntity(id, &part)
		}
		mu.Lock()
		defer mu.Unlock()
		found.winners += part.winners
		found.twins += part.twins
		found.dead += part.dead
	})
	return found, nil
}

func (x *labelIndex) settleEntity(id int, found *settled) {
	newest := candidate{source: noSource}
	for at := x.start[id]; at < x.start[id+1]; at++ {
		if c := x.best[at]; c.source != noSource && (newest.source == noSource || c.compare(newest) > 0) {
			newest = c
		}
		switch {
		case newest.source == noSource || x.stale(x.times[at], newest.event):
			continue
		case newest.source&flagDead != 0:
			found.dead++
		default:
			found.winners++
			row := x.rows[at]
			x.events[row], x.sources[row] = newest.event, newest.source&sourceMask
			if x.knownAt {
				x.created[row] = newest.created
			}
		}
		if newest.source&flagTwin != 0 {
			found.twins++
		}
	}
}

// winner returns the place of a spine row's feature row in the source, or NULL. It is a [duck.Func].
func (x *labelIndex) winner(in *duck.Chunk, out *duck.Result) {
	for i, row := range in.Column(0).Int64s(in.Len()) {
		if s := x.sources[row]; s != noSource {
			out.Set(i, s)
		} else {
			out.SetNull(i)
		}
	}
}

// event returns the event time of a spine row's feature row, or NULL. It is a [duck.Func].
func (x *labelIndex) event(in *duck.Chunk, out *duck.Result) { times(x.events, in, out) }

// known returns the created time of a spine row's feature row, or NULL. It is a [duck.Func].
func (x *labelIndex) known(in *duck.Chunk, out *duck.Result) { times(x.created, in, out) }

func times(of []int64, in *duck.Chunk, out *duck.Result) {
	for i, row := range in.Column(0).Int64s(in.Len()) {
		if t := of[row]; t != int64(feature.NoTime) {
			out.Set(i, t)
		} else {
			out.SetNull(i)
		}
	}
}

// rowSet is a set of places of rows in a source, by file.
type rowSet [][]uint64

// newRowSet makes a set of places; negative ones are left out.
func newRowSet(places []int64) rowSet {
	var set rowSet
	for _, p := range places {
		if p < 0 {
			continue
		}
		file, row := int(p>>fileShift), uint64(p&(1<<fileShift-1))
		for len(set) <= file {
			set = append(set, nil)
		}
		if word := int(row / 64); word >= len(set[file]) {
			set[file] = append(set[file], make([]uint64, word+1-len(set[file]))...)
		}
		set[file][row/64] |= 1 << (row % 64)
	}
	return set
}

// has returns 1 for each place that is in the set, else 0. It is a [duck.Func].
func (set rowSet) has(in *duck.Chunk, out *duck.Result) {
	for i, p := range in.Column(0).Int64s(in.Len()) {
		file, row := int(p>>fileShift), uint64(p&(1<<fileShift-1))
		bit := int64(0)
		if file < len(set) && row/64 < uint64(len(set[file])) {
			bit = int64(set[file][row/64] >> (row % 64) & 1)
		}
		out.Set(i, bit)
	}
}
