package main

import (
	"github.com/hearthstore/hearth/internal/app"
)

type getCmd struct {
	Keys           []string `arg:"" name:"key" help:"Entities, each as name=value[,name=value...]."`
	FeatureService string   `help:"Feature service to read (default the only one)." placeholder:"NAME"`
	Features       []string `help:"Feature references instead of a service." placeholder:"REF"`
}

// Help is shown by hearth get --help.
func (getCmd) Help() string {
	return `Reads like an online service: cache, Redis, the table, then defaults. Each value comes with
its status, the tier that answered, its event time and its age. A tier that does not answer
is named as unreachable; the tier below answers. Values that no tier could be asked for are
defaults of status UNKNOWN, and the exit code is 3.

Examples:
  hearth get --feature-service credit_score_v1 zipcode=76104,dob_ssn=19630621_4278
  hearth get --features zipcode_features:city zipcode=76104 zipcode=10001 --json`
}

// Run carries out the command.
func (c *getCmd) Run(e *env) error {
	return e.with("get", func(a *app.App) error {
		response, err := a.Get(e.ctx, app.GetOptions{Keys: c.Keys, FeatureService: c.FeatureService, Features: c.Features})
		if err != nil {
			return err
		}
		if err := e.emit(response.Document(), response.WriteTable); err != nil {
			return err
		}
		if un := response.Unknown(); un > 0 {
			return &exitError{exitPartial, "partial: some values could not be read from any tier; defaults are labelled UNKNOWN"}
		}
		return nil
	})
}

type statusCmd struct{}

// Help is shown by hearth status --help.
func (statusCmd) Help() string {
	return `Shows, per view, the newest event time, the watermark (until when its files were taken) and how
far Redis is behind; whether Redis is warm or which shards are cold; and the last runs, with the
process that holds or held each. Exit 3 when a tier is unreachable.

Examples:
  hearth status
  hearth status --json`
}

// Run carries out the command.
func (statusCmd) Run(e *env) error {
	return e.with("status", func(a *app.App) error {
		report, err := a.Status(e.ctx)
		if err != nil {
			return err
		}
		if err := e.emit(report, report.WriteTable); err != nil {
			return err
		}
		if !report.Online.Reachable || !report.Backing.Reachable {
			return &exitError{exitPartial, "partial: a tier is unreachable"}
		}
		return nil
	})
}
