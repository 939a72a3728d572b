package main

import (
	"context"
	"errors"

	"github.com/hearthstore/hearth/feature"
)

// The exit codes are an interface: scripts and state machines decide on them. They are
// listed in `hearth --help` and in the README.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitPartial     = 3
	exitLeaseHeld   = 4
	exitDifferences = 5
	exitInterrupted = 130
)

const exitHelp = `Exit codes: 0 done · 1 failed · 2 usage or configuration · 3 partial (the output says
what is behind) · 4 lease held by another run, nothing done · 5 verification found
differences · 130 interrupted (state saved, resumable).`

// exitError carries an exit code for an outcome that has already been reported on stdout.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// exitCode maps an error to the process's exit code.
func exitCode(ctx context.Context, err error) int {
	var (
		exit    *exitError
		partial *feature.PartialError
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		return exit.code
	case errors.Is(err, feature.ErrLeaseHeld):
		return exitLeaseHeld
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &partial):
		return exitPartial
	case errors.Is(err, feature.ErrInvalid):
		return exitUsage
	}
	return exitFailed
}

// statusError turns the status word of a report into the error that carries its exit
// code; nil for done and nothing. Partial is never success.
func statusError(status string) error {
	switch status {
	case "done", "nothing", "planned":
		return nil
	case "partial":
		return &exitError{exitPartial, "partial: something is behind; see the report"}
	case "interrupted":
		return &exitError{exitInterrupted, "interrupted: state is saved; run the same command again"}
	}
	return &exitError{exitFailed, "failed; see the report"}
}
