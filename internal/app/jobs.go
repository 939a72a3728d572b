package app

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/config"
	"github.com/hearthstore/hearth/jobs"
	"github.com/hearthstore/hearth/jobs/stepfunctions"
)

// JobReport is the document of `hearth jobs run --json`.
type JobReport struct{ jobs.Outcome }

// WriteTable writes the report for a person.
func (r *JobReport) WriteTable(w io.Writer) error {
	text := fmt.Sprintf("job %s, run %d: %s in %.1f s", r.Job, r.Run, r.Status, r.Seconds)
	if r.Attempts > 1 {
		text += fmt.Sprintf(", %d attempts", r.Attempts)
	}
	if _, err := fmt.Fprintln(w, text); err != nil {
		return err
	}
	if t, ok := r.Detail.(interface{ WriteTable(io.Writer) error }); ok {
		return t.WriteTable(w)
	}
	return nil
}

// StartJobs runs the schedule until ctx ends.
func (a *App) StartJobs(ctx context.Context) error {
	return a.startJobs(ctx, func([]feature.ViewID) {})
}

// startJobs also tells materialized, at the end of each run that materializes, which views
// it was about.
func (a *App) startJobs(ctx context.Context, materialized func([]feature.ViewID)) error {
	scheduled := 0
	for _, j := range a.cfg.Jobs {
		if j.Schedule != "" {
			scheduled++
		}
	}
	if scheduled == 0 {
		return usage("%s has no job with a schedule", a.cfg.Path)
	}
	s, err := a.scheduler(ctx, materialized)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// RunJob runs one job now, under the same leases and in the same ledger as the schedule.
// With a task token it tells the state machine that waits for it: heartbeats while the job
// runs, then how it ended, also when it could not begin.
func (a *App) RunJob(ctx context.Context, name, taskToken string) (*JobReport, error) {
	run := func(ctx context.Context) (jobs.Outcome, error) {
		if a.cfg.Job(name) == nil {
			return jobs.Outcome{}, usage("unknown job %q: %s declares %s", name, a.cfg.Path, a.jobNames())
		}
		s, err := a.scheduler(ctx, func([]feature.ViewID) {})
		if err != nil {
			return jobs.Outcome{}, err
		}
		return s.RunOnce(ctx, name)
	}
	if taskToken != "" {
		callback, err := stepfunctions.New(ctx, stepfunctions.Config{})
		if err != nil {
			return nil, fmt.Errorf("job %s: --task-token: %w", name, err)
		}
		untold := run
		run = func(ctx context.Context) (jobs.Outcome, error) {
			return jobs.Task{Callback: callback, Token: taskToken, Clock: a.clock, Logger: a.log}.Run(ctx, untold)
		}
	}
	out, err := run(ctx)
	if out.Run == 0 {
		return nil, err
	}
	return &JobReport{out}, err
}

func (a *App) jobNames() string {
	if len(a.cfg.Jobs) == 0 {
		return "none"
	}
	names := make([]string, len(a.cfg.Jobs))
	for i := range a.cfg.Jobs {
		names[i] = a.cfg.Jobs[i].Name
	}
	return strings.Join(names, ", ")
}

func (a *App) scheduler(ctx context.Context, materialized func([]feature.ViewID)) (*jobs.Scheduler, error) {
	runner, l, err := a.runner(ctx)
	if err != nil {
		return nil, err
	}
	cfg := jobs.SchedulerConfig{Runner: runner, Ledger: l, Holder: a.holder, ConfigDigest: a.cfg.Digest, Clock: a.clock, Logger: a.log}
	for i := range a.cfg.Jobs {
		j, err := a.job(&a.cfg.Jobs[i], materialized)
		if err != nil {
			return nil, err
		}
		cfg.Jobs = append(cfg.Jobs, j)
	}
	return jobs.NewScheduler(cfg)
}

// job turns a declared job into one that runs.
func (a *App) job(c *config.Job, materialized func([]feature.ViewID)) (jobs.Job, error) {
	j := jobs.Job{Name: c.Name, Kind: c.Kind(), CatchUp: jobs.CatchUp(c.CatchUp), Timeout: c.Timeout, Retries: c.Retries}
	if c.Schedule != "" {
		var err error
		if j.Schedule, err = jobs.ParseSchedule(c.Schedule, c.Timezone); err != nil {
			return j, fmt.Errorf("job %s: %w", c.Name, err)
		}
	}
	var fn work
	switch {
	case c.Materialize != nil:
		o := MaterializeOptions{Views: viewNames(c.Materialize.FeatureViews), Full: c.Materialize.Full, Prune: c.Materialize.Prune}
		req, leases, err := a.materializeRequest(o)
		if err != nil {
			return j, fmt.Errorf("job %s: %w", c.Name, err)
		}
		j.Leases = leases
		fn = func(ctx context.Context, run uint64) (jobs.Result, error) {
			_, result, err := a.materialize(ctx, run, req)
			materialized(viewIDs(req.Views)) // also after an error: a part of it may be stored
			return result, err
		}
	case c.Dataset != nil:
		d, err := a.dataset(c.Dataset.Name)
		if err != nil {
			return j, fmt.Errorf("job %s: %w", c.Name, err)
		}
		fn = func(ctx context.Context, run uint64) (jobs.Result, error) {
			req := a.datasetRequest(d)
			req.Run = run
			report, err := a.buildDataset(ctx, req)
			if err != nil {
				return jobs.Result{}, err
			}
			return jobs.Result{Status: jobs.StatusDone, Detail: report}, nil
		}
	default:
		r := c.Rewarm
		req, leases, err := a.rewarmRequest(RewarmOptions{
			IfCold: r.IfCold, Views: viewNames(r.FeatureViews), Segments: r.Segments,
			MaxReadRate: float64(r.MaxReadRate), MaxWriteRate: float64(r.MaxWriteRate), MaxSlowdown: r.MaxSlowdown, Verify: r.Verify,
		})
		if err != nil {
			return j, fmt.Errorf("job %s: %w", c.Name, err)
		}
		j.Leases = leases
		fn = func(ctx context.Context, run uint64) (jobs.Result, error) {
			_, result, err := a.rewarm(ctx, run, req)
			return result, err
		}
	}
	j.Run = a.freshNumbers(fn)
	return j, nil
}

func viewNames(ids []feature.ViewID) []string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	return names
}

// JobList is the document of `hearth jobs list --json`.
type JobList struct {
	Jobs []PlannedJob `json:"jobs"`
}

// PlannedJob is one declared job and when it is due.
type PlannedJob struct {
	Name     string     `json:"name"`
	Kind     string     `json:"kind"`
	Schedule string     `json:"schedule,omitempty"`
	Timezone string     `json:"timezone,omitempty"`
	CatchUp  string     `json:"catch_up"`
	Next     *time.Time `json:"next"` // null for a job that runs only by name
}

// WriteTable writes the list for a person.
func (l *JobList) WriteTable(w io.Writer) error {
	if len(l.Jobs) == 0 {
		_, err := fmt.Fprintln(w, "no jobs are declared")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "JOB\tKIND\tSCHEDULE\tZONE\tCATCH UP\tNEXT")
	for _, j := range l.Jobs {
		schedule := j.Schedule
		if schedule == "" {
			schedule = "by name only"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", j.Name, j.Kind, schedule, j.Timezone, j.CatchUp, timeText(j.Next))
	}
	return t.Flush()
}

// ListJobs says what is planned. It needs no tier.
func (a *App) ListJobs(context.Context) (*JobList, error) {
	list := &JobList{Jobs: []PlannedJob{}}
	now := a.clock.Now()
	for i := range a.cfg.Jobs {
		c := &a.cfg.Jobs[i]
		j, err := a.job(c, func([]feature.ViewID) {})
		if err != nil {
			return nil, err
		}
		p := PlannedJob{Name: c.Name, Kind: c.Kind(), Schedule: c.Schedule, Timezone: c.Timezone, CatchUp: c.CatchUp}
		if !j.Schedule.IsZero() {
			p.Next = timeOrNil(j.Schedule.Next(now))
		}
		list.Jobs = append(list.Jobs, p)
	}
	sort.SliceStable(list.Jobs, func(i, k int) bool {
		a, b := list.Jobs[i].Next, list.Jobs[k].Next
		return a != nil && (b == nil || a.Before(*b))
	})
	return list, nil
}

// RunHistory is the document of `hearth jobs history --json`.
type RunHistory struct {
	Runs []backing.Run `json:"runs"`
}

// WriteTable writes the history for a person.
func (h *RunHistory) WriteTable(w io.Writer) error {
	if len(h.Runs) == 0 {
		_, err := fmt.Fprintln(w, "nothing has run yet")
		return err
	}
	return writeRuns(w, h.Runs)
}

// History lists what ran, newest first; job "" means every job and command.
func (a *App) History(ctx context.Context, job string, limit int) (*RunHistory, error) {
	back, err := a.backingTier(ctx)
	if err != nil {
		return nil, err
	}
	runs, err := backing.NewLedger(back, a.clock).List(ctx, job, limit)
	if err != nil {
		return nil, err
	}
	if runs == nil {
		runs = []backing.Run{}
	}
	return &RunHistory{Runs: runs}, nil
}
