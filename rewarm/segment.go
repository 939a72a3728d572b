package rewarm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// segment brings one segment through, from its checkpoint to its end.
func (p *pass) segment(ctx context.Context, cp *checkpoint) error {
	if len(cp.Failed) > 0 {
		if err := p.retryFailed(ctx, cp); err != nil {
			return fmt.Errorf("segment %d: %w", cp.Segment, err)
		}
	}
	page := p.pages.Get().(*workPage)
	defer p.pages.Put(page)
	for !cp.Done {
		if err := p.page(ctx, cp, page); err != nil {
			return fmt.Errorf("segment %d of %d: %w", cp.Segment, p.attempt.Segments, err)
		}
		if err := p.checkNow(ctx); err != nil {
			return err
		}
	}
	return nil
}

// page moves one page: scan, judge, put, checkpoint.
func (p *pass) page(ctx context.Context, cp *checkpoint, page *workPage) error {
	clk := p.r.cfg.Clock
	for {
		song := p.singing() // before the page is read
		req := feature.ScanRequest{Segment: cp.Segment, Segments: p.attempt.Segments, Cursor: cp.Cursor, Views: p.viewIDs}
		if err := p.scanner.scan(ctx, req, &page.ScanPage); err != nil {
			return err
		}
		read := clk.Now()
		next := *cp // what the checkpoint becomes when the page is through
		next.Failed, next.Witnesses = slices.Clone(cp.Failed), slices.Clone(cp.Witnesses)
		delta := Counts{ReadUnits: page.ReadUnits}
		var err error
		if page.keep, err = p.judge(page.keep[:0], page.Records, &delta, &next.Failed); err != nil {
			return err
		}
		err = p.put(ctx, page.keep, read, &delta, &next.Failed, func(rec *feature.Record) { p.sampleWitness(&next, rec) })
		if errors.Is(err, errStale) {
			p.r.cfg.Logger.Warn("a page grew too old before it was put: reading it again", "segment", cp.Segment, "age", clk.Now().Sub(read))
			continue
		}
		if err != nil {
			return err
		}
		next.Counts.add(delta)
		next.Cursor = slices.Clone(page.Next)
		next.Done = page.Next == nil
		next.Canaries = song
		if err := p.r.saveCheckpoint(ctx, &next); err != nil {
			return err
		}
		p.commit(cp, next, delta)
		return nil
	}
}

// judge appends the records that are to be put to keep, and counts the others. Only the
// header of a payload is looked at.
//
// A tombstone is put like a value. In the table it may be what a page of another scanner,
// or a reader's repair, does not know yet; in the online tier it becomes a short-lived
// marker that nothing older gets past, and that removes a value which a stale page revived
// before the tier was lost and began anew. Its cost is a few bytes for an hour.
func (p *pass) judge(keep, records []feature.Record, c *Counts, failed *[]failedRef) ([]feature.Record, error) {
	now := feature.MicrosOf(p.r.cfg.Clock.Now())
	p.known.add(records)
	for i := range records {
		rec := records[i]
		c.Scanned++
		v := p.views.byID[rec.View]
		if v == nil {
			c.Retired++
			c.Skipped++
			continue
		}
		if p.cold != nil && !p.cold(rec.Ref) {
			c.WarmShard++
			c.Skipped++
			continue
		}
		made, err := feature.NewRecord(v, rec.Key, rec.Payload)
		if err != nil {
			// The key outlives the page's memory in the list of failures.
			ref := feature.Ref{View: rec.View, Key: feature.Key(strings.Clone(string(rec.Key)))}
			if err := fail(failed, c, ref, bare(err)); err != nil {
				return nil, err
			}
			continue
		}
		if over(made, now) {
			c.Expired++
			continue
		}
		if longest := now.Add(p.r.life); p.r.life > 0 && (made.Online == feature.NoTime || made.Online > longest) {
			made.Online = longest
		}
		keep = append(keep, made)
	}
	return keep, nil
}

// bare is the cause without the record's name, which the report gives beside it.
func bare(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// over says that a record's life online has ended. The table may still have it: it deletes
// what is past its retention only after days.
func over(rec feature.Record, now feature.Micros) bool {
	return rec.Online != feature.NoTime && rec.Online <= now
}

// retryFailed reads the records that an earlier run could not put and tries them again.
func (p *pass) retryFailed(ctx context.Context, cp *checkpoint) error {
	refs := make([]feature.Ref, len(cp.Failed))
	for i, f := range cp.Failed {
		refs[i] = feature.Ref{View: f.View, Key: f.Key}
	}
	next := *cp
	next.Failed, next.Witnesses = nil, slices.Clone(cp.Witnesses)
	delta, err := p.putRefs(ctx, refs, &next.Failed, func(rec *feature.Record) { p.sampleWitness(&next, rec) })
	if err != nil {
		return fmt.Errorf("try %d failed records again: %w", len(refs), err)
	}
	next.Counts.Failed -= int64(len(refs))
	next.Counts.add(delta)
	if err := p.r.saveCheckpoint(ctx, &next); err != nil {
		return err
	}
	p.commit(cp, next, delta)
	return nil
}

// putRefs brings single values: reads them from the table, judges and puts them. Records
// that are gone from the table are left out.
func (p *pass) putRefs(ctx context.Context, refs []feature.Ref, failed *[]failedRef, seen func(*feature.Record)) (Counts, error) {
	var c Counts
	results, err := p.scanner.get(ctx, refs)
	if err != nil {
		return c, err
	}
	read := p.r.cfg.Clock.Now()
	recs := make([]feature.Record, 0, len(refs))
	for i, res := range results {
		switch {
		case res.Err != nil:
			if err := fail(failed, &c, refs[i], res.Err); err != nil {
				return c, err
			}
		case res.Payload != nil:
			recs = append(recs, feature.Record{Ref: refs[i], Payload: res.Payload})
		}
	}
	keep, err := p.judge(nil, recs, &c, failed)
	if err != nil {
		return c, err
	}
	err = p.put(ctx, keep, read, &c, failed, seen) // fills c, so it comes before the return
	return c, err
}
