package reader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/breaker"
	"github.com/hearthstore/hearth/internal/clock"
)

// ErrClosed marks a read of a reader that was closed.
var ErrClosed = errors.New("reader closed")

// Online is the fast tier, which may lose anything at any moment.
type Online interface {
	// Get answers for every ref, aligned by index, each judged on its own. It returns
	// before ctx ends. A ref whose server did not answer has GetResult.Err set; it is never
	// answered as absent. The payloads belong to the caller.
	Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error)
	// Put stores each record unless the tier holds the same or a newer version, aligned by
	// index. It is idempotent.
	Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error)
}

// Discarder is what an [Online] tier may be as well: one that can remove damaged values. A
// put that stores only what is newer cannot heal damage inside a version.
type Discarder interface {
	// Discard removes the values of refs that are damaged, and no others. It is idempotent.
	Discard(ctx context.Context, refs []feature.Ref) error
}

// Backing is the durable tier: what it does not have does not exist.
type Backing interface {
	// Get answers for every ref, aligned by index. A ref that could not be read within ctx
	// has GetResult.Err set; it is never answered as absent. The payloads belong to the
	// caller.
	Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error)
}

// Isolating is what an [Online] tier of several servers may be as well: one that stops
// asking a failing server by itself and answers for its keys at once (matching
// breaker.ErrOpen), so that one dead server does not take the whole tier out of the reads.
type Isolating interface {
	// Nodes lists the servers; nil for a tier that does not isolate.
	Nodes() []NodeStats
}

// Attempter is what a [Backing] may be as well: one that can be asked exactly once, so that
// repetitions count against the cap on its calls.
type Attempter interface {
	// Attempt sends one request for at most 100 refs. What it could not answer has an error
	// matching feature.ErrThrottled or feature.ErrUnreachable if asking again may help.
	Attempt(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error)
}

// Config says what a reader reads from and within which bounds. Fields left zero take
// their default.
type Config struct {
	// Project resolves the names in requests. Without it a request must carry a Selection.
	Project *feature.Project
	// StaleDefaults names the services whose values are replaced by the default when they are
	// older than allowed (on_stale: default). Defaults to none.
	StaleDefaults map[string]bool
	// Online and Backing are the tiers. At least one is needed.
	Online  Online
	Backing Backing

	Cache CacheConfig

	// OnlineTimeout bounds one round trip to the online tier. Where the caller's deadline is
	// near, half of what is left bounds it too. Defaults to 20 ms.
	OnlineTimeout time.Duration
	// BackingTimeout bounds one call of the backing tier, and a request's whole wait for it,
	// queue included. Defaults to 100 ms.
	BackingTimeout time.Duration
	// MaxBackingRPS is the most calls of the backing tier that start in any second; one call
	// reads up to 100 keys. Defaults to 500.
	MaxBackingRPS int
	// MaxBackingInFlight is the most calls of the backing tier at once. Defaults to 16.
	MaxBackingInFlight int
	// MaxBackingQueue is the most keys that wait for a call; a key over it is answered as
	// unknown at once. Defaults to 10000.
	MaxBackingQueue int

	Breaker BreakerConfig
	Repair  RepairConfig

	// Asked is told every key of every request, from the goroutine of the request: the hot
	// keys sketch. It must be quick and safe for concurrent use. Defaults to nobody.
	Asked func(feature.Ref)
	// Observe is told the time of every call of a tier. Safe for concurrent use, quick.
	// Defaults to nobody.
	Observe func(tier feature.Tier, keys int, took time.Duration, err error)
	// Logger gets one line per change that an operator should know, never a value. Defaults
	// to slog.DiscardHandler.
	Logger *slog.Logger
	// Clock defaults to clock.System.
	Clock clock.Clock
}

// CacheConfig bounds the in-process cache.
type CacheConfig struct {
	// MaxEntries is the most values kept. Defaults to 100000; negative: no cache.
	MaxEntries int
	// TTL is how long a value is served without asking a tier. Defaults to 5 s.
	TTL time.Duration
	// NegativeEntries is the most absent keys remembered, apart from the values. Defaults to
	// 10000; negative: none.
	NegativeEntries int
	// NegativeTTL is how long an absence is remembered. Defaults to 1 s.
	NegativeTTL time.Duration
	// ServeStale is how long after its TTL a value may still be served, labelled stale, when
	// every tier that could say is out. Defaults to 1 min; negative: never.
	ServeStale time.Duration
}

// BreakerConfig bounds the breakers, one per tier.
type BreakerConfig = breaker.Config

// The states of a breaker, as [TierStats.Breaker] reports them.
const (
	BreakerClosed   = breaker.Closed   // calls pass
	BreakerOpen     = breaker.Open     // calls are not made
	BreakerHalfOpen = breaker.HalfOpen // one call at a time probes
)

// NodeStats is the state of one server of a tier that has several.
type NodeStats = breaker.Node

// RepairConfig bounds the writing up of what only the backing tier had.
type RepairConfig struct {
	// Disabled turns it off. Defaults to false.
	Disabled bool
	// Queue is the most values waiting to be written; more are dropped. Defaults to 4096.
	Queue int
	// Timeout bounds one write of up to 100 values, and the writing of the whole queue on
	// Close. Defaults to 1 s.
	Timeout time.Duration
}

func (c Config) withDefaults() Config {
	setDefault(&c.Cache.MaxEntries, 100_000)
	setDefault(&c.Cache.TTL, 5*time.Second)
	setDefault(&c.Cache.NegativeEntries, 10_000)
	setDefault(&c.Cache.NegativeTTL, time.Second)
	setDefault(&c.Cache.ServeStale, time.Minute)
	c.Cache.ServeStale = max(0, c.Cache.ServeStale)
	setDefault(&c.OnlineTimeout, 20*time.Millisecond)
	setDefault(&c.BackingTimeout, 100*time.Millisecond)
	setDefault(&c.MaxBackingRPS, 500)
	setDefault(&c.MaxBackingInFlight, 16)
	setDefault(&c.MaxBackingQueue, 10_000)
	c.Breaker = c.Breaker.WithDefaults()
	setDefault(&c.Repair.Queue, 4096)
	setDefault(&c.Repair.Timeout, time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) validate() error {
	var problems feature.Problems
	if c.Online == nil && c.Backing == nil {
		problems = append(problems, feature.Problem{Path: "online", Message: "no tier to read from", Remedy: "give an online tier, a backing tier or both"})
	}
	for _, d := range []struct {
		path string
		bad  bool
	}{
		{"cache.ttl", c.Cache.TTL < 0}, {"cache.negative_ttl", c.Cache.NegativeTTL < 0},
		{"online_timeout", c.OnlineTimeout < 0}, {"backing_timeout", c.BackingTimeout < 0},
		{"max_backing_rps", c.MaxBackingRPS < 0}, {"max_backing_in_flight", c.MaxBackingInFlight < 0},
		{"max_backing_queue", c.MaxBackingQueue < 0}, {"breaker.failures", c.Breaker.Failures < 0},
		{"breaker.pause", c.Breaker.Pause < 0}, {"breaker.max_pause", c.Breaker.MaxPause < c.Breaker.Pause},
		{"repair.queue", c.Repair.Queue < 0}, {"repair.timeout", c.Repair.Timeout < 0},
	} {
		if d.bad {
			problems = append(problems, feature.Problem{Path: "reader." + d.path, Message: "out of range", Remedy: "use a positive value"})
		}
	}
	return problems.Err()
}

// Reader answers online reads. It is safe for concurrent use. Close it to stop its
// goroutines.
type Reader struct {
	project *feature.Project
	schemas map[*feature.View]*schema   // of the project's views
	plans   *otter.Cache[string, *plan] // of lists of features

	services map[string]*service
	adHoc    serviceCount // of requests without a service

	staleDefaults map[string]bool

	clock         clock.Clock
	logger        *slog.Logger
	memory        *memory
	online        Online
	onlineTimeout time.Duration
	asked         func(feature.Ref)
	observe       func(feature.Tier, int, time.Duration, error)

	isolates       Isolating        // nil for an online tier of one server
	onlineBreaker  *breaker.Breaker // nil without an online tier
	backingBreaker *breaker.Breaker // nil without a backing tier
	fetcher        *fetcher         // nil without a backing tier
	repairer       *repairer

	count  counters
	closed atomic.Bool
	inside atomic.Int64  // reads under way
	idle   chan struct{} // told when the last of them ends after the close
	once   sync.Once
}

// maxPlans bounds the remembered selections of requests that name features one by one.
const maxPlans = 1024

// New makes a reader of the given tiers. It does not ask them anything: a tier that is
// out shows in the first read. The tiers stay the caller's to close, after the reader.
func New(cfg Config) (*Reader, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("new reader: %w", err)
	}
	r := &Reader{
		project: cfg.Project, schemas: map[*feature.View]*schema{}, services: map[string]*service{}, staleDefaults: cfg.StaleDefaults, clock: cfg.Clock, logger: cfg.Logger,
		online: cfg.Online, onlineTimeout: cfg.OnlineTimeout, asked: cfg.Asked, observe: cfg.Observe, idle: make(chan struct{}, 1),
	}
	if r.observe == nil {
		r.observe = func(feature.Tier, int, time.Duration, error) {}
	}
	var err error
	if r.memory, err = newMemory(cfg.Cache); err != nil {
		return nil, fmt.Errorf("new reader: cache: %w", err)
	}
	if r.plans, err = otter.New(&otter.Options[string, *plan]{MaximumSize: maxPlans}); err != nil {
		return nil, fmt.Errorf("new reader: plans: %w", err)
	}
	if cfg.Project != nil {
		for i := range cfg.Project.Views {
			v := &cfg.Project.Views[i]
			r.schemas[v] = newSchema(v, r.memory)
		}
		for i := range cfg.Project.Services {
			s := &cfg.Project.Services[i]
			r.services[s.Name] = &service{declared: s}
		}
	}
	if cfg.Online != nil {
		r.onlineBreaker = breaker.New(cfg.Clock, cfg.Breaker, r.logBreaker(feature.TierOnline))
		if iso, ok := cfg.Online.(Isolating); ok && iso.Nodes() != nil {
			r.isolates = iso
		}
	}
	if cfg.Backing != nil {
		r.backingBreaker = breaker.New(cfg.Clock, cfg.Breaker, r.logBreaker(feature.TierBacking))
		r.fetcher = &fetcher{
			ask: cfg.Backing.Get, clock: cfg.Clock, breaker: r.backingBreaker, limit: newLimiter(cfg.MaxBackingRPS),
			timeout: cfg.BackingTimeout, inFlight: cfg.MaxBackingInFlight, waiting: cfg.MaxBackingQueue,
			landed: r.landed, called: r.backingCalled,
			known: func(ref feature.Ref, s *schema) (*entry, bool) {
				return r.memory.lookup(ref, s, r.clock.Now().UnixNano())
			},
			closing: make(chan struct{}), flights: map[feature.Ref]*flight{},
		}
		if a, ok := cfg.Backing.(Attempter); ok {
			r.fetcher.ask, r.fetcher.repeats = a.Attempt, true
		}
	}
	if cfg.Online != nil && cfg.Backing != nil && !cfg.Repair.Disabled {
		r.repairer = newRepairer(cfg.Online, r.onlineOut, cfg.Clock, cfg.Repair, &r.count.repair, r.repairFailed)
	}
	return r, nil
}

// enter begins a read, unless the reader is closed.
func (r *Reader) enter() bool {
	r.inside.Add(1)
	if !r.closed.Load() {
		return true
	}
	r.leave()
	return false
}

func (r *Reader) leave() {
	if r.inside.Add(-1) == 0 && r.closed.Load() {
		select {
		case r.idle <- struct{}{}:
		default: // told already
		}
	}
}

// Close refuses new reads and drains: reads under way get their answers, which the tiers'
// timeouts bound, queued repairs are written within their timeout, and the reader's
// goroutines end. It may be called again.
func (r *Reader) Close() error {
	r.closed.Store(true)
	r.once.Do(func() {
		for r.inside.Load() > 0 {
			<-r.idle
		}
		if r.fetcher != nil {
			r.fetcher.close()
		}
		if r.repairer != nil {
			r.repairer.close()
		}
	})
	return nil
}

// onlineOut reports whether nothing of the online tier may be called now.
func (r *Reader) onlineOut() bool {
	if r.onlineBreaker.Refusing() {
		return true
	}
	if r.isolates == nil {
		return false
	}
	return allOpen(r.isolates.Nodes())
}

func allOpen(nodes []NodeStats) bool {
	for _, n := range nodes {
		if n.Breaker != BreakerOpen {
			return false
		}
	}
	return len(nodes) > 0
}

func (r *Reader) backingCalled(keys, failed int, took time.Duration, err error) {
	r.count.backing.calls.Add(1)
	addTo(&r.count.backing.errors, failed)
	addTo(&r.count.backing.keys, failed)
	r.observe(feature.TierBacking, keys, took, err)
}

func (r *Reader) repairFailed(err error, records int) {
	r.logger.Debug("read repair failed; the next read of the keys tries again", "records", records, "error", err)
}

func (r *Reader) logBreaker(tier feature.Tier) func(open bool) {
	return func(open bool) {
		if open {
			r.logger.Warn("tier is out; reads go round it and probe it", "tier", string(tier))
		} else {
			r.logger.Info("tier answers again", "tier", string(tier))
		}
	}
}
