package materializer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// send brings what the backing tier holds of b to the online tier. It goes on with what is
// acknowledged even when the view was given up, but not when the caller's context ended.
func (p *pipeline) send(b *batch) {
	if len(b.keep) == 0 || p.parent.Err() != nil {
		return
	}
	now := p.m.clock.Now()
	recs, expired := b.keep[:0], int64(0)
	for _, rec := range b.keep {
		if rec.Online != feature.NoTime && rec.Online <= feature.MicrosOf(now) && !rec.Tombstone() {
			expired++
			continue
		}
		recs = append(recs, rec)
	}
	if expired > 0 {
		p.mu.Lock()
		p.report.Online.Expired += expired
		p.mu.Unlock()
	}
	if len(recs) == 0 {
		return
	}
	if now.Sub(b.asked) > p.m.cfg.MaxBatchAge {
		p.behind(recs, "online", fmt.Errorf("the backing tier's answer is %s old and may be outdated; the next run looks again", now.Sub(b.asked).Round(time.Second)), false)
		return
	}
	if !p.gate.open(now) {
		p.behind(recs, "online", fmt.Errorf("%w: left alone after repeated failures", feature.ErrUnreachable), false)
		return
	}
	results, err := p.m.cfg.Online.Put(p.parent, recs)
	if p.parent.Err() != nil {
		return
	}
	if len(results) != len(recs) {
		if err == nil {
			err = fmt.Errorf("online tier returned %d results for %d records", len(results), len(recs))
		}
		p.gate.result(now, false)
		p.behind(recs, "online", err, true)
		return
	}
	p.gate.result(now, p.judgeOnline(recs, results))
}

// judgeOnline counts the results and reports whether any record got through.
func (p *pipeline) judgeOnline(recs []feature.Record, results []feature.PutResult) bool {
	through := false
	for i, res := range results {
		if res.Outcome == feature.Failed {
			p.behind(recs[i:i+1], "online", res.Err, true)
			continue
		}
		through = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o := &p.report.Online
	for i, res := range results {
		switch res.Outcome {
		case feature.Written:
			if p.mode == modeHeal {
				o.Healed++
			} else {
				o.Written++
			}
		case feature.Unchanged:
			o.Unchanged++
		case feature.Older:
			o.Older++
		case feature.Expired:
			o.Expired++
			continue
		default:
			continue
		}
		p.sample.offer(&recs[i])
	}
	return through
}

// behind counts records that did not reach the online tier. tried says that it was asked.
func (p *pipeline) behind(recs []feature.Record, tier string, err error, tried bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Online.Behind += int64(len(recs))
	if tried {
		p.report.Online.Failed += int64(len(recs))
	}
	if err != nil {
		p.failure(tier, recs, err)
	}
}

// gate keeps a run from waiting for an online tier that is away: after three batches in a
// row failed it stays shut for a while and then lets one through to see.
type gate struct {
	cooldown time.Duration

	mu     sync.Mutex
	streak int
	until  time.Time // shut until then; zero: open
}

const gateStreak = 3

func (g *gate) open(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.until.IsZero() {
		return true
	}
	if now.Before(g.until) {
		return false
	}
	g.until = now.Add(g.cooldown) // this caller is the probe; the others wait for its result
	return true
}

func (g *gate) result(now time.Time, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ok {
		g.streak, g.until = 0, time.Time{}
		return
	}
	if g.streak++; g.streak >= gateStreak {
		g.until = now.Add(g.cooldown)
	}
}

// sample remembers some of the records that a run brought online: the first ones and an
// even choice of the others. A run that wants to mark the online tier warm looks them up at
// its end: a tier that was flushed, restarted or full in between lacks some. A nil sample
// remembers nothing.
type sample struct {
	mu    sync.Mutex
	seen  int64
	early []sampled
	even  []sampled
	rand  *rand.Rand
}

type sampled struct {
	ref    feature.Ref
	expiry feature.Micros
}

const sampleSize = 128

func newSample(run uint64) *sample { return &sample{rand: rand.New(rand.NewPCG(run, 0))} }

func (s *sample) offer(rec *feature.Record) {
	if s == nil || rec.Tombstone() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := sampled{ref: rec.Ref, expiry: rec.Online}
	s.seen++
	switch {
	case len(s.early) < sampleSize:
		s.early = append(s.early, x)
	case len(s.even) < sampleSize:
		s.even = append(s.even, x)
	default:
		if i := s.rand.Int64N(s.seen - sampleSize); i < sampleSize {
			s.even[i] = x
		}
	}
}

// intact reports whether the online tier still has every sampled record that it should.
func (s *sample) intact(ctx context.Context, m *Materializer) (bool, error) {
	all := slices.Concat(s.early, s.even)
	if len(all) == 0 {
		return true, nil
	}
	refs := make([]feature.Ref, len(all))
	for i, x := range all {
		refs[i] = x.ref
	}
	results, err := m.cfg.Online.Get(ctx, refs)
	if err != nil {
		return false, err
	}
	now := feature.MicrosOf(m.clock.Now())
	for i, res := range results {
		if res.Err != nil {
			return false, res.Err
		}
		if res.Payload == nil && (all[i].expiry == feature.NoTime || all[i].expiry > now) {
			return false, nil
		}
	}
	return true, nil
}
