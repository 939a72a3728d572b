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

// BreakerConfig is the same for both tiers; each has its own breaker.
type BreakerConfig struct {
	// Failures is how many failed calls in a row stop the calls to a tier. Defaults to 5.
	Failures int
	// Pause is how long calls stop before one of them probes the tier. It doubles with each
	// failed probe. Defaults to 500 ms.
	Pause time.Duration
	// MaxPause bounds the doubling. Defaults to 15 s.
	MaxPause time.Duration
}

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
	setDefault(&c.Breaker.Failures, 5)
	setDefault(&c.Breaker.Pause, 500*time.Millisecond)
	setDefault(&c.Breaker.MaxPause, 15*time.Second)
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
	schemas map[*feature.View]*schema // of the project's views
	plans   *otter.Cache[string, *plan]

	staleDefaults map[string]bool

	clock         clock.Clock
	logger        *slog.Logger
	memory        *memory
	online        Online
	onlineTimeout time.Duration
	asked         func(feature.Ref)
	observe       func(feature.Tier, int, time.Duration, error)

	onlineBreaker  *breaker // nil without an online tier
	backingBreaker *breaker // nil without a backing tier
	fetcher        *fetcher // nil without a backing tier
	repairer       *repairer

	count  counters
	closed atomic.Bool
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
		project: cfg.Project, schemas: map[*feature.View]*schema{}, staleDefaults: cfg.StaleDefaults, clock: cfg.Clock, logger: cfg.Logger,
		online: cfg.Online, onlineTimeout: cfg.OnlineTimeout, asked: cfg.Asked, observe: cfg.Observe,
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
			r.schemas[v] = newSchema(v)
		}
	}
	if cfg.Online != nil {
		r.onlineBreaker = newBreaker(cfg.Clock, cfg.Breaker.Failures, cfg.Breaker.Pause, cfg.Breaker.MaxPause)
		r.onlineBreaker.changed = r.logBreaker(feature.TierOnline)
	}
	if cfg.Backing != nil {
		r.backingBreaker = newBreaker(cfg.Clock, cfg.Breaker.Failures, cfg.Breaker.Pause, cfg.Breaker.MaxPause)
		r.backingBreaker.changed = r.logBreaker(feature.TierBacking)
		r.fetcher = &fetcher{
			source: cfg.Backing, clock: cfg.Clock, breaker: r.backingBreaker, limit: newLimiter(cfg.MaxBackingRPS),
			timeout: cfg.BackingTimeout, inFlight: cfg.MaxBackingInFlight, waiting: cfg.MaxBackingQueue,
			landed: r.landed, called: r.backingCalled,
			closing: make(chan struct{}), flights: map[feature.Ref]*flight{},
		}
	}
	if cfg.Online != nil && cfg.Backing != nil && !cfg.Repair.Disabled {
		r.repairer = newRepairer(cfg.Online, r.onlineBreaker, cfg.Clock, cfg.Repair, &r.count.repair, r.repairFailed)
	}
	return r, nil
}

func (r *Reader) isClosed() bool { return r.closed.Load() }

// Close refuses new reads, waits for the calls under way, writes the queued repairs within
// their timeout and stops the reader's goroutines. It may be called again.
func (r *Reader) Close() error {
	r.closed.Store(true)
	r.once.Do(func() {
		if r.fetcher != nil {
			r.fetcher.close()
		}
		if r.repairer != nil {
			r.repairer.close()
		}
	})
	return nil
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
