package server

import (
	"context"
	_ "embed"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
)

//go:embed openapi.json
var openAPI []byte

// route is one path; the list of them is what openapi.json describes.
type route struct {
	method, path string
	access       access
	handle       func(*reply, *http.Request) error
}

func (s *Server) table() []route {
	return []route{
		{"POST", "/get-online-features", readers, s.getOnlineFeatures},
		{"POST", "/push", writers, s.push},
		{"POST", "/write-to-online-store", writers, s.writeToOnlineStore},
		{"POST", "/materialize", writers, s.materialize},
		{"POST", "/materialize-incremental", writers, s.materialize},
		{"GET", "/health", anyone, s.live},
		{"POST", "/v1/features", readers, s.features},
		{"GET", "/v1/status", operators, s.statusJSON},
		{"GET", "/livez", anyone, s.live},
		{"GET", "/readyz", anyone, s.ready},
		{"GET", "/metrics", readers, s.showMetrics},
		{"GET", "/openapi.json", anyone, s.showOpenAPI},
		{"GET", "/{$}", operators, s.statusPage},
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.table() {
		mux.Handle(r.method+" "+r.path, s.wrap(r))
	}
	return mux
}

// wrap puts the same order round every path: who may, how many at once, how big; then the
// work; then what it was.
func (s *Server) wrap(rt route) http.Handler {
	return http.HandlerFunc(func(hw http.ResponseWriter, r *http.Request) {
		begin := s.cfg.Clock.Now()
		w := &reply{ResponseWriter: hw, code: http.StatusOK, timeout: s.cfg.WriteTimeout}
		r, end := s.tracing.start(&rt, r)
		err := s.admit(&rt, r)
		if err == nil && rt.access != anyone {
			select {
			case s.slots <- struct{}{}:
				defer func() { <-s.slots }()
			default:
				w.Header().Set("Retry-After", "1")
				err = problem{http.StatusTooManyRequests, "TooManyRequests", "the server is at its limit of requests at once"}
			}
		}
		if err == nil {
			r.Body = http.MaxBytesReader(hw, r.Body, s.cfg.MaxBody)
			err = rt.handle(w, r)
		}
		if err != nil {
			s.fail(w, &rt, r, err)
		}
		end(w.code, err)
		s.metrics.observe(&rt, w.code, s.cfg.Clock.Now().Sub(begin))
	})
}

// reply is the answer to one request: it remembers the status code, and gives the client
// a bounded time to take what is sent, since its request holds a slot until then.
type reply struct {
	http.ResponseWriter
	code    int
	written bool
	timeout time.Duration
}

// WriteHeader sends the status.
func (r *reply) WriteHeader(code int) {
	if !r.written {
		r.code, r.written = code, true
		// Not every writer has deadlines (one in a test has none): then there is no bound. The
		// deadline is the network's, so it is told in the time of the machine.
		_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(clock.System.Now().Add(r.timeout))
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write sends a part of the body.
func (r *reply) Write(b []byte) (int, error) {
	if !r.written {
		r.WriteHeader(http.StatusOK)
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *reply) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// send writes one whole body.
func (r *reply) send(code int, contentType string, body []byte) error {
	h := r.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	r.WriteHeader(code)
	if _, err := r.Write(body); err != nil {
		return errors.Join(errGone, err)
	}
	return nil
}

// errGone marks a client that went away: there is nobody to tell.
var errGone = errors.New("client went away")

func (s *Server) live(w *reply, _ *http.Request) error {
	w.WriteHeader(http.StatusOK)
	return nil
}

// ready says whether traffic should be sent here: not while draining, and not while both
// tiers are out, when all answers would be defaults.
func (s *Server) ready(w *reply, r *http.Request) error {
	st := s.cfg.Features.Stats()
	switch {
	case s.draining.Load():
		return problem{http.StatusServiceUnavailable, "Draining", "the server is stopping"}
	case out(st.Online) && out(st.Backing):
		return problem{http.StatusServiceUnavailable, "NoTier", "no tier answers"}
	}
	return s.live(w, r)
}

// out reports whether a tier cannot be asked: it is not there, or its breaker is open.
func out(t reader.TierStats) bool { return t.Breaker == "" || t.Breaker == reader.BreakerOpen }

// showMetrics brings the gauges up to date with the kept status. A status that cannot be
// read leaves them as they were: the counts of the reader are shown in any case.
func (s *Server) showMetrics(w *reply, r *http.Request) error {
	if s.cfg.Status != nil {
		st, _, err := s.status.get(r.Context())
		if err != nil {
			s.cfg.Logger.Warn("status for metrics", "error", err)
		} else {
			s.metrics.show(st, s.cfg.Clock.Now())
		}
	}
	promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}

func (s *Server) showOpenAPI(w *reply, _ *http.Request) error {
	return w.send(http.StatusOK, typeJSON, openAPI)
}

// readContext bounds one feature read.
func (s *Server) readContext(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), s.cfg.ReadTimeout)
}
