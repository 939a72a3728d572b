package rewarm

import (
	"context"
	"errors"
	"fmt"

	"github.com/hearthstore/hearth/feature"
)

// fetchBatch is how many values are asked of the table at a time: what BatchGetItem takes.
const fetchBatch = 100

// fetched is the memory of one worker's fetches: a page per answer.
type fetched struct {
	pages []*feature.ScanPage
	n     int // answers
}

// fetch reads up to fetchBatch single values, at the pace of scan. An answer may leave some
// out; these are asked for again, and come on a page of their own.
func (s *scanner) fetch(ctx context.Context, from Fetcher, refs []feature.Ref, to *fetched) error {
	cfg := &s.r.cfg
	tries := tries{s: s, began: cfg.Clock.Now()}
	to.n = 0
	for len(refs) > 0 {
		if to.n == len(to.pages) {
			to.pages = append(to.pages, new(feature.ScanPage))
		}
		page := to.pages[to.n]
		estimate := float64(len(refs)) / 2 // half a unit for each value of up to 4 KB
		if err := s.reads.Wait(ctx, estimate); err != nil {
			return err
		}
		var (
			left []feature.Ref
			err  error
		)
		if wait := s.fetches.Do(ctx, func() bool {
			left, err = from.Fetch(ctx, refs, page)
			return errors.Is(err, feature.ErrThrottled) || len(left) == len(refs)
		}); wait != nil {
			return wait
		}
		if err == nil {
			s.reads.Spend(page.ReadUnits - estimate)
			if len(left) < len(refs) {
				s.moved.reset(cfg.Clock.Now())
				to.n++
				refs, tries.waits = left, 0
				continue
			}
			err = fmt.Errorf("%w: it read none of %d keys", feature.ErrThrottled, len(refs))
		} else {
			s.reads.Spend(-estimate)
		}
		if err := tries.again(ctx, fmt.Sprintf("fetch %d values from the backing tier", len(refs)), err); err != nil {
			return err
		}
	}
	return nil
}

// getFetcher fetches with Get, from a tier that can do no better. It reports no read units.
type getFetcher struct{ r *Rewarmer }

// Fetch implements Fetcher. What is not readable is left out: the scan meets it.
func (g getFetcher) Fetch(ctx context.Context, refs []feature.Ref, page *feature.ScanPage) ([]feature.Ref, error) {
	page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
	results, err := g.r.getAll(ctx, g.r.cfg.Backing, refs)
	if err != nil {
		return nil, err
	}
	for i, res := range results {
		if res.Payload != nil {
			page.Records = append(page.Records, feature.Record{Ref: refs[i], Payload: res.Payload})
		}
	}
	return nil, nil
}
