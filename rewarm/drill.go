package rewarm

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// DrillRequest asks for a rehearsal.
type DrillRequest struct {
	Run uint64
	// Fraction of the table to bring back. Defaults to 1, all of it.
	Fraction float64
	// MaxReadRate, MaxWriteRate and MaxSlowdown bound the pace as in [Request].
	MaxReadRate, MaxWriteRate, MaxSlowdown float64
	// Verify is the share of the keys brought back that is compared. Defaults to all.
	Verify float64
}

// DrillReport says how long a rewarm would take, measured rather than guessed.
type DrillReport struct {
	Run            uint64        `json:"run"`
	Status         string        `json:"status"` // that of the rehearsed rewarm
	Fraction       float64       `json:"fraction"`
	Scanned        int64         `json:"scanned"`
	Written        int64         `json:"written"`
	ReadUnits      float64       `json:"read_units"`
	Seconds        float64       `json:"seconds"`
	ItemsPerSecond float64       `json:"items_per_second"`
	WholeSeconds   float64       `json:"whole_seconds"` // for the whole table at this pace
	Objective      float64       `json:"objective_seconds,omitempty"`
	Within         *bool         `json:"within_objective,omitempty"`
	Passed         bool          `json:"passed"` // OK: it went well and keeps the objective
	Verify         *VerifyReport `json:"verify,omitempty"`
	Removed        int64         `json:"removed"` // scratch keys removed at the end
	LiveReads      *LiveReads    `json:"live_reads,omitempty"`
	Problems       []string      `json:"problems,omitempty"`
}

// OK reports whether the rehearsal went well and keeps the objective.
func (d *DrillReport) OK() bool {
	return d.Status == StatusDone && (d.Within == nil || *d.Within) && (d.Verify == nil || d.Verify.OK())
}

// WriteTable writes the report for a person.
func (d *DrillReport) WriteTable(w io.Writer) error {
	var b strings.Builder
	verdict := "FAILED"
	if d.Passed {
		verdict = "passed"
	}
	fmt.Fprintf(&b, "drill %d: %s (%s). %s items in %s (%s/s); the whole table would take about %s", d.Run, verdict, d.Status,
		count(d.Scanned), seconds(d.Seconds), count(int64(d.ItemsPerSecond)), seconds(d.WholeSeconds))
	if d.Within != nil {
		kept := "within"
		if !*d.Within {
			kept = "LONGER than"
		}
		fmt.Fprintf(&b, ", %s the objective of %s", kept, seconds(d.Objective))
	}
	fmt.Fprintf(&b, "\n  %s scratch keys removed\n", count(d.Removed))
	if d.LiveReads != nil {
		fmt.Fprintf(&b, "  live reads: %s\n", d.LiveReads)
	}
	for _, p := range d.Problems {
		fmt.Fprintf(&b, "  problem: %s\n", p)
	}
	if d.Verify != nil {
		if err := d.Verify.WriteTable(&b); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const (
	drillLife     = time.Hour // of the scratch keys, should nobody remove them
	drillSegments = 8         // at least, so that all workers have work
)

// Drill rehearses a rewarm: it brings a share of the table back into scratch, a second view
// of the online tier under another key prefix, on the same servers and beside the live
// keys; measures it, compares what arrived, and removes it again. Live keys, markers and
// checkpoints are not touched, and no scratch key lives longer than an hour, even if the
// drill is killed. It needs memory for its share: it is refused when there is not enough. scratch may as
// well be another Redis.
func (r *Rewarmer) Drill(ctx context.Context, scratch Online, req DrillRequest) (*DrillReport, error) {
	if req.Fraction == 0 {
		req.Fraction = 1
	}
	if req.Verify == 0 {
		req.Verify = 1
	}
	rep := &DrillReport{Run: req.Run, Status: StatusFailed, Fraction: req.Fraction}
	if !(req.Fraction > 0 && req.Fraction <= 1) || !(req.Verify > 0 && req.Verify <= 1) {
		return rep, fmt.Errorf("drill: %w: the shares must be above 0, at most 1", feature.ErrInvalid)
	}
	if scratch == nil || scratch == r.cfg.Online {
		return rep, fmt.Errorf("drill: %w: it needs a scratch prefix of its own", feature.ErrInvalid)
	}
	cfg := r.cfg
	cfg.Online, cfg.State, cfg.Source, cfg.Hot = scratch, new(Volatile), "drill", nil
	drill, err := New(cfg)
	if err != nil {
		return rep, err
	}
	drill.life = drillLife
	table, err := r.cfg.Backing.Table(ctx)
	if err != nil {
		return rep, fmt.Errorf("drill: describe the backing tier: %w", err)
	}
	// As many segments as a rewarm of the share would have, of a table cut as finely.
	parts := max(int(float64(segmentsFor(table))*req.Fraction), drillSegments)
	of := int(min(math.Ceil(float64(parts)/req.Fraction), 1_000_000))
	run := Request{Run: req.Run, Segments: of, Range: true, SegmentTo: parts - 1, MaxReadRate: req.MaxReadRate, MaxWriteRate: req.MaxWriteRate, MaxSlowdown: req.MaxSlowdown}

	run.PlanOnly = true
	planned, err := drill.Run(ctx, run)
	if err != nil {
		return rep, fmt.Errorf("drill: %w", err)
	}
	if pl := planned.Plan; !pl.Fits {
		return rep, fmt.Errorf("drill: %w: its share needs about %s, Redis uses %s of %s; nothing was done. Give a smaller fraction",
			ErrDoesNotFit, size(pl.RedisNeeded), size(pl.RedisUsed), size(pl.RedisMax))
	}
	run.PlanOnly, run.Force = false, true
	err = drill.rehearse(ctx, run, req, rep)
	rep.Passed = err == nil && rep.OK()
	// What was brought is removed whatever happened, also when ctx has ended.
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer stop()
	if cleaning := drill.remove(clean, rep); cleaning != nil {
		rep.Problems = append(rep.Problems, fmt.Sprintf("scratch keys are left, they expire within %s: %v", drillLife, cleaning))
	}
	return rep, err
}

func (r *Rewarmer) rehearse(ctx context.Context, run Request, req DrillRequest, rep *DrillReport) error {
	done, err := r.Run(ctx, run)
	rep.Status, rep.Problems = done.Status, append(rep.Problems, done.Problems...)
	rep.Scanned, rep.Written, rep.ReadUnits = done.Scanned, done.Written, done.ReadUnits
	rep.Seconds, rep.ItemsPerSecond, rep.LiveReads = done.Seconds, done.ItemsPerSecond, done.LiveReads
	parts := run.SegmentTo + 1
	rep.WholeSeconds = done.Seconds * float64(run.Segments) / float64(parts)
	if err != nil {
		return fmt.Errorf("drill: %w", err)
	}
	if r.cfg.Objective > 0 {
		within := rep.WholeSeconds <= r.cfg.Objective.Seconds()
		rep.Objective, rep.Within = r.cfg.Objective.Seconds(), &within
	}
	if done.Status != StatusDone {
		return nil
	}
	rep.Verify, err = r.Verify(ctx, VerifyRequest{Fraction: req.Verify, Seed: req.Run, Sampling: SampleKeys, Segments: run.Segments, MaxReadRate: req.MaxReadRate, first: run.SegmentTo + 1})
	if err != nil {
		return fmt.Errorf("drill: %w", err)
	}
	return nil
}

// remove deletes what the drill brought, where the tier can delete.
func (r *Rewarmer) remove(ctx context.Context, rep *DrillReport) error {
	d, ok := r.cfg.Online.(Deleter)
	if !ok {
		return errNoDeleter
	}
	for id := range r.views {
		err := r.cfg.Online.Scan(ctx, id, func(refs []feature.Ref) error {
			errs, err := d.Delete(ctx, refs)
			if err != nil {
				return err
			}
			for _, err := range errs {
				if err != nil {
					return err
				}
				rep.Removed++
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
