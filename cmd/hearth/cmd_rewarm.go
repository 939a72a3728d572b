package main

import (
	"fmt"
	"slices"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/app"
	"github.com/hearthstore/hearth/rewarm"
)

type rewarmCmd struct {
	IfCold       bool     `help:"Do nothing when Redis is warm; refill only what is cold."`
	Plan         bool     `help:"Print items, bytes, read units, cost and time; move nothing."`
	FeatureViews []string `help:"Views to bring back, name or name@n (default all)." placeholder:"VIEW"`
	Segments     int      `help:"Parallel scan segments (default by table size)." placeholder:"N"`
	SegmentRange string   `help:"Only segments a to b of --segments, or part i (from 0) of n, for machines that share the work." placeholder:"A-B|I/N"`
	Attempt      string   `help:"Name of the work that machines share; a range that is through is not done again under it." placeholder:"NAME"`
	Summary      bool     `help:"What all machines did together on the last rewarm; moves nothing."`
	MaxReadRate  float64  `help:"At most this many read units a second from the table." placeholder:"RCU"`
	MaxWriteRate float64  `help:"At most this many items a second into Redis." placeholder:"ITEMS"`
	MaxSlowdown  float64  `help:"Keep the p99 of live reads within so many times what it is before the run, for example 2: slower, with small batches." placeholder:"F"`
	Resume       bool     `xor:"resume" help:"Go on from the checkpoint of an interrupted run (the default when there is one)."`
	Restart      bool     `xor:"resume" help:"Ignore a checkpoint and begin again."`
	Force        bool     `xor:"fit" help:"Start although Redis has too little memory for everything."`
	Hottest      bool     `xor:"fit" help:"When not everything fits, take as much as does, hot keys first."`
	Verify       float64  `help:"Afterwards compare this share of the keys; 1 is all." placeholder:"F"`

	FromExport string `help:"Read this DynamoDB export (s3:// or a folder) instead of the table, then catch up from the table." placeholder:"PATH"`
	CatchUp    bool   `default:"true" negatable:"" help:"After an export: bring what the table has since, and mark Redis warm (default)."`

	Drill         bool     `help:"Rehearse in a scratch prefix or another Redis, clean up, and compare with recovery_time_objective."`
	DrillFraction float64  `help:"Share of the table to rehearse with (default all)." default:"1" placeholder:"F"`
	DrillRedis    []string `help:"Rehearse into this Redis, with the online tier's user, password and TLS." placeholder:"ADDR"`
	DrillCluster  bool     `help:"The Redis of --drill-redis is a cluster."`
}

// Help is shown by hearth rewarm --help.
func (rewarmCmd) Help() string {
	return `Scans the backing tier in parallel and copies what lives into Redis, add-or-newer: live
writes win, expired and deleted values stay away. It can be stopped and run again. Exit 3
when something is missing afterwards, 5 when --verify found differences or a drill did not pass.

Examples:
  hearth rewarm --plan
  hearth rewarm --verify 0.01
  hearth rewarm --if-cold --json       # from a schedule
  hearth rewarm --max-slowdown 2       # live reads first
  hearth rewarm --drill                # how long does it take today?
  hearth rewarm --from-export s3://my-exports/AWSDynamoDB/01716712345678-abcdef01`
}

// Run carries out the command.
func (c *rewarmCmd) Run(e *env) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Drill {
		return c.drill(e)
	}
	return e.with("rewarm", func(a *app.App) error {
		report, err := a.Rewarm(e.ctx, app.RewarmOptions{
			IfCold: c.IfCold, Plan: c.Plan, Views: c.FeatureViews, Segments: c.Segments, SegmentRange: c.SegmentRange,
			MaxReadRate: c.MaxReadRate, MaxWriteRate: c.MaxWriteRate, MaxSlowdown: c.MaxSlowdown, Restart: c.Restart, Force: c.Force, Verify: c.Verify,
			Attempt: c.Attempt, Summary: c.Summary, Hottest: c.Hottest, FromExport: c.FromExport, NoCatchUp: !c.CatchUp,
		})
		return conclude(e, report, err, func(report *rewarm.Report) error {
			if report.Verify != nil && !report.Verify.OK() {
				return &exitError{exitDifferences, "verification found differences; see the report"}
			}
			return statusError(report.Status)
		})
	})
}

// check refuses flags that would have no effect beside the others: one who rehearses with
// --drill-fraction, and forgets --drill, must not rewarm.
func (c *rewarmCmd) check() error {
	type flag struct {
		name  string
		given bool
	}
	refuse := func(why string, flags ...flag) error {
		for _, f := range flags {
			if f.given {
				return fmt.Errorf("%w: --%s %s", feature.ErrInvalid, f.name, why)
			}
		}
		return nil
	}
	work := []flag{
		{"if-cold", c.IfCold}, {"plan", c.Plan}, {"feature-views", len(c.FeatureViews) > 0}, {"segments", c.Segments != 0}, {"segment-range", c.SegmentRange != ""},
		{"resume", c.Resume}, {"restart", c.Restart}, {"force", c.Force}, {"hottest", c.Hottest}, {"from-export", c.FromExport != ""}, {"no-catch-up", !c.CatchUp},
	}
	rates := []flag{{"max-read-rate", c.MaxReadRate != 0}, {"max-write-rate", c.MaxWriteRate != 0}, {"max-slowdown", c.MaxSlowdown != 0}, {"verify", c.Verify != 0}}
	drills := []flag{{"drill-fraction", c.DrillFraction != 1}, {"drill-redis", len(c.DrillRedis) > 0}, {"drill-cluster", c.DrillCluster}}
	switch {
	case c.Summary:
		return refuse("does not go with --summary, which moves nothing", slices.Concat(work, rates, drills, []flag{{"drill", c.Drill}})...)
	case c.Drill:
		return refuse("does not go with --drill", append(work, flag{"attempt", c.Attempt != ""})...)
	case c.FromExport == "" && !c.CatchUp:
		return fmt.Errorf("%w: --no-catch-up goes with --from-export", feature.ErrInvalid)
	case !c.CatchUp && c.Verify != 0:
		return fmt.Errorf("%w: --verify does not go with --no-catch-up: the tiers differ by what is not caught up", feature.ErrInvalid)
	}
	return refuse("goes with --drill", drills...)
}

func (c *rewarmCmd) drill(e *env) error {
	return e.with("drill", func(a *app.App) error {
		report, err := a.Drill(e.ctx, app.DrillOptions{
			Fraction: c.DrillFraction, MaxReadRate: c.MaxReadRate, MaxWriteRate: c.MaxWriteRate, MaxSlowdown: c.MaxSlowdown, Verify: c.Verify, Redis: c.DrillRedis, RedisCluster: c.DrillCluster,
		})
		return conclude(e, report, err, func(report *rewarm.DrillReport) error {
			if !report.OK() {
				return &exitError{exitDifferences, "the drill did not pass; see the report"}
			}
			return nil
		})
	})
}

type verifyCmd struct {
	Fraction     float64  `help:"Share of the keys to compare (default all)." default:"1" placeholder:"F"`
	FeatureViews []string `help:"Views to compare, name or name@n (default all)." placeholder:"VIEW"`
	Repair       bool     `help:"Make Redis as the table is: put what is missing, older or different, remove what is extra."`
	Seed         uint64   `help:"Seed of the sample; the same seed compares the same keys." placeholder:"N"`
	MaxReadRate  float64  `help:"At most this many read units a second from the table." placeholder:"RCU"`
}

// Help is shown by hearth verify --help.
func (verifyCmd) Help() string {
	return `Compares the backing tier with Redis, byte by byte: missing, older, different, extra, ahead. With
a sample it gives the share of bad keys that is not exceeded with 95 % confidence. Exit 5 when
the tiers differ, and with --repair when not all of it could be healed.

Examples:
  hearth verify
  hearth verify --fraction 0.01 --json
  hearth verify --max-read-rate 500    # leaves the table to the readers
  hearth verify --repair`
}

// Run carries out the command.
func (c *verifyCmd) Run(e *env) error {
	return e.with("verify", func(a *app.App) error {
		report, err := a.Verify(e.ctx, app.VerifyOptions{Fraction: c.Fraction, Views: c.FeatureViews, Repair: c.Repair, Seed: c.Seed, MaxReadRate: c.MaxReadRate})
		return conclude(e, report, err, func(report *rewarm.VerifyReport) error {
			switch {
			case report.OK():
				return nil
			case a.Config().Online.Embedded != nil:
				return &exitError{exitDifferences, "the tiers differ: the embedded online tier starts empty in each process; hearth serve, or a Redis, keeps one"}
			}
			if c.Repair {
				return &exitError{exitDifferences, "the tiers differ; the report says what could not be repaired, and why"}
			}
			return &exitError{exitDifferences, "the tiers differ; hearth verify --repair heals Redis"}
		})
	})
}
