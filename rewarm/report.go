package rewarm

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// The statuses of a run.
const (
	StatusDone        = "done"        // everything that was asked for is in the online tier
	StatusPartial     = "partial"     // something is missing; Report.Problems says what
	StatusFailed      = "failed"      // nothing was put
	StatusNothing     = "nothing"     // there was nothing to do; Report.Reason says why
	StatusInterrupted = "interrupted" // stopped from outside; the checkpoint is kept
	StatusPlanned     = "planned"     // PlanOnly: nothing was moved
)

// The reasons of StatusNothing.
const (
	ReasonWarm        = "warm"         // every shard has its markers
	ReasonNeverFilled = "never_filled" // the table has no value of the views: materialize first
)

// Report is what a run did, and the --json document of `hearth rewarm`. Counts are of this
// run alone, not of the run that it resumed.
type Report struct {
	Run    uint64 `json:"run"`
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
	// Attempt is the name of the work that machines share, if it was given one.
	Attempt string `json:"attempt,omitempty"`
	// Cold says whether the online tier, or a shard of it, was cold at the start.
	Cold       bool     `json:"cold"`
	ColdShards []string `json:"cold_shards,omitempty"`
	// Warm says that this run marked the online tier warm at its end.
	Warm bool `json:"warm"`

	Counts

	Seconds        float64 `json:"seconds"`
	ItemsPerSecond float64 `json:"items_per_second"` // scanned per second
	// ResumedFrom is the run that began the attempt which this run continued; null when it
	// began a new one. ResumedItems is what had been scanned before.
	ResumedFrom  *uint64 `json:"resumed_from"`
	ResumedItems int64   `json:"resumed_items,omitempty"`

	Segments     int `json:"segments"`      // of the whole table
	SegmentFrom  int `json:"segment_from"`  // this run's range, both inclusive
	SegmentTo    int `json:"segment_to"`    //
	SegmentsDone int `json:"segments_done"` // of this run's range, resumed ones included
	// SegmentsLeft counts the segments of other runs' ranges that are not through yet.
	SegmentsLeft int `json:"segments_left,omitempty"`

	HotAsked   int     `json:"hot_asked,omitempty"`   // hot refs that were asked of the table
	HotWritten int64   `json:"hot_written,omitempty"` // of these, put before the scan began
	HotSeconds float64 `json:"hot_seconds,omitempty"`
	// HotReadUnits is what the hot refs cost, beside ReadUnits.
	HotReadUnits float64 `json:"hot_read_units,omitempty"`
	Swept        int64   `json:"swept,omitempty"`   // values removed that the table has not
	Flushes      int     `json:"flushes,omitempty"` // times that the online tier was lost meanwhile
	Throttled    int64   `json:"throttled"`         // refusals for rate that were waited out
	SlowDowns    int64   `json:"slow_downs"`        // times that the pace was lowered for live traffic
	// LiveReads is what the reads showed that a run with MaxSlowdown makes.
	LiveReads *LiveReads `json:"live_reads,omitempty"`

	// Export is what came from an export before the table was asked for the rest, which the
	// other figures are about.
	Export *ExportReport `json:"export,omitempty"`

	// FailedKeys names records that cannot be put (at most 100); they are tried again by
	// the next run.
	FailedKeys []FailedKey `json:"failed_keys,omitempty"`
	// Problems says in words why the status is not done.
	Problems []string `json:"problems,omitempty"`

	Plan   *Plan         `json:"plan,omitempty"`
	Verify *VerifyReport `json:"verify,omitempty"`
}

// ExportReport is the first part of a rewarm from an export.
type ExportReport struct {
	Name string `json:"name"`
	Counts
	Seconds float64 `json:"seconds"`
}

// Counts is what happened to the records.
type Counts struct {
	Scanned      int64   `json:"scanned"`
	Written      int64   `json:"written"`
	AlreadyNewer int64   `json:"already_newer"` // the online tier had it, or a newer version
	Expired      int64   `json:"expired"`       // life over: not revived
	Skipped      int64   `json:"skipped"`       // Deleted + Retired + WarmShard
	Deleted      int64   `json:"deleted"`       // tombstones: put as markers, not as values
	Retired      int64   `json:"retired"`       // of view versions that are not asked for
	WarmShard    int64   `json:"warm_shard"`    // in shards that are not cold
	Failed       int64   `json:"failed"`
	Bytes        int64   `json:"bytes"` // payload bytes written
	ReadUnits    float64 `json:"read_units"`
}

func (c *Counts) add(d Counts) {
	c.Scanned += d.Scanned
	c.Written += d.Written
	c.AlreadyNewer += d.AlreadyNewer
	c.Expired += d.Expired
	c.Skipped += d.Skipped
	c.Deleted += d.Deleted
	c.Retired += d.Retired
	c.WarmShard += d.WarmShard
	c.Failed += d.Failed
	c.Bytes += d.Bytes
	c.ReadUnits += d.ReadUnits
}

// FailedKey names a record that could not be put, never its values.
type FailedKey struct {
	View   string `json:"view"`
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

// OK reports whether everything that was asked for is in place.
func (r *Report) OK() bool {
	return (r.Status == StatusDone || r.Status == StatusNothing || r.Status == StatusPlanned) &&
		(r.Verify == nil || r.Verify.OK())
}

// WriteTable writes the report for a person.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	head := fmt.Sprintf("rewarm run %d: %s", r.Run, r.Status)
	if r.Reason != "" {
		head += " (" + strings.ReplaceAll(r.Reason, "_", " ") + ")"
	}
	fmt.Fprintln(&b, head)
	if r.Status == StatusPlanned || r.Status == StatusNothing {
		if r.Plan != nil {
			r.Plan.write(&b)
		}
		_, err := io.WriteString(w, b.String())
		return err
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "  %s\t"+format+"\n", append([]any{name}, args...)...)
	}
	if r.Cold {
		row("cold", "%s", coldText(r.ColdShards))
	}
	if e := r.Export; e != nil {
		row("from the export", "%s written of %s in %s (%s)", count(e.Written), count(e.Scanned), seconds(e.Seconds), e.Name)
	}
	row("scanned", "%s in %s (%s/s)", count(r.Scanned), seconds(r.Seconds), count(int64(r.ItemsPerSecond)))
	row("written", "%s, %s", count(r.Written), size(r.Bytes))
	row("already there", "%s", count(r.AlreadyNewer))
	row("expired", "%s", count(r.Expired))
	if r.Skipped > 0 {
		row("skipped", "%s (%s deleted, %s of other views, %s in warm shards)", count(r.Skipped), count(r.Deleted), count(r.Retired), count(r.WarmShard))
	}
	if r.HotAsked > 0 {
		row("hot first", "%s of %s in %s", count(r.HotWritten), count(int64(r.HotAsked)), seconds(r.HotSeconds))
	}
	if r.ReadUnits+r.HotReadUnits > 0 {
		row("read units", "%s", count(int64(r.ReadUnits+r.HotReadUnits+0.5)))
	}
	row("segments", "%d of %d (%d-%d of %d)", r.SegmentsDone, r.SegmentTo-r.SegmentFrom+1, r.SegmentFrom, r.SegmentTo, r.Segments)
	if r.ResumedFrom != nil {
		row("resumed from", "run %d, after %s items", *r.ResumedFrom, count(r.ResumedItems))
	}
	if r.Throttled+r.SlowDowns > 0 {
		row("gave way", "%s times throttled, %s times slowed down", count(r.Throttled), count(r.SlowDowns))
	}
	if l := r.LiveReads; l != nil {
		row("live reads", "%s", l)
	}
	if r.Swept > 0 {
		row("removed", "%s that the table has not", count(r.Swept))
	}
	if r.Flushes > 0 {
		row("lost meanwhile", "%d times: started over", r.Flushes)
	}
	if r.Failed > 0 {
		row("failed", "%s", count(r.Failed))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range r.FailedKeys {
		fmt.Fprintf(&b, "  failed %s/%s: %s\n", f.View, f.Key, f.Reason)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "  problem: %s\n", p)
	}
	if r.Verify != nil {
		if err := r.Verify.WriteTable(&b); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func coldText(shards []string) string {
	if len(shards) == 0 {
		return "yes"
	}
	return strings.Join(shards, ", ")
}

func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// count writes 1234567 as 1,234,567.
func count(n int64) string {
	s := fmt.Sprint(n)
	neg := ""
	if n < 0 {
		neg, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return neg + s
}

func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/unit, 0
	for f >= unit && u < 4 {
		f, u = f/unit, u+1
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[u])
}
