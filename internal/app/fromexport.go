package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/jobs"
	"github.com/hearthstore/hearth/rewarm"
	"github.com/hearthstore/hearth/rewarm/export"
)

// rewarmFromExport brings the values of an export back, which costs no read units, and
// then catches up from the table: what is newer there is put, what it has erased since is
// removed. Only the table's word marks the online tier warm.
func (a *App) rewarmFromExport(ctx context.Context, run uint64, req rewarm.Request, o RewarmOptions) (report *rewarm.Report, result jobs.Result, err error) {
	exported, err := a.openExport(ctx, o.FromExport)
	if err != nil {
		return nil, jobs.Result{}, err
	}
	defer func() { err = errors.Join(err, exported.Close()) }()

	first := req
	first.Run, first.Verify, first.Segments = run, 0, 0
	first.Attempt = exported.Name() // a later run does not read it again
	if !o.NoCatchUp && o.Plan {     // the table says what there is, and what it costs to catch up
		if report, result, err = a.rewarm(ctx, run, req); report != nil && report.Plan != nil {
			report.Plan.Notes = append(report.Plan.Notes, "the values come from the export "+exported.Name()+"; the read units are those of the catch-up from the table after it")
		}
		return report, result, err
	}
	source, err := a.exportRewarmer(ctx, exported)
	if err != nil {
		return nil, jobs.Result{}, err
	}
	report, err = source.Run(ctx, first)
	if report == nil || err != nil || o.Plan || report.Status != rewarm.StatusDone {
		return report, resultOf(report), err
	}
	done := rewarm.ExportReport{Name: exported.Name(), Counts: report.Counts, Seconds: report.Seconds}
	if o.NoCatchUp {
		report.Export, report.Status = &done, rewarm.StatusPartial
		report.Problems = append(report.Problems, "what was written or erased since the export is not caught up, so the online tier is not marked warm; hearth rewarm does it")
		return report, resultOf(report), nil
	}
	req.NoHot = true // the hot keys are in with the others
	req.Force = true // what is still to come is little, and most of the room is already taken
	report, result, err = a.rewarm(ctx, run, req)
	if report != nil {
		report.Export = &done
		result.Detail = report
	}
	return report, result, err
}

func resultOf(report *rewarm.Report) jobs.Result {
	if report == nil {
		return jobs.Result{}
	}
	return jobs.Result{Status: report.Status, Detail: report}
}

// exportRewarmer reads the export instead of the table.
func (a *App) exportRewarmer(ctx context.Context, exported *export.Export) (*rewarm.Rewarmer, error) {
	cfg, err := a.rewarmConfig(ctx)
	if err != nil {
		return nil, err
	}
	cfg.Backing, cfg.Source, cfg.Hot = rewarm.FromExport(exported), exported.Name(), nil
	return rewarm.New(cfg)
}

// openExport opens the folder of an export, local or in S3, and makes sure that it is one
// of the configured table.
func (a *App) openExport(ctx context.Context, where string) (*export.Export, error) {
	files := os.DirFS(strings.TrimSuffix(where, "manifest-summary.json"))
	if strings.HasPrefix(where, "s3://") {
		s := a.cfg.Offline.S3
		bucket, err := export.OpenBucket(ctx, export.BucketConfig{
			URL: where, Region: s.Region, Endpoint: s.Endpoint, PathStyle: s.PathStyle, Clock: a.clock,
		})
		if err != nil {
			return nil, err
		}
		files = bucket
	}
	exported, err := export.Open(files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if d := a.cfg.Backing.DynamoDB; d != nil && d.Table != exported.Table() {
		return nil, errors.Join(fmt.Errorf("%s: %w: it is an export of the table %q, the configuration names %q", where, feature.ErrInvalid, exported.Table(), d.Table), exported.Close())
	}
	return exported, nil
}
