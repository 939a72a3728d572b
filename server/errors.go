package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/hearthstore/hearth/feature"
)

// problem is an error with its HTTP status. Class is a word for programs.
type problem struct {
	code    int
	class   string
	message string
}

func (p problem) Error() string { return p.message }

// classify gives an error its HTTP status. Feast's client sends a request again on 429 and
// 5xx, so those are kept for what may pass by itself.
func classify(err error) problem {
	var p problem
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &tooBig):
		return problem{http.StatusRequestEntityTooLarge, "TooLarge", "the request is larger than the server takes"}
	case errors.Is(err, feature.ErrLeaseHeld):
		return problem{http.StatusConflict, "LeaseHeld", err.Error()}
	case errors.Is(err, feature.ErrNotFound):
		return problem{http.StatusNotFound, "NotFound", err.Error()}
	case errors.Is(err, feature.ErrInvalid):
		return problem{http.StatusUnprocessableEntity, "Invalid", err.Error()}
	case errors.Is(err, feature.ErrThrottled):
		return problem{http.StatusTooManyRequests, "Throttled", err.Error()}
	case errors.Is(err, feature.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return problem{http.StatusServiceUnavailable, "Unreachable", err.Error()}
	}
	return problem{http.StatusInternalServerError, "Internal", err.Error()}
}

// fail answers with an error in Feast's form: a JSON string that holds a JSON object.
func (s *Server) fail(w *recorder, r *http.Request, err error) {
	if errors.Is(err, errGone) || errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		w.code = 499 // for the metrics: the client closed the request
		return
	}
	p := classify(err)
	if p.code >= http.StatusInternalServerError {
		s.cfg.Logger.Warn("request failed", "path", r.URL.Path, "status", p.code, "error", err)
	}
	if w.written {
		return
	}
	if p.code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="hearth"`)
	}
	inner, jerr := json.Marshal(map[string]string{"module": "hearth", "class": p.class, "message": p.message})
	if jerr != nil {
		inner = []byte(`{}`)
	}
	if err := writeJSON(w, p.code, string(inner)); err != nil {
		s.cfg.Logger.Debug("write error answer", "error", err)
	}
}

func writeJSON(w http.ResponseWriter, code int, doc any) error {
	b, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, err = w.Write(append(b, '\n'))
	return ignoreGone(err)
}
