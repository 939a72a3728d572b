package rewarm

import (
	"context"
	"fmt"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// ReasonNever is the reason of StatusNothing in a summary when there is no attempt.
const ReasonNever = "never_rewarmed"

// Summary adds up what all runs, on all machines, did on the last attempt: one report for
// many ranges of segments. It reads state only. With a name it is an error when the last
// attempt has another one. Partial says that segments are not through or that records
// could not be put, and Problems which.
func (r *Rewarmer) Summary(ctx context.Context, name string) (*Report, error) {
	rep := &Report{Status: StatusFailed}
	a, err := r.loadAttempt(ctx)
	if err != nil {
		return rep, err
	}
	if a.ID == "" && name != "" {
		return rep, fmt.Errorf("rewarm summary: %w: no rewarm was begun yet, nor one named %q", feature.ErrNotFound, name)
	}
	if a.ID == "" {
		rep.Status, rep.Reason = StatusNothing, ReasonNever
		return rep, nil
	}
	rep.Run, rep.Attempt = a.Run, a.Name
	if name != "" && name != a.Name {
		return rep, fmt.Errorf("rewarm summary: %w: the last attempt is %q, begun by run %d, not %q", feature.ErrNotFound, a.Name, a.Run, name)
	}
	cps, err := r.loadCheckpoints(ctx, a, 0, a.Segments-1)
	if err != nil {
		return rep, err
	}
	rep.Segments, rep.SegmentTo, rep.Warm, rep.ColdShards = a.Segments, a.Segments-1, a.Warm, a.Cold
	end := a.Finished
	if end == 0 {
		end = feature.MicrosOf(r.cfg.Clock.Now())
	}
	var open []int
	failed := 0
	for _, cp := range cps {
		rep.add(cp.Counts)
		if cp.Done {
			rep.SegmentsDone++
		} else {
			open = append(open, cp.Segment)
		}
		failed += len(cp.Failed)
		for _, f := range cp.Failed {
			if len(rep.FailedKeys) < maxFailedKeys {
				rep.FailedKeys = append(rep.FailedKeys, FailedKey{f.View.String(), string(f.Key), f.Reason})
			}
		}
	}
	rep.SegmentsLeft = len(open)
	if rep.Seconds = end.Sub(a.Started).Seconds(); rep.Seconds > 0 {
		rep.ItemsPerSecond = float64(rep.Scanned) / rep.Seconds
	}
	rep.Status = StatusDone
	if len(open) > 0 {
		rep.Status = StatusPartial
		rep.Problems = append(rep.Problems, fmt.Sprintf("segments %s of %d are not through; run their ranges again", ranges(open), a.Segments))
	}
	if failed > 0 {
		rep.Status = StatusPartial
		rep.Problems = append(rep.Problems, fmt.Sprintf("%d records could not be put; the next run over their segments tries them again", failed))
	}
	return rep, nil
}

// ranges writes sorted numbers as 0-3,7,9-11.
func ranges(sorted []int) string {
	var parts []string
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j+1] == sorted[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprint(sorted[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", sorted[i], sorted[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}
