package rewarm

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/feature"
)

// hotBatch is how many keys are asked for and put at a time: three BatchGetItem at once, and
// one pipeline.
const hotBatch = 300

// hot brings the hot keys back before the scan begins, hottest first, so that most of the
// traffic is served long before the run is through. Nothing depends on it: what fails here
// comes with the scan. Its counts are kept apart.
func (p *pass) hot(ctx context.Context) error {
	r := p.r
	if r.cfg.Hot == nil || r.cfg.Source != "" || p.req.NoHot || p.attempt.HotDone || p.from != 0 || p.before.Scanned > 0 {
		return nil
	}
	began := r.cfg.Clock.Now()
	refs, err := r.cfg.Hot.HotKeys(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.cfg.Logger.Warn("hot keys are not known: scanning at once", "err", err)
		return nil
	}
	wanted := make([]feature.Ref, 0, len(refs))
	for _, ref := range refs {
		if p.views.byID[ref.View] != nil && (p.cold == nil || p.cold(ref)) {
			wanted = append(wanted, ref)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.cfg.Workers)
	for asked := 0; asked < len(wanted) && gctx.Err() == nil; asked += hotBatch {
		batch := wanted[asked:min(asked+hotBatch, len(wanted))]
		g.Go(func() error {
			var failed []failedRef // the scan meets them again and lists them
			c, err := p.putRefs(gctx, batch, &failed, nil)
			p.mu.Lock()
			p.rep.HotAsked += len(batch)
			p.rep.HotWritten += c.Written
			p.mu.Unlock()
			return err
		})
	}
	err = g.Wait()
	p.rep.HotSeconds += r.cfg.Clock.Now().Sub(began).Seconds()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errNoRoom) {
		return err
	}
	if err != nil {
		r.cfg.Logger.Warn("the hot-first phase ended early; the scan brings the rest", "err", err)
		return nil
	}
	return p.change(ctx, func(a *attempt) { a.HotDone = true })
}
