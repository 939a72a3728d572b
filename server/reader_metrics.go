package server

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// RegisterReader shows the counts of a reader: those of a server, or of a service that has
// the reader inside (stats is then the Stats method of its hearth.Features). They are read
// when Prometheus asks, so that the hot path knows nothing of metrics.
func RegisterReader(reg prometheus.Registerer, stats func() reader.Stats) error {
	if err := reg.Register(readerCollector{stats}); err != nil {
		return fmt.Errorf("register metrics of the reader: %w", err)
	}
	return nil
}

// TierObserver makes the histogram of tier calls, registers it and returns the function
// for reader.Config.Observe.
func TierObserver(reg prometheus.Registerer) (func(tier feature.Tier, keys int, took time.Duration, err error), error) {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "hearth_tier_call_seconds", Help: "Time of one call of a tier by the reader.",
		Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1},
	}, []string{"tier", "ok"})
	if err := reg.Register(seconds); err != nil {
		return nil, fmt.Errorf("register metrics of tier calls: %w", err)
	}
	return func(tier feature.Tier, _ int, took time.Duration, err error) {
		seconds.WithLabelValues(string(tier), strconv.FormatBool(err == nil)).Observe(took.Seconds())
	}, nil
}

type readerCollector struct{ stats func() reader.Stats }

type metric struct {
	described
	kind   prometheus.ValueType
	values func(reader.Stats) map[string]uint64 // by the label, or one without; nil: breakers
}

// described is a metric with one label or none.
type described struct {
	desc  *prometheus.Desc
	label string
}

func desc(name, help string, labels ...string) described {
	return described{prometheus.NewDesc(name, help, labels, nil), strings.Join(labels, ",")}
}

func readerMetrics() []metric {
	tiers := func(of func(reader.TierStats) uint64) func(reader.Stats) map[string]uint64 {
		return func(s reader.Stats) map[string]uint64 {
			return map[string]uint64{"online": of(s.Online), "backing": of(s.Backing)}
		}
	}
	services := func(of func(reader.ServiceStats) uint64) func(reader.Stats) map[string]uint64 {
		return func(s reader.Stats) map[string]uint64 {
			counts := make(map[string]uint64, len(s.Services))
			for name, service := range s.Services {
				counts[name] = of(service)
			}
			return counts
		}
	}
	c := prometheus.CounterValue
	return []metric{
		{desc("hearth_reads_total", "Answered requests of the reader."), c, func(s reader.Stats) map[string]uint64 { return map[string]uint64{"": s.Requests} }},
		{desc("hearth_lookups_total", "Lookups (an entity in a view) by verdict.", "verdict"), c, func(s reader.Stats) map[string]uint64 {
			return map[string]uint64{"found": s.Found, "not_found": s.NotFound, "unknown": s.Unknown}
		}},
		{desc("hearth_lookups_outside_max_age_total", "Lookups that found a value older than allowed."), c, func(s reader.Stats) map[string]uint64 { return map[string]uint64{"": s.OutsideMaxAge} }},
		{desc("hearth_lookups_stale_total", "Lookups answered with the last known value because no tier answered."), c, func(s reader.Stats) map[string]uint64 { return map[string]uint64{"": s.Stale} }},
		{desc("hearth_cache_total", "Keys looked up in the in-process cache.", "result"), c, func(s reader.Stats) map[string]uint64 {
			return map[string]uint64{"hit": s.CacheHits - s.CacheNegative, "negative": s.CacheNegative, "miss": s.CacheMisses}
		}},
		{desc("hearth_tier_calls_total", "Calls of a tier by the reader.", "tier"), c, tiers(func(t reader.TierStats) uint64 { return t.Calls })},
		{desc("hearth_tier_hits_total", "Keys that a tier had.", "tier"), c, tiers(func(t reader.TierStats) uint64 { return t.Hits })},
		{desc("hearth_tier_misses_total", "Keys that a tier did not have.", "tier"), c, tiers(func(t reader.TierStats) uint64 { return t.Misses })},
		{desc("hearth_tier_errors_total", "Keys that a tier did not answer for.", "tier"), c, tiers(func(t reader.TierStats) uint64 { return t.Errors })},
		{desc("hearth_tier_corrupt_total", "Values that are not what their schema promises.", "tier"), c, tiers(func(t reader.TierStats) uint64 { return t.Corrupt })},
		{desc("hearth_tier_unknown_format_total", "Values of an unknown format or another schema.", "tier"), c, tiers(func(t reader.TierStats) uint64 { return t.Foreign })},
		{desc("hearth_tier_skipped_total", "Requests that did not ask a tier because its breaker was open.", "tier"), c, tiers(func(t reader.TierStats) uint64 { return t.Skipped })},
		{desc("hearth_backing_shared_total", "Keys that joined another request's lookup."), c, func(s reader.Stats) map[string]uint64 { return map[string]uint64{"": s.Backing.Shared} }},
		{desc("hearth_backing_capped_total", "Keys not asked for because the cap on backing calls was used up."), c, func(s reader.Stats) map[string]uint64 { return map[string]uint64{"": s.Backing.Capped} }},
		{desc("hearth_repairs_total", "Values written up to the online tier, by outcome.", "outcome"), c, func(s reader.Stats) map[string]uint64 {
			r := s.Repairs
			return map[string]uint64{"written": r.Written, "newer": r.Newer, "expired": r.Expired, "dropped": r.Dropped, "failed": r.Failed}
		}},
		{desc("hearth_cache_entries", "Keys in the in-process cache now.", "kind"), prometheus.GaugeValue, func(s reader.Stats) map[string]uint64 {
			return map[string]uint64{"value": uint64(s.CacheEntries), "absence": uint64(s.AbsentEntries)}
		}},
		{desc("hearth_repair_queue", "Values that wait to be written up to the online tier."), prometheus.GaugeValue, func(s reader.Stats) map[string]uint64 {
			return map[string]uint64{"": uint64(s.Repairs.Waiting)}
		}},
		{desc("hearth_node_breaker_open", "1 while the breaker of a server of the online tier is open, 0.5 while it probes.", "node"), prometheus.GaugeValue, nil},
		{desc("hearth_service_lookups_total", "Lookups (an entity in a view) by feature service; empty: lists of features.", "service"), c, services(func(s reader.ServiceStats) uint64 { return s.Lookups })},
		{desc("hearth_service_fallback_total", "Lookups of a feature service answered by the backing tier.", "service"), c, services(func(s reader.ServiceStats) uint64 { return s.Fallback })},
		{desc("hearth_service_defaults_total", "Lookups of a feature service answered by defaults: not found, or no tier could say.", "service"), c, services(func(s reader.ServiceStats) uint64 { return s.Default })},
		{desc("hearth_service_unknown_total", "Of the defaults of a feature service: no tier could say.", "service"), c, services(func(s reader.ServiceStats) uint64 { return s.Unknown })},
		{desc("hearth_service_outside_max_age_total", "Lookups of a feature service that found a value older than allowed.", "service"), c, services(func(s reader.ServiceStats) uint64 { return s.OutsideMaxAge })},
		{desc("hearth_service_stale_total", "Lookups of a feature service answered with the last known value because no tier answered.", "service"), c, services(func(s reader.ServiceStats) uint64 { return s.Stale })},
		{desc("hearth_breaker_open", "1 while the breaker of a tier is open, 0.5 while it probes.", "tier"), prometheus.GaugeValue, nil},
	}
}

// Describe tells Prometheus what there is.
func (c readerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range readerMetrics() {
		ch <- m.desc
	}
}

// Collect reads the counts.
func (c readerCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	for _, m := range readerMetrics() {
		switch {
		case m.values != nil:
			for label, n := range m.values(s) {
				if m.label == "" {
					ch <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(n))
				} else {
					ch <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(n), label)
				}
			}
		case m.label == "node":
			for _, node := range s.Online.Nodes {
				ch <- prometheus.MustNewConstMetric(m.desc, m.kind, breakerLevel(node.Breaker), node.Addr)
			}
		default:
			for tier, state := range map[string]string{"online": s.Online.Breaker, "backing": s.Backing.Breaker} {
				ch <- prometheus.MustNewConstMetric(m.desc, m.kind, breakerLevel(state), tier)
			}
		}
	}
}

func breakerLevel(state string) float64 {
	switch state {
	case reader.BreakerOpen:
		return 1
	case reader.BreakerHalfOpen:
		return 0.5
	}
	return 0
}
