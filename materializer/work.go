package materializer

import (
	"context"
	"errors"
	"fmt"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/telemetry"
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
	chunk   int64                      // the size of the chunks; 0: there is one
	passed  *passed                    // of several chunks
	sent    int64                      // rows that the chunks before sent
	done    []feature.File             // taken by this run
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
	return Progress{Fields: w.view.Fields(), Watermark: feature.NoTime, Newest: feature.NoTime, LastRun: w.run.req.Run, LastStatus: statusRunning}
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
	return w.chunks(ctx)
}

// chunks takes in the new files, and records each chunk but the last, which settle does. A
// chunk of which something could not be stored ends the run: it comes before the chunks
// after it in the next run, too.
func (w *work) chunks(ctx context.Context) error {
	chunks, size := w.m.chunks(w.view, w.run.req, w.plan.take, w.was.ChunkBytes)
	numbers, err := w.m.numbers(ctx, w.run.req.Run, len(chunks))
	if err != nil {
		return fmt.Errorf("view %s: %w; nothing was written", w.view.ID(), err)
	}
	if w.chunk = size; size > 0 {
		w.passed = newPassed(w.m.cfg.PassedKeys)
	}
	w.report.Chunks = len(chunks)
	for i, files := range chunks {
		if err := w.take(ctx, numbers[i], files); err != nil {
			return err
		}
		if w.report.Backing.Failed > 0 || i == len(chunks)-1 {
			return nil
		}
		if err := w.record(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take takes in the files of one chunk.
func (w *work) take(ctx context.Context, number uint64, files []feature.File) error {
	before := w.report.Online.Behind
	p := w.startPipeline(ctx, modePut, number)
	stats, err := w.m.cfg.Source.Latest(ctx, w.request(files, w.rejects.add), func(rows []feature.Row) error {
		if w.seen != nil {
			_ = w.seen.add(rows) // never fails
		}
		return p.add(rows)
	})
	cause := p.close()
	w.took(files, stats)
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
	if err := unchanged(files, listed); err != nil {
		return fmt.Errorf("view %s: %w", w.view.ID(), err)
	}
	if w.report.Online.Behind == before {
		w.plan.behind = without(w.plan.behind, paths(files))
	} else {
		w.plan.behind = union(w.plan.behind, files)
	}
	if w.report.Backing.Failed == 0 && w.run.req.Start == feature.NoTime {
		w.done = union(w.done, without(files, stats.Future))
	}
	return nil
}

// record writes down the chunks so far, in the order of settle: the run may be killed in the
// next one.
func (w *work) record(ctx context.Context) error {
	next := w.progress()
	next.Fields, next.ChunkBytes = w.view.Fields(), w.chunk
	if next.LastStatus = statusRunning; w.was.LastStatus == statusPruning {
		next.LastStatus = statusPruning
	}
	if err := w.state(ctx, next, union(w.plan.taken, w.done)); err != nil {
		return fmt.Errorf("%w; the values are stored, the next run reads the same files again", err)
	}
	w.report.ChunksRecorded++
	w.m.log.Info("chunk recorded", "run", w.run.req.Run, "view", w.view.ID().String(), "chunk", w.report.ChunksRecorded, "chunks", w.report.Chunks, "files", len(w.done))
	return nil
}

// progress is what is known of the slot after what was done so far.
func (w *work) progress() Progress {
	next := w.was
	next.LastRun = w.run.req.Run
	if !w.was.saved() {
		next.Watermark, next.Newest = feature.NoTime, feature.NoTime
	}
	next.Newest = max(next.Newest, w.report.Newest)
	next.Stray += w.stray
	if w.plan.lost {
		next.Stray = max(next.Stray, w.was.OnlineBehind)
	}
	if w.was.LastStatus == statusPruning {
		next.Stray = max(next.Stray, 1)
	}
	next.OnlineBehind = w.report.Online.Behind - w.stray + next.Stray
	return next
}

// heal sends to the online tier what the backing tier holds of the entities in files that
// earlier runs could not send. It costs reads, not conditional writes.
func (w *work) heal(ctx context.Context) error {
	p := w.startPipeline(ctx, modeHeal, w.run.req.Run)
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
		Shard: w.run.req.Shard, Shards: w.run.req.Shards, Reject: reject, Downloaded: w.downloaded}
}

// downloaded passes on how far the download of a chunk is. When it is through the source is
// read, which takes a while until the first rows come: that is no download any more.
func (w *work) downloaded(done, total int64) {
	w.m.cfg.Progress.Report(telemetry.Progress{Stage: stage(w.view) + " (download)", Unit: "bytes", Done: done, Total: total})
	if done == total {
		w.m.cfg.Progress.Report(telemetry.Progress{Stage: stage(w.view), Unit: "rows"})
	}
}

// stage names the work on a view in reports of progress.
func stage(v *feature.View) string { return "materialize " + v.ID().String() }

// took adds what was seen of the files of a chunk.
func (w *work) took(files []feature.File, s feature.LatestStats) {
	w.stats.Emitted += s.Emitted
	w.stats.Rejected += s.Rejected
	w.stats.Future = append(w.stats.Future, s.Future...)
	w.sent += s.Emitted
	w.report.Files += len(files)
	w.report.RowsRead += s.RowsRead
	w.report.Latest += s.Emitted
	w.report.Rejected += s.Rejected
	w.report.PendingFiles, w.report.Pending = len(w.stats.Future), firsts(w.stats.Future)
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
	advanced := failure == nil && w.report.Backing.Failed == 0
	next := w.progress()
	next.LastStatus, _ = w.report.outcome(failure, false)
	if !w.was.saved() && w.report.Backing.acknowledged() > 0 {
		next.Fields = w.view.Fields()
	}
	if w.pruned && !w.plan.lost && failure == nil {
		next.Stray = 0
		next.OnlineBehind = w.report.Online.Behind - w.stray
	}
	if w.chunk > 0 {
		next.ChunkBytes = w.chunk
	}
	taken := without(union(w.plan.taken, w.done), w.stats.Future)
	switch {
	case advanced:
		next.Fields, next.ChunkBytes = w.view.Fields(), 0
		if w.run.req.Start == feature.NoTime {
			next.Watermark = max(next.Watermark, min(w.run.now, w.run.end))
		} else {
			taken = w.plan.taken
		}
		entities := w.stats.Emitted
		if w.chunk > 0 { // an entity with rows in several chunks came several times
			entities -= w.report.Backing.Older
		}
		next.Entities = max(next.Entities, entities)
		if w.run.req.Full {
			next.Entities = entities
		}
	case len(w.done) == 0:
		taken = w.stored[FilesTaken]
	}
	if err := w.state(ctx, next, taken); err != nil {
		return errors.Join(failure, fmt.Errorf("%w; the values are stored, the next run reads the same files again", err))
	}
	if advanced && w.report.Chunks > 0 {
		w.report.ChunksRecorded = w.report.Chunks
	}
	return failure
}

func (w *work) state(ctx context.Context, next Progress, taken []feature.File) error {
	if err := w.saveFiles(ctx, FilesBehind, intersection(w.plan.behind, taken)); err != nil {
		return err
	}
	if err := w.m.cfg.State.Save(ctx, w.slot, next); err != nil {
		return fmt.Errorf("view %s: save run state: %w", w.view.ID(), err)
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
	chunks, size := w.m.chunks(w.view, w.run.req, w.plan.take, w.was.ChunkBytes)
	if size > 0 {
		e.passed = newPassed(w.m.cfg.PassedKeys)
	}
	w.report.Chunks = len(chunks)
	for _, files := range chunks {
		stats, err := w.m.cfg.Source.Latest(ctx, w.request(files, nil), func(rows []feature.Row) error {
			e.add(rows)
			return nil
		})
		w.took(files, stats)
		if err != nil {
			return fmt.Errorf("view %s: read source: %w", w.view.ID(), err)
		}
	}
	return nil
}
