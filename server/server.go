package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
)

// Features is what the server reads from: a reader.Reader.
type Features interface {
	Get(ctx context.Context, req reader.Request) (*reader.Response, error)
	Stats() reader.Stats
	// Forget is told what this server has written, so that it is read next time.
	Forget(refs ...feature.Ref)
	// ForgetViews is told whose values a run of this server may have changed, for the same end.
	ForgetViews(views ...feature.ViewID)
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

	// ReadToken is asked for on feature reads and metrics. Without it reads are open, and
	// only loopback addresses may be listened on.
	ReadToken string
	// AdminToken is asked for on everything that writes, and on the status page; it also
	// reads. Without it nothing is written: those paths answer 403.
	AdminToken string
	// Insecure listens on any address and answers under any name without a ReadToken.
	// Defaults to false.
	Insecure bool
	// TLS serves HTTPS. Defaults to none.
	TLS *tls.Config

	// MaxBody is the most bytes of a request. Defaults to 8 MiB.
	MaxBody int64
	// MaxEntities is the most entities of one read. Defaults to 10000.
	MaxEntities int
	// MaxFeatures is the most features of one read, after "view:*" was expanded. Defaults to
	// 1000.
	MaxFeatures int
	// MaxValues is the most values of one read: entities × features. Defaults to 1000000.
	MaxValues int
	// MaxInFlight is the most requests served at once; more are answered 429. Health is not
	// counted. Defaults to 1024.
	MaxInFlight int
	// ReadTimeout bounds one feature read, whatever the client waits for. Defaults to 5 s.
	ReadTimeout time.Duration
	// BodyTimeout bounds the arrival of a request, WriteTimeout the departure of an answer: a
	// client that dawdles gives its slot back. Both default to 30 s.
	BodyTimeout, WriteTimeout time.Duration
	// DrainDelay is how long requests are still taken after /readyz has begun to say no, for
	// load balancers to notice. Defaults to 0.
	DrainDelay time.Duration
	// DrainTimeout bounds the end: requests under way are finished, asynchronous runs are
	// told to stop and waited for. Defaults to 15 s.
	DrainTimeout time.Duration

	// Registry takes the metrics of HTTP and reader, and is what /metrics shows. Defaults to a
	// registry of the server's own.
	Registry *prometheus.Registry
	// Tracer makes a span per request, under the caller's if it sent a traceparent. Defaults
	// to none: nothing is traced.
	Tracer trace.TracerProvider
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
	setDefault(&c.MaxFeatures, 1000)
	setDefault(&c.MaxValues, 1_000_000)
	setDefault(&c.MaxInFlight, 1024)
	setDefault(&c.ReadTimeout, 5*time.Second)
	setDefault(&c.BodyTimeout, 30*time.Second)
	setDefault(&c.WriteTimeout, 30*time.Second)
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
	cfg         Config
	read, admin token
	handler     http.Handler
	metrics     *metrics
	tracing     tracing
	status      *statusCache
	slots       chan struct{}
	draining    atomic.Bool

	// Asynchronous runs live on this server, not on a request.
	mu      sync.Mutex
	runs    sync.WaitGroup
	lastRun int
	under   map[int]asyncRun
}

// New makes a server. The error matches feature.ErrInvalid.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, read: newToken(cfg.ReadToken), admin: newToken(cfg.AdminToken), tracing: newTracing(cfg.Tracer),
		slots: make(chan struct{}, cfg.MaxInFlight), under: map[int]asyncRun{},
	}
	if s.metrics, err = newMetrics(cfg.Registry); err != nil {
		return nil, fmt.Errorf("new server: %w", err)
	}
	if err := RegisterReader(cfg.Registry, cfg.Features.Stats); err != nil {
		return nil, fmt.Errorf("new server: %w", err)
	}
	s.status = &statusCache{load: cfg.Status, ttl: cfg.StatusTTL, clock: cfg.Clock}
	s.handler = s.routes()
	return s, nil
}

// Handler is the server as an http.Handler, for tests and for embedding.
func (s *Server) Handler() http.Handler { return s.handler }
