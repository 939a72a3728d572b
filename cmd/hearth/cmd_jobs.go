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
	Name string `arg:"" help:"Job of hearth.yaml."`
}

// Help is shown by hearth jobs run --help.
func (jobsRunCmd) Help() string {
	return `The same job that the schedule runs, for plain cron, Step Functions or ECS: JSON out, exit code.

Example:
  hearth jobs run hourly --json`
}

// Run carries out the command.
func (c *jobsRunCmd) Run(e *env) error {
	return e.with("job "+c.Name, func(a *app.App) error {
		report, err := a.RunJob(e.ctx, c.Name)
		return conclude(e, report, err, func(report *app.JobReport) error {
			return statusError(report.Status)
		})
	})
}

type jobsListCmd struct{}

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
