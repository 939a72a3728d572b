package main

import (
	"github.com/hearthstore/hearth/internal/app"
)

type jobsCmd struct {
	Start   jobsStartCmd   `cmd:"" help:"Run the schedule until stopped."`
	Run     jobsRunCmd     `cmd:"" help:"Run one job now."`
	List    jobsListCmd    `cmd:"" help:"What is planned."`
	History jobsHistoryCmd `cmd:"" help:"What ran."`
}

type jobsStartCmd struct{}

// Help is shown by hearth jobs start --help.
func (jobsStartCmd) Help() string {
	return `Runs the jobs of hearth.yaml by their cron lines, one run of a job at a time across machines.
SIGTERM stops it: what runs is brought to a resumable end first.

Example:
  hearth jobs start --log-level info --log-format json`
}

// Run carries out the command.
func (jobsStartCmd) Run(e *env) error {
	return e.with("jobs", func(a *app.App) error { return a.StartJobs(e.ctx) })
}

type jobsRunCmd struct {
	Name      string `arg:"" help:"Job of hearth.yaml."`
	TaskToken string `env:"HEARTH_TASK_TOKEN" placeholder:"TOKEN" help:"Token of a Step Functions task that waits for this run: it gets heartbeats, and how the run ended."`
}

// Help is shown by hearth jobs run --help.
func (jobsRunCmd) Help() string {
	return `The same job that the schedule runs, under the same lease and in the same ledger, for plain
cron, Step Functions or ECS: JSON out, exit code (4: the job is running elsewhere).

A state machine that waits for a task token (.waitForTaskToken) passes it as HEARTH_TASK_TOKEN.
It gets a heartbeat every 30 s; done and nothing are success, everything else is a failure
with one of the codes Hearth.Failed, Hearth.Partial, Hearth.LeaseHeld, Hearth.Invalid and
Hearth.Interrupted. When it gives up, the run is interrupted.

Examples:
  hearth jobs run hourly
  hearth jobs run hourly --json --log-format json`
}

// Run carries out the command.
func (c *jobsRunCmd) Run(e *env) error {
	return e.with("job "+c.Name, func(a *app.App) error {
		report, err := a.RunJob(e.ctx, c.Name, c.TaskToken)
		return conclude(e, report, err, func(report *app.JobReport) error {
			return statusError(report.Status)
		})
	})
}

type jobsListCmd struct{}

// Help is shown by hearth jobs list --help.
func (jobsListCmd) Help() string {
	return `The jobs of hearth.yaml: kind, schedule and time zone, what happens to missed runs, and when each
is due next. It asks no tier.

Examples:
  hearth jobs list
  hearth jobs list --json`
}

// Run carries out the command.
func (jobsListCmd) Run(e *env) error {
	return e.with("jobs", func(a *app.App) error {
		list, err := a.ListJobs(e.ctx)
		if err != nil {
			return err
		}
		return e.emit(list, list.WriteTable)
	})
}

type jobsHistoryCmd struct {
	Job   string `help:"Only this job." placeholder:"NAME"`
	Limit int    `default:"20" help:"At most this many runs, newest first."`
}

// Help is shown by hearth jobs history --help.
func (jobsHistoryCmd) Help() string {
	return `Commands leave their runs here too, under the name of the command.

Examples:
  hearth jobs history
  hearth jobs history --job hourly --limit 5 --json`
}

// Run carries out the command.
func (c *jobsHistoryCmd) Run(e *env) error {
	return e.with("jobs", func(a *app.App) error {
		history, err := a.History(e.ctx, c.Job, c.Limit)
		if err != nil {
			return err
		}
		return e.emit(history, history.WriteTable)
	})
}
