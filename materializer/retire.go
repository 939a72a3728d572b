package materializer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// StatusRetired is the LastStatus of a view version whose values were deleted for good. No
// run writes it again, and no push, unless it is told to with Full and Force: a scheduler that
// still has the old configuration cannot bring a retired version back by itself.
const StatusRetired = "retired"

// errRetired says what to do about a retired view version.
func errRetired(id feature.ViewID, p Progress) error {
	return fmt.Errorf("view %s: %w: run %d retired it; remove it from hearth.yaml, or publish it again with `hearth materialize --feature-views %s --full --force`",
		id, feature.ErrInvalid, p.LastRun, id)
}

// notRetired refuses to write into a retired view version. That it is retired is written with
// the view, whatever shard the slot is.
func (m *Materializer) notRetired(ctx context.Context, slot Slot, was Progress, again bool) error {
	if slot.Shards > 1 {
		var err error
		if was, err = m.cfg.State.Load(ctx, Slot{View: slot.View}); err != nil {
			return fmt.Errorf("view %s: read run state: %w", slot.View, err)
		}
	}
	if was.LastStatus != StatusRetired || again && slot.Shards <= 1 {
		return nil
	}
	return errRetired(slot.View, was)
}

// RetireTiers is what retiring needs of the tiers beyond Config.
type RetireTiers struct {
	Backing interface {
		// Scan reads one page of one segment; see feature.ScanRequest.
		Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error
		// Delete removes values whatever their version; nil is gone.
		Delete(ctx context.Context, refs []feature.Ref) ([]error, error)
	}
	Online interface {
		// Scan reports every stored ref of a view at least once, in batches.
		Scan(ctx context.Context, view feature.ViewID, fn func(refs []feature.Ref) error) error
		// Delete removes values whatever their version; nil is gone.
		Delete(ctx context.Context, refs []feature.Ref) ([]error, error)
	}
}

// RetireRequest names a view version to delete. It need not be declared any more.
type RetireRequest struct {
	Run    uint64 // as in Request
	View   feature.ViewID
	DryRun bool // count in the backing tier; delete nothing
	// Segments is in how many parts the backing tier is scanned at once. Defaults to 4.
	Segments int
}

// RetireReport is what retiring did. Its JSON is the document of `hearth retire --json`.
type RetireReport struct {
	Run     uint64         `json:"run"`
	View    feature.ViewID `json:"view"`
	Status  string         `json:"status"`
	DryRun  bool           `json:"dry_run,omitempty"`
	Seconds float64        `json:"seconds"`
	Backing RetireCounts   `json:"backing"`
	Online  RetireCounts   `json:"online"`
	// ReadUnits is what scanning the table took; deleting takes about one write unit per value.
	ReadUnits float64  `json:"read_units"`
	Warnings  []string `json:"warnings,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// RetireCounts counts the values of one tier.
type RetireCounts struct {
	Found   int64 `json:"found"`
	Deleted int64 `json:"deleted"`
	Failed  int64 `json:"failed"`
}

func (c *RetireCounts) add(o RetireCounts) {
	c.Found += o.Found
	c.Deleted += o.Deleted
	c.Failed += o.Failed
}

// Retire deletes a view version from both tiers. First it writes down that the version is
// retired, so that no later run writes into it while it goes; then the values go, the online
// ones first, because a reader that misses one there would bring it back from the backing
// tier, and once more at the end, for those that a reader or a rewarm did bring back. Killed
// or failed in part, run it again.
//
// The report is nil only for an invalid request; the error is nil exactly when the status is
// done or nothing.
func (m *Materializer) Retire(ctx context.Context, req RetireRequest, tiers RetireTiers) (*RetireReport, error) {
	if req.View.Name == "" || req.View.Version < 1 || req.Run == 0 && !req.DryRun || tiers.Backing == nil || tiers.Online == nil {
		return nil, fmt.Errorf("retire: %w: a run number, a view version and both tiers are required", feature.ErrInvalid)
	}
	if req.Segments < 1 {
		req.Segments = 4
	}
	began := m.clock.Now()
	r := &retire{m: m, req: req, tiers: tiers, report: &RetireReport{Run: req.Run, View: req.View, DryRun: req.DryRun}}
	err := r.do(ctx)
	rep := r.report
	rep.Seconds = m.clock.Now().Sub(began).Seconds()
	failed := rep.Backing.Failed + rep.Online.Failed
	switch deleted := rep.Backing.Deleted + rep.Online.Deleted; {
	case ctx.Err() != nil:
		rep.Status, err = StatusInterrupted, fmt.Errorf("retire %s: interrupted, run it again to go on: %w", req.View, context.Cause(ctx))
	case err == nil && failed == 0 && rep.Backing.Found+rep.Online.Found == 0:
		rep.Status = StatusNothing
	case err == nil && failed == 0:
		rep.Status = StatusDone
	default:
		if rep.Status = StatusPartial; deleted == 0 {
			rep.Status = StatusFailed
		}
		err = fmt.Errorf("retire %s: %w", req.View, &feature.PartialError{Op: rep.Status, Done: deleted, Failed: failed, Err: err})
	}
	if err != nil {
		rep.Error = err.Error()
	}
	return rep, err
}

type retire struct {
	m      *Materializer
	req    RetireRequest
	tiers  RetireTiers
	report *RetireReport
}

func (r *retire) do(ctx context.Context) error {
	if r.req.DryRun {
		return r.backing(ctx)
	}
	p := Progress{Watermark: feature.NoTime, Newest: feature.NoTime, LastRun: r.req.Run, LastStatus: StatusRetired}
	if err := r.m.cfg.State.Save(ctx, Slot{View: r.req.View}, p); err != nil {
		return fmt.Errorf("save run state: %w; nothing was deleted", err)
	}
	// An online tier that is away does not keep the values of the backing tier alive: the run
	// ends partial, and the next one finishes online.
	before := r.online(ctx)
	if err := r.backing(ctx); err != nil {
		return errors.Join(before, err)
	}
	if before != nil {
		return before
	}
	return r.online(ctx)
}

// online deletes what the online tier holds of the view.
func (r *retire) online(ctx context.Context) error {
	err := r.tiers.Online.Scan(ctx, r.req.View, func(refs []feature.Ref) error {
		var c RetireCounts
		err := r.remove(ctx, r.tiers.Online.Delete, refs, &c)
		r.report.Online.add(c)
		return err
	})
	if err != nil {
		return fmt.Errorf("online tier: %w", err)
	}
	return nil
}

// backing deletes what the backing tier holds of the view, a segment per goroutine.
func (r *retire) backing(ctx context.Context) error {
	counts := make([]RetireCounts, r.req.Segments)
	units := make([]float64, r.req.Segments)
	group, ctx := errgroup.WithContext(ctx)
	for segment := range r.req.Segments {
		group.Go(func() error {
			return r.segment(ctx, segment, &counts[segment], &units[segment])
		})
	}
	err := group.Wait()
	for i, c := range counts {
		r.report.Backing.add(c)
		r.report.ReadUnits += units[i]
	}
	if err != nil {
		return fmt.Errorf("backing tier: %w", err)
	}
	return nil
}

func (r *retire) segment(ctx context.Context, segment int, c *RetireCounts, units *float64) error {
	var page feature.ScanPage
	req := feature.ScanRequest{Segment: segment, Segments: r.req.Segments, Views: []feature.ViewID{r.req.View}}
	var refs []feature.Ref
	for {
		if err := r.tiers.Backing.Scan(ctx, req, &page); err != nil {
			return err
		}
		*units += page.ReadUnits
		refs = refs[:0]
		for i := range page.Records {
			if rec := &page.Records[i]; rec.View == r.req.View {
				refs = append(refs, feature.Ref{View: rec.View, Key: feature.Key(strings.Clone(string(rec.Key)))})
			}
		}
		if r.req.DryRun {
			c.Found += int64(len(refs))
		} else if err := r.remove(ctx, r.tiers.Backing.Delete, refs, c); err != nil {
			return err
		}
		if segment == 0 {
			r.m.cfg.Progress.Report(telemetry.Progress{Stage: "retire " + r.req.View.String(), Unit: "values", Done: c.Found})
		}
		if page.Next == nil {
			return nil
		}
		req.Cursor = slices.Clone(page.Next)
	}
}

func (r *retire) remove(ctx context.Context, del func(context.Context, []feature.Ref) ([]error, error), refs []feature.Ref, c *RetireCounts) error {
	if len(refs) == 0 {
		return nil
	}
	c.Found += int64(len(refs))
	results, err := del(ctx, refs)
	if len(results) != len(refs) {
		c.Failed += int64(len(refs))
		return errors.Join(err, fmt.Errorf("%d results for %d deletions", len(results), len(refs)))
	}
	for _, e := range results {
		if e == nil {
			c.Deleted++
			continue
		}
		c.Failed++
		err = e
	}
	return err
}

// WriteTable writes the report for people.
func (r *RetireReport) WriteTable(w io.Writer) error {
	var b strings.Builder
	if r.DryRun {
		fmt.Fprintf(&b, "dry run: %s has %d values in the backing tier; deleting them takes about %d write units\n", r.View, r.Backing.Found, r.Backing.Found)
	} else {
		fmt.Fprintf(&b, "run %d: %s in %.1f s: %s: %d of %d values deleted from the backing tier, %d of %d from the online tier\n",
			r.Run, r.Status, r.Seconds, r.View, r.Backing.Deleted, r.Backing.Found, r.Online.Deleted, r.Online.Found)
	}
	if r.Error != "" {
		fmt.Fprintf(&b, "%s; run it again when the cause is gone\n", r.Error)
	}
	for _, s := range r.Warnings {
		fmt.Fprintf(&b, "note: %s\n", s)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
