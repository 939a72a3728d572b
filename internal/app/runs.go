package app

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/jobs"
)

// work does one run. The Result it returns beside an error is recorded too.
type work = jobs.Func

// execute does one run that a person asked for: under its leases, in the ledger, under a
// run number of its own.
func (a *App) execute(ctx context.Context, kind string, leases []string, fn work) error {
	runner, _, err := a.runner(ctx)
	if err != nil {
		return err
	}
	_, err = runner.Execute(ctx, jobs.Spec{Job: kind, Kind: kind, Leases: leases, Holder: a.holder, ConfigDigest: a.cfg.Digest}, fn)
	return err
}

func (a *App) runner(ctx context.Context) (*jobs.Runner, ledger, error) {
	back, err := a.answeringBacking(ctx)
	if err != nil {
		return nil, ledger{}, err
	}
	l := ledger{backing.NewLedger(back, a.clock), back}
	runner, err := jobs.NewRunner(jobs.RunnerConfig{
		Leases: backing.NewLeases(a.leaseConfig(back)), Ledger: l, Clock: a.clock, Logger: a.log,
	})
	return runner, l, err
}

// leaseConfig: a SQLite file is used by processes of one machine, so the lease of one that
// died need not be waited out. For a shared table host names prove nothing.
func (a *App) leaseConfig(back backing.Store) backing.LeaseConfig {
	c := backing.LeaseConfig{State: back, Clock: a.clock}
	if a.cfg.Backing.SQLite != nil {
		host, _, _ := strings.Cut(a.holder, "/")
		c.Dead = func(holder string) bool {
			theirs, pid, ok := strings.Cut(holder, "/")
			n, err := strconv.Atoi(pid)
			return ok && err == nil && theirs == host && !alive(n)
		}
	}
	return c
}

// alive reports whether a process of this machine exists; in doubt it does.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return true
	}
	return !errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

// ledger is the backing tier's ledger as the jobs see it. The two Run types have the same
// fields, because neither room imports the other.
type ledger struct {
	*backing.Ledger
	state backing.StateStore
}

// NextRun draws the next run number of the project.
func (l ledger) NextRun(ctx context.Context) (uint64, error) { return backing.NextRun(ctx, l.state) }

// Start records a run that begins.
func (l ledger) Start(ctx context.Context, r jobs.Run) error {
	return l.Ledger.Start(ctx, backing.Run(r))
}

// Finish records the end of a run.
func (l ledger) Finish(ctx context.Context, r jobs.Run) error {
	return l.Ledger.Finish(ctx, backing.Run(r))
}

// List returns the newest runs of a job; of all jobs with "".
func (l ledger) List(ctx context.Context, job string, limit int) ([]jobs.Run, error) {
	runs, err := l.Ledger.List(ctx, job, limit)
	out := make([]jobs.Run, len(runs))
	for i, r := range runs {
		out[i] = jobs.Run(r)
	}
	return out, err
}

// freshNumbers gives every attempt of a run but the first a run number of its own: two
// attempts under one number could not correct each other's values. A job's runs never
// overlap, so one variable tells a second attempt from a first.
func (a *App) freshNumbers(fn work) work {
	var last uint64
	return func(ctx context.Context, run uint64) (jobs.Result, error) {
		if run == last {
			back, err := a.backingTier(ctx)
			if err != nil {
				return jobs.Result{}, err
			}
			if run, err = backing.NextRun(ctx, back); err != nil {
				return jobs.Result{}, err
			}
			return fn(ctx, run)
		}
		last = run
		return fn(ctx, run)
	}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
