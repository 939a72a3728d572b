// Package newest finds, for each label of a training set, the newest feature row that it can see:
// by an index over the labels in memory, and one pass over the keys and times of the
// feature rows, which come in any order and from several threads.
package newest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hearthstore/hearth/feature"
)

// Index holds the labels of one join by entity and time. All times are in microseconds.
//
// A feature row is offered to the first label of its entity that can see it: all later ones can
// see it too. When all rows were offered, one walk over the labels of each entity hands the
// best row so far on to the next.
//
// Its use: New, Place for all labels, Sort, Offer for all feature rows, BreakTies, Settle. Place
// and Offer may be called by several goroutines at once, the others by one.
type Index struct {
	ttl     int64
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

	// By row of the spine, after Settle.
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

// The place of a feature row is its file's number times FileRows plus the row's in the file.
const (
	FileRows = 1 << fileShift
	MaxFiles = 1 << 20

	fileShift  = 40
	flagDead   = 1 << 60 // the row says that there is no value any more
	flagTwin   = 1 << 61 // another row has its event time
	flagTied   = 1 << 62 // another row has both its times: see tied
	sourceMask = flagDead - 1
	noSource   = -1

	// MaxTied bounds the rows that are held for their content to choose.
	MaxTied = 1 << 18
)

// Config describes the labels of an [Index].
type Config struct {
	Labels  []uint32 // how many labels each entity has; entities are numbers, from 0
	TTL     int64    // how old an event may be at the label's time, inclusive. Defaults to any age
	KnownAt bool     // a row is visible from the later of its two times on
	Threads int      // for what the index does alone
}

// New makes room for the labels. Close it. It fails where the system has no memory.
func New(c Config) (x *Index, err error) {
	counts := c.Labels
	x = &Index{ttl: c.TTL, knownAt: c.KnownAt, threads: max(c.Threads, 1), start: make([]uint32, len(counts)+1), filled: make([]uint32, len(counts)), tied: map[uint32][]int64{}}
	for i, n := range counts {
		x.start[i+1] = x.start[i] + n
	}
	if x.labels, err = room[label](x, int(x.start[len(counts)])); err != nil {
		return nil, err
	}
	return x, nil
}

// room makes a slice that lives until close.
func room[T any](x *Index, n int) ([]T, error) {
	s, free, err := pages[T](n)
	if err == nil {
		x.frees = append(x.frees, free)
	}
	return s, err
}

// Close lets go of the memory, that of the results too.
func (x *Index) Close() {
	for _, free := range x.frees {
		free()
	}
	x.frees, x.labels, x.times, x.rows, x.best, x.events, x.created, x.sources = nil, nil, nil, nil, nil, nil, nil, nil
}

// Bytes is about what an index holds at most, and what is left of it after Settle.
func Bytes(labels, rows int64, knownAt bool) (peak, kept int64) {
	kept = 16 * rows
	if knownAt {
		kept += 8 * rows
	}
	return 40*labels + 8*labels + kept, kept // labels and candidates, entities, results
}

// step is how many rows are looked up together.
const step = 2048

// Place puts labels: entity, time and number of each row of the spine.
func (x *Index) Place(entities, times, rows []int64) {
	var at [step]uint32
	for ; len(entities) > 0; entities, times, rows = rest(entities), rest(times), rest(rows) {
		now := entities[:min(step, len(entities))]
		for i, id := range now {
			at[i] = x.start[id] + atomic.AddUint32(&x.filled[id], 1) - 1
		}
		for i := range now {
			x.labels[at[i]] = label{times[i], uint32(rows[i])}
		}
	}
}

// rest is what is left after a step.
func rest[T any](s []T) []T { return s[min(step, len(s)):] }

// Sort puts the labels of each entity in order of time, and makes room for their candidates.
func (x *Index) Sort(ctx context.Context) (err error) {
	n, unsorted, labels := len(x.labels), x.frees, x.labels
	defer func() {
		for _, free := range unsorted {
			free()
		}
	}()
	x.frees, x.labels, x.filled = nil, nil, nil
	if x.times, err = room[int64](x, n); err != nil {
		return err
	}
	if x.rows, err = room[uint32](x, n); err != nil {
		return err
	}
	err = x.spread(ctx, func(from, to int) {
		for id := from; id < to; id++ {
			slices.SortFunc(labels[x.start[id]:x.start[id+1]], func(a, b label) int { return cmp.Compare(a.t, b.t) })
		}
		for at := x.start[from]; at < x.start[to]; at++ {
			x.times[at], x.rows[at] = labels[at].t, labels[at].row
		}
	})
	if err != nil {
		return err
	}
	for _, free := range unsorted { // before there is room for more
		free()
	}
	if x.best, err = room[candidate](x, n); err != nil {
		return err
	}
	return x.spread(ctx, func(from, to int) {
		for at := x.start[from]; at < x.start[to]; at++ {
			x.best[at] = candidate{int64(feature.NoTime), int64(feature.NoTime), noSource}
		}
	})
}

// Rows are feature rows, column by column.
type Rows struct {
	Entities, Events []int64
	Created          []int64 // int64(feature.NoTime) where it is not known
	Places           []int64 // where they are in their source: see FileRows
	Dead             []bool  // the row says that there is no value any more
}

// Offer takes feature rows.
//
// What it looks up lies all over memory. So it goes over the rows step by step, without a
// branch between two of them that depends on what was looked up: then the processor has many
// of these accesses under way at a time.
func (x *Index) Offer(r Rows) {
	for ; len(r.Entities) > step; r = (Rows{rest(r.Entities), rest(r.Events), rest(r.Created), rest(r.Places), rest(r.Dead)}) {
		x.offer(Rows{r.Entities[:step], r.Events[:step], r.Created[:step], r.Places[:step], r.Dead[:step]})
	}
	x.offer(r)
}

func (x *Index) offer(r Rows) {
	var (
		from, at, found [step]uint32
		touched         int64
	)
	for i, id := range r.Entities {
		from[i], at[i] = x.start[id], x.start[id+1]
		touched += x.times[from[i]] // an entity has a label
	}
	runtime.KeepAlive(touched) // or nothing would be read
	for i, visible := range r.Events {
		if x.knownAt {
			visible = max(visible, r.Created[i]) // NoTime is before every other
		}
		at[i] = x.search(from[i], at[i], visible)
	}
	better, last := found[:0], uint32(len(x.times)-1)
	for i, id := range r.Entities {
		label := min(at[i], last)
		worse := at[i] == x.start[id+1] || x.stale(x.times[label], r.Events[i]) || atomic.LoadInt64(&x.best[label].event) > r.Events[i]
		better = append(better, uint32(i))
		if worse {
			better = better[:len(better)-1]
		}
	}
	for _, i := range better {
		c := candidate{r.Events[i], r.Created[i], r.Places[i]}
		if r.Dead[i] {
			c.source |= flagDead
		}
		lock := &x.locks[r.Entities[i]%int64(len(x.locks))]
		lock.Lock()
		x.improve(at[i], c)
		lock.Unlock()
	}
}

// search returns the first label in [from, to) at or after a time, or to.
func (x *Index) search(from, to uint32, t int64) uint32 {
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
func (x *Index) stale(label, event int64) bool {
	return x.ttl > 0 && uint64(label)-uint64(event) > uint64(x.ttl)
}

// improve replaces the best row of a label by a newer one. Rows of the same two times are noted.
func (x *Index) improve(at uint32, c candidate) {
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
		if x.tiedRows++; x.tiedRows > MaxTied {
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

// Crowded reports whether more rows tie than are worth holding: then the results mean nothing.
func (x *Index) Crowded() bool { return x.crowded.Load() }

// Tied returns the places of all rows between which only their content can choose.
func (x *Index) Tied() (sources []int64) {
	for at, more := range x.tied {
		sources = append(sources, x.best[at].source&sourceMask)
		for _, s := range more {
			sources = append(sources, s&sourceMask)
		}
	}
	return sources
}

// ErrNoDigest says that a tied row has no digest.
var ErrNoDigest = errors.New("a row that was offered has no digest")

// BreakTies chooses between tied rows by digests of them all: the greatest one wins.
func (x *Index) BreakTies(digests map[int64]string) error {
	for at, more := range x.tied {
		best := &x.best[at]
		for _, s := range append(more, best.source) {
			if _, ok := digests[s&sourceMask]; !ok {
				return fmt.Errorf("%w: file %d, row %d", ErrNoDigest, s&sourceMask>>fileShift, s&(1<<fileShift-1))
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
// are threads. When the context ends it stops, with its cause.
func (x *Index) spread(ctx context.Context, work func(from, to int)) error {
	const step = 1024
	var (
		next    atomic.Int64
		running sync.WaitGroup
	)
	for range x.threads {
		running.Go(func() {
			for {
				from := int(next.Add(step)) - step
				if from >= len(x.start)-1 || ctx.Err() != nil {
					return
				}
				work(from, min(from+step, len(x.start)-1))
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

// Found says what the labels have.
type Found struct {
	Winners int64 // labels with a row that counts
	Twins   int64 // labels whose row shares its event time with another one
	Dead    int64 // labels whose newest row says that there is no value
}

// Settle hands the best rows on from label to label, keeps the results by row of the spine,
// which has so many rows, and lets go of everything else.
func (x *Index) Settle(ctx context.Context, rows int) (found Found, err error) {
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
	for i := range x.sources { // the spine has rows without a label
		x.events[i], x.sources[i] = int64(feature.NoTime), noSource
	}
	var mu sync.Mutex
	err = x.spread(ctx, func(from, to int) {
		var part Found
		for id := from; id < to; id++ {
			x.settleEntity(id, &part)
		}
		mu.Lock()
		defer mu.Unlock()
		found.Winners += part.Winners
		found.Twins += part.Twins
		found.Dead += part.Dead
	})
	return found, err
}

func (x *Index) settleEntity(id int, found *Found) {
	newest := candidate{source: noSource}
	for at := x.start[id]; at < x.start[id+1]; at++ {
		if c := x.best[at]; c.source != noSource && (newest.source == noSource || c.compare(newest) > 0) {
			if newest.source != noSource && c.event == newest.event { // which became known later
				c.source |= flagTwin
			}
			newest = c
		}
		switch {
		case newest.source == noSource || x.stale(x.times[at], newest.event):
			continue
		case newest.source&flagDead != 0:
			found.Dead++
		default:
			found.Winners++
			row := x.rows[at]
			x.events[row], x.sources[row] = newest.event, newest.source&sourceMask
			if x.knownAt {
				x.created[row] = newest.created
			}
		}
		if newest.source&flagTwin != 0 {
			found.Twins++
		}
	}
}

// Places holds, after Settle, the place of the feature row of each row of the spine; negative: none.
func (x *Index) Places() []int64 { return x.sources }

// Events holds, after Settle, that row's event time; feature.NoTime: none.
func (x *Index) Events() []int64 { return x.events }

// Created holds, after Settle and with KnownAt, that row's created time; feature.NoTime where it is not known.
func (x *Index) Created() []int64 { return x.created }
