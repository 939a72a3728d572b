package materializer

import (
	"context"
	"errors"
	"fmt"

	"github.com/hearthstore/hearth/feature"
)

// work is the materialization of one view within one run.
type work struct {
	m       *Materializer
	run     *run
	view    *feature.View
	slot    Slot
	was     Progress
	plan    plan
	report  *ViewReport
	rejects *rejects
	stats   feature.LatestStats
	stored  map[FileSet][]feature.File // the file sets as they are stored now
	seen    *seenKeys                  // what a prune spares
	stray   int64                      // deletions that did not reach the online tier
	pruned  bool                       // every vanished key is deleted in both tiers
}

// do reads, stores, sends and then moves the state. The order of the state's writes is what
// makes a kill harmless; each is explained where it happens.
func (w *work) do(ctx context.Context) error {
	if err := w.claim(ctx); err != nil {
		return err
	}
	err := w.values(ctx)
	if err == nil && w.run.req.Prune {
		err = w.prune(ctx)
	}
	if ctx.Err() != nil {
		return err // the state stays as it is; the next run goes on
	}
	return w.settle(ctx, err)
}

// claim writes down what must be known if this run is killed.
func (w *work) claim(ctx context.Context) error {
	if !w.was.saved() {
		// From the first write on the project is not empty, whether this run ends or not.
		if err := w.m.cfg.State.Save(ctx, w.slot, w.claimed()); err != nil {
			return fmt.Errorf("view %s: save run state: %w", w.view.ID(), err)
		}
	} else if len(added(w.view, w.was)) > 0 {
		// From the first write on there are values with the added features: a configuration
		// without them must be refused, whether this run ends or not.
		w.was.Fields = w.view.Fields()
		if err := w.m.cfg.State.Save(ctx, w.slot, w.was); err != nil {
			return fmt.Errorf("view %s: save run state: %w", w.view.ID(), err)
		}
	}
	// A file that is recorded as taken will not be read again by an incremental run. If this
	// run changes values of it in the backing tier and is killed before the online tier has
	// them, the next run must know to send them.
	w.plan.behind = union(w.plan.behind, intersection(w.plan.take, w.plan.taken))
	return w.saveFiles(ctx, FilesBehind, w.plan.behind)
}

// claimed is the progress of a slot that is about to get its first values.
func (w *work) claimed() Progress {
	return Progress{Fields: w.view.Fields(), Watermark: feature.NoTime, Newest: feature.NoTime, LastRun: w.run.req.Run, LastStatus: "running"}
}

// values sends what earlier runs could not, and then takes in the new files.
func (w *work) values(ctx context.Context) error {
	healed := true
	if len(w.plan.heal) > 0 {
		if err := w.heal(ctx); err != nil {
			return err
		}
		healed = w.report.Online.Behind == 0
	}
	if healed {
		w.plan.behind = without(w.plan.behind, paths(w.plan.heal))
	}
	if w.run.req.Prune {
		w.seen = &seenKeys{limit: w.m.cfg.PruneKeys}
	}
	if len(w.plan.take) == 0 {
		return nil
	}
	before := w.report.Online.Behind
	p := w.m.startPipeline(ctx, w.run, w.view, w.report, w.rejects, modePut)
	stats, err := w.m.cfg.Source.Latest(ctx, w.request(w.plan.take, w.rejects.add), func(rows []feature.Row) error {
		if w.seen != nil {
			_ = w.seen.add(rows) // never fails
		}
		return p.add(rows)
	})
	cause := p.close()
	w.took(stats)
	if cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("view %s: read source: %w", w.view.ID(), err)
	}
	listed, err := w.m.cfg.Source.Files(ctx, w.view)
	if err != nil {
		return fmt.Errorf("view %s: list source files again: %w", w.view.ID(), err)
	}
	if err := unchanged(w.plan.take, listed); err != nil {
		return fmt.Errorf("view %s: %w", w.view.ID(), err)
	}
	if w.report.Online.Behind == before {
		w.plan.behind = without(w.plan.behind, paths(w.plan.take))
	} else {
		w.plan.behind = union(w.plan.behind, w.plan.take)
	}
	return nil
}

// heal sends to the online tier what the backing tier holds of the entities in files that
// earlier runs could not send. It costs reads, not conditional writes.
func (w *work) heal(ctx context.Context) error {
	p := w.m.startPipeline(ctx, w.run, w.view, w.report, w.rejects, modeHeal)
	_, err := w.m.cfg.Source.Latest(ctx, w.request(w.plan.heal, nil), p.add)
	if cause := p.close(); cause != nil {
		return cause
	}
	if err != nil {
		return fmt.Errorf("view %s: read source: %w", w.view.ID(), err)
	}
	return nil
}

func (w *work) request(files []feature.File, reject func(feature.Reject)) feature.LatestRequest {
	return feature.LatestRequest{View: w.view, Files: files, Start: w.run.req.Start, End: w.run.end,
		Shard: w.run.req.Shard, Shards: w.run.req.Shards, Reject: reject}
}

func (w *work) took(s feature.LatestStats) {
	w.stats = s
	w.report.RowsRead, w.report.Latest, w.report.Rejected = s.RowsRead, s.Emitted, s.Rejected
	w.report.PendingFiles, w.report.Pending = len(s.Future), firsts(s.Future)
	for reason, n := range s.Reasons {
		if w.report.Reasons == nil {
			w.report.Reasons = map[string]int64{}
		}
		w.report.Reasons[reason] += n
	}
}

// settle moves the state past what the backing tier holds: the files that are behind online
// first, the taken files last. Killed in between, a file is at worst read again.
func (w *work) settle(ctx context.Context, failure error) error {
	status, _ := w.report.outcome(failure, false)
	advanced := failure == nil && w.report.Backing.Failed == 0
	next := w.was
	next.LastRun, next.LastStatus = w.run.req.Run, status
	if !w.was.saved() {
		next.Watermark, next.Newest = feature.NoTime, feature.NoTime
		if w.report.Backing.acknowledged() > 0 {
			next.Fields = w.view.Fields()
		}
	}
	next.Newest = max(next.Newest, w.report.Newest)
	next.Stray += w.stray
	if w.plan.lost {
		next.Stray = max(next.Stray, w.was.OnlineBehind)
	}
	if w.was.LastStatus == statusPruning {
		next.Stray = max(next.Stray, 1)
	}
	if w.pruned && !w.plan.lost && failure == nil {
		next.Stray = 0
	}
	next.OnlineBehind = w.report.Online.Behind - w.stray + next.Stray
	taken := w.plan.taken
	if advanced {
		next.Fields = w.view.Fields()
		if w.run.req.Start == feature.NoTime {
			taken = without(union(w.plan.taken, w.plan.take), w.stats.Future)
			next.Watermark = max(next.Watermark, min(w.run.now, w.run.end))
		}
		next.Entities = max(next.Entities, w.stats.Emitted)
		if w.run.req.Full {
			next.Entities = w.stats.Emitted
		}
	}
	if err := w.state(ctx, next, taken, advanced); err != nil {
		return errors.Join(failure, fmt.Errorf("%w; the values are stored, the next run reads the same files again", err))
	}
	return failure
}

func (w *work) state(ctx context.Context, next Progress, taken []feature.File, advanced bool) error {
	if err := w.saveFiles(ctx, FilesBehind, intersection(w.plan.behind, taken)); err != nil {
		return err
	}
	if err := w.m.cfg.State.Save(ctx, w.slot, next); err != nil {
		return fmt.Errorf("view %s: save run state: %w", w.view.ID(), err)
	}
	if !advanced {
		return nil
	}
	return w.saveFiles(ctx, FilesTaken, taken)
}

// saveFiles replaces a set, if it differs from what is stored.
func (w *work) saveFiles(ctx context.Context, set FileSet, files []feature.File) error {
	if sameFiles(w.stored[set], files) {
		return nil
	}
	if err := w.m.cfg.State.SaveFiles(ctx, w.slot, set, files); err != nil {
		return fmt.Errorf("view %s: save run state: %w", w.view.ID(), err)
	}
	w.stored[set] = files
	return nil
}

// estimate reads what a run would write and prices it.
func (w *work) estimate(ctx context.Context) error {
	e := w.m.estimator(w.view)
	defer func() { w.report.Estimate = e.result() }()
	if len(w.plan.take) == 0 {
		return nil
	}
	stats, err := w.m.cfg.Source.Latest(ctx, w.request(w.plan.take, nil), func(rows []feature.Row) error {
		e.add(rows)
		return nil
	})
	w.took(stats)
	if err != nil {
		return fmt.Errorf("view %s: read source: %w", w.view.ID(), err)
	}
	return nil
}
