package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/config"
	"github.com/hearthstore/hearth/internal/hotkeys"
	"github.com/hearthstore/hearth/internal/tiers"
	"github.com/hearthstore/hearth/jobs"
	"github.com/hearthstore/hearth/materializer"
	"github.com/hearthstore/hearth/online"
	"github.com/hearthstore/hearth/rewarm"
)

// RewarmOptions are the flags of `hearth rewarm`.
type RewarmOptions struct {
	IfCold       bool
	Plan         bool
	Views        []string
	Segments     int
	SegmentRange string
	Attempt      string
	Summary      bool
	MaxReadRate  float64
	MaxWriteRate float64
	MaxSlowdown  float64
	Restart      bool
	Force        bool
	Hottest      bool
	Verify       float64
	// FromExport is the folder of an export, local or s3://; "" reads the table.
	FromExport string
	// NoCatchUp leaves out what the table has that the export has not.
	NoCatchUp bool
}

// Rewarm refills the online tier from the backing tier, under a lease.
func (a *App) Rewarm(ctx context.Context, o RewarmOptions) (*rewarm.Report, error) {
	req, leases, err := a.rewarmRequest(o)
	if err != nil {
		return nil, err
	}
	if o.Summary {
		return a.rewarmSummary(ctx, o)
	}
	if o.IfCold && !o.Plan { // warm is the usual case: say so in milliseconds, and without the table
		warm, err := a.isWarm(ctx)
		if err != nil {
			return nil, err
		}
		if warm {
			return &rewarm.Report{Status: rewarm.StatusNothing, Reason: rewarm.ReasonWarm}, nil
		}
	}
	work := a.rewarm
	if o.FromExport != "" {
		work = func(ctx context.Context, run uint64, req rewarm.Request) (*rewarm.Report, jobs.Result, error) {
			return a.rewarmFromExport(ctx, run, req, o)
		}
	}
	var report *rewarm.Report
	fn := func(ctx context.Context, run uint64) (result jobs.Result, err error) {
		report, result, err = work(ctx, run, req)
		return result, err
	}
	if o.Plan {
		_, err = fn(ctx, 0)
	} else {
		err = a.execute(ctx, "rewarm", leases, fn)
	}
	return report, err
}

// rewarmRequest reads the options, and names the leases of the work.
func (a *App) rewarmRequest(o RewarmOptions) (req rewarm.Request, leases []string, err error) {
	req = rewarm.Request{
		IfCold: o.IfCold, Segments: o.Segments, MaxReadRate: o.MaxReadRate, MaxWriteRate: o.MaxWriteRate, MaxSlowdown: o.MaxSlowdown,
		Restart: o.Restart, Verify: o.Verify, PlanOnly: o.Plan, Force: o.Force, Hottest: o.Hottest, Attempt: o.Attempt,
	}
	if req.Views, err = a.someViews(o.Views); err != nil {
		return req, nil, err
	}
	lease := "rewarm"
	if o.SegmentRange != "" {
		if o.Segments < 1 {
			return req, nil, usage("--segment-range needs --segments, the same number on every machine")
		}
		if o.FromExport != "" {
			return req, nil, usage("--segment-range does not go with --from-export")
		}
		if req.SegmentFrom, req.SegmentTo, err = segmentRange(o.SegmentRange, o.Segments); err != nil {
			return req, nil, err
		}
		if req.SegmentFrom > req.SegmentTo && strings.Contains(o.SegmentRange, "/") {
			return req, nil, usage("--segment-range %s: there are only %d segments; give at least as many segments as parts", o.SegmentRange, o.Segments)
		}
		req.Range = true
		lease += fmt.Sprintf("/%d-%d", req.SegmentFrom, req.SegmentTo)
	}
	return req, []string{lease}, nil
}

// segmentRange reads a-b, or i/n: part i, from 0, of n parts as even as can be.
func segmentRange(text string, segments int) (from, to int, err error) {
	first, second, part := strings.Cut(text, "/")
	if !part {
		first, second, _ = strings.Cut(text, "-")
	}
	a, err1 := strconv.Atoi(first)
	b, err2 := strconv.Atoi(second)
	if err1 != nil || err2 != nil || part && (a < 0 || a >= b) {
		return 0, 0, usage("--segment-range %q: write a-b, for example 0-15, or i/n for part i (from 0) of n", text)
	}
	if part {
		return a * segments / b, (a+1)*segments/b - 1, nil
	}
	return a, b, nil
}

// rewarmSummary is what all machines did together on the last rewarm.
func (a *App) rewarmSummary(ctx context.Context, o RewarmOptions) (*rewarm.Report, error) {
	if _, err := a.answeringBacking(ctx); err != nil {
		return nil, err
	}
	rw, err := a.rewarmer(ctx)
	if err != nil {
		return nil, err
	}
	return rw.Summary(ctx, o.Attempt)
}

// rewarm is one run. The report is nil when the tiers could not be opened.
func (a *App) rewarm(ctx context.Context, run uint64, req rewarm.Request) (*rewarm.Report, jobs.Result, error) {
	if req.IfCold && !req.PlanOnly { // a job asks every minute: the table is not bothered for that
		if warm, err := a.isWarm(ctx); warm || err != nil {
			report := &rewarm.Report{Run: run, Status: rewarm.StatusNothing, Reason: rewarm.ReasonWarm}
			if err != nil {
				report.Status, report.Reason = rewarm.StatusFailed, ""
			}
			return report, jobs.Result{Status: report.Status, Detail: report}, err
		}
	}
	rw, err := a.rewarmer(ctx)
	if err != nil {
		return nil, jobs.Result{}, err
	}
	req.Run = run
	repair, err := a.beginRepair(ctx)
	if err != nil {
		return nil, jobs.Result{}, err
	}
	report, err := rw.Run(ctx, req)
	if report == nil {
		return nil, jobs.Result{}, err
	}
	// A rewarm of everything brought also what earlier runs could not.
	if err == nil && report.Status == rewarm.StatusDone && len(req.Views) == 0 && !req.Range && report.WarmShard == 0 {
		err = repair.Done(ctx)
	}
	return report, jobs.Result{Status: report.Status, Detail: report}, err
}

// beginRepair notes how far the online tier is behind, so that work which brings it
// everything can strike that out.
func (a *App) beginRepair(ctx context.Context) (*materializer.Repair, error) {
	m, err := a.materializerOf(ctx, nil)
	if err != nil {
		return nil, err
	}
	slots := make([]materializer.Slot, len(a.cfg.Project.Views))
	for i := range slots {
		slots[i].View = a.cfg.Project.Views[i].ID()
	}
	return m.BeginRepair(ctx, slots)
}

// VerifyOptions are the flags of `hearth verify`.
type VerifyOptions struct {
	Fraction float64
	Views    []string
	Repair   bool
	Seed     uint64
	// MaxReadRate is the most read units a second from the table; 0 for no bound.
	MaxReadRate float64
}

// Verify compares the tiers.
func (a *App) Verify(ctx context.Context, o VerifyOptions) (*rewarm.VerifyReport, error) {
	if o.Fraction <= 0 || o.Fraction > 1 {
		return nil, usage("--fraction %v: give a share above 0, up to 1", o.Fraction)
	}
	views, err := a.someViews(o.Views)
	if err != nil {
		return nil, err
	}
	rw, err := a.rewarmer(ctx)
	if err != nil {
		return nil, err
	}
	repair, err := a.beginRepair(ctx)
	if err != nil {
		return nil, err
	}
	report, err := rw.Verify(ctx, rewarm.VerifyRequest{Fraction: o.Fraction, Seed: o.Seed, Views: views, Repair: o.Repair, MaxReadRate: o.MaxReadRate})
	if err == nil && o.Repair && o.Fraction == 1 && len(views) == 0 && report.OK() {
		err = repair.Done(ctx)
	}
	return report, err
}

// DrillOptions are the flags of `hearth rewarm --drill`.
type DrillOptions struct {
	Fraction                               float64
	MaxReadRate, MaxWriteRate, MaxSlowdown float64
	// Verify is the share of what was brought that is compared; 0 for all.
	Verify float64
	// Redis is another Redis to drill into, with the user, password and TLS of the online
	// tier; none is a scratch prefix of the online tier.
	Redis        []string
	RedisCluster bool
}

// Drill rehearses a rewarm beside the live keys, or into another Redis, and writes into
// the ledger whether it keeps the recovery time objective.
func (a *App) Drill(ctx context.Context, o DrillOptions) (report *rewarm.DrillReport, err error) {
	rw, err := a.rewarmer(ctx)
	if err != nil {
		return nil, err
	}
	scratch, err := a.drillTier(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, scratch.Close()) }()
	err = a.execute(ctx, "drill", []string{"drill"}, func(ctx context.Context, run uint64) (result jobs.Result, err error) {
		report, err = rw.Drill(ctx, scratch, rewarm.DrillRequest{
			Run: run, Fraction: o.Fraction, MaxReadRate: o.MaxReadRate, MaxWriteRate: o.MaxWriteRate, MaxSlowdown: o.MaxSlowdown,
			Verify: o.Verify,
		})
		if report == nil {
			return jobs.Result{}, err
		}
		result = jobs.Result{Status: report.Status, Detail: report}
		if report.Status == rewarm.StatusDone && !report.OK() {
			result.Status = jobs.StatusFailed // it went well, but not well enough
		}
		return result, err
	})
	return report, err
}

// drillTier is where a drill brings values to: a scratch prefix of the online tier, or
// another Redis.
func (a *App) drillTier(ctx context.Context, o DrillOptions) (*online.Store, error) {
	cfg := *a.cfg
	cfg.Project.Name += drillSuffix
	switch {
	case len(o.Redis) > 0:
		r := config.Redis{WriteTimeout: 3 * time.Second}
		if cfg.Online.Redis != nil {
			r = *cfg.Online.Redis
		}
		r.Addrs, r.Cluster = o.Redis, o.RedisCluster
		cfg.Online.Redis = &r
	case o.RedisCluster:
		return nil, usage("--drill-cluster says what the Redis of --drill-redis is")
	}
	return tiers.OpenOnline(ctx, &cfg, a.deps())
}

// drillSuffix makes the scratch project, whose keys are apart from the real ones.
const drillSuffix = "_drill"

// someViews resolves names; none stays none, which means all to rewarm and verify.
func (a *App) someViews(names []string) ([]feature.ViewID, error) {
	if len(names) == 0 {
		return nil, nil
	}
	views, err := a.views(names)
	return viewIDs(views), err
}

func (a *App) isWarm(ctx context.Context) (bool, error) {
	on, err := a.onlineTier(ctx)
	if err != nil {
		return false, err
	}
	return onlineForWrites{on}.Warm(ctx)
}

func (a *App) rewarmer(ctx context.Context) (*rewarm.Rewarmer, error) {
	cfg, err := a.rewarmConfig(ctx)
	if err != nil {
		return nil, err
	}
	return rewarm.New(cfg)
}

// rewarmConfig opens the tiers and says how to rewarm the one from the other.
func (a *App) rewarmConfig(ctx context.Context) (rewarm.Config, error) {
	back, err := a.backingTier(ctx)
	if err != nil {
		return rewarm.Config{}, err
	}
	on, err := a.onlineTier(ctx)
	if err != nil {
		return rewarm.Config{}, err
	}
	all, err := a.views(nil)
	if err != nil {
		return rewarm.Config{}, err
	}
	cfg := rewarm.Config{
		Hot: hotKeys{back, a.clock}, Project: a.cfg.Project.Name,
		Backing: forRewarm(back), Online: on, State: checkpointState{back}, Views: all,
		Progress: a.progress, Clock: a.clock, Logger: a.log,
		Objective: a.cfg.RecoveryTimeObjective,
		// A page must not outlive the markers that keep deleted keys deleted.
		MaxPageAge: min(15*time.Minute, a.cfg.Online.TombstoneTTL/2),
	}
	if d := a.cfg.Backing.DynamoDB; d != nil {
		cfg.Region = d.Region
	}
	return cfg, nil
}

// hotKeys is what the readers of all machines are asked for.
type hotKeys struct {
	state backing.StateStore
	clock clock.Clock
}

// HotKeys returns refs, hottest first.
func (h hotKeys) HotKeys(ctx context.Context) ([]feature.Ref, error) {
	return hotkeys.Load(ctx, h.state, h.clock.Now())
}

// forRewarm is a backing tier as a rewarm sees it, with the cheap way to single values if
// it has one.
func forRewarm(back backing.Store) rewarm.Backing {
	if f, ok := back.(rewarm.Fetcher); ok {
		return struct {
			backingForRewarm
			rewarm.Fetcher
		}{backingForRewarm{back}, f}
	}
	return backingForRewarm{back}
}

type backingForRewarm struct{ backing.Store }

// Table is the store's own estimate of its size.
func (b backingForRewarm) Table(ctx context.Context) (rewarm.Table, error) {
	d, err := b.Describe(ctx)
	return rewarm.Table{Name: d.Name, Items: d.Items, Bytes: d.Bytes}, err
}

const kindCheckpoint = "rewarm"

// checkpointState keeps the rewarmer's checkpoints in the backing tier's state.
type checkpointState struct{ backing.StateStore }

// Load returns a document and its revision.
func (s checkpointState) Load(ctx context.Context, name string) ([]byte, int64, error) {
	item, err := s.GetState(ctx, kindCheckpoint, name)
	return item.Value, item.Revision, err
}

// Save replaces the document of the given revision.
func (s checkpointState) Save(ctx context.Context, name string, value []byte, revision int64) (int64, error) {
	item, err := s.PutState(ctx, backing.StateItem{Kind: kindCheckpoint, Name: name, Value: value, Revision: revision, ExpireAt: feature.NoTime})
	return item.Revision, err
}

// Delete removes the document of the given revision.
func (s checkpointState) Delete(ctx context.Context, name string, revision int64) error {
	return s.DeleteState(ctx, kindCheckpoint, name, revision)
}
