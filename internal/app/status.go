package app

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/materializer"
)

// StatusReport is the document of `hearth status --json`.
type StatusReport struct {
	Project string        `json:"project"`
	Views   []ViewStatus  `json:"views"`
	Online  OnlineStatus  `json:"online"`
	Backing BackingStatus `json:"backing"`
	Runs    []backing.Run `json:"runs"`

	now time.Time
}

// ViewStatus is how far one view is.
type ViewStatus struct {
	View           feature.ViewID `json:"view"`
	Watermark      *time.Time     `json:"watermark"`              // the newest run whose files are all in the backing tier; null before the first
	NewestEvent    *time.Time     `json:"newest_event_timestamp"` // null when nothing is stored
	FreshnessSecs  *float64       `json:"freshness_seconds"`      // age of the newest event
	Entities       int64          `json:"entities_estimate"`
	LastRun        uint64         `json:"last_run"`
	LastStatus     string         `json:"last_status"`
	OnlineBehind   int64          `json:"online_behind"` // values that the online tier may lack
	NeverPublished bool           `json:"never_materialized"`
}

// OnlineStatus is the state of the online tier.
type OnlineStatus struct {
	Kind       string   `json:"kind"`
	Reachable  bool     `json:"reachable"`
	Cold       bool     `json:"cold"`
	ColdShards []string `json:"cold_shards"`
	Keys       int64    `json:"keys"`
	Error      string   `json:"error,omitempty"`
}

// BackingStatus is the state of the backing tier.
type BackingStatus struct {
	backing.Description
	Error string `json:"error,omitempty"`
}

// statusTimeout bounds how long one tier may keep the status waiting.
const statusTimeout = 10 * time.Second

// Status asks both tiers how they are. A tier that does not answer is part of the answer.
func (a *App) Status(ctx context.Context) (*StatusReport, error) {
	r := &StatusReport{Project: a.cfg.Project.Name, Views: []ViewStatus{}, Runs: []backing.Run{}, now: a.clock.Now()}
	r.Online = a.onlineStatus(ctx)
	back, err := a.backingTier(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	r.Backing.Description, err = back.Describe(ctx)
	if err == nil {
		err = a.fillRuns(ctx, back, r)
	}
	if err != nil {
		r.Backing.Error = err.Error()
	}
	return r, nil
}

func (a *App) onlineStatus(ctx context.Context) OnlineStatus {
	s := OnlineStatus{Kind: "redis", ColdShards: []string{}}
	switch r := a.cfg.Online.Redis; {
	case r == nil:
		s.Kind = "embedded"
	case r.Cluster:
		s.Kind = "redis cluster"
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	on, err := a.onlineTier(ctx)
	if err != nil {
		s.Error = err.Error()
		return s
	}
	w, err := on.Warmth(ctx)
	if err != nil {
		s.Error = err.Error()
		return s
	}
	s.Reachable, s.Cold = w.Reachable, w.Cold
	for _, shard := range w.Shards {
		s.Keys += shard.Keys
		if shard.Cold {
			s.ColdShards = append(s.ColdShards, shard.Addr)
		}
	}
	return s
}

func (a *App) fillRuns(ctx context.Context, back backing.Store, r *StatusReport) error {
	state := progressState{back}
	for i := range a.cfg.Project.Views {
		id := a.cfg.Project.Views[i].ID()
		p, err := state.Load(ctx, materializer.Slot{View: id})
		if err != nil {
			return err
		}
		v := ViewStatus{
			View: id, Entities: p.Entities, LastRun: p.LastRun, LastStatus: p.LastStatus, OnlineBehind: p.OnlineBehind,
			NeverPublished: p.LastRun == 0,
		}
		if p.LastRun > 0 {
			v.Watermark = timePointer(p.Watermark)
			if v.NewestEvent = timePointer(p.Newest); v.NewestEvent != nil {
				age := r.now.Sub(*v.NewestEvent).Seconds()
				v.FreshnessSecs = &age
			}
		}
		r.Views = append(r.Views, v)
	}
	runs, err := backing.NewLedger(back, a.clock).List(ctx, "", 10)
	if err != nil {
		return err
	}
	if runs != nil {
		r.Runs = runs
	}
	return nil
}

func timePointer(m feature.Micros) *time.Time {
	if m == feature.NoTime {
		return nil
	}
	t := m.Time()
	return &t
}

// WriteTable writes the report for a person.
func (r *StatusReport) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "project %s\n\n", r.Project)
	fmt.Fprintf(&b, "online   %s: %s\n", r.Online.Kind, r.onlineText())
	back := r.Backing.Kind + " " + r.Backing.Name
	switch {
	case r.Backing.Error != "":
		fmt.Fprintf(&b, "backing  %s: %s\n\n", back, r.Backing.Error)
	default:
		fmt.Fprintf(&b, "backing  %s: reachable, about %d values\n\n", back, r.Backing.Items)
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "VIEW\tENTITIES\tNEWEST EVENT\tAGE\tWATERMARK\tLAST RUN\tBEHIND")
	for _, v := range r.Views {
		age := "-"
		if v.FreshnessSecs != nil {
			age = roughAge(time.Duration(*v.FreshnessSecs * float64(time.Second)))
		}
		last := "never"
		if v.LastRun > 0 {
			last = fmt.Sprintf("%d %s", v.LastRun, v.LastStatus)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%d\n", v.View, v.Entities, timeText(v.NewestEvent), age, timeText(v.Watermark), last, v.OnlineBehind)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.Runs) > 0 {
		fmt.Fprintln(&b, "\nlast runs")
		if err := writeRuns(&b, r.Runs); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *StatusReport) onlineText() string {
	o := r.Online
	switch {
	case o.Error != "":
		return "UNREACHABLE: " + o.Error
	case !o.Reachable:
		return "UNREACHABLE"
	case o.Cold && o.Kind == "embedded":
		return "cold (it lives inside a process; hearth serve keeps one warm)"
	case o.Cold:
		return "COLD: " + strings.Join(o.ColdShards, ", ") + "; run hearth rewarm"
	}
	return fmt.Sprintf("warm, %d keys", o.Keys)
}

func writeRuns(w io.Writer, runs []backing.Run) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RUN\tJOB\tDUE\tSTARTED\tTOOK\tSTATUS\tATTEMPTS\tHOLDER\tERROR")
	for _, r := range runs {
		took := "-"
		if r.Started != nil && r.Finished != nil {
			took = r.Finished.Sub(*r.Started).Round(10 * time.Millisecond).String()
		}
		text, _, _ := strings.Cut(r.Error, "\n")
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.Number, r.Job, timeText(r.Due), timeText(r.Started), took, r.Status, r.Attempts, r.Holder, text)
	}
	return t.Flush()
}

func timeText(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// roughAge is a duration as people say it.
func roughAge(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f d", d.Hours()/24)
}
