package main

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/app"
	"github.com/hearthstore/hearth/internal/config"
)

type initCmd struct {
	Dir string `arg:"" help:"Folder to make; it must not hold a hearth.yaml yet."`
}

// Help is shown by hearth init --help.
func (initCmd) Help() string {
	return `Writes a small feature repository that runs as it is: hearth.yaml, Parquet and a README.

Example:
  hearth init my_features && cd my_features && hearth validate && hearth dataset build`
}

// Run carries out the command.
func (c *initCmd) Run(e *env) error {
	if err := config.InitRepo(c.Dir); err != nil {
		return err
	}
	return e.emit(map[string]string{"path": c.Dir}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Made %s. Next:\n  cd %s\n  hearth validate\n  hearth dataset build\n  hearth materialize\n", c.Dir, c.Dir)
		return err
	})
}

type validateCmd struct {
	ConfigOnly bool `help:"Check the file alone, not the Parquet behind it."`
}

// Help is shown by hearth validate --help.
func (validateCmd) Help() string {
	return `Reports every problem at once, with file, line, column and the remedy. Without
--config-only it opens the Parquet schemas of the sources and spines as well.

Examples:
  hearth validate
  hearth validate -c prod/hearth.yaml --json`
}

// Run carries out the command.
func (c *validateCmd) Run(e *env) error {
	err := e.with("validate", func(a *app.App) error {
		summary, err := a.Validate(e.ctx, c.ConfigOnly)
		if err != nil {
			return err
		}
		return e.emit(summary, summary.WriteTable)
	})
	// Here the problems are the result: they go where results go.
	var problems feature.Problems
	if e.cli.JSON && errors.As(err, &problems) {
		e.printJSON(e.out, map[string]any{"valid": false, "problems": problems})
		return &exitError{exitUsage, fmt.Sprintf("%d problem(s)", len(problems))}
	}
	return err
}

type schemaCmd struct{}

// Help is shown by hearth schema --help.
func (schemaCmd) Help() string {
	return `Editors complete and check hearth.yaml with it.

Example:
  hearth schema > hearth.schema.json
  # then, as the first line of hearth.yaml:
  # yaml-language-server: $schema=hearth.schema.json`
}

// Run carries out the command.
func (schemaCmd) Run(e *env) error {
	schema, err := config.Schema()
	if err != nil {
		return err
	}
	_, err = e.out.Write(schema)
	return err
}

type applyCmd struct {
	DryRun bool `help:"Print the plan and change nothing."`
}

// Help is shown by hearth apply --help.
func (applyCmd) Help() string {
	return `Creates the DynamoDB tables that are missing and checks those that exist: key schema, TTL
attribute, point-in-time recovery, encryption, deletion protection. Running it again
changes nothing. Redis needs nothing, and an embedded tier sets itself up.

Examples:
  hearth apply --dry-run
  hearth apply`
}

// Run carries out the command.
func (c *applyCmd) Run(e *env) error {
	return e.with("apply", func(a *app.App) error {
		report, err := a.Apply(e.ctx, c.DryRun)
		if err != nil {
			return err
		}
		return e.emit(report, report.WriteTable)
	})
}

// version is set by the release build (-ldflags -X main.version=…).
var version string

// buildVersion is the version of this binary.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); version == "" && ok && info.Main.Version != "" {
		return info.Main.Version
	}
	if version == "" {
		return "(devel)"
	}
	return version
}

type versionCmd struct{}

// Help is shown by hearth version --help.
func (versionCmd) Help() string {
	return `Example:
  hearth version --json`
}

// Run carries out the command.
func (versionCmd) Run(e *env) error {
	doc := struct {
		Version  string `json:"version"`
		Go       string `json:"go"`
		Revision string `json:"revision,omitempty"`
		DuckDB   string `json:"duckdb"`
		Formats  []int  `json:"formats"`
	}{Version: buildVersion(), DuckDB: app.EngineVersion(), Formats: []int{feature.FormatValue, feature.FormatTombstone, feature.FormatRuns}}
	if info, ok := debug.ReadBuildInfo(); ok {
		doc.Go = info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				doc.Revision = s.Value
			}
		}
	}
	return e.emit(doc, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "hearth %s (%s, DuckDB %s)\n", doc.Version, doc.Go, doc.DuckDB)
		return err
	})
}
