package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/tiers"
)

// ValidateReport says what a valid configuration holds.
type ValidateReport struct {
	Valid    bool   `json:"valid"` // always; the document of one with problems lists them
	Path     string `json:"path"`
	Digest   string `json:"config_digest"`
	Project  string `json:"project"`
	Entities int    `json:"entities"`
	Views    int    `json:"feature_views"`
	Features int    `json:"features"`
	Services int    `json:"feature_services"`
	Datasets int    `json:"datasets"`
	Jobs     int    `json:"jobs"`
	Sources  bool   `json:"sources_checked"`
}

// WriteTable writes the report for a person.
func (r *ValidateReport) WriteTable(w io.Writer) error {
	checked := "configuration and sources are valid"
	if !r.Sources {
		checked = "the configuration is valid; the sources were not checked"
	}
	_, err := fmt.Fprintf(w, "%s: %s\n  %s, %s with %s, %s, %s, %s\n", r.Path, checked,
		count(r.Entities, "entity", "entities"), count(r.Views, "feature view", "feature views"), count(r.Features, "feature", "features"),
		count(r.Services, "feature service", "feature services"), count(r.Datasets, "dataset", "datasets"), count(r.Jobs, "job", "jobs"))
	return err
}

// count is a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Validate checks the configuration, the schedules and, unless configOnly, the schemas of
// sources and spines. The error holds every problem.
func (a *App) Validate(ctx context.Context, configOnly bool) (*ValidateReport, error) {
	var problems feature.Problems
	if !configOnly {
		engine, err := a.offlineEngine(ctx)
		if err != nil {
			return nil, err
		}
		problems = append(problems, a.cfg.Locate(engine.Check(ctx, &a.cfg.Project))...)
		for i := range a.cfg.Datasets {
			d := &a.cfg.Datasets[i]
			found := engine.CheckDataset(ctx, a.datasetRequest(d))
			for j := range found {
				if found[j].Path == "" {
					found[j].Path = fmt.Sprintf("datasets[%d]", i)
				}
			}
			problems = append(problems, a.cfg.Locate(found)...)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	if err := problems.Err(); err != nil {
		return nil, err
	}
	p := &a.cfg.Project
	r := &ValidateReport{
		Valid: true,
		Path:  a.cfg.Path, Digest: a.cfg.Digest, Project: p.Name, Entities: len(p.Entities), Views: len(p.Views),
		Services: len(p.Services), Datasets: len(a.cfg.Datasets), Jobs: len(a.cfg.Jobs), Sources: !configOnly,
	}
	for i := range p.Views {
		r.Features += len(p.Views[i].Features)
	}
	return r, nil
}

// ApplyReport is what apply did, or would do.
type ApplyReport struct {
	DryRun  bool             `json:"dry_run"`
	Actions []backing.Action `json:"actions"`
}

// WriteTable writes the report for a person.
func (r *ApplyReport) WriteTable(w io.Writer) error {
	head := "applied"
	if r.DryRun {
		head = "plan (nothing was changed)"
	}
	if len(r.Actions) == 0 {
		_, err := fmt.Fprintf(w, "%s: everything is in place\n", head)
		return err
	}
	if _, err := fmt.Fprintf(w, "%s:\n", head); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, x := range r.Actions {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", x.Change, x.Resource, x.Name, x.Detail)
	}
	return t.Flush()
}

// Apply creates what the backing tier needs. Redis needs nothing.
func (a *App) Apply(ctx context.Context, dryRun bool) (*ApplyReport, error) {
	store, err := tiers.OpenBacking(ctx, a.cfg, a.deps())
	if err != nil {
		return nil, err
	}
	r := &ApplyReport{DryRun: dryRun}
	switch err = a.probe(ctx, store); {
	case err != nil:
	case dryRun:
		r.Actions, err = store.Plan(ctx)
	default:
		r.Actions, err = store.Apply(ctx)
	}
	if err := errors.Join(err, store.Close()); err != nil {
		return nil, err
	}
	return r, nil
}
