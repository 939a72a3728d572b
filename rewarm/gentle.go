package rewarm

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/pace"
)

// A run that is to be gentle reads the online tier itself, as live traffic does, and lets
// the rate of its puts follow from what these reads take. Time of puts alone does not tell:
// a put of 50 values is slow for other reasons than a read behind it.
const (
	gentleReads   = 500                  // before the run, to learn what a read takes
	gentleBefore  = time.Millisecond     // between two of them
	gentleEvery   = 2 * time.Millisecond // between two reads during the run
	gentleShare   = 0.008                // of the reads may take longer: a little less than a p99 allows
	gentleMinimum = 1000.0               // items per second, so that a run ends
	gentleBegin   = 5000.0               // items per second

	// What a live read may stand behind is bounded as well.
	gentleBatch   = 50                   // records per put, at most
	gentleLeast   = 5                    // and at least
	gentleSlice   = 5 * time.Millisecond // of the rate in one put
	gentlePuts    = 1                    // puts in flight
	gentleWorkers = 2                    // pages decoded at a time: live reads may share the processors
)

// LiveReads is how reads of the online tier fared during a run with MaxSlowdown.
type LiveReads struct {
	BeforeP99 float64 `json:"before_p99_ms"` // of the reads before the run
	Limit     float64 `json:"limit_ms"`      // MaxSlowdown times that
	Reads     int64   `json:"reads"`         // during the run
	Slower    int64   `json:"slower"`        // than the limit; a hundredth is what the limit means
	LastRate  float64 `json:"last_rate"`     // items per second, at the end
}

// String says it in a line.
func (l *LiveReads) String() string {
	return fmt.Sprintf("%.2f %% of %s took longer than %.2f ms; their p99 was %.2f ms before", 100*float64(l.Slower)/max(float64(l.Reads), 1), count(l.Reads), l.Limit, l.BeforeP99)
}

// gentle is the pacing of one pass by what reads take.
type gentle struct {
	r        *Rewarmer
	refs     []feature.Ref
	before   time.Duration
	limit    time.Duration
	rate     *pace.Bucket
	governor *pace.Governor
}

// gently measures what a read takes before anything is put. It is nil for a run that need
// not be gentle.
func (p *pass) gently(ctx context.Context) (*gentle, error) {
	cfg := &p.r.cfg
	if p.req.MaxSlowdown == 0 {
		return nil, nil
	}
	// Keys that no entity has: whether they are there makes no difference to the time.
	g := &gentle{r: p.r, rate: p.writes, refs: canarySet{Run: p.req.Run, At: feature.MicrosOf(cfg.Clock.Now()), N: cfg.Canaries}.refs(p.views.any())}
	took := make([]time.Duration, 0, gentleReads)
	for n := range gentleReads {
		if d, err := g.read(ctx, n); err == nil {
			took = append(took, d)
		}
		if err := cfg.Clock.Sleep(ctx, gentleBefore); err != nil {
			return nil, err
		}
	}
	if len(took) < gentleReads/2 {
		return nil, fmt.Errorf("rewarm: %d of %d reads of the online tier failed, which are to tell how fast it is: %w", gentleReads-len(took), gentleReads, feature.ErrUnreachable)
	}
	slices.Sort(took)
	g.before = took[len(took)*99/100]
	g.limit = time.Duration(float64(g.before) * p.req.MaxSlowdown)
	g.governor = pace.NewGovernor(pace.GovernorConfig{Bucket: p.writes, Share: gentleShare, Min: gentleMinimum, Max: p.req.MaxWriteRate})
	return g, nil
}

// read asks for one key, each time of another shard.
func (g *gentle) read(ctx context.Context, n int) (time.Duration, error) {
	clk := g.r.cfg.Clock
	at := n % len(g.refs)
	began := clk.Now()
	results, err := g.r.cfg.Online.Get(ctx, g.refs[at:at+1])
	if err == nil {
		err = results[0].Err
	}
	return clk.Now().Sub(began), err
}

// batchSize is how many records the next put has. A gentle run whose rate had to come down
// puts fewer at a time, so that one put alone is not what a read stands behind.
func (p *pass) batchSize() int {
	if p.req.MaxSlowdown == 0 {
		return p.batch
	}
	return min(max(int(p.writes.Rate()*gentleSlice.Seconds()), gentleLeast), p.batch)
}

// start watches until stop is called, which says what was seen.
func (g *gentle) start(ctx context.Context) (stop func() *LiveReads) {
	if g == nil {
		return func() *LiveReads { return nil }
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.watch(ctx)
	}()
	return func() *LiveReads {
		cancel()
		<-done
		return g.report()
	}
}

// watch reads until ctx ends. A read that fails took too long, whatever it took.
func (g *gentle) watch(ctx context.Context) {
	for n := 0; g.r.cfg.Clock.Sleep(ctx, gentleEvery) == nil; n++ {
		took, err := g.read(ctx, n)
		if ctx.Err() != nil {
			return
		}
		g.governor.Saw(err != nil || took > g.limit)
	}
}

// report says what was seen.
func (g *gentle) report() *LiveReads {
	all, bad := g.governor.Seen()
	return &LiveReads{
		BeforeP99: milliseconds(g.before), Limit: milliseconds(g.limit), Reads: all, Slower: bad, LastRate: g.rate.Rate(),
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
