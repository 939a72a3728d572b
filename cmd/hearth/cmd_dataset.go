package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/hearthstore/hearth/internal/app"
	"github.com/hearthstore/hearth/internal/clock"
)

type datasetCmd struct {
	Build    datasetBuildCmd    `cmd:"" help:"Build a training set."`
	Snapshot datasetSnapshotCmd `cmd:"" help:"One row per entity, as a reader would have been served at a time."`
	Describe datasetDescribeCmd `cmd:"" help:"Show a training set's manifest: match rates, null rates, ages, leakage audit."`
	Diff     datasetDiffCmd     `cmd:"" help:"What differs between two training sets."`
}

type datasetBuildCmd struct {
	Name             string            `arg:"" optional:"" help:"Dataset of hearth.yaml; with a single one declared it may be left out."`
	Spine            string            `help:"Ad hoc: Parquet or CSV of the label rows; a file, a pattern or a folder." placeholder:"PATH"`
	TimestampField   string            `help:"Ad hoc: the spine's label time column (default event_timestamp)." placeholder:"COLUMN"`
	JoinKeys         map[string]string `help:"Ad hoc: spine columns of the join keys, where the names differ." placeholder:"KEY=COLUMN;..."`
	Features         []string          `help:"Ad hoc: feature references, for example zipcode_features:*,credit_history:hard_pulls." placeholder:"REF"`
	FeatureService   string            `help:"Ad hoc: a feature service instead of --features." placeholder:"NAME"`
	FullFeatureNames bool              `help:"Name columns view__feature."`
	EventTimestamps  bool              `help:"Add each view's event timestamp."`
	FillDefaults     bool              `help:"Missing features get the view's defaults instead of null."`
	KnownAt          bool              `help:"Use only rows whose created timestamp is not after the label time."`
	Out              string            `help:"Output folder (default: the dataset's output.path)." placeholder:"DIR"`
	outputFlags
}

// outputFlags are what every command that writes rows takes.
type outputFlags struct {
	Memory        string `help:"Memory for the whole process, for example 4GB (default half of the machine)." placeholder:"SIZE"`
	FileFormat    string `enum:"parquet,csv" default:"parquet" help:"Format of the output: parquet or csv."`
	PartitionRows int64  `help:"Split the output into files of that many rows." placeholder:"N"`
}

// Help is shown by hearth dataset build --help.
func (datasetBuildCmd) Help() string {
	return `Writes the spine's rows (the labels), once each and in the spine's order, with the newest
features that there were at each row's time, as Parquet with a manifest.json beside it. The
output folder appears whole or not at all.

The flags that begin with "Ad hoc" are for a spine that hearth.yaml does not declare; the
others go with a declared dataset as well.

Examples:
  hearth dataset build loans
  hearth dataset build loans --out out/loans_csv --file-format csv
  hearth dataset build --spine labels.parquet --features 'zipcode_features:*' --out out/adhoc
  hearth dataset build --spine 'labels/*.csv' --timestamp-field applied_at \
    --join-keys 'zipcode=zip;dob_ssn=customer' --feature-service credit_score_v1 --out out/adhoc`
}

// Run carries out the command.
func (c *datasetBuildCmd) Run(e *env) error {
	return e.with("dataset", func(a *app.App) error {
		report, err := a.BuildDataset(e.ctx, app.DatasetOptions{
			Name: c.Name, Spine: c.Spine, TimestampField: c.TimestampField, JoinKeys: c.JoinKeys,
			Features: c.Features, FeatureService: c.FeatureService,
			FullFeatureNames: c.FullFeatureNames, EventTimestamps: c.EventTimestamps, FillDefaults: c.FillDefaults, KnownAt: c.KnownAt,
			Out: c.Out, Memory: c.Memory, FileFormat: c.FileFormat, PartitionRows: c.PartitionRows,
		})
		if err != nil {
			return err
		}
		return e.emit(report, report.WriteTable)
	})
}

type datasetSnapshotCmd struct {
	FeatureService   string            `help:"Feature service (default the only one)." placeholder:"NAME"`
	Features         []string          `help:"Feature references instead of a service." placeholder:"REF"`
	At               string            `help:"The time, RFC 3339 (default now)." placeholder:"TIME"`
	Entities         string            `help:"Parquet or CSV with one row per entity (default every entity known at that time)." placeholder:"PATH"`
	JoinKeys         map[string]string `help:"Columns of --entities that hold the join keys, where the names differ." placeholder:"KEY=COLUMN;..."`
	FullFeatureNames bool              `help:"Name columns view__feature."`
	EventTimestamps  bool              `help:"Add each view's event timestamp."`
	FillDefaults     bool              `help:"Missing features get the view's defaults instead of null."`
	Out              string            `required:"" help:"Output folder." placeholder:"DIR"`
	outputFlags
}

// Help is shown by hearth dataset snapshot --help.
func (datasetSnapshotCmd) Help() string {
	return `For batch scoring: what an online reader would have been served at a time, for every entity
that the sources knew by then, or for those of --entities.

Examples:
  hearth dataset snapshot --features 'zipcode_features:*' --at 2021-08-25T00:00:00Z --out out/scoring
  hearth dataset snapshot --feature-service credit_score_v1 --entities customers.csv --out out/scoring`
}

// Run carries out the command.
func (c *datasetSnapshotCmd) Run(e *env) error {
	return e.with("snapshot", func(a *app.App) error {
		report, err := a.Snapshot(e.ctx, app.SnapshotOptions{
			FeatureService: c.FeatureService, Features: c.Features, At: c.At, Entities: c.Entities, JoinKeys: c.JoinKeys,
			FullFeatureNames: c.FullFeatureNames, EventTimestamps: c.EventTimestamps, FillDefaults: c.FillDefaults,
			Out: c.Out, Memory: c.Memory, FileFormat: c.FileFormat, PartitionRows: c.PartitionRows,
		})
		if err != nil {
			return err
		}
		return e.emit(report, report.WriteTable)
	})
}

type datasetDescribeCmd struct {
	Dir  string `arg:"" help:"Folder of a training set."`
	HTML string `help:"Draw the manifest as one self-contained page in this file." placeholder:"FILE"`
}

// Help is shown by hearth dataset describe --help.
func (datasetDescribeCmd) Help() string {
	return `Reads the manifest.json of a training set: how many rows each view matched, how many values
are missing, how old they were, and the leakage audit, which must say 0.

Examples:
  hearth dataset describe out/loans
  hearth dataset describe out/loans --html loans.html`
}

// Run carries out the command.
func (c *datasetDescribeCmd) Run(e *env) error {
	m, err := app.DescribeDataset(c.Dir)
	if err != nil {
		return err
	}
	if c.HTML != "" {
		f, err := os.Create(c.HTML)
		if err != nil {
			return fmt.Errorf("describe: %w", err)
		}
		if err := errors.Join(m.WriteHTML(f), f.Close()); err != nil {
			return fmt.Errorf("describe: write %s: %w", c.HTML, err)
		}
		fmt.Fprintf(e.err, "drawn in %s\n", c.HTML)
	}
	return e.emit(m, m.WriteTable)
}

type datasetDiffCmd struct {
	A string `arg:"" help:"Folder of a training set."`
	B string `arg:"" help:"Folder of another."`

	By       []string `help:"Columns that identify a row, where rows moved (default: compare by position)." placeholder:"COLUMN"`
	Examples int      `default:"3" help:"Show so many differing values of each column; 0 shows none."`
}

// Help is shown by hearth dataset diff --help.
func (datasetDiffCmd) Help() string {
	return `The exit code is 5 when the sets differ. Examples are values of your data: with --examples 0
none is shown.

Examples:
  hearth dataset diff out/loans_before out/loans
  hearth dataset diff out/loans_before out/loans --by loan_id`
}

// Run carries out the command.
func (c *datasetDiffCmd) Run(e *env) error {
	diff, err := app.DiffDatasets(e.ctx, c.A, c.B, app.DiffOptions{By: c.By, Examples: c.Examples}, app.Options{Log: e.log, Clock: clock.System})
	if err != nil {
		return err
	}
	if err := e.emit(diff, diff.WriteTable); err != nil {
		return err
	}
	if !diff.Identical {
		return &exitError{exitDifferences, "the training sets differ"}
	}
	return nil
}
