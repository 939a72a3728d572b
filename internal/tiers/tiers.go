// Package tiers opens the tiers that a configuration names. It is shared by hearth.go (a
// reader inside an online service) and internal/app (the commands), so that both connect
// in the same way. It builds without cgo.
package tiers

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/backing/sqlite"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/config"
	"github.com/hearthstore/hearth/online"
	"github.com/hearthstore/hearth/reader"
)

// Deps are what the tiers are given beside the configuration.
type Deps struct {
	// Logger defaults to slog.DiscardHandler.
	Logger *slog.Logger
	// Clock defaults to clock.System.
	Clock clock.Clock
}

func (d Deps) withDefaults() Deps {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Clock == nil {
		d.Clock = clock.System
	}
	return d
}

// OpenOnline opens the online tier of the configuration. It does not contact Redis: a
// reader must start while Redis is away. Secrets are read here, and a password file again for
// each connection.
func OpenOnline(ctx context.Context, cfg *config.Config, deps Deps) (*online.Store, error) {
	deps = deps.withDefaults()
	oc := online.Config{
		Project: cfg.Project.Name, Layout: cfg.Online.Layout, TombstoneTTL: cfg.Online.TombstoneTTL,
		ReadDeadline: cfg.Reader.OnlineTimeout, Patience: cfg.Reader.OnlineTimeout / 16, Logger: deps.Logger, Clock: deps.Clock,
	}
	for i := range cfg.Project.Views {
		oc.Views = append(oc.Views, &cfg.Project.Views[i])
	}
	if r := cfg.Online.Redis; r != nil {
		password, err := r.Password.Reveal()
		if err != nil {
			return nil, fmt.Errorf("open online tier: online.redis.password: %w", err)
		}
		oc.Addrs, oc.Cluster, oc.DB = r.Addrs, r.Cluster, r.DB
		oc.Username, oc.Password = r.Username, password
		oc.PoolSize, oc.WriteTimeout = r.PoolSize, r.WriteTimeout
		if oc.PoolSize == 0 && cfg.Reader.PeakRPS > 0 {
			// Enough even while every read takes all of its time.
			oc.PoolSize = online.PoolSize(float64(cfg.Reader.PeakRPS), cfg.Reader.OnlineTimeout)
		}
		if r.Password.MayChange() {
			oc.Credentials = func(context.Context) (string, string, error) {
				password, err := r.Password.Reveal()
				return r.Username, password, err
			}
		}
		if oc.TLS, err = clientTLS(r.TLS); err != nil {
			return nil, fmt.Errorf("open online tier: online.redis.tls: %w", err)
		}
		if r.IAMAuth != nil {
			if oc.Credentials, err = elastiCacheCredentials(ctx, r, deps.Clock); err != nil {
				return nil, fmt.Errorf("open online tier: online.redis.iam_auth: %w", err)
			}
		}
	} else {
		oc.Embedded = true
	}
	s, err := online.Open(ctx, oc)
	if err != nil {
		return nil, fmt.Errorf("open online tier: %w", err)
	}
	return s, nil
}

// OpenBacking opens the backing tier of the configuration.
func OpenBacking(ctx context.Context, cfg *config.Config, deps Deps) (backing.Store, error) {
	deps = deps.withDefaults()
	switch b := cfg.Backing; {
	case b.DynamoDB != nil:
		return openDynamoDB(ctx, b.DynamoDB, deps)
	case b.SQLite != nil:
		s, err := sqlite.Open(ctx, sqlite.Config{Path: b.SQLite.Path, Logger: deps.Logger, Clock: deps.Clock})
		if err != nil {
			return nil, fmt.Errorf("open backing tier: %w", err)
		}
		return s, nil
	}
	return nil, fmt.Errorf("open backing tier: %w: neither dynamodb nor sqlite is configured", feature.ErrInvalid)
}

// ReaderConfig is the reader's configuration over open tiers. Pass a nil interface for a
// tier that is not to be read.
func ReaderConfig(cfg *config.Config, on reader.Online, back reader.Backing, deps Deps) reader.Config {
	deps = deps.withDefaults()
	rc := reader.Config{
		Project: &cfg.Project, Online: on, Backing: back,
		OnlineTimeout: cfg.Reader.OnlineTimeout, BackingTimeout: cfg.Reader.BackingTimeout,
		MaxBackingRPS: cfg.Reader.MaxBackingRPS,
		Cache: reader.CacheConfig{
			MaxEntries: cfg.Reader.Cache.MaxEntries, TTL: cfg.Reader.Cache.TTL,
			NegativeTTL: cfg.Reader.NegativeTTL, ServeStale: cfg.Reader.ServeStale,
		},
		Logger: deps.Logger, Clock: deps.Clock,
	}
	// In hearth.yaml 0 turns a thing off; in reader.Config it means the default.
	if rc.Cache.MaxEntries == 0 || rc.Cache.TTL == 0 {
		rc.Cache.MaxEntries = -1
	}
	if rc.Cache.NegativeTTL == 0 {
		rc.Cache.NegativeEntries = -1
	}
	if rc.Cache.ServeStale == 0 {
		rc.Cache.ServeStale = -1
	}
	rc.StaleDefaults = map[string]bool{}
	for service, onStale := range cfg.OnStale {
		rc.StaleDefaults[service] = onStale == config.StaleDefault
	}
	return rc
}
