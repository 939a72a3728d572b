package main

import (
	"errors"
	"time"

	"github.com/hearthstore/hearth/internal/app"
	"github.com/hearthstore/hearth/materializer"
)

type retireCmd struct {
	View   string `arg:"" help:"View version to delete, name@n." placeholder:"VIEW@N"`
	DryRun bool   `help:"Count what would be deleted; delete nothing."`
	Force  bool   `help:"Delete although a feature service still reads it."`
}

// Help is shown by hearth retire --help.
func (retireCmd) Help() string {
	return `Deletes every value of one view version from Redis and from the backing tier, and what the runs
remember of it. It is the last step of changing a view: publish version 2 beside 1, switch the
feature services, deploy the readers, then retire 1 and remove it from hearth.yaml. A retired
version is not written again, by no run and no push, unless with materialize --full --force.
It scans the whole table (one read unit per 8 KB) and takes about a write unit per value.
Stopped half-way, run it again.

Examples:
  hearth retire credit_history@1 --dry-run
  hearth retire credit_history@1`
}

// Run carries out the command.
func (c *retireCmd) Run(e *env) error {
	return e.with("retire", func(a *app.App) error {
		report, err := a.Retire(e.ctx, app.RetireOptions{View: c.View, DryRun: c.DryRun, Force: c.Force})
		return conclude(e, report, err, func(report *materializer.RetireReport) error {
			return statusError(report.Status)
		})
	})
}

type forgetCmd struct {
	Key       string   `arg:"" help:"The entity, as name=value[,name=value...]." placeholder:"KEY"`
	Guard     duration `help:"How long rows about earlier moments stay refused (default 30d, at least 1h)." placeholder:"DURATION"`
	Composite bool     `help:"Also erase the wider keys that contain this one. Scans the table."`
}

// Help is shown by hearth forget --help.
func (forgetCmd) Help() string {
	return `Erases one entity: its values in both tiers and in every view version, and the places that
name it: the readers' stored hot keys, checkpoints of an unfinished rewarm, run reports, and the
rejects files of this machine (run it on each machine that runs jobs).

What stays is a record for auditors, hearth forgotten, which names the entity by a keyed digest,
and for the length of the guard a deletion in the table, which holds the key and no value: it
refuses every row about a moment before now, whatever run brings it. It ends by itself.

It does NOT touch the source: remove the entity there before the guard ends, or the next run
that reads its rows (a new or changed file, --full) brings it back. Rows about moments after now
are new facts and are stored. Readers may serve it from their own caches for reader.cache.ttl.
Backups of the table keep it until they end.

Examples:
  hearth forget dob_ssn=19630621_4278
  hearth forget zipcode=76104 --guard 90d --json
  hearth forget dob_ssn=19630621_4278 --composite`
}

// Run carries out the command.
func (c *forgetCmd) Run(e *env) error {
	return e.with("forget", func(a *app.App) error {
		report, err := a.Forget(e.ctx, app.ForgetOptions{Key: c.Key, Guard: time.Duration(c.Guard), Composite: c.Composite})
		return conclude(e, report, err, func(report *app.ForgetReport) error {
			return statusError(report.Status)
		})
	})
}

type forgottenCmd struct {
	Key string `arg:"" optional:"" help:"Only the records of this entity, as name=value[,name=value...]." placeholder:"KEY"`
}

// Help is shown by hearth forgotten --help.
func (forgottenCmd) Help() string {
	return `Lists what was erased, when and by whom. Entities are named by a keyed digest (HMAC-SHA-256 under
a key in the state table); with a KEY it says whether that one was erased (exit 5 if it was not).

Examples:
  hearth forgotten
  hearth forgotten dob_ssn=19630621_4278 --json`
}

// Run carries out the command.
func (c *forgottenCmd) Run(e *env) error {
	return e.with("forgotten", func(a *app.App) error {
		report, err := a.Forgotten(e.ctx, c.Key)
		return conclude(e, report, err, func(report *app.ForgottenReport) error {
			if c.Key != "" && len(report.Erasures) == 0 {
				return &exitError{exitDifferences, "no record says that this entity was erased"}
			}
			return nil
		})
	})
}

// duration reads 90d and 36h as hearth.yaml does.
type duration time.Duration

// UnmarshalText reads a flag's value.
func (d *duration) UnmarshalText(b []byte) error {
	v, err := app.ParseDuration(string(b))
	if err != nil {
		return errors.New("write a duration such as 30d, 36h or 15m")
	}
	*d = duration(v)
	return nil
}
