package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hearthstore/hearth/reader"
)

//go:embed openapi.json
var openAPI []byte

// access is what a path asks of its caller.
type access uint8

const (
	anyone access = iota // health: probes carry no tokens and are always answered
	readers
	admins
)

// route is one path; the list of them is what openapi.json describes.
type route struct {
	method, path string
	access       access
	handle       func(http.ResponseWriter, *http.Request) error
}

func (s *Server) table() []route {
	return []route{
		{"POST", "/get-online-features", readers, s.getOnlineFeatures},
		{"POST", "/push", admins, s.push},
		{"POST", "/write-to-online-store", admins, s.writeToOnlineStore},
		{"POST", "/materialize", admins, s.materialize},
		{"POST", "/materialize-incremental", admins, s.materialize},
		{"GET", "/health", anyone, s.live},
		{"POST", "/v1/features", readers, s.features},
		{"GET", "/v1/status", admins, s.statusJSON},
		{"GET", "/livez", anyone, s.live},
		{"GET", "/readyz", anyone, s.ready},
		{"GET", "/metrics", readers, s.showMetrics},
		{"GET", "/openapi.json", anyone, s.showOpenAPI},
		{"GET", "/{$}", admins, s.statusPage},
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
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := s.cfg.Clock.Now()
		rec := &recorder{ResponseWriter: w, code: http.StatusOK}
		err := s.admit(rt, r)
		if err == nil && rt.access != anyone {
			select {
			case s.slots <- struct{}{}:
				defer func() { <-s.slots }()
			default:
				rec.Header().Set("Retry-After", "1")
				err = problem{http.StatusTooManyRequests, "TooManyRequests", "the server is at its limit of requests at once"}
			}
		}
		if err == nil {
			r.Body = http.MaxBytesReader(rec, r.Body, s.cfg.MaxBody)
			err = rt.handle(rec, r)
		}
		if err != nil {
			s.fail(rec, r, err)
		}
		s.metrics.observe(rt.path, rec.code, s.cfg.Clock.Now().Sub(begin))
	})
}

// admit checks the token and, because a server without tokens is open to every page in a
// browser of the machine, that the request was not sent by a foreign page or under a
// foreign name.
func (s *Server) admit(rt route, r *http.Request) error {
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
			return problem{http.StatusForbidden, "Forbidden", "requests from other web pages are not answered"}
		}
	}
	need := ""
	switch rt.access {
	case anyone:
		return nil
	case readers:
		need = s.cfg.ReadToken
	case admins:
		need = s.cfg.AdminToken
	}
	if need == "" {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if s.cfg.ReadToken == "" && s.cfg.AdminToken == "" && !loopback(strings.Trim(host, "[]")) {
			return problem{http.StatusForbidden, "Forbidden", "without tokens only requests to a loopback name are answered"}
		}
		return nil
	}
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case !ok:
		return problem{http.StatusUnauthorized, "Unauthorized", "send Authorization: Bearer <token>"}
	case same(given, need), s.cfg.AdminToken != "" && same(given, s.cfg.AdminToken):
		return nil
	case s.cfg.ReadToken != "" && same(given, s.cfg.ReadToken):
		return problem{http.StatusForbidden, "Forbidden", "this path needs the admin token"}
	}
	return problem{http.StatusUnauthorized, "Unauthorized", "the token is not known"}
}

// same compares in a time that says nothing about the token, nor about its length.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// recorder remembers the status code for the metrics.
type recorder struct {
	http.ResponseWriter
	code    int
	written bool
}

func (r *recorder) WriteHeader(code int) {
	if !r.written {
		r.code, r.written = code, true
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.written = true
	return r.ResponseWriter.Write(b)
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) error {
	w.WriteHeader(http.StatusOK)
	return nil
}

// ready says whether traffic should be sent here: not while draining, and not while both
// tiers are out, when all answers would be defaults.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) error {
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
func (s *Server) showMetrics(w http.ResponseWriter, r *http.Request) error {
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

func (s *Server) showOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(openAPI)))
	_, err := w.Write(openAPI)
	return ignoreGone(err)
}

// errGone marks a client that went away: there is nobody to tell.
var errGone = errors.New("client went away")

func ignoreGone(err error) error {
	if err != nil {
		return errors.Join(errGone, err)
	}
	return nil
}

// readContext bounds one feature read.
func (s *Server) readContext(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), s.cfg.ReadTimeout)
}
