package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hearthstore/hearth/internal/app"
	"github.com/hearthstore/hearth/internal/clock"
)

type demoCmd struct {
	Dir string `default:"hearth-demo" help:"Folder to leave for you to explore; an earlier demo's folder is replaced."`
}

// Help is shown by hearth demo --help.
func (demoCmd) Help() string {
	return `Builds a training set from real credit-scoring data, materializes it, loses the online
tier, reads through the fallback, rewarms, verifies and reads again. Nothing needs to be
installed or set up.

Example:
  hearth demo --dir /tmp/hearth-demo`
}

// Run carries out the command.
func (c *demoCmd) Run(e *env) error {
	narration := e.out
	if e.cli.JSON {
		narration = e.err
	}
	report, err := app.Demo(e.ctx, app.DemoOptions{
		Dir: c.Dir, Program: programName(), Out: narration,
		Options: app.Options{Log: e.log, Clock: clock.System, Progress: newProgress(e, "demo", clock.System)},
	})
	if err != nil {
		return err
	}
	return e.emit(report, func(io.Writer) error { return nil })
}

// programName is how a person calls this binary again: `go run` keeps it in a temporary
// folder that will be gone.
func programName() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/hearth"
	}
	if filepath.Base(os.Args[0]) == os.Args[0] {
		return os.Args[0]
	}
	if rel, err := filepath.Rel(".", os.Args[0]); err == nil && !strings.HasPrefix(rel, "..") {
		return "./" + rel
	}
	return os.Args[0]
}
