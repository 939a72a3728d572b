package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/jobs"
	"github.com/hearthstore/hearth/materializer"
)

// RetireOptions are the flags of `hearth retire`.
type RetireOptions struct {
	View   string // name@n
	DryRun bool
	Force  bool // although a feature service still reads it
}

// Retire deletes a view version from both tiers, with its state.
func (a *App) Retire(ctx context.Context, o RetireOptions) (*materializer.RetireReport, error) {
	id, err := feature.ParseViewID(o.View)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(o.View, "@") {
		return nil, usage("retire %s: say which version, for example %s@1: its values are deleted", o.View, o.View)
	}
	if users := a.servicesOf(id); len(users) > 0 && !o.Force && !o.DryRun {
		return nil, usage("retire %s: feature service %s still reads it: its models would get defaults. Switch to another version in %s, deploy the readers, then retire (or --force)",
			id, strings.Join(users, ", "), a.cfg.Path)
	}
	var report *materializer.RetireReport
	work := func(ctx context.Context, run uint64) (result jobs.Result, err error) {
		report, err = a.retire(ctx, materializer.RetireRequest{Run: run, View: id, DryRun: o.DryRun})
		if report == nil {
			return jobs.Result{}, err
		}
		return jobs.Result{Status: report.Status, Detail: report}, err
	}
	if o.DryRun {
		_, err = work(ctx, 0)
	} else {
		var leases []string
		if leases, err = a.retireLeases(ctx, id); err == nil {
			err = a.execute(ctx, "retire", leases, work)
		}
	}
	return report, err
}

// retireLeases keeps out runs of the view, whole or of its shards, and rewarms that would bring
// its values online again. A shard that nobody ever worked on has no lease to take; a run that
// begins with it now finds the view retired.
func (a *App) retireLeases(ctx context.Context, id feature.ViewID) ([]string, error) {
	back, err := a.answeringBacking(ctx)
	if err != nil {
		return nil, err
	}
	view := "view/" + id.String()
	shards, err := backing.NewLeases(a.leaseConfig(back)).Names(ctx, view+"/")
	if err != nil {
		return nil, err
	}
	return append([]string{view, "rewarm"}, shards...), nil
}

func (a *App) retire(ctx context.Context, req materializer.RetireRequest) (*materializer.RetireReport, error) {
	back, err := a.answeringBacking(ctx)
	if err != nil {
		return nil, err
	}
	on, err := a.onlineTier(ctx)
	if err != nil {
		return nil, err
	}
	m, err := a.materializerOf(ctx, nil)
	if err != nil {
		return nil, err
	}
	report, err := m.Retire(ctx, req, materializer.RetireTiers{Backing: back, Online: on})
	if report != nil && a.cfg.Project.View(req.View) != nil {
		report.Warnings = append(report.Warnings, fmt.Sprintf("%s is still declared in %s: remove it, materialize refuses it from now on", req.View, a.cfg.Path))
	}
	if err != nil || req.DryRun {
		return report, err
	}
	if err := forgetSlots(ctx, back, req.View); err != nil {
		report.Status = materializer.StatusPartial
		report.Error = err.Error()
		return report, fmt.Errorf("retire %s: the values are deleted, their run state is not: %w", req.View, &feature.PartialError{Op: "run state", Done: report.Backing.Deleted, Failed: 1, Err: err})
	}
	return report, nil
}

// forgetSlots removes the file sets of a view and the progress of its shards. That of the
// view itself stays: it says that the version is retired.
func forgetSlots(ctx context.Context, back backing.Store, id feature.ViewID) error {
	if err := backing.DeleteFileSets(ctx, back, id.String()+"/"); err != nil {
		return err
	}
	shards, err := back.ListState(ctx, kindProgress, backing.ListOptions{Prefix: id.String() + "/"})
	if err != nil {
		return err
	}
	for _, item := range shards {
		if err := backing.DeleteJSON(ctx, back, kindProgress, item.Name); err != nil {
			return err
		}
	}
	return nil
}

// servicesOf names the feature services that read a view version.
func (a *App) servicesOf(id feature.ViewID) []string {
	var names []string
	for _, s := range a.cfg.Project.Services {
		if slices.ContainsFunc(s.Features, func(r feature.FeatureRef) bool { return r.View == id }) {
			names = append(names, s.Name)
		}
	}
	return names
}
