package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

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

// feastErrors are the exceptions that Feast's client raises for a class of ours; it knows
// no other module than its own. A class that is not here is the common one.
var feastErrors = map[string]string{
	"Unauthorized": "FeastPermissionError", "Forbidden": "FeastPermissionError", "WritesOff": "FeastPermissionError",
	classNoView: "FeatureViewNotFoundException", classNoService: "FeatureServiceNotFoundException",
	classNoPushSource: "PushSourceNotFoundException",
}

// The classes of names that are not declared.
const (
	classNoView       = "FeatureViewNotFound"
	classNoService    = "FeatureServiceNotFound"
	classNoPushSource = "PushSourceNotFound"
)

// fail answers with an error: on the paths of Hearth's own an object with class and
// message, elsewhere Feast's form, which is a JSON string that holds a JSON object.
func (s *Server) fail(w *reply, rt *route, r *http.Request, err error) {
	if errors.Is(err, errGone) || errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		w.code = statusGone
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
		if rt.method == http.MethodGet {
			w.Header().Add("WWW-Authenticate", `Basic realm="hearth: the token is the password"`)
		}
	}
	body := problemBody(rt, p)
	if err := w.send(p.code, typeJSON, body); err != nil {
		s.cfg.Logger.Debug("write error answer", "error", err)
	}
}

// statusGone is for the metrics: the client closed the request.
const statusGone = 499

func problemBody(rt *route, p problem) []byte {
	if strings.HasPrefix(rt.path, "/v1/") {
		b, err := json.Marshal(map[string]string{"class": p.class, "message": p.message})
		if err != nil {
			return []byte("{}\n")
		}
		return append(b, '\n')
	}
	class := feastErrors[p.class]
	if class == "" {
		class = "FeastError"
	}
	inner, err := json.Marshal(map[string]string{"module": "feast.errors", "class": class, "message": p.message, "hearth": p.class})
	if err != nil {
		inner = []byte("{}")
	}
	b, err := json.Marshal(string(inner))
	if err != nil {
		return []byte("\"{}\"\n")
	}
	return append(b, '\n')
}

// writeJSON sends a document that is made once in a while. The answers of feature reads
// are appended by hand, see encode.go.
func writeJSON(w *reply, code int, doc any) error {
	b, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return w.send(code, typeJSON, append(b, '\n'))
}
