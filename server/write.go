package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/hearthstore/hearth/feature"
)

var errNoJobs = problem{http.StatusNotImplemented, "NotImplemented", "this server only reads"}

// push answers Feast's POST /push. A push source has the name of its feature view here.
func (s *Server) push(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Source string  `json:"push_source_name"`
		Rows   columns `json:"df"`
		To     string  `json:"to"`
	}
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	switch req.To {
	case "", "online":
	default:
		return fmt.Errorf("push to %q: %w: only \"online\" is served; offline data is the source's own", req.To, feature.ErrInvalid)
	}
	return s.write(w, r, "push_source_name", req.Source, req.Rows)
}

// writeToOnlineStore answers Feast's POST /write-to-online-store.
func (s *Server) writeToOnlineStore(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		View string  `json:"feature_view_name"`
		Rows columns `json:"df"`
	}
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	return s.write(w, r, "feature_view_name", req.View, req.Rows)
}

// write hands the rows on as the lines that `hearth push` takes. It answers 200 only if
// every row is stored, or surpassed, in the backing tier.
func (s *Server) write(w http.ResponseWriter, r *http.Request, field, view string, rows columns) error {
	if s.cfg.Jobs == nil {
		return errNoJobs
	}
	id, err := feature.ParseViewID(view)
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	v := s.cfg.Project.View(id)
	if v == nil {
		return fmt.Errorf("%s: %w: no feature view %q", field, feature.ErrNotFound, view)
	}
	lines, err := rows.lines(v)
	if err != nil {
		return fmt.Errorf("df: %w", err)
	}
	got, err := s.cfg.Jobs.Push(r.Context(), view, bytes.NewReader(lines))
	if err != nil {
		return err
	}
	if got.Failed > 0 {
		return problem{http.StatusServiceUnavailable, "Partial",
			fmt.Sprintf("%d rows are not stored, the others are; send them again", got.Failed)}
	}
	return writeJSON(w, http.StatusOK, got)
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
			line[name] = value
		}
		if err := enc.Encode(line); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// materialize answers Feast's POST /materialize and /materialize-incremental. With
// ?async=true it answers 202 at once; how the run ended is in its ledger entry.
func (s *Server) materialize(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.Jobs == nil {
		return errNoJobs
	}
	var req struct {
		Start string   `json:"start_ts"`
		End   string   `json:"end_ts"`
		Views []string `json:"feature_views"`
	}
	if err := decode(r.Body, &req); err != nil {
		return err
	}
	job := MaterializeRequest{Views: req.Views}
	for _, bound := range []struct {
		name, text string
		to         *time.Time
	}{{"start_ts", req.Start, &job.Start}, {"end_ts", req.End, &job.End}} {
		if bound.text == "" {
			continue
		}
		at, err := feature.ParseTime(bound.text)
		if err != nil {
			return fmt.Errorf("%s: %w", bound.name, err)
		}
		*bound.to = at.Time()
	}
	for _, name := range req.Views {
		id, err := feature.ParseViewID(name)
		if err != nil {
			return fmt.Errorf("feature_views: %w", err)
		}
		if s.cfg.Project.View(id) == nil {
			return fmt.Errorf("feature_views: %w: no feature view %q", feature.ErrNotFound, name)
		}
	}
	if async, err := strconv.ParseBool(r.URL.Query().Get("async")); err == nil && async {
		return s.materializeAsync(w, r, job)
	}
	got, err := s.cfg.Jobs.Materialize(r.Context(), job)
	switch {
	case errors.Is(err, feature.ErrLeaseHeld):
		return writeJSON(w, http.StatusConflict, map[string]any{"error": err.Error(), "feature_views": s.viewNames(job.Views)})
	case err != nil:
		return err
	case got.Status == "partial", got.Status == "failed":
		// Not 5xx: Feast's client would start the run again three times.
		return problem{http.StatusUnprocessableEntity, "Materialize" + got.Status,
			fmt.Sprintf("run %d ended %s; hearth jobs history and hearth status say what is behind", got.Run, got.Status)}
	}
	return writeJSON(w, http.StatusOK, nil)
}

func (s *Server) materializeAsync(w http.ResponseWriter, r *http.Request, job MaterializeRequest) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		cancel()
		return problem{http.StatusServiceUnavailable, "Draining", "the server is stopping"}
	}
	s.stop = append(s.stop, cancel)
	s.runs.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.runs.Done()
		defer cancel()
		got, err := s.cfg.Jobs.Materialize(ctx, job)
		if err != nil {
			s.cfg.Logger.Error("asynchronous materialize failed", "error", err)
			return
		}
		s.cfg.Logger.Info("asynchronous materialize ended", "run", got.Run, "status", got.Status)
	}()
	return writeJSON(w, http.StatusAccepted, map[string]any{"status": "accepted", "feature_views": s.viewNames(job.Views)})
}

// viewNames is what a run is about: the views asked for, or all.
func (s *Server) viewNames(asked []string) []string {
	if len(asked) > 0 {
		return asked
	}
	names := make([]string, len(s.cfg.Project.Views))
	for i := range names {
		names[i] = s.cfg.Project.Views[i].ID().String()
	}
	return names
}
