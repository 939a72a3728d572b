package reader

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/breaker"
)

// lookup is one key that the cache could not answer.
type lookup struct {
	ref    feature.Ref
	schema *schema
	era    uint32 // of the view, before any tier was asked

	entry  *entry
	tier   feature.Tier
	err    error // why nobody could say; nil with a nil entry: absent
	done   bool
	stale  bool
	shared bool // joined another request's flight
	repair bool // the online tier answered and has no good value: write it up
	// damaged: a tier holds bytes for the key that cannot be read, so that "absent" from
	// another tier is not the whole truth.
	damaged bool
}

// settle takes over the answer of the backing tier.
func (l *lookup) settle(fl *flight) {
	l.done, l.err = true, nil
	switch {
	case fl.err == nil && fl.entry != nil && fl.entry.fits(l.schema):
		l.entry, l.tier = fl.entry, feature.TierBacking
	case fl.err == nil:
		l.err = errSchema
	case errors.Is(fl.err, errAbsent):
		if l.damaged {
			l.err = feature.ErrCorrupt
		}
	default:
		l.err = fl.err
	}
}

// scratch is the working memory of one request, reused.
type scratch struct {
	lookups []lookup
	refs    []feature.Ref
	cells   []int32 // cell -> lookup+1, for the cells that the cache did not answer
	seen    map[feature.Ref]int32
}

var scratches = sync.Pool{New: func() any { return &scratch{seen: map[feature.Ref]int32{}} }}

func (s *scratch) release() {
	if cap(s.lookups) > 4096 {
		return // do not keep the memory of a giant request
	}
	clear(s.lookups)
	clear(s.seen)
	s.lookups, s.refs, s.cells = s.lookups[:0], s.refs[:0], s.cells[:0]
	scratches.Put(s)
}

// Get reads one selection for many entities. The response has one row per entity, in the
// order of the request, and one value per feature, in the order of the selection.
//
// A tier that fails does not fail the read: what it should have said comes from the next
// tier or is labelled UNKNOWN, and the tier is listed in [Response.Unreachable]. That holds
// for a context whose deadline passes as well. Get returns an error only for a request
// that cannot be read (matching feature.ErrInvalid), a cancelled context, or a closed
// reader.
func (r *Reader) Get(ctx context.Context, req Request) (*Response, error) {
	if !r.enter() {
		return nil, ErrClosed
	}
	defer r.leave()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := r.plan(&req)
	if err != nil {
		return nil, err
	}
	if req.OnStale == StaleAsConfigured && r.staleDefaults[req.Service] {
		req.OnStale = StaleDefault
	}
	now := r.clock.Now()
	resp := &Response{
		plan: p, entities: req.Entities, now: feature.MicrosOf(now),
		maxAge: req.MaxAge, onStale: req.OnStale,
	}
	if n := len(req.Entities) * len(p.groups); n == 1 {
		resp.cells = resp.one[:] // the smallest read without an allocation of its own
	} else {
		resp.cells = make([]cell, n)
	}
	s := scratches.Get().(*scratch)
	defer s.release()
	if err := r.fromMemory(resp, s, now.UnixNano(), req.SkipCache); err != nil {
		return nil, err
	}
	if len(s.lookups) > 0 {
		r.fromTiers(ctx, resp, s, req.SkipCache)
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, ctx.Err()
		}
	}
	r.count.answers(resp, p.service)
	return resp, nil
}

// fromMemory answers what the cache can and lists the other keys, each once.
func (r *Reader) fromMemory(resp *Response, s *scratch, now int64, skip bool) error {
	rows, groups := len(resp.entities), resp.plan.groups
	var hits, negative uint64
	for g := range groups {
		grp := &groups[g]
		for row, entity := range resp.entities {
			key, err := grp.key(entity)
			if err != nil {
				return rowError(row, rows, grp.id, err)
			}
			ref := feature.Ref{View: grp.id, Key: key}
			if r.asked != nil {
				r.asked(ref)
			}
			at := row*len(groups) + g
			if !skip {
				if e, known := r.memory.lookup(ref, grp.schema, now); known {
					resp.cells[at] = cell{entry: e, tier: feature.TierCache}
					hits++
					if e == nil {
						negative++
					}
					continue
				}
			}
			if len(s.cells) == 0 {
				s.cells = slices.Grow(s.cells, len(resp.cells))[:len(resp.cells)]
				clear(s.cells)
			}
			n, ok := int32(0), false
			if len(resp.cells) > 1 {
				n, ok = s.seen[ref]
			}
			if !ok {
				s.lookups = append(s.lookups, lookup{ref: ref, schema: grp.schema, era: grp.schema.era.Load()})
				n = int32(len(s.lookups))
				if len(resp.cells) > 1 {
					s.seen[ref] = n
				}
			}
			s.cells[at] = n
		}
	}
	r.count.memory(hits, negative, uint64(len(s.lookups)))
	return nil
}

// fromTiers resolves the lookups: online, then backing, then what was last known.
func (r *Reader) fromTiers(ctx context.Context, resp *Response, s *scratch, skipCache bool) {
	open := len(s.lookups)
	if r.online != nil {
		var err error
		if open, err = r.fromOnline(ctx, s); err != nil {
			resp.addOutage(feature.TierOnline, err)
		}
	}
	if open > 0 && r.fetcher != nil {
		r.fromBacking(ctx, resp, s, open, skipCache)
	}
	r.finish(resp, s)
}

// finish turns the lookups into cells: values, absences, last known values, unknowns.
func (r *Reader) finish(resp *Response, s *scratch) {
	now := r.clock.Now().UnixNano()
	for i := range s.lookups {
		l := &s.lookups[i]
		if l.entry != nil {
			continue
		}
		if l.err == nil {
			if r.fetcher == nil { // else landed has done it
				r.memory.putAbsent(l.ref, l.era, now)
			}
			continue
		}
		if l.entry = r.memory.lastKnown(l.ref, l.schema, now); l.entry != nil {
			l.tier, l.stale = feature.TierCache, true
		}
	}
	for at, n := range s.cells {
		if n == 0 {
			continue
		}
		l := &s.lookups[n-1]
		c := &resp.cells[at]
		c.entry, c.tier, c.stale = l.entry, l.tier, l.stale
		c.unknown = l.entry == nil && l.err != nil
	}
}

// fromOnline asks the online tier for every lookup in one call, and returns how many are
// still open and why any of them failed.
func (r *Reader) fromOnline(ctx context.Context, s *scratch) (open int, outage error) {
	open = len(s.lookups)
	permit, ok := r.onlineBreaker.Allow()
	if !ok {
		r.count.online.skipped.Add(1)
		for i := range s.lookups {
			s.lookups[i].err = breaker.ErrOpen
		}
		return open, breaker.ErrOpen
	}
	for i := range s.lookups {
		s.refs = append(s.refs, s.lookups[i].ref)
	}
	timeout := r.onlineTimeout
	start := r.clock.Now()
	if deadline, has := ctx.Deadline(); has {
		left := deadline.Sub(start)
		if r.fetcher != nil {
			left /= 2 // a slow online tier must leave the backing tier its half of the caller's time
		}
		if left > 0 && left < timeout {
			timeout = left
		}
	}
	callCtx, cancel := context.WithTimeout(ctx, timeout)
	got, err := explained(r.online.Get(callCtx, s.refs))(len(s.refs))
	late := callCtx.Err() != nil
	cancel()
	now := r.clock.Now()
	n := tierCount{calls: 1, keys: open}
	if err != nil {
		n.errors, outage = open, err
		for i := range s.lookups {
			s.lookups[i].err = err
		}
	} else {
		open, outage = r.takeOnline(s, got, &n, now.UnixNano())
	}
	v := breaker.Healthy
	switch {
	case n.errors < len(s.refs):
	case ctx.Err() != nil, late && timeout < r.onlineTimeout/8:
		v = breaker.Neutral // it was the caller who had no time
	case err == nil && r.isolates != nil:
		v = breaker.Neutral // some of its servers are out, which is for the tier itself to judge
	default:
		v = breaker.Sick
	}
	r.onlineBreaker.Done(permit, v)
	r.observe(feature.TierOnline, len(s.refs), now.Sub(start), outage)
	r.count.online.add(n)
	return open, outage
}

// takeOnline reads the answers of one call, each on its own.
func (r *Reader) takeOnline(s *scratch, got []feature.GetResult, n *tierCount, now int64) (open int, outage error) {
	open = len(s.lookups)
	room := arena{left: open}
	for i := range s.lookups {
		l := &s.lookups[i]
		switch {
		case undecodable(got[i].Err):
			n.bad(got[i].Err)
			l.err, l.damaged, l.repair = got[i].Err, true, true
		case got[i].Err != nil:
			l.err = got[i].Err
			n.errors++
			if outage == nil {
				outage = l.err
			}
		case got[i].Payload == nil:
			n.misses++
			l.repair = true
		default:
			e, err := parse(l.schema, got[i].Payload, &room)
			if err != nil {
				n.bad(err)
				l.err, l.damaged, l.repair = err, true, true
				continue
			}
			n.hits++
			open--
			l.done, l.entry, l.tier = true, e, feature.TierOnline
			if kept := r.memory.put(l.ref, e, l.era, now); kept != e {
				l.entry, l.tier = kept, feature.TierCache
			}
		}
	}
	return open, outage
}

// fromBacking asks the backing tier for what is open. The fetcher writes into the lookups
// while this request waits, never after.
func (r *Reader) fromBacking(ctx context.Context, resp *Response, s *scratch, open int, skipCache bool) {
	r.fetcher.fetch(ctx, s.lookups, open, skipCache)
	var shared, capped, skipped int
	for i := range s.lookups {
		l := &s.lookups[i]
		if l.shared {
			shared++
		}
		switch {
		case l.err == nil || undecodable(l.err):
			continue
		case errors.Is(l.err, errCapped):
			capped++
		case errors.Is(l.err, breaker.ErrOpen):
			skipped = 1
		}
		resp.addOutage(feature.TierBacking, l.err)
	}
	addTo(&r.count.backing.shared, shared)
	addTo(&r.count.backing.capped, capped)
	addTo(&r.count.backing.skipped, skipped)
}

// landed checks what the backing tier answered for one key, remembers it and writes it up.
func (r *Reader) landed(ctx context.Context, fl *flight, got feature.GetResult, m mend) {
	n := tierCount{keys: 1}
	defer func() { r.count.backing.add(n) }()
	if got.Payload == nil {
		n.misses++
		fl.err = errAbsent
		switch {
		case !m.damaged:
			r.memory.putAbsent(fl.ref, fl.era, r.clock.Now().UnixNano())
		case r.repairer != nil:
			r.repairer.discard(ctx, fl.ref)
		}
		return
	}
	e, err := parse(fl.schema, got.Payload, &arena{})
	if err != nil {
		n.bad(err)
		fl.err = err
		return
	}
	n.hits++
	fl.entry = r.memory.put(fl.ref, e, fl.era, r.clock.Now().UnixNano())
	if m.missing && r.repairer != nil {
		r.repairer.offer(ctx, fl.schema.view, fl.ref, got.Payload, m.damaged)
	}
}

func undecodable(err error) bool {
	return errors.Is(err, feature.ErrCorrupt) || errors.Is(err, feature.ErrUnknownFormat)
}
