package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hearthstore/hearth/feature"
)

var errNoJobs = problem{http.StatusNotImplemented, "NotImplemented", "this server only reads"}

// push answers Feast's POST /push. A push source has the name of its feature view here.
func (s *Server) push(w *reply, r *http.Request) error {
	var req struct {
		Source string  `json:"push_source_name"`
		Rows   columns `json:"df"`
		To     string  `json:"to"`
	}
	if err := decode(r.Body, &req, false); err != nil {
		return err
	}
	switch req.To {
	case "", "online":
	default:
		return fmt.Errorf("push to %q: %w: only \"online\" is served; offline data is the source's own", req.To, feature.ErrInvalid)
	}
	return s.write(w, r, classNoPushSource, req.Source, req.Rows)
}

// writeToOnlineStore answers Feast's POST /write-to-online-store.
func (s *Server) writeToOnlineStore(w *reply, r *http.Request) error {
	var req struct {
		View string  `json:"feature_view_name"`
		Rows columns `json:"df"`
	}
	if err := decode(r.Body, &req, false); err != nil {
		return err
	}
	return s.write(w, r, classNoView, req.View, req.Rows)
}

// view finds the feature view of a request, by Hearth's name or Feast's ("stats@v2").
func (s *Server) view(class, name string) (*feature.View, error) {
	base, version, versioned := strings.Cut(name, "@v")
	if versioned {
		name = base + "@" + version
	}
	if id, err := feature.ParseViewID(name); err == nil {
		if v := s.cfg.Project.View(id); v != nil {
			return v, nil
		}
	}
	code := http.StatusNotFound
	if class == classNoPushSource {
		code = http.StatusUnprocessableEntity // as Feast has it
	}
	return nil, problem{code, class, fmt.Sprintf("no feature view %q; declared are: %s", name, strings.Join(s.declared(), ", "))}
}

// write hands the rows on as the lines that `hearth push` takes. It answers 200 only if
// every row is stored, or surpassed, in the backing tier.
func (s *Server) write(w *reply, r *http.Request, class, name string, rows columns) error {
	if s.cfg.Jobs == nil {
		return errNoJobs
	}
	v, err := s.view(class, name)
	if err != nil {
		return err
	}
	lines, err := rows.lines(v)
	if err != nil {
		return fmt.Errorf("df: %w", err)
	}
	got, err := s.cfg.Jobs.Push(r.Context(), v.ID().String(), bytes.NewReader(lines))
	s.forget(v, rows) // also after an error: some of the rows may be stored
	if err != nil {
		return err
	}
	if got.Failed > 0 {
		return problem{http.StatusServiceUnavailable, "Partial",
			fmt.Sprintf("%d rows are not stored, the others are; send them again", got.Failed)}
	}
	return writeJSON(w, http.StatusOK, got)
}

// forget tells the reader which keys were written. A row without a key was refused.
func (s *Server) forget(v *feature.View, rows columns) {
	entities, err := rows.rows(math.MaxInt)
	if err != nil {
		return
	}
	refs := make([]feature.Ref, 0, len(entities))
	for _, entity := range entities {
		if key, err := v.Key(entity); err == nil {
			refs = append(refs, feature.Ref{View: v.ID(), Key: key})
		}
	}
	s.cfg.Features.Forget(refs...)
}

// lines writes the columns as one JSON object a line. Feast's names for the two
// timestamps become Hearth's, unless the view has a feature of that name.
func (c columns) lines(v *feature.View) ([]byte, error) {
	n, err := c.length()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for i := range n {
		line := make(map[string]any, len(c))
		for _, col := range c {
			name, value := col.name, col.values[i]
			if name == "created" && v.FeatureIndex(name) < 0 && v.Source.CreatedTimestampColumn != name {
				name = "created_timestamp"
			}
			if name == "created_timestamp" && value == nil {
				continue
			}
			line[name] = fromFeastValue(v, name, value)
		}
		if err := enc.Encode(line); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// fromFeastValue turns Feast's form of a timestamp, seconds since 1970, into text.
func fromFeastValue(v *feature.View, name string, value any) any {
	i := v.FeatureIndex(name)
	if i < 0 {
		return value
	}
	switch t := v.Features[i].Type; {
	case t == feature.Timestamp:
		return secondsText(value)
	case t.IsList() && t.Elem() == feature.Timestamp:
		list, ok := value.([]any)
		if !ok {
			return value
		}
		out := make([]any, len(list))
		for i := range list {
			out[i] = secondsText(list[i])
		}
		return out
	}
	return value
}

func secondsText(value any) any {
	n, ok := value.(json.Number)
	if !ok {
		return value
	}
	seconds, err := n.Int64()
	if err != nil {
		return value // no whole number: the row is refused with the name of the feature
	}
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}

// materialize answers Feast's POST /materialize and /materialize-incremental. With
// ?async=true it answers 202 at once; how the run ended is in its ledger entry.
func (s *Server) materialize(w *reply, r *http.Request) error {
	if s.cfg.Jobs == nil {
		return errNoJobs
	}
	var req materializeRequest
	if err := decode(r.Body, &req, false); err != nil {
		return err
	}
	job, err := s.job(&req)
	if err != nil {
		return err
	}
	if async, err := strconv.ParseBool(r.URL.Query().Get("async")); err == nil && async {
		return s.materializeAsync(w, r, job)
	}
	got, err := s.run(r.Context(), job)
	switch {
	case errors.Is(err, feature.ErrLeaseHeld):
		return writeJSON(w, http.StatusConflict, map[string]any{"error": err.Error(), "feature_views": s.feastNames(job.Views)})
	case err != nil:
		return err
	case got.Status == "partial", got.Status == "failed":
		// Not 5xx: Feast's client would start the run again three times.
		return problem{http.StatusUnprocessableEntity, "Materialize" + got.Status,
			fmt.Sprintf("run %d ended %s; hearth jobs history and hearth status say what is behind", got.Run, got.Status)}
	}
	return writeJSON(w, http.StatusOK, nil)
}

// run materializes, and has what it wrote read next time: also after an error, when a part
// of it may be stored.
func (s *Server) run(ctx context.Context, job MaterializeRequest) (MaterializeResult, error) {
	got, err := s.cfg.Jobs.Materialize(ctx, job)
	for i := range s.cfg.Project.Views {
		if id := s.cfg.Project.Views[i].ID(); len(job.Views) == 0 || slices.Contains(job.Views, id.String()) {
			s.cfg.Features.ForgetViews(id)
		}
	}
	return got, err
}

// materializeRequest is the body of both paths.
type materializeRequest struct {
	Start   string   `json:"start_ts"`
	End     string   `json:"end_ts"`
	Views   []string `json:"feature_views"`
	AllTime bool     `json:"disable_event_timestamp"` // Feast's name for: everything there is
	Version string   `json:"version"`                 // "v2", with exactly one view
}

// job is what the request asks for. The views are checked here, before anything runs.
func (s *Server) job(req *materializeRequest) (job MaterializeRequest, err error) {
	if req.AllTime {
		req.Start, req.End = "1970-01-01T00:00:00Z", ""
	}
	for _, bound := range []struct {
		name, text string
		to         *time.Time
	}{{"start_ts", req.Start, &job.Start}, {"end_ts", req.End, &job.End}} {
		if bound.text == "" {
			continue
		}
		at, err := feature.ParseTime(bound.text)
		if err != nil {
			return job, fmt.Errorf("%s: %w", bound.name, err)
		}
		*bound.to = at.Time()
	}
	if req.Version != "" {
		if len(req.Views) != 1 {
			return job, fmt.Errorf("version: %w: it needs exactly one feature view", feature.ErrInvalid)
		}
		req.Views = []string{req.Views[0] + "@v" + strings.TrimPrefix(req.Version, "v")}
	}
	for _, name := range req.Views {
		v, err := s.view(classNoView, name)
		if err != nil {
			return job, fmt.Errorf("feature_views: %w", err)
		}
		job.Views = append(job.Views, v.ID().String())
	}
	return job, nil
}

func (s *Server) materializeAsync(w *reply, r *http.Request, job MaterializeRequest) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		cancel()
		return problem{http.StatusServiceUnavailable, "Draining", "the server is stopping"}
	}
	if views := s.busy(job.Views); len(views) > 0 {
		s.mu.Unlock()
		cancel()
		return writeJSON(w, http.StatusConflict, map[string]any{"error": "these feature views are being materialized", "feature_views": s.feastNames(views)})
	}
	s.lastRun++
	id := s.lastRun
	s.under[id] = asyncRun{views: job.Views, stop: cancel}
	s.runs.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.runs.Done()
		defer func() {
			s.mu.Lock()
			delete(s.under, id)
			s.mu.Unlock()
			cancel()
		}()
		got, err := s.run(ctx, job)
		if err != nil {
			s.cfg.Logger.Error("asynchronous materialize failed", "error", err)
			return
		}
		s.cfg.Logger.Info("asynchronous materialize ended", "run", got.Run, "status", got.Status)
	}()
	return writeJSON(w, http.StatusAccepted, map[string]any{"status": "accepted", "feature_views": s.feastNames(job.Views)})
}

// asyncRun is a run that was answered with 202 and has not ended.
type asyncRun struct {
	views []string // none: all
	stop  context.CancelFunc
}

// busy lists those of the views, or of all, that an asynchronous run is at. Runs elsewhere
// are kept apart by their leases. Call it with mu held.
func (s *Server) busy(views []string) (busy []string) {
	if len(views) == 0 {
		views = s.declared()
	}
	for _, view := range views {
		for _, run := range s.under {
			if len(run.views) == 0 || slices.Contains(run.views, view) {
				busy = append(busy, view)
				break
			}
		}
	}
	return busy
}

// feastNames is what a run is about, the views asked for or all, by Feast's names.
func (s *Server) feastNames(asked []string) []string {
	if len(asked) == 0 {
		asked = s.declared()
	}
	names := make([]string, len(asked))
	for i, name := range asked {
		base, version, _ := strings.Cut(name, "@")
		if names[i] = base; version != "1" {
			names[i] += "@v" + version
		}
	}
	return names
}

// declared are the views of the project.
func (s *Server) declared() []string {
	names := make([]string, len(s.cfg.Project.Views))
	for i := range names {
		names[i] = s.cfg.Project.Views[i].ID().String()
	}
	return names
}
