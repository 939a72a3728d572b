package online

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/breaker"
	"github.com/hearthstore/hearth/internal/clock"
)

// The layouts of a stored value.
const (
	LayoutBlob = "blob"
	LayoutHash = "hash"
)

// Config describes one online tier.
type Config struct {
	// Project is the first part of every key. Required.
	Project string
	// Addrs are host:port of the server, or of some nodes of the cluster. Required unless Embedded.
	Addrs []string
	// Cluster says that Addrs belong to a Redis Cluster. Defaults to false: one server.
	Cluster bool
	// Embedded runs a server inside the process instead. It holds its data in memory only:
	// each process starts cold. Defaults to false.
	Embedded bool

	// Username and Password authenticate. Default to none.
	Username string
	Password string
	// Credentials is asked before each new connection and wins over Username and Password:
	// the hook for short-lived tokens such as ElastiCache IAM authentication. It must be
	// safe for concurrent use and should cache. Defaults to none.
	Credentials func(ctx context.Context) (username, password string, err error)
	// TLS turns on TLS. Defaults to none.
	TLS *tls.Config
	// DB selects a numbered database; a cluster has only 0. Defaults to 0.
	DB int

	// Layout is LayoutBlob or LayoutHash. Defaults to LayoutBlob.
	Layout string
	// Views are the schemas that LayoutHash encodes with. Defaults to none: under
	// LayoutHash a value of an unknown view is then stored as bytes.
	Views []*feature.View

	// ReadDeadline bounds each socket operation of a Get whose context has no earlier
	// deadline. A reader in a hurry brings a deadline of its own, and those that bring none
	// (verification, sampling) are in no hurry: less than 3 s counts as 3 s. Defaults to 3 s.
	ReadDeadline time.Duration
	// DialTimeout bounds the time to connect for reads. A Get whose deadline is earlier does
	// not wait for it, but the connection is still made, for the next one. Defaults to 1 s.
	DialTimeout time.Duration
	// WriteTimeout bounds each socket operation of writes and administration. Defaults to 3 s.
	WriteTimeout time.Duration
	// WriteRetries is how often a write that met a network error is sent again; all
	// writes are idempotent. Defaults to 3; -1 for none.
	WriteRetries int
	// PoolSize is the number of connections per node of the read client. Defaults to 10 per CPU.
	PoolSize int
	// NodeBreaker bounds the breaker that each node of a cluster has for reads. A single server
	// has none: its callers judge the tier as a whole. Defaults to those of breaker.Config.
	NodeBreaker breaker.Config
	// Patience is how long a node must have had for a read before its silence counts against
	// it. Defaults to 1 ms.
	Patience time.Duration
	// ConnLifetime closes connections of that age. Defaults to 0, never; with Credentials
	// to 11 h, because ElastiCache ends IAM connections after 12.
	ConnLifetime time.Duration

	// PipelineSize is the most records of one write pipeline. Defaults to 500.
	PipelineSize int
	// Writers is how many pipelines of one Put are in flight. Defaults to 4.
	Writers int
	// ScriptKeys is the most keys of one script call on a single server; in a cluster it
	// is one. Defaults to 100; at most 1000, which is what Lua can hand on at once.
	ScriptKeys int
	// TombstoneTTL is how long a tombstone blocks older writes. It must be longer than any
	// rewarm or materialize may hold a page back. Defaults to 1 h.
	TombstoneTTL time.Duration

	// Clock tells the time. Defaults to clock.System.
	Clock clock.Clock
	// Logger receives what the Redis client says, at debug level. Defaults to none.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if err := feature.CheckName(c.Project); err != nil {
		return c, fmt.Errorf("online: project: %w", err)
	}
	switch {
	case c.Embedded && (c.Cluster || len(c.Addrs) > 0):
		return c, fmt.Errorf("online: %w: embedded has no addresses and is no cluster", feature.ErrInvalid)
	case !c.Embedded && len(c.Addrs) == 0:
		return c, fmt.Errorf("online: %w: no address; set online.redis.addrs, or online.embedded", feature.ErrInvalid)
	case !c.Embedded && !c.Cluster && len(c.Addrs) > 1:
		return c, fmt.Errorf("online: %w: %d addresses for a single server; set online.redis.cluster: true for a cluster", feature.ErrInvalid, len(c.Addrs))
	case c.Cluster && c.DB != 0:
		return c, fmt.Errorf("online: %w: a Redis Cluster has only database 0", feature.ErrInvalid)
	}
	switch c.Layout {
	case "":
		c.Layout = LayoutBlob
	case LayoutBlob, LayoutHash:
	default:
		return c, fmt.Errorf("online: %w: layout %q; use %s or %s", feature.ErrInvalid, c.Layout, LayoutBlob, LayoutHash)
	}
	if c.Layout == LayoutHash {
		for _, v := range c.Views {
			if err := checkHashView(v); err != nil {
				return c, err
			}
		}
	}
	c.ReadDeadline = max(c.ReadDeadline, 3*time.Second)
	if c.DialTimeout <= 0 {
		c.DialTimeout = time.Second
	}
	c.NodeBreaker = c.NodeBreaker.WithDefaults()
	if c.Patience <= 0 {
		c.Patience = time.Millisecond
	}
	if c.WriteTimeout <= 0 {
		c.WriteTimeout = 3 * time.Second
	}
	if c.WriteRetries == 0 {
		c.WriteRetries = 3
	}
	if c.ConnLifetime == 0 && c.Credentials != nil {
		c.ConnLifetime = 11 * time.Hour
	}
	if c.PipelineSize <= 0 {
		c.PipelineSize = 500
	}
	if c.Writers <= 0 {
		c.Writers = 4
	}
	if c.ScriptKeys <= 0 {
		c.ScriptKeys = 100
	}
	c.ScriptKeys = min(c.ScriptKeys, 1000)
	if c.Cluster {
		c.ScriptKeys = 1
	}
	if c.TombstoneTTL <= 0 {
		c.TombstoneTTL = time.Hour
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// addrs names the tier in an error that belongs to no single node.
func (s *Store) addrs() string {
	if s.cfg.Embedded {
		return "embedded"
	}
	return strings.Join(s.cfg.Addrs, ",")
}
