package materializer

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/hearthstore/hearth/feature"
)

// The statuses of a run and of one view in it.
const (
	StatusDone        = "done"        // everything is in both tiers
	StatusNothing     = "nothing"     // there was nothing to do
	StatusPartial     = "partial"     // some of it is; the report says what is not
	StatusFailed      = "failed"      // nothing was acknowledged
	StatusInterrupted = "interrupted" // the context ended; run again to go on
)

// Report is what a run did. Its JSON is the document of `hearth materialize --json`.
type Report struct {
	Run     uint64        `json:"run"`
	Status  string        `json:"status"`
	DryRun  bool          `json:"dry_run,omitempty"`
	Seconds float64       `json:"seconds"`
	Views   []*ViewReport `json:"views"`
	// MarkedWarm says that this run filled the online tier from nothing.
	MarkedWarm bool `json:"marked_warm,omitempty"`
	// Warnings are things a person should know that did not fail the run.
	Warnings []string `json:"warnings,omitempty"`
	// Estimate is the sum over the views of a dry run.
	Estimate *Estimate `json:"estimate,omitempty"`
}

// ViewReport is what a run did for one view.
type ViewReport struct {
	View    feature.ViewID `json:"view"`
	Status  string         `json:"status"`
	Seconds float64        `json:"seconds"`
	// Files counts the files that were read, PendingFiles those of them that hold rows after
	// the end of the run and will be read again, RemovedFiles those that are gone since.
	Files        int      `json:"files"`
	PendingFiles int      `json:"pending_files"`
	Pending      []string `json:"pending,omitempty"` // the first of them
	RemovedFiles int      `json:"removed_files"`
	Removed      []string `json:"removed,omitempty"` // the first of them

	// Chunks is in how many parts the files were to be taken, ChunksRecorded how many of those
	// no later run reads again.
	Chunks         int `json:"chunks"`
	ChunksRecorded int `json:"chunks_recorded"`

	RowsRead int64            `json:"rows_read"`
	Latest   int64            `json:"latest"` // entities with a value, of each chunk
	Rejected int64            `json:"rejected"`
	Reasons  map[string]int64 `json:"reject_reasons,omitempty"`
	Rejects  string           `json:"rejects_file,omitempty"`

	Backing BackingCounts `json:"backing"`
	Online  OnlineCounts  `json:"online"`
	Pruned  int64         `json:"pruned"`

	Newest      feature.Micros `json:"-"` // the newest event time that the backing tier acknowledged
	NewestEvent string         `json:"newest_event_timestamp,omitempty"`
	// Error says what went wrong; Failures are the first keys that failed.
	Error    string       `json:"error,omitempty"`
	Failures []KeyFailure `json:"failures,omitempty"`
	Estimate *Estimate    `json:"estimate,omitempty"`

	err    error
	causes map[string]error // the first by tier
}

// BackingCounts counts records by what the backing tier did.
type BackingCounts struct {
	Written   int64 `json:"written"`
	Unchanged int64 `json:"unchanged"`
	Older     int64 `json:"older"`
	Expired   int64 `json:"expired"` // past their retain time, not sent
	Erased    int64 `json:"erased"`  // of entities that were forgotten, not sent
	Failed    int64 `json:"failed"`
}

func (c BackingCounts) acknowledged() int64 {
	return c.Written + c.Unchanged + c.Older + c.Expired + c.Erased
}

// OnlineCounts counts the records that the backing tier acknowledged by what the online
// tier did.
type OnlineCounts struct {
	Written   int64 `json:"written"`
	Unchanged int64 `json:"unchanged"`
	Older     int64 `json:"older"`
	Expired   int64 `json:"expired"` // their life online is over
	Failed    int64 `json:"failed"`  // tried and refused
	Behind    int64 `json:"behind"`  // failed, or not tried because the tier was away
	// Healed counts values of earlier runs that arrived only now.
	Healed int64 `json:"healed"`
}

func (c OnlineCounts) reached() int64 {
	return c.Written + c.Unchanged + c.Older + c.Expired + c.Healed
}

// KeyFailure is one key that could not be stored.
type KeyFailure struct {
	Key   feature.Key `json:"key"`
	Tier  string      `json:"tier"`
	Error string      `json:"error"`
}

// listMax bounds the lists of a report.
const listMax = 20

func firsts(s []string) []string { return s[:min(len(s), listMax)] }

// outcome derives status and error from the counts and from failure, what ended the view
// early. idle says that there was nothing to do.
func (v *ViewReport) outcome(failure error, idle bool) (status string, err error) {
	switch {
	case failure != nil && v.Backing.acknowledged() == 0 && v.Online.Healed == 0:
		return StatusFailed, failure
	case failure != nil:
		return StatusPartial, failure
	case v.Backing.Failed > 0 && v.Backing.acknowledged() == 0:
		status = StatusFailed
	case v.Backing.Failed > 0 || v.Online.Behind > 0:
		status = StatusPartial
	case idle:
		return StatusNothing, nil
	default:
		return StatusDone, nil
	}
	if v.Backing.Failed > 0 {
		return status, &feature.PartialError{Op: fmt.Sprintf("view %s: backing tier", v.View), Done: v.Backing.acknowledged(), Failed: v.Backing.Failed, Err: v.failure("backing")}
	}
	return status, &feature.PartialError{Op: fmt.Sprintf("view %s: online tier", v.View), Done: v.Online.reached(), Failed: v.Online.Behind, Err: v.failure("online")}
}

// finish sets what outcome says.
func (v *ViewReport) finish(failure error, idle bool) {
	v.Status, v.err = v.outcome(failure, idle)
	if v.err != nil {
		v.Error = v.err.Error()
	}
	if v.Newest != feature.NoTime {
		v.NewestEvent = v.Newest.String()
	}
}

// failure is the first reason why a record did not reach a tier.
func (v *ViewReport) failure(tier string) error {
	if err := v.causes[tier]; err != nil {
		return err
	}
	return fmt.Errorf("%s tier: %w", tier, feature.ErrUnreachable)
}

// cause notes the first reason.
func (v *ViewReport) cause(tier string, key feature.Key, err error) {
	if v.causes == nil {
		v.causes = map[string]error{}
	}
	if v.causes[tier] == nil {
		v.causes[tier] = fmt.Errorf("key %s: %w", key, err)
	}
}

// status is the run's status given its views': what is not whole is never done.
func (r *Report) status() string {
	count := map[string]int{}
	for _, v := range r.Views {
		count[v.Status]++
	}
	switch n := len(r.Views); {
	case count[StatusNothing] == n:
		return StatusNothing
	case count[StatusDone]+count[StatusNothing] == n:
		return StatusDone
	case count[StatusFailed]+count[StatusNothing] == n:
		return StatusFailed
	}
	return StatusPartial
}

// partial makes sure that the error of a partial run says so, whatever made it one: a view's
// counts, a view that failed beside others, or what comes after the values.
func (r *Report) partial(err error) error {
	var partial *feature.PartialError
	if r.Status != StatusPartial || errors.As(err, &partial) {
		return err
	}
	partial = &feature.PartialError{Op: "all views", Err: err}
	for _, v := range r.Views {
		partial.Done += v.Backing.acknowledged()
		partial.Failed += v.Backing.Failed + v.Online.Behind
	}
	return partial
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	kind := "run"
	if r.DryRun {
		kind = "dry run"
	}
	fmt.Fprintf(&b, "%s %d: %s in %.1f s\n", kind, r.Run, r.Status, r.Seconds)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	if r.DryRun {
		fmt.Fprintln(t, "view\tfiles\trows\tentities\trejected\titem KB\twrite units\tdollars\tseconds\t")
		line := func(name string, files int, rows, rejected int64, e *Estimate) {
			if e == nil {
				e = &Estimate{}
			}
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%.1f\t%d\t%.4f\t%.0f\t\n", name, files, rows, e.Items, rejected, float64(e.Bytes)/1024, e.WriteUnits, e.Dollars, e.Seconds)
		}
		for _, v := range r.Views {
			line(v.View.String(), v.Files, v.RowsRead, v.Rejected, v.Estimate)
		}
	} else {
		fmt.Fprintln(t, "view\tstatus\tfiles\trows\trejected\twritten\tunchanged\tolder\tfailed\tonline\tbehind\tpruned\t")
		for _, v := range r.Views {
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", v.View, v.Status, v.Files, v.RowsRead, v.Rejected,
				v.Backing.Written, v.Backing.Unchanged, v.Backing.Older, v.Backing.Failed, v.Online.Written+v.Online.Healed, v.Online.Behind, v.Pruned)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if e := r.Estimate; e != nil {
		fmt.Fprintf(&b, "%s\n", e)
	}
	for _, v := range r.Views {
		if v.PendingFiles > 0 {
			fmt.Fprintf(&b, "%s: %d files hold rows of the future and stay pending\n", v.View, v.PendingFiles)
		}
		if v.RemovedFiles > 0 {
			fmt.Fprintf(&b, "%s: %d files are gone since the last run (their values stay; --full --prune deletes what vanished)\n", v.View, v.RemovedFiles)
		}
		if v.Chunks > 1 && v.ChunksRecorded < v.Chunks && !r.DryRun {
			fmt.Fprintf(&b, "%s: %d of %d chunks of its files are done and will not be read again; the next run goes on with the rest\n", v.View, v.ChunksRecorded, v.Chunks)
		}
		if v.Backing.Erased > 0 {
			fmt.Fprintf(&b, "%s: %d rows are of forgotten entities and were passed over; remove them from the source\n", v.View, v.Backing.Erased)
		}
		if v.Rejects != "" {
			fmt.Fprintf(&b, "%s: rejected rows are listed in %s\n", v.View, v.Rejects)
		}
		if v.Error != "" {
			fmt.Fprintf(&b, "%s: %s\n", v.View, v.Error)
		}
		if v.Online.Behind > 0 {
			fmt.Fprintf(&b, "%s: the online tier lacks %d values that the backing tier holds; the next run sends them, or `hearth verify --repair` now\n", v.View, v.Online.Behind)
		}
	}
	for _, s := range r.Warnings {
		fmt.Fprintf(&b, "note: %s\n", s)
	}
	_, err := io.WriteString(w, b.String())
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
