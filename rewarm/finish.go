package rewarm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hearthstore/hearth/feature"
)

// finish judges what the pass achieved. cause is why segments are not through, if any.
func (p *pass) finish(ctx context.Context, cause error) error {
	rep := p.rep
	rep.SegmentsDone = 0
	failed := 0
	all := slices.Clone(p.cps)
	for _, cp := range p.cps {
		if cp.Done {
			rep.SegmentsDone++
		}
		failed += p.list(cp)
	}
	if errors.Is(cause, errNoRoom) {
		p.short()
		return nil
	}
	if cause != nil {
		rep.Problems = append(rep.Problems, cause.Error()+"; the checkpoint is kept, run it again to continue")
		if rep.Scanned == 0 && p.before.Scanned == 0 {
			rep.Status = StatusFailed
			rep.Problems = nil
			return fmt.Errorf("rewarm: %w", cause)
		}
		rep.Status = StatusPartial
		return nil
	}

	others, err := p.others(ctx)
	if err != nil {
		return err
	}
	for _, cp := range others {
		if !cp.Done {
			rep.SegmentsLeft++
		}
		failed += p.list(cp)
	}
	all = append(all, others...)
	if failed > 0 {
		rep.Status = StatusPartial
		rep.Problems = append(rep.Problems, fmt.Sprintf("%d records cannot be put into the online tier; the tier is not marked warm. Correct or forget these keys; the next run tries only them again", failed))
		return nil
	}
	rep.Status = StatusDone
	if rep.SegmentsLeft > 0 {
		if err := p.lost(ctx, nil); err != nil {
			return p.verdict(err)
		}
		return nil
	}
	return p.complete(ctx, all)
}

// complete ends the attempt: every segment of it is through.
func (p *pass) complete(ctx context.Context, all []*checkpoint) error {
	r, rep := p.r, p.rep
	var sum Counts
	var ws []witness
	for _, cp := range all {
		sum.add(cp.Counts)
		ws = append(ws, cp.Witnesses...)
	}
	if sum.Scanned == sum.Retired {
		rep.Status, rep.Reason = StatusNothing, ReasonNeverFilled
		return p.close(ctx)
	}
	if err := p.lost(ctx, ws); err != nil {
		return p.verdict(err)
	}
	if p.source.ID != "" {
		if err := p.sweep(ctx); err != nil {
			return p.verdict(err)
		}
		if rep.Status != StatusDone {
			return nil
		}
	}
	if p.views.subset || r.cfg.Source != "" {
		if err := p.close(ctx); err != nil {
			return err
		}
		return p.prove(ctx)
	}
	// A shard that became cold meanwhile must not be covered up by the markers, and a server
	// that took another's place may lack what was put last.
	warmth, err := p.sameServers(ctx)
	if err != nil {
		return p.verdict(err)
	}
	for _, shard := range warmth.Shards {
		if shard.Cold && !p.target.all && !slices.Contains(p.target.addrs, shard.Addr) {
			return errLost
		}
	}
	if err := r.cfg.Online.MarkWarm(ctx, p.req.Run); err != nil {
		return p.verdict(fmt.Errorf("everything was put, but the markers were not: %w", err))
	}
	// A loss between the last look and the markers would be covered up by them: look again.
	if err := p.lost(ctx, ws); err != nil {
		return p.verdict(err)
	}
	if _, err := p.sameServers(ctx); err != nil {
		return p.verdict(err)
	}
	rep.Warm = true
	if err := p.close(ctx); err != nil {
		return err
	}
	return p.prove(ctx)
}

// prove compares a share of the keys, if that is asked for.
func (p *pass) prove(ctx context.Context) (err error) {
	rep := p.rep
	if p.req.Verify == 0 || rep.Status != StatusDone {
		return nil
	}
	rep.Verify, err = p.r.Verify(ctx, VerifyRequest{Fraction: p.req.Verify, Seed: p.req.Run, Views: p.req.Views, MaxReadRate: p.req.MaxReadRate})
	if err != nil {
		return p.verdict(fmt.Errorf("verify: %w", err))
	}
	if !rep.Verify.OK() {
		rep.Status = StatusPartial
		rep.Problems = append(rep.Problems, "the verification found differences")
	}
	return nil
}

// sameServers looks at the online tier, and returns errLost when a server is there that was
// not when the attempt began.
func (p *pass) sameServers(ctx context.Context) (Warmth, error) {
	warmth, err := p.r.warmth(ctx)
	if err == nil && replaced(p.attempt.Instances, instancesOf(warmth)) {
		p.r.cfg.Logger.Warn("a server of the online tier was replaced or restarted during the rewarm; it may lack what it was given last", "run", p.req.Run)
		err = errLost
	}
	return warmth, err
}

// verdict ends a run at which everything was put but something after it went wrong.
func (p *pass) verdict(err error) error {
	if errors.Is(err, errLost) {
		return err
	}
	p.rep.Status = StatusPartial
	p.rep.Problems = append(p.rep.Problems, err.Error())
	return nil
}

// close finishes the attempt. Another machine that did the last segments at the same time
// may have done so already.
func (p *pass) close(ctx context.Context) error {
	now := feature.MicrosOf(p.r.cfg.Clock.Now())
	err := p.change(ctx, func(a *attempt) { a.Finished, a.Warm = now, a.Warm || p.rep.Warm })
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err != nil && !errors.Is(err, errLost) {
		return p.verdict(fmt.Errorf("everything was put, but the attempt could not be closed: %w", err))
	}
	return nil
}

// others loads the checkpoints outside of this run's range.
func (p *pass) others(ctx context.Context) ([]*checkpoint, error) {
	before, err := p.r.loadCheckpoints(ctx, p.attempt, 0, p.from-1)
	if err != nil {
		return nil, err
	}
	after, err := p.r.loadCheckpoints(ctx, p.attempt, p.from+len(p.cps), p.attempt.Segments-1)
	return append(before, after...), err
}

// list puts the failed keys of a checkpoint into the report.
func (p *pass) list(cp *checkpoint) int {
	for _, f := range cp.Failed {
		if len(p.rep.FailedKeys) < maxFailedKeys {
			p.rep.FailedKeys = append(p.rep.FailedKeys, FailedKey{f.View.String(), string(f.Key), f.Reason})
		}
	}
	return len(cp.Failed)
}
