package server

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"sync"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
)

// Status is how the feature repository is: the document of `hearth status --json` as far
// as the page shows it.
type Status struct {
	Views   []ViewStatus `json:"views"`
	Online  TierStatus   `json:"online"`
	Backing TierStatus   `json:"backing"`
	Runs    []Run        `json:"runs"`
}

// ViewStatus is how far one view is.
type ViewStatus struct {
	View         feature.ViewID `json:"view"`
	NewestEvent  *time.Time     `json:"newest_event_timestamp"`
	Watermark    *time.Time     `json:"watermark"`
	Entities     int64          `json:"entities_estimate"`
	LastRun      uint64         `json:"last_run"`
	LastStatus   string         `json:"last_status"`
	OnlineBehind int64          `json:"online_behind"`
}

// TierStatus is how one tier is.
type TierStatus struct {
	Kind       string   `json:"kind"`
	Reachable  bool     `json:"reachable"`
	Cold       bool     `json:"cold"`
	ColdShards []string `json:"cold_shards,omitempty"`
	Items      int64    `json:"items"`
	Error      string   `json:"error,omitempty"`
}

// Run is one entry of the ledger.
type Run struct {
	Number   uint64     `json:"run"`
	Job      string     `json:"job"`
	Status   string     `json:"status"`
	Holder   string     `json:"holder"`
	Started  *time.Time `json:"started"`
	Finished *time.Time `json:"finished"`
	Error    string     `json:"error,omitempty"`
}

// statusCache asks for the status at most once per ttl, and once at a time.
type statusCache struct {
	load  func(context.Context) (Status, error)
	ttl   time.Duration
	clock clock.Clock

	mu   sync.Mutex
	at   time.Time
	last Status
	err  error
}

func (c *statusCache) get(ctx context.Context) (Status, time.Time, error) {
	if c.load == nil {
		return Status{}, c.clock.Now(), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.clock.Now(); c.at.IsZero() || now.Sub(c.at) >= c.ttl {
		got, err := c.load(ctx)
		if err != nil && ctx.Err() != nil {
			return c.last, c.at, err // the asker went away: nothing is known
		}
		c.at, c.last, c.err = now, got, err
	}
	return c.last, c.at, c.err
}

// statusDocument is GET /v1/status.
type statusDocument struct {
	Project string `json:"project"`
	Status
	Reader reader.Stats `json:"reader"`
	AsOf   time.Time    `json:"as_of"`
}

func (s *Server) statusJSON(w *reply, r *http.Request) error {
	st, at, err := s.status.get(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, statusDocument{Project: s.cfg.Project.Name, Status: st, Reader: s.cfg.Features.Stats(), AsOf: at.UTC()})
}

//go:embed status.html
var statusHTML string

var statusTemplate = template.Must(template.New("status").Funcs(template.FuncMap{
	"age": ageText, "percent": percent, "count": countText, "class": statusClass,
}).Parse(statusHTML))

type statusView struct {
	Project, Version string
	Status           Status
	Known            bool
	Problem          string
	Reader           reader.Stats
	Now              time.Time
	Services         []string
	Sources          []share
}

// share is one part of where the answers came from.
type share struct {
	Name  string
	Count uint64
	Of    uint64
}

// statusPage shows the same to a person: one page, nothing loaded from anywhere.
func (s *Server) statusPage(w *reply, r *http.Request) error {
	view := statusView{Project: s.cfg.Project.Name, Version: s.cfg.Version, Known: s.cfg.Status != nil, Reader: s.cfg.Features.Stats()}
	st, at, err := s.status.get(r.Context())
	if err != nil {
		view.Problem = err.Error()
	}
	view.Status, view.Now = st, at.UTC()
	for _, svc := range s.cfg.Project.Services {
		view.Services = append(view.Services, svc.Name)
	}
	rd := view.Reader
	view.Sources = []share{
		{Name: "cache", Count: rd.CacheHits - rd.CacheNegative}, {Name: "online", Count: rd.Online.Hits}, {Name: "backing", Count: rd.Backing.Hits},
		{Name: "not found", Count: rd.NotFound}, {Name: "unknown", Count: rd.Unknown},
	}
	var total uint64
	for _, part := range view.Sources {
		total += part.Count
	}
	for i := range view.Sources {
		view.Sources[i].Of = total
	}
	var page bytes.Buffer
	if err := statusTemplate.Execute(&page, view); err != nil {
		return fmt.Errorf("status page: %w", err)
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	return w.send(http.StatusOK, "text/html; charset=utf-8", page.Bytes())
}

func ageText(now time.Time, t *time.Time) string {
	if t == nil {
		return "–"
	}
	d := now.Sub(*t)
	switch {
	case d < 0:
		return "in the future"
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

func percent(n, of uint64) string {
	if of == 0 {
		return "0"
	}
	return fmt.Sprintf("%.1f", 100*float64(n)/float64(of))
}

// countText writes 1234567 as 1,234,567.
func countText(n any) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func statusClass(status string) string {
	switch status {
	case "done", "nothing", reader.BreakerClosed:
		return "good"
	case "partial", "running", reader.BreakerHalfOpen:
		return "warn"
	case "":
		return ""
	}
	return "bad"
}
