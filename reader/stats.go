package reader

import (
	"errors"
	"sync/atomic"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/breaker"
)

// Stats is what a reader has done since it was opened, and how it stands. The counts only
// grow; CacheEntries, RepairStats.Waiting and the breakers are states.
type Stats struct {
	Requests uint64 `json:"requests"` // answered requests
	// Lookups by verdict. One lookup is one entity in one view of one request.
	Found         uint64 `json:"found"`
	NotFound      uint64 `json:"not_found"`
	OutsideMaxAge uint64 `json:"outside_max_age"` // of those found: older than allowed
	Unknown       uint64 `json:"unknown"`
	Stale         uint64 `json:"stale"` // of those found: last known, as every tier was out

	CacheHits     uint64 `json:"cache_hits"`
	CacheNegative uint64 `json:"cache_negative"` // of the hits: remembered absence
	CacheMisses   uint64 `json:"cache_misses"`   // keys asked of the tiers, each once per request

	CacheEntries  int `json:"cache_entries"`  // values in the cache now
	AbsentEntries int `json:"absent_entries"` // remembered absences now

	Online  TierStats   `json:"online"`
	Backing TierStats   `json:"backing"`
	Repairs RepairStats `json:"repairs"`

	// Services counts per feature service of the project; "" holds the requests that named
	// features or brought a selection.
	Services map[string]ServiceStats `json:"services,omitempty"`
}

// ServiceStats counts the lookups of one feature service: one lookup is one entity in one
// view of one request.
type ServiceStats struct {
	Requests      uint64 `json:"requests"`
	Lookups       uint64 `json:"lookups"`
	Fallback      uint64 `json:"fallback"`        // answered by the backing tier
	Default       uint64 `json:"default"`         // answered by defaults: not found or unknown
	Unknown       uint64 `json:"unknown"`         // of Default: no tier could say
	OutsideMaxAge uint64 `json:"outside_max_age"` // found, older than allowed
	Stale         uint64 `json:"stale"`           // last known value, as every tier was out
}

// TierStats is the traffic of one tier.
type TierStats struct {
	Calls   uint64 `json:"calls"`
	Keys    uint64 `json:"keys"`
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
	Errors  uint64 `json:"errors"`  // keys that the tier could not answer
	Corrupt uint64 `json:"corrupt"` // values that are not what their schema promises
	Foreign uint64 `json:"foreign"` // values of an unknown format or another schema
	Skipped uint64 `json:"skipped"` // requests that did not ask the tier: its breaker was open
	Shared  uint64 `json:"shared"`  // keys that joined another request's lookup
	Capped  uint64 `json:"capped"`  // keys not asked for: the cap was used up
	// Breaker is BreakerClosed, BreakerOpen or BreakerHalfOpen; "" for a tier that is not
	// there. A tier of several servers is open when all of them are.
	Breaker string `json:"breaker"`
	// Nodes has the breaker of each server of a tier of several.
	Nodes []NodeStats `json:"nodes,omitempty"`
}

// RepairStats counts the values written up to the online tier.
type RepairStats struct {
	Queued  uint64 `json:"queued"`
	Written uint64 `json:"written"`
	Newer   uint64 `json:"newer"`   // the online tier had the same or a newer one by then
	Expired uint64 `json:"expired"` // too old for the online tier
	Dropped uint64 `json:"dropped"` // the queue was full or the online tier out
	Failed  uint64 `json:"failed"`
	Waiting int    `json:"waiting"` // in the queue now
}

type counters struct {
	requests, found, notFound, outside, unknown, stale atomic.Uint64
	hits, negative, misses                             atomic.Uint64
	online, backing                                    tierCounters
	repair                                             repairCount
}

type tierCounters struct {
	calls, keys, hits, misses, errors, corrupt, foreign, skipped, shared, capped atomic.Uint64
}

type repairCount struct{ queued, written, newer, expired, dropped, failed atomic.Uint64 }

// tierCount is what one call adds.
type tierCount struct{ calls, keys, hits, misses, errors, corrupt, foreign int }

func (n *tierCount) bad(err error) {
	if errors.Is(err, feature.ErrUnknownFormat) {
		n.foreign++
	} else {
		n.corrupt++
	}
}

func (c *tierCounters) add(n tierCount) {
	addTo(&c.calls, n.calls)
	addTo(&c.keys, n.keys)
	addTo(&c.hits, n.hits)
	addTo(&c.misses, n.misses)
	addTo(&c.errors, n.errors)
	addTo(&c.corrupt, n.corrupt)
	addTo(&c.foreign, n.foreign)
}

func addTo(c *atomic.Uint64, n int) {
	if n > 0 {
		c.Add(uint64(n))
	}
}

func (c *counters) memory(hits, negative, misses uint64) {
	addTo(&c.hits, int(hits))
	addTo(&c.negative, int(negative))
	addTo(&c.misses, int(misses))
}

func (c *counters) answers(resp *Response, service *serviceCount) {
	var found, notFound, outside, unknown, stale, fallback int
	groups := resp.plan.groups
	for i := range resp.cells {
		cl := &resp.cells[i]
		switch {
		case cl.unknown:
			unknown++
		case cl.entry == nil || cl.entry.tombstone:
			notFound++
		default:
			found++
			if resp.tooOld(groups[i%len(groups)].schema, cl.entry) {
				outside++
			}
		}
		if cl.stale {
			stale++
		}
		if cl.tier == feature.TierBacking {
			fallback++
		}
	}
	service.requests.Add(1)
	addTo(&service.lookups, len(resp.cells))
	addTo(&service.fallback, fallback)
	addTo(&service.defaults, notFound+unknown)
	addTo(&service.unknown, unknown)
	addTo(&service.outside, outside)
	addTo(&service.stale, stale)
	c.requests.Add(1)
	addTo(&c.found, found)
	addTo(&c.notFound, notFound)
	addTo(&c.outside, outside)
	addTo(&c.unknown, unknown)
	addTo(&c.stale, stale)
}

// serviceCount is where the requests of one service, or of none, are counted.
type serviceCount struct {
	requests, lookups, fallback, defaults, unknown, outside, stale atomic.Uint64
}

func (c *serviceCount) stats() ServiceStats {
	return ServiceStats{
		Requests: c.requests.Load(), Lookups: c.lookups.Load(), Fallback: c.fallback.Load(), Default: c.defaults.Load(),
		Unknown: c.unknown.Load(), OutsideMaxAge: c.outside.Load(), Stale: c.stale.Load(),
	}
}

func (c *tierCounters) stats(b *breaker.Breaker) TierStats {
	s := TierStats{
		Calls: c.calls.Load(), Keys: c.keys.Load(), Hits: c.hits.Load(), Misses: c.misses.Load(),
		Errors: c.errors.Load(), Corrupt: c.corrupt.Load(), Foreign: c.foreign.Load(),
		Skipped: c.skipped.Load(), Shared: c.shared.Load(), Capped: c.capped.Load(),
	}
	if b != nil {
		s.Breaker = b.State()
	}
	return s
}

// Stats returns the counts so far.
func (r *Reader) Stats() Stats {
	c := &r.count
	s := Stats{
		Requests: c.requests.Load(), Found: c.found.Load(), NotFound: c.notFound.Load(),
		OutsideMaxAge: c.outside.Load(), Unknown: c.unknown.Load(), Stale: c.stale.Load(),
		CacheHits: c.hits.Load(), CacheNegative: c.negative.Load(), CacheMisses: c.misses.Load(),
		Online: c.online.stats(r.onlineBreaker), Backing: c.backing.stats(r.backingBreaker),
		Repairs: RepairStats{
			Queued: c.repair.queued.Load(), Written: c.repair.written.Load(), Newer: c.repair.newer.Load(),
			Expired: c.repair.expired.Load(), Dropped: c.repair.dropped.Load(), Failed: c.repair.failed.Load(),
		},
		Services: make(map[string]ServiceStats, len(r.services)+1),
	}
	s.CacheEntries, s.AbsentEntries = r.memory.sizes()
	if r.isolates != nil {
		if s.Online.Nodes = r.isolates.Nodes(); allOpen(s.Online.Nodes) {
			s.Online.Breaker = BreakerOpen
		}
	}
	if r.repairer != nil {
		s.Repairs.Waiting = len(r.repairer.queue)
	}
	for name, svc := range r.services {
		s.Services[name] = svc.count.stats()
	}
	s.Services[""] = r.adHoc.stats()
	return s
}
