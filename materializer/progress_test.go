package materializer_test

import (
	"context"
	"slices"
	"testing"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sim"
	"github.com/hearthstore/hearth/internal/telemetry"
	"github.com/hearthstore/hearth/materializer"
)

// remoteSource is a source whose files are downloaded in two parts of 50 bytes.
type remoteSource struct{ *sim.Source }

func (s remoteSource) Latest(ctx context.Context, req feature.LatestRequest, emit func([]feature.Row) error) (feature.LatestStats, error) {
	for _, done := range []int64{50, 100} {
		req.Downloaded(done, 100)
	}
	return s.Source.Latest(ctx, req, emit)
}

// A run says how far it is with the download, then that the source is read, then the rows; so
// does a dry run. Seen red with Downloaded left out of the request.
func TestProgress(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.source.Write("a.parquet", 1, row(1, 1, 1), row(2, 1, 1))
	var told []telemetry.Progress
	w.tuneMore(func(c *materializer.Config) {
		c.Source = remoteSource{w.source}
		c.Progress = func(p telemetry.Progress) { told = append(told, p) }
	})
	download := []telemetry.Progress{
		{Stage: "materialize " + w.view.ID().String() + " (download)", Unit: "bytes", Done: 50, Total: 100},
		{Stage: "materialize " + w.view.ID().String() + " (download)", Unit: "bytes", Done: 100, Total: 100},
		{Stage: "materialize " + w.view.ID().String(), Unit: "rows"},
	}
	w.must(func(r *materializer.Request) { r.DryRun = true })
	if !slices.Equal(told, download) {
		t.Errorf("a dry run told %+v", told)
	}
	told = nil
	w.must(nil)
	rows := telemetry.Progress{Stage: "materialize " + w.view.ID().String(), Unit: "rows", Done: 2}
	if !slices.Equal(told, append(download, rows)) {
		t.Errorf("a run told %+v", told)
	}
}
