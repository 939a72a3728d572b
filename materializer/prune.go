package materializer

import (
	"context"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/hearthstore/hearth/feature"
)

// scanSegments is how many parts a prune scans the table in, one after the other.
const scanSegments = 4

// prune deletes the keys of the backing tier that the source has no row of. A deletion has
// the times of the stored value and this run's number: it beats exactly what it deletes. A
// value pushed meanwhile, or one that comes back later under a later run, beats it.
//
// The seen keys are held as 64-bit hashes. Two keys with one hash would at worst spare a
// vanished one. When there are more than Config.PruneKeys, further passes read the source
// and the table again, each for its share of the hashes.
func (w *work) prune(ctx context.Context) error {
	if why := w.untrusted(); why != "" && !w.run.req.Force {
		w.run.report.Warnings = append(w.run.report.Warnings, fmt.Sprintf("view %s: not pruned: %s; --force prunes nevertheless", w.view.ID(), why))
		return nil
	}
	if err := w.announce(ctx); err != nil {
		return err
	}
	before := w.report.Online.Behind
	defer func() { w.stray = w.report.Online.Behind - before; w.pruned = w.stray == 0 }()
	p := w.startPipeline(ctx, modePrune, w.run.req.Run)
	err := w.passes(ctx, p)
	if cause := p.close(); cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("view %s: prune: %w", w.view.ID(), err)
	}
	return nil
}

// announce writes down that deletions are under way. No file leads to a deleted key, so if
// this run is killed, only another prune or a repair finds what is still online.
func (w *work) announce(ctx context.Context) error {
	p := w.was
	if !p.saved() {
		p = w.claimed()
	}
	p.LastStatus = statusPruning
	if err := w.m.cfg.State.Save(ctx, w.slot, p); err != nil {
		return fmt.Errorf("view %s: save run state: %w", w.view.ID(), err)
	}
	return nil
}

// untrusted says why the absence of a key from what was read may not mean that it vanished.
func (w *work) untrusted() string {
	switch {
	case w.stats.Emitted == 0:
		return "the source has no rows, everything would be deleted"
	case w.stats.Rejected > 0:
		return fmt.Sprintf("%d rows were rejected, their entities would look vanished", w.stats.Rejected)
	case w.report.Backing.Failed > 0:
		return "some values could not be stored"
	}
	return ""
}

// passes deletes what vanished, one share of the hashes at a time. The first share was
// collected while the values were read.
func (w *work) passes(ctx context.Context, p *pipeline) error {
	seen := w.seen
	for {
		if err := w.vanished(ctx, p, seen); err != nil {
			return err
		}
		if seen.share+1 >= 1<<seen.bits {
			return nil
		}
		seen = &seenKeys{bits: seen.bits, share: seen.share + 1}
		if _, err := w.m.cfg.Source.Latest(ctx, w.request(w.plan.take, nil), seen.add); err != nil {
			return fmt.Errorf("read source: %w", err)
		}
	}
}

// vanished scans the backing tier and deletes the keys of the shard and of this share that
// were not seen.
func (w *work) vanished(ctx context.Context, p *pipeline, seen *seenKeys) error {
	seen.sort()
	var (
		page feature.ScanPage
		gone []feature.Row
	)
	for segment := range scanSegments {
		req := feature.ScanRequest{Segment: segment, Segments: scanSegments, Views: []feature.ViewID{w.view.ID()}}
		for {
			if err := w.m.cfg.Backing.Scan(ctx, req, &page); err != nil {
				return fmt.Errorf("scan the backing tier: %w", err)
			}
			gone = gone[:0]
			for i := range page.Records {
				rec := &page.Records[i]
				if rec.View != w.view.ID() || rec.Version.IsZero() ||
					feature.ShardOf(rec.Key, w.run.req.Shards) != w.run.req.Shard || !seen.lacks(rec.Key) {
					continue
				}
				if rec.Tombstone() {
					// Deleted before, perhaps by a run that could not tell the online tier.
					if err := p.addStored(*rec); err != nil {
						return err
					}
					continue
				}
				gone = append(gone, feature.Row{Key: rec.Key, Event: rec.Version.Event, Created: rec.Version.Created, Deleted: true})
			}
			if err := p.add(gone); err != nil {
				return err
			}
			if page.Next == nil {
				break
			}
			req.Cursor = slices.Clone(page.Next)
		}
	}
	return nil
}

// seenKeys is the set of key hashes whose first bits are share. With a limit it halves its
// share whenever it would outgrow it.
type seenKeys struct {
	limit  int // 0: none
	bits   uint
	share  uint64
	hashes []uint64
}

func (s *seenKeys) mine(h uint64) bool { return s.bits == 0 || h>>(64-s.bits) == s.share }

// add is an emit function.
func (s *seenKeys) add(rows []feature.Row) error {
	for i := range rows {
		h := xxhash.Sum64String(string(rows[i].Key))
		if !s.mine(h) {
			continue
		}
		s.hashes = append(s.hashes, h)
		for s.limit > 0 && len(s.hashes) > s.limit && s.bits < 32 {
			s.bits++
			s.hashes = slices.DeleteFunc(s.hashes, func(h uint64) bool { return !s.mine(h) })
		}
	}
	return nil
}

func (s *seenKeys) sort() { slices.Sort(s.hashes) }

// lacks reports whether key belongs to the share and was not seen.
func (s *seenKeys) lacks(key feature.Key) bool {
	h := xxhash.Sum64String(string(key))
	if !s.mine(h) {
		return false
	}
	_, found := slices.BinarySearch(s.hashes, h)
	return !found
}
