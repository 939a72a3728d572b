package offline

import (
	"context"
	"fmt"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// follow passes on how far DuckDB is with each statement.
func (d *dataset) follow(ctx context.Context) error {
	if d.req.Progress == nil {
		return nil
	}
	return d.Watch(ctx, func(done, total int64) {
		d.req.Progress(telemetry.Progress{Stage: d.doing, Unit: "rows", Done: done, Total: total})
	})
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
