package offline

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// onePass are the steps that DuckDB does in one pass over rows that it knows the number of.
// In the others it counts the rows that it has read, of a number that it guesses, and then
// sorts or joins them for as long again without a word: from that no time that is left can be told.
var onePass = []string{"labels", "newest rows", "features", "digest", "write CSV"}

// follow passes on how far DuckDB is with each statement.
func (d *dataset) follow(ctx context.Context) error {
	if d.req.Progress == nil {
		return nil
	}
	return d.Watch(ctx, func(done, total int64) {
		d.req.Progress(telemetry.Progress{Stage: d.doing, Unit: "rows", Done: done, Total: honest(d.doing, total)})
	})
}

// honest is the total of a step where it is one, else 0: not known.
func honest(stage string, total int64) int64 {
	step := stage[strings.LastIndex(stage, ": ")+1:]
	if slices.Contains(onePass, strings.TrimSpace(step)) {
		return total
	}
	return 0
}

// watchDownloads passes on how far the downloads of a step are.
func (d *dataset) watchDownloads() {
	if d.req.Progress == nil {
		return
	}
	d.downloaded = func(done, total int64) {
		d.req.Progress(telemetry.Progress{Stage: d.doing + " (download)", Unit: "bytes", Done: done, Total: total})
	}
}

// begin names what the next statements are for.
func (d *dataset) begin(stage string) {
	d.doing = stage
	d.engine.config.Logger.Info("step", "dataset", d.req.Name, "step", stage)
	d.req.Progress.Report(telemetry.Progress{Stage: stage, Unit: "rows"})
}

// beginView does so for a step of a view's join.
func (d *dataset) beginView(i int, step string) {
	groups := d.req.Selection.Groups
	d.begin(fmt.Sprintf("view %d of %d, %s: %s", i+1, len(groups), groups[i].Alias, step))
}

// opening names the step that makes a view's source ready.
func opening(v *feature.View) string {
	if v.Source.Query != "" {
		return "query"
	}
	return "open"
}
