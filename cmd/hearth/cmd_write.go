package main

import (
	"github.com/hearthstore/hearth/internal/app"
	"github.com/hearthstore/hearth/materializer"
)

type materializeCmd struct {
	FeatureViews []string `help:"Views to materialize, name or name@n (default all)." placeholder:"VIEW"`
	Full         bool     `help:"Read every file, not only new and changed ones."`
	Prune        bool     `help:"With --full: write tombstones for entities that vanished from the source."`
	Force        bool     `help:"Override a refusal: a schema change or a retired version (with --full), a prune that would delete everything."`
	Start        string   `help:"Only rows with an event time from here on, RFC 3339 or a date; their files still count as new afterwards." placeholder:"TIME"`
	End          string   `help:"Only rows with an event time up to here (default now); files with later rows stay pending." placeholder:"TIME"`
	Shard        string   `help:"Only the entities of shard i of n, for example 0/4." placeholder:"I/N"`
	DryRun       bool     `help:"Count rows, write units, cost and time; write nothing."`
}

// Help is shown by hearth materialize --help.
func (materializeCmd) Help() string {
	return `Takes the latest value per entity from new and changed files, writes it to the backing tier
if it is newer, and then to Redis. Redis being down makes the run partial (exit 3): the next
run, rewarm or verify --repair heals it.

Examples:
  hearth materialize
  hearth materialize --dry-run                       # what it would write and cost
  hearth materialize --feature-views credit_history --full
  hearth materialize --start 2021-08-01 --end 2021-08-31T23:59:59Z
  hearth materialize --shard 0/4                     # one of four machines`
}

// Run carries out the command.
func (c *materializeCmd) Run(e *env) error {
	return e.with("materialize", func(a *app.App) error {
		report, err := a.Materialize(e.ctx, app.MaterializeOptions{
			Views: c.FeatureViews, Full: c.Full, Prune: c.Prune, Force: c.Force,
			Start: c.Start, End: c.End, Shard: c.Shard, DryRun: c.DryRun,
		})
		return conclude(e, report, err, func(report *materializer.Report) error {
			return statusError(report.Status)
		})
	})
}

type pushCmd struct {
	View string `arg:"" help:"Feature view, name or name@n."`
	File string `help:"Read this file instead of stdin: Parquet (.parquet), else a JSON object a line." placeholder:"FILE"`
}

// Help is shown by hearth push --help.
func (pushCmd) Help() string {
	return `Reads one JSON object a line: the join keys, event_timestamp, and features by name;
created_timestamp and "deleted": true are optional. A wrong line means that nothing is written.
Of a Parquet file, which has the columns of the view's source, the newest row of each entity is
written, and rows that cannot become a value are rejected. At most 100,000 rows.

The rules are those of materialize: never over a newer value, the table first. The outcome of
each row is listed (all of them with --json); exit 3 when some did not reach both tiers.

Examples:
  echo '{"zipcode": 76104, "event_timestamp": "2026-01-01T00:00:00Z", "city": "FORT WORTH"}' |
    hearth push zipcode_features
  hearth push zipcode_features --file corrections.parquet --json`
}

// Run carries out the command.
func (c *pushCmd) Run(e *env) error {
	return e.with("push", func(a *app.App) error {
		report, err := a.Push(e.ctx, app.PushOptions{View: c.View, File: c.File, Lines: e.in})
		return conclude(e, report, err, func(report *materializer.PushReport) error {
			return statusError(report.Status)
		})
	})
}
