package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
)

// Features is what the server reads from: a reader.Reader.
type Features interface {
	Get(ctx context.Context, req reader.Request) (*reader.Response, error)
	Stats() reader.Stats
}

// Jobs is the writing work that requests may ask for. Its errors match the sentinels of
// package feature: ErrInvalid and ErrNotFound are the caller's, ErrLeaseHeld means that
// the same work is running.
type Jobs interface {
	// Push writes rows, NDJSON as `hearth push` takes it, to both tiers. Nothing is written
	// if a row is wrong. It is idempotent.
	Push(ctx context.Context, view string, rows io.Reader) (WriteResult, error)
	// Materialize runs as `hearth materialize` does, and returns when the run has ended.
	Materialize(ctx context.Context, req MaterializeRequest) (MaterializeResult, error)
}

// WriteResult counts what became of pushed rows.
type WriteResult struct {
	Written   int64 `json:"written"`   // in the backing tier
	Unchanged int64 `json:"unchanged"` // the same was there
	Older     int64 `json:"older"`     // something newer was there
	Failed    int64 `json:"failed"`
	Behind    int64 `json:"behind"` // stored, but not in the online tier yet
}

// MaterializeRequest says what to bring up to date.
type MaterializeRequest struct {
	Views      []string  // empty: all
	Start, End time.Time // bounds of the event time, both inclusive; zero for none
}

// MaterializeResult is the end of a run.
type MaterializeResult struct {
	Run    uint64
	Status string // done, nothing, partial or failed
	Report any    // the document of `hearth materialize --json`
}

// Config says what a server offers and within which bounds.
type Config struct {
	// Project resolves the names in requests. Required.
	Project *feature.Project
	// Features answers reads. Required.
	Features Features
	// Jobs does the writes and runs. Defaults to none: their paths answer 501.
	Jobs Jobs
	// Status reports on the tiers and runs, for the status page. It may be slow: the server
	// keeps its answer for StatusTTL. Defaults to none: the page shows the reader alone.
	Status func(context.Context) (Status, error)
	// StatusTTL is how long a status is kept. Defaults to 10 s.
	StatusTTL time.Duration

	// ReadToken is asked for on feature reads and metrics, AdminToken on everything that
	// writes and on the status page; the admin token also reads. An empty token is not asked
	// for, and then only loopback addresses may be listened on.
	ReadToken, AdminToken string
	// TLS serves HTTPS. Defaults to none.
	TLS *tls.Config

	// MaxBody is the most bytes of a request. Defaults to 8 MiB.
	MaxBody int64
	// MaxEntities is the most entities of one read. Defaults to 10000.
	MaxEntities int
	// MaxInFlight is the most requests served at once; more are answered 429. Health is not
	// counted. Defaults to 1024.
	MaxInFlight int
	// ReadTimeout bounds one feature read, whatever the client waits for. Defaults to 5 s.
	ReadTimeout time.Duration
	// DrainTimeout bounds the end: requests under way are finished, asynchronous runs are
	// told to stop and waited for. Defaults to 15 s.
	DrainTimeout time.Duration

	// Registry takes the metrics of HTTP and reader, and is what /metrics shows. Defaults to a
	// registry of the server's own.
	Registry *prometheus.Registry
	// Version is shown on the status page. Defaults to "".
	Version string
	// Logger defaults to slog.DiscardHandler.
	Logger *slog.Logger
	// Clock defaults to clock.System.
	Clock clock.Clock
}

func (c Config) withDefaults() (Config, error) {
	if c.Project == nil || c.Features == nil {
		return c, fmt.Errorf("new server: %w: a project and features to read are needed", feature.ErrInvalid)
	}
	setDefault(&c.StatusTTL, 10*time.Second)
	setDefault(&c.MaxBody, 8<<20)
	setDefault(&c.MaxEntities, 10_000)
	setDefault(&c.MaxInFlight, 1024)
	setDefault(&c.ReadTimeout, 5*time.Second)
	setDefault(&c.DrainTimeout, 15*time.Second)
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Server answers HTTP. Use it once: New, then Serve.
type Server struct {
	cfg      Config
	handler  http.Handler
	metrics  *httpMetrics
	status   *statusCache
	slots    chan struct{}
	draining atomic.Bool

	// Asynchronous runs live on this server, not on a request.
	mu   sync.Mutex
	runs sync.WaitGroup
	stop []context.CancelFunc
}

// New makes a server. The error matches feature.ErrInvalid.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, slots: make(chan struct{}, cfg.MaxInFlight)}
	if s.metrics, err = newHTTPMetrics(cfg.Registry); err != nil {
		return nil, fmt.Errorf("new server: %w", err)
	}
	if err := cfg.Registry.Register(readerCollector{cfg.Features.Stats}); err != nil {
		return nil, fmt.Errorf("new server: register metrics: %w", err)
	}
	s.status = &statusCache{load: cfg.Status, ttl: cfg.StatusTTL, clock: cfg.Clock}
	s.handler = s.routes()
	return s, nil
}

// Handler is the server as an http.Handler, for tests and for embedding.
func (s *Server) Handler() http.Handler { return s.handler }

// Listen opens the address. An address that is not loopback needs a read token and an
// admin token: features are often personal data.
func (s *Server) Listen(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w: write host:port", address, feature.ErrInvalid)
	}
	if !loopback(host) && (s.cfg.ReadToken == "" || s.cfg.AdminToken == "") {
		return nil, fmt.Errorf("listen on %s: %w: an address that is not loopback needs server.auth.read_token_env and admin_token_env", address, feature.ErrInvalid)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Serve answers on l until ctx ends, and then drains: /readyz says no, requests under way
// are finished, asynchronous runs are told to stop and waited for, all within
// DrainTimeout. A clean end is nil.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if s.cfg.TLS != nil {
		l = tls.NewListener(l, s.cfg.TLS)
	}
	h := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	err := h.Shutdown(drain)
	if err != nil {
		err = errors.Join(fmt.Errorf("drain %s: requests did not end in %s: %w", l.Addr(), s.cfg.DrainTimeout, err), h.Close())
	}
	if closed := <-ended; !errors.Is(closed, http.ErrServerClosed) {
		err = errors.Join(err, closed)
	}
	return errors.Join(err, s.stopRuns(drain))
}

// stopRuns tells asynchronous runs to stop and waits for them.
func (s *Server) stopRuns(ctx context.Context) error {
	s.mu.Lock()
	for _, stop := range s.stop {
		stop()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.runs.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain: a run did not stop in %s; it resumes where it was", s.cfg.DrainTimeout)
	}
}
