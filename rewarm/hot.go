package rewarm

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/feature"
)

// hotBatch is how many keys a reader of the hot-first phase brings at a time: three fetches,
// one after another, and one pipeline.
const hotBatch = 3 * fetchBatch

// hotReaders is how many such readers there are for each worker of a scan. An answer to a
// fetch is small, so that more of them have to be on their way.
const hotReaders = 3

// hotPages is what a reader of the hot-first phase holds. keep is apart from the pages, see
// workPage.
type hotPages struct {
	from [hotBatch / fetchBatch]fetched
	keep []feature.Record
}

// hotRefs are the hot keys that a run asks for, hottest first.
func (r *Rewarmer) hotRefs(ctx context.Context, req Request, views viewSet) ([]feature.Ref, error) {
	if r.cfg.Hot == nil || r.cfg.Source != "" || req.NoHot || req.Range && req.SegmentFrom != 0 {
		return nil, nil
	}
	refs, err := r.cfg.Hot.HotKeys(ctx)
	if err != nil {
		return nil, err
	}
	wanted := make([]feature.Ref, 0, len(refs))
	for _, ref := range refs {
		if views.byID[ref.View] != nil {
			wanted = append(wanted, ref)
		}
	}
	return wanted, nil
}

// hot brings the hot keys back before the scan begins, hottest first, so that most of the
// traffic is served long before the run is through. Nothing depends on it: what fails here
// comes with the scan. Its counts are kept apart.
func (p *pass) hot(ctx context.Context) error {
	r := p.r
	if p.attempt.HotDone || p.before.Scanned > 0 {
		return nil
	}
	began := r.cfg.Clock.Now()
	wanted, err := r.hotRefs(ctx, p.req, p.views)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.cfg.Logger.Warn("hot keys are not known: scanning at once", "err", err)
		return nil
	}
	if p.cold != nil {
		wanted = slices.DeleteFunc(wanted, func(ref feature.Ref) bool { return !p.cold(ref) })
	}
	if len(wanted) == 0 {
		return nil
	}
	from, ok := r.cfg.Backing.(Fetcher)
	if !ok {
		from = getFetcher{r}
	}
	g, gctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(p.workers*hotReaders, (len(wanted)+hotBatch-1)/hotBatch) {
		g.Go(func() error {
			var m hotPages
			for {
				at := int(next.Add(hotBatch)) - hotBatch
				if at >= len(wanted) || gctx.Err() != nil {
					return gctx.Err()
				}
				batch := wanted[at:min(at+hotBatch, len(wanted))]
				c, err := p.hotPut(gctx, from, batch, &m)
				p.mu.Lock()
				p.rep.HotAsked += len(batch)
				p.rep.HotWritten += c.Written
				p.rep.HotReadUnits += c.ReadUnits
				p.mu.Unlock()
				if err != nil {
					return err
				}
			}
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

// hotPut brings up to hotBatch keys.
func (p *pass) hotPut(ctx context.Context, from Fetcher, refs []feature.Ref, m *hotPages) (c Counts, err error) {
	pages := m.from[:0]
	for at := 0; at < len(refs); at += fetchBatch {
		pages = pages[:len(pages)+1]
		if err := p.scanner.fetch(ctx, from, refs[at:min(at+fetchBatch, len(refs))], &pages[len(pages)-1]); err != nil {
			return c, err
		}
	}
	read := p.r.cfg.Clock.Now()
	var failed []failedRef // the scan meets them again and lists them
	m.keep = m.keep[:0]
	for i := range pages {
		for _, page := range pages[i].pages[:pages[i].n] {
			c.ReadUnits += page.ReadUnits
			if m.keep, err = p.judge(m.keep, page.Records, &c, &failed); err != nil {
				return c, err
			}
		}
	}
	err = p.put(ctx, m.keep, read, &c, &failed, nil) // fills c, so it comes before the return
	return c, err
}
