package app

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/jobs"
	"github.com/hearthstore/hearth/materializer"
	"github.com/hearthstore/hearth/online"
)

// MaterializeOptions are the flags of `hearth materialize`.
type MaterializeOptions struct {
	Views      []string
	Full       bool
	Prune      bool
	Force      bool
	Start, End string
	Shard      string
	DryRun     bool
}

// Materialize brings new rows into both tiers, under a lease per view.
func (a *App) Materialize(ctx context.Context, o MaterializeOptions) (*materializer.Report, error) {
	req, leases, err := a.materializeRequest(o)
	if err != nil {
		return nil, err
	}
	var report *materializer.Report
	fn := func(ctx context.Context, run uint64) (result jobs.Result, err error) {
		report, result, err = a.materialize(ctx, run, req)
		return result, err
	}
	if o.DryRun { // writes nothing: needs no lease and leaves no entry
		_, err = fn(ctx, 0)
	} else {
		err = a.execute(ctx, "materialize", leases, fn)
	}
	return report, err
}

// materializeRequest reads the options, and names the leases of the work.
func (a *App) materializeRequest(o MaterializeOptions) (req materializer.Request, leases []string, err error) {
	req = materializer.Request{
		Full: o.Full, Force: o.Force, DryRun: o.DryRun, Prune: o.Prune,
		RejectsDir: filepath.Join(a.cfg.Dir, ".hearth", "rejects"),
	}
	if req.Views, err = a.views(o.Views); err != nil {
		return req, nil, err
	}
	if req.Start, err = parseBound("start", o.Start); err != nil {
		return req, nil, err
	}
	if req.End, err = parseBound("end", o.End); err != nil {
		return req, nil, err
	}
	if req.Shard, req.Shards, err = parseShard(o.Shard); err != nil {
		return req, nil, err
	}
	return req, materializeLeases(req.Views, o.Shard), nil
}

// materialize is one run. The report is nil when the tiers could not be opened.
func (a *App) materialize(ctx context.Context, run uint64, req materializer.Request) (*materializer.Report, jobs.Result, error) {
	m, err := a.materializer(ctx)
	if err != nil {
		return nil, jobs.Result{}, err
	}
	req.Run = run
	report, err := m.Run(ctx, req)
	if report == nil {
		return nil, jobs.Result{}, err
	}
	return report, jobs.Result{Status: report.Status, Detail: report}, err
}

// materializeLeases names the lease of each view; shards of one view run side by side.
func materializeLeases(views []*feature.View, shard string) []string {
	leases := make([]string, len(views))
	for i, v := range views {
		leases[i] = "view/" + v.ID().String()
		if shard != "" {
			leases[i] += "/" + shard
		}
	}
	return leases
}

func (a *App) materializer(ctx context.Context) (*materializer.Materializer, error) {
	engine, err := a.offlineEngine(ctx)
	if err != nil {
		return nil, err
	}
	return a.materializerOf(ctx, engine)
}

// materializerOf makes one that reads from source; one that only pushes or repairs has nil.
func (a *App) materializerOf(ctx context.Context, source materializer.Source) (*materializer.Materializer, error) {
	back, err := a.backingTier(ctx)
	if err != nil {
		return nil, err
	}
	on, err := a.onlineTier(ctx)
	if err != nil {
		return nil, err
	}
	cfg := materializer.Config{
		Source: source, Backing: back, Online: onlineForWrites{on}, State: progressState{back},
		Clock: a.clock, Logger: a.log, Progress: a.progress,
		Erased: func(ctx context.Context) (func(feature.Key) (feature.Micros, bool), error) {
			return backing.Guards(ctx, back, a.clock.Now())
		},
		Reserve:    func(ctx context.Context, n int) (uint64, error) { return backing.ReserveRuns(ctx, back, n) },
		ChunkBytes: a.cfg.Offline.Chunk,
	}
	if d := a.cfg.Backing.DynamoDB; d != nil {
		cfg.Region = d.Region
		if d.MaxWriteUnits > 0 {
			cfg.WriteRate = float64(d.MaxWriteUnits)
		}
	}
	return materializer.New(cfg)
}

// onlineForWrites is the online tier as the materializer sees it.
type onlineForWrites struct{ *online.Store }

// Warm reports whether every shard answers and has its markers.
func (o onlineForWrites) Warm(ctx context.Context) (bool, error) {
	w, err := o.Warmth(ctx)
	if err != nil {
		return false, err
	}
	if !w.Reachable {
		return false, fmt.Errorf("look for warm markers: %w", feature.ErrUnreachable)
	}
	for _, s := range w.Shards {
		if !s.Reachable || s.Cold {
			return false, nil
		}
	}
	return !w.Cold, nil
}

const kindProgress = "progress"

// progressState keeps the materializer's progress in the backing tier's state.
type progressState struct{ backing.StateStore }

// Load returns the progress of a slot; the zero value when there is none.
func (s progressState) Load(ctx context.Context, slot materializer.Slot) (materializer.Progress, error) {
	var p materializer.Progress
	_, err := backing.LoadJSON(ctx, s.StateStore, kindProgress, slot.String(), &p)
	return p, err
}

// Save replaces the progress unless a later run has saved it.
func (s progressState) Save(ctx context.Context, slot materializer.Slot, p materializer.Progress) error {
	fresh := func() materializer.Progress { return materializer.Progress{} }
	_, err := backing.UpdateJSON(ctx, s.StateStore, kindProgress, slot.String(), fresh, func(stored *materializer.Progress) error {
		if stored.LastRun > p.LastRun {
			return fmt.Errorf("save progress of %s for run %d: %w: run %d has saved it already", slot, p.LastRun, feature.ErrConflict, stored.LastRun)
		}
		*stored = p
		return nil
	})
	return err
}

// Files returns a set of files of a slot.
func (s progressState) Files(ctx context.Context, slot materializer.Slot, set materializer.FileSet) ([]feature.File, error) {
	return backing.LoadFiles(ctx, s.StateStore, fileSetName(slot, set))
}

// SaveFiles replaces a set of files whole.
func (s progressState) SaveFiles(ctx context.Context, slot materializer.Slot, set materializer.FileSet, files []feature.File) error {
	return backing.SaveFiles(ctx, s.StateStore, fileSetName(slot, set), files)
}

// Empty reports whether nothing was ever materialized.
func (s progressState) Empty(ctx context.Context) (bool, error) {
	items, err := s.ListState(ctx, kindProgress, backing.ListOptions{Limit: 1})
	return err == nil && len(items) == 0, err
}

func fileSetName(slot materializer.Slot, set materializer.FileSet) string {
	return slot.String() + "/" + string(set)
}
