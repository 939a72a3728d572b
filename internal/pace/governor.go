package pace

import (
	"math"
	"sync"
)

// GovernorConfig says how a [Governor] behaves.
type GovernorConfig struct {
	// Bucket is what it governs. Required.
	Bucket *Bucket
	// Share of the observations may be bad. Required.
	Share float64
	// Min and Max bound the rate. Min is required; Max defaults to none.
	Min, Max float64
}

const (
	cutBy   = 0.7 // of the rate, for a bad observation
	climbBy = 3   // times the usual growth, before the first bad one
)

// Governor finds the rate of work at which a given share of observations of something else
// is bad, for example the share of live reads that take too long. Every bad one cuts the
// rate by three tenths, every good one raises it by so little that the two balance at just
// that share: nothing has to be known of why work is felt, or from which rate on.
//
// It is safe for concurrent use.
type Governor struct {
	cfg  GovernorConfig
	grow float64 // of the rate, for a good observation

	mu   sync.Mutex
	rate float64
	seen int64
	bad  int64
}

// NewGovernor returns a governor that begins at the bucket's rate.
func NewGovernor(cfg GovernorConfig) *Governor {
	if cfg.Max <= 0 {
		cfg.Max = math.Inf(1)
	}
	rate := cfg.Bucket.Rate()
	return &Governor{cfg: cfg, grow: math.Pow(1/cutBy, cfg.Share/(1-cfg.Share)), rate: rate}
}

// Saw takes an observation and adapts the rate.
func (g *Governor) Saw(bad bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen++
	switch {
	case bad:
		g.bad++
		g.rate *= cutBy
	case g.bad == 0:
		g.rate *= math.Pow(g.grow, climbBy)
	default:
		g.rate *= g.grow
	}
	g.rate = min(max(g.rate, g.cfg.Min), g.cfg.Max)
	g.cfg.Bucket.SetRate(g.rate)
}

// Seen is how many observations there were, and how many of them were bad.
func (g *Governor) Seen() (all, bad int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen, g.bad
}
