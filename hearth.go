// Package hearth reads feature vectors inside an online service: from an in-process cache,
// from Redis, from the backing table when Redis does not have them or does not answer, and
// from declared defaults when nothing does. Every value says which of these it was.
//
//	features, err := hearth.Open(ctx, "hearth.yaml")
//	if err != nil { … }
//	defer features.Close()
//
//	resp, err := features.Get(ctx, hearth.Request{
//		FeatureService: "credit_score_v1",
//		Entities:       []map[string]string{{"zipcode": "76104", "dob_ssn": "19630621_4278"}},
//	})
//
// The package builds without cgo: a service that embeds it does not compile the offline
// engine. Training sets, materialization and rewarming are the hearth command's.
package hearth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/config"
	"github.com/hearthstore/hearth/internal/hotkeys"
	"github.com/hearthstore/hearth/internal/tiers"
	"github.com/hearthstore/hearth/online"
	"github.com/hearthstore/hearth/reader"
)

// The words of a response; see the packages reader and feature.
type (
	// Response holds a row per entity and a value per feature.
	Response = reader.Response
	// Vector is one row of a response.
	Vector = reader.Vector
	// Item is one value with its status, tier, event time and age.
	Item = reader.Item
	// Outage says that a tier did not answer, and why.
	Outage = reader.Outage
	// Stats counts what a reader has done.
	Stats = reader.Stats
	// Status is the verdict on one value.
	Status = feature.Status
	// Tier is where a value came from.
	Tier = feature.Tier
)

// The statuses of a value.
const (
	Present       = feature.Present       // found
	NullValue     = feature.NullValue     // found, and it is null
	NotFound      = feature.NotFound      // no tier has it; the value is the default
	OutsideMaxAge = feature.OutsideMaxAge // found, older than allowed
	Unknown       = feature.Unknown       // a tier that could have it did not answer; the value is the default
)

// The tiers that a value can come from.
const (
	TierCache   = feature.TierCache
	TierOnline  = feature.TierOnline
	TierBacking = feature.TierBacking
	TierDefault = feature.TierDefault
)

// What to serve for a value that is older than allowed.
const (
	StaleAsConfigured = reader.StaleAsConfigured // what the service declares; else StaleValue
	StaleValue        = reader.StaleValue        // the old value
	StaleDefault      = reader.StaleDefault      // the default
)

// Errors that callers decide on. Test with errors.Is.
var (
	// ErrInvalid marks a request or a configuration that cannot be right.
	ErrInvalid = feature.ErrInvalid
	// ErrNotFound marks the name of something that is not declared.
	ErrNotFound = feature.ErrNotFound
	// ErrClosed marks a read after Close.
	ErrClosed = reader.ErrClosed
)

// Request asks for features of many entities: of a feature service, or of single features.
type Request struct {
	// FeatureService names a service of hearth.yaml. Either it or Features is given.
	FeatureService string
	// Features lists references: "view:feature", "view@2:feature", "view:*".
	Features []string
	// Entities holds the text of each join key per entity: {"zipcode": "76104"}. The maps
	// become part of the Response: do not change them afterwards.
	Entities []map[string]string
	// MaxAge is the oldest event time that counts, where it is stricter than the views' own
	// TTL. Defaults to 0: the TTLs alone.
	MaxAge time.Duration
	// OnStale says what to serve for a value that is too old. Defaults to StaleAsConfigured.
	OnStale reader.OnStale
	// SkipCache asks the tiers even for what the in-process cache has. Defaults to false.
	SkipCache bool
}

// Features reads from the tiers of one feature repository. It is safe for concurrent use.
type Features struct {
	project *feature.Project
	reader  *reader.Reader
	online  *online.Store
	backing backing.Store
	hot     *hotkeys.Recorder
}

// Option changes what [Open] does.
type Option func(*options)

type options struct {
	deps  tiers.Deps
	watch func(tier Tier, keys int, took time.Duration, err error)
}

// WithLogger sends the few lines that an operator should see (a tier that is out, a tier
// that is back) to l. Without it they are dropped. No line holds a feature value.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.deps.Logger = l } }

// WithObserver calls f after every call of a tier, for metrics: which tier, how many keys,
// how long, and the first error. f must be quick and safe for concurrent use.
func WithObserver(f func(tier Tier, keys int, took time.Duration, err error)) Option {
	return func(o *options) { o.watch = f }
}

// Open reads the configuration at path and prepares its tiers. It contacts neither: a
// service starts while Redis, the table or both are away, and its reads say so. A
// configuration with mistakes gives an error matching ErrInvalid that lists all of them.
func Open(ctx context.Context, path string, opts ...Option) (*Features, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	cfg, err := config.Load(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f := &Features{project: &cfg.Project}
	if f.online, err = tiers.OpenOnline(ctx, cfg, o.deps); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if f.backing, err = tiers.OpenBacking(ctx, cfg, o.deps); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.online.Close())
	}
	rc := tiers.ReaderConfig(cfg, f.online, f.backing, o.deps)
	rc.Observe = o.watch
	f.hot = hotkeys.Start(ctx, hotkeys.Config{State: f.backing, Clock: o.deps.Clock, Logger: o.deps.Logger})
	rc.Asked = f.hot.Record
	if f.reader, err = reader.New(rc); err != nil {
		f.hot.Close()
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.online.Close(), f.backing.Close())
	}
	return f, nil
}

// Get reads features. A tier that fails does not fail the read: the values come from the
// next tier or are labelled [Unknown], and Response.Unreachable names the tier. Get returns
// an error for a request that cannot be read (matching ErrInvalid), a cancelled context and
// after Close.
func (f *Features) Get(ctx context.Context, req Request) (*Response, error) {
	return f.reader.Get(ctx, reader.Request{
		Entities: req.Entities, Service: req.FeatureService, Features: req.Features,
		MaxAge: req.MaxAge, OnStale: req.OnStale, SkipCache: req.SkipCache,
	})
}

// Stats returns counts of hits, misses, errors and repairs per tier since Open.
func (f *Features) Stats() Stats { return f.reader.Stats() }

// Project is what the configuration declares. Do not change it.
func (f *Features) Project() *feature.Project { return f.project }

// Close finishes the background writes, within their timeout, and closes the connections.
func (f *Features) Close() error {
	err := f.reader.Close()
	f.hot.Close() // stores what this reader was asked for, for the next rewarm
	return errors.Join(err, f.online.Close(), f.backing.Close())
}
