package materializer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// run is the state that the views of one Run share.
type run struct {
	req    Request
	now    feature.Micros // the clock time of its start
	end    feature.Micros
	erased func(feature.Key) (feature.Micros, bool) // nil: nobody
	gate   *gate
	sample *sample // nil unless the run may mark the online tier warm
	report *Report
	dead   error // what makes the remaining views pointless
}

// Run materializes the views one after the other. The report is nil only for an invalid
// request. The error is nil exactly when the report's status is done or nothing, so that
// who looks only at the error never takes a part for the whole: it is the joined errors of
// the views, among them a *feature.PartialError when the status is partial, or matches the
// context's cause when the run was interrupted.
func (m *Materializer) Run(ctx context.Context, req Request) (*Report, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	if m.cfg.Source == nil {
		return nil, fmt.Errorf("materialize: %w: no source is configured", feature.ErrInvalid)
	}
	started := m.clock.Now()
	r := &run{req: req, now: feature.MicrosOf(started), end: req.End, gate: &gate{cooldown: m.cfg.OnlineCooldown},
		report: &Report{Run: req.Run, DryRun: req.DryRun, Views: []*ViewReport{}}}
	if r.end == feature.NoTime {
		r.end = r.now
	}
	err := m.prepare(ctx, r)
	if err == nil {
		m.views(ctx, r)
		r.report.Status = r.report.status()
		if r.sample != nil && r.report.Status == StatusDone {
			err = m.markWarm(ctx, r)
		}
	} else {
		r.report.Status = StatusFailed
	}
	r.report.Seconds = m.clock.Now().Sub(started).Seconds()
	if req.DryRun {
		r.report.Estimate = sumEstimates(r.report.Views)
	}
	if ctx.Err() != nil && r.report.Status != StatusDone && r.report.Status != StatusNothing {
		r.report.Status = StatusInterrupted
		return r.report, fmt.Errorf("materialize run %d: interrupted, run it again to go on: %w", req.Run, context.Cause(ctx))
	}
	errs := []error{err}
	for _, v := range r.report.Views {
		errs = append(errs, v.err)
	}
	if err := errors.Join(errs...); err != nil {
		return r.report, fmt.Errorf("materialize run %d: %s: %w", req.Run, r.report.Status, r.report.partial(err))
	}
	return r.report, nil
}

// prepare finds out whether this run may mark the online tier warm at its end.
//
// The markers say "everything that the backing tier holds was brought here". Only two kinds
// of work make that true: a rewarm, and the very first materialization, which fills both
// tiers from nothing. So a run leaves markers only if nothing was ever written to the
// project before it, it covers all entities, every value arrived, and a sample of the
// values is still there at the end. Every other run leaves them as they are: if the tier
// was warm they are still there, and if it was lost meanwhile they are rightly missing.
func (m *Materializer) prepare(ctx context.Context, r *run) (err error) {
	if r.erased, err = m.erased(ctx); err != nil {
		return err
	}
	if r.req.DryRun || r.req.Shards > 1 {
		return nil
	}
	empty, err := m.cfg.State.Empty(ctx)
	if err != nil {
		return fmt.Errorf("read run state: %w", err)
	}
	if empty {
		r.sample = newSample(r.req.Run)
	}
	return nil
}

func (m *Materializer) views(ctx context.Context, r *run) {
	for _, v := range r.req.Views {
		began := m.clock.Now()
		report := &ViewReport{View: v.ID(), Newest: feature.NoTime}
		r.report.Views = append(r.report.Views, report)
		var (
			idle bool
			err  error
		)
		switch {
		case ctx.Err() != nil:
			err = fmt.Errorf("view %s: not tried: %w", v.ID(), context.Cause(ctx))
		case r.dead != nil:
			err = fmt.Errorf("view %s: not tried after the failure before: %w", v.ID(), r.dead)
		default:
			if idle, err = m.view(ctx, r, v, report); permanent(err) {
				r.dead = err
			}
		}
		report.finish(err, idle)
		report.Seconds = m.clock.Now().Sub(began).Seconds()
		log := m.log.With("run", r.req.Run, "view", v.ID().String(), "status", report.Status)
		if report.err != nil {
			log.Warn("view materialized in part or not", "error", report.err)
			continue
		}
		log.Info("view materialized", "written", report.Backing.Written, "unchanged", report.Backing.Unchanged, "online", report.Online.Written)
	}
}

// view materializes one view. idle means that there was nothing to do.
func (m *Materializer) view(ctx context.Context, r *run, v *feature.View, report *ViewReport) (idle bool, err error) {
	slot := Slot{View: v.ID(), Shard: r.req.Shard, Shards: r.req.Shards}
	was, err := m.cfg.State.Load(ctx, slot)
	if err != nil {
		return false, fmt.Errorf("view %s: read run state: %w", v.ID(), err)
	}
	if err := m.notRetired(ctx, slot, was, r.req.Full && r.req.Force); err != nil {
		return false, err
	}
	if err := checkSchema(v, was, r.req.Full, r.req.Force); err != nil {
		return false, err
	}
	if names := added(v, was); len(names) > 0 && !r.req.Full {
		r.report.Warnings = append(r.report.Warnings, fmt.Sprintf("view %s: %s: new at the end of its features. Entities whose files were read before have no value of it "+
			"until those are read again: `hearth materialize --feature-views %s --full`", v.ID(), strings.Join(names, ", "), v.ID()))
	}
	files, err := m.plan(ctx, r, v, slot)
	if err != nil {
		return false, err
	}
	report.RemovedFiles, report.Removed = len(files.removed), firsts(files.removed)
	w := &work{m: m, run: r, view: v, slot: slot, was: was, plan: files, report: report,
		stored:  map[FileSet][]feature.File{FilesTaken: files.storedTaken, FilesBehind: files.storedBehind},
		rejects: newRejects(r.req.RejectsDir, r.req.Run, slot, m.cfg.MaxRejects)}
	if r.req.DryRun {
		return len(files.take) == 0, w.estimate(ctx)
	}
	if was.Stray > 0 || was.LastStatus == statusPruning {
		r.report.Warnings = append(r.report.Warnings, fmt.Sprintf("view %s: the online tier may lack values or deletions that no source file leads to; `hearth verify --repair` brings them", v.ID()))
	}
	if len(files.take) == 0 && len(files.heal) == 0 && !r.req.Prune {
		// Files that are gone leave the set, so that they count as new if they come back.
		return true, w.saveFiles(ctx, FilesTaken, files.taken)
	}
	err = w.do(ctx)
	path, rerr := w.rejects.close()
	report.Rejects = path
	report.Rejected += w.rejects.count
	for reason, n := range w.rejects.reasons {
		if report.Reasons == nil {
			report.Reasons = map[string]int64{}
		}
		report.Reasons[reason] += n
	}
	if rerr != nil {
		r.report.Warnings = append(r.report.Warnings, fmt.Sprintf("view %s: the list of rejected rows is not whole: %v", v.ID(), rerr))
	}
	return false, err
}

func (m *Materializer) plan(ctx context.Context, r *run, v *feature.View, slot Slot) (plan, error) {
	listed, err := m.cfg.Source.Files(ctx, v)
	if err != nil {
		return plan{}, fmt.Errorf("view %s: list source files: %w", v.ID(), err)
	}
	taken, err := m.cfg.State.Files(ctx, slot, FilesTaken)
	if err != nil {
		return plan{}, fmt.Errorf("view %s: read run state: %w", v.ID(), err)
	}
	behind, err := m.cfg.State.Files(ctx, slot, FilesBehind)
	if err != nil {
		return plan{}, fmt.Errorf("view %s: read run state: %w", v.ID(), err)
	}
	return planFiles(v, listed, taken, behind, r.req.Full || r.req.Start != feature.NoTime), nil
}

func (m *Materializer) markWarm(ctx context.Context, r *run) error {
	intact, err := r.sample.intact(ctx, m)
	if err == nil && !intact {
		r.report.Warnings = append(r.report.Warnings, "the online tier lost values while it was filled, so it is not marked warm; `hearth rewarm` fills it from the backing tier")
		return nil
	}
	if err == nil {
		err = m.cfg.Online.MarkWarm(ctx, r.req.Run)
	}
	if err != nil {
		r.report.Status = StatusPartial
		return fmt.Errorf("mark the online tier warm: %w; the values are there, `hearth rewarm` marks it", err)
	}
	r.report.MarkedWarm = true
	return nil
}
