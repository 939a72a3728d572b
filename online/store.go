package online

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/hearthstore/hearth/feature"
)

// Store is the online tier. It is safe for concurrent use.
//
// It holds two clients. Reads go through one that gives up early and does not retry, so
// that a dead node costs a reader a part of its deadline; writes and administration go
// through one that waits and retries, because every write is idempotent.
type Store struct {
	cfg      Config
	read     client
	write    client
	embedded *embedded // nil unless Config.Embedded
	views    map[feature.ViewID]*hashView
	script   *redis.Script // set-if-newer of the layout
	nodes    *nodes        // breakers of a cluster's reads

	// existing is the smoothed share of recently written keys that were already there,
	// in parts per 1024: it decides which command to try first.
	existing atomic.Int64
}

// client is a single server or a cluster; exactly one of the fields is set.
type client struct {
	single  *redis.Client
	cluster *redis.ClusterClient
}

func (c client) universal() redis.UniversalClient {
	if c.cluster != nil {
		return c.cluster
	}
	return c.single
}

// Open prepares the tier. It starts the embedded server where that is asked for, but it
// does not contact Redis: a reader must start while Redis is away. [Store.Ping] does.
//
// The Redis client library has one logger for the whole process; Open points it to
// Config.Logger at debug level, because by default it prints a line per failed dial.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, script: redis.NewScript(blobScript), nodes: newNodes(cfg)}
	if cfg.Layout == LayoutHash {
		s.script = redis.NewScript(hashScript)
		s.views = hashViews(cfg.Views)
	}
	addrs := cfg.Addrs
	if cfg.Embedded {
		if s.embedded, err = startEmbedded(ctx, cfg.Clock); err != nil {
			return nil, err
		}
		addrs = []string{s.embedded.addr}
	}
	redis.SetLogger(clientLog{cfg.Logger})
	s.read, s.write = readClient(cfg, addrs), writeClient(cfg, addrs)
	return s, nil
}

// Close ends the connections and the embedded server, whose data is then gone.
func (s *Store) Close() error {
	err := errors.Join(s.read.universal().Close(), s.write.universal().Close())
	if s.embedded != nil {
		s.embedded.close()
	}
	if err != nil {
		return fmt.Errorf("close redis %s: %w", s.addrs(), err)
	}
	return nil
}

// readClient never retries: a reader has another tier to ask. Without ContextTimeoutEnabled
// the client would ignore the caller's deadline altogether.
func readClient(cfg Config, addrs []string) client {
	return newClient(cfg, addrs, options{
		dial: cfg.DialTimeout, socket: cfg.ReadDeadline, retries: -1, redirects: 1, dialRetries: 1, backoff: -1, pool: cfg.PoolSize,
	})
}

func writeClient(cfg Config, addrs []string) client {
	return newClient(cfg, addrs, options{
		dial: cfg.WriteTimeout, socket: cfg.WriteTimeout, retries: cfg.WriteRetries, redirects: max(cfg.WriteRetries, 1), dialRetries: 2,
		pool: 2 * cfg.Writers,
	})
}

// stateReload bounds how old the client's view of a cluster gets without traffic errors.
const stateReload = 10 * time.Second

type options struct {
	dial, socket, backoff                 time.Duration
	retries, redirects, dialRetries, pool int
}

func newClient(cfg Config, addrs []string, o options) client {
	// Maintenance notifications are a Redis Enterprise feature; "auto" costs a failed
	// command per connection elsewhere.
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if cfg.Cluster {
		return client{cluster: redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: addrs, Username: cfg.Username, Password: cfg.Password, CredentialsProviderContext: cfg.Credentials, TLSConfig: cfg.TLS,
			DialTimeout: o.dial, ReadTimeout: o.socket, WriteTimeout: o.socket, PoolTimeout: o.socket, ContextTimeoutEnabled: true,
			MaxRetries: -1, MaxRedirects: o.redirects, DialerRetries: o.dialRetries, MinRetryBackoff: o.backoff, MaxRetryBackoff: o.backoff,
			PoolSize: o.pool, ConnMaxLifetime: cfg.ConnLifetime, ClusterStateReloadInterval: stateReload, MaintNotificationsConfig: quiet,
			DisableIdentity: true,
		})}
	}
	return client{single: redis.NewClient(&redis.Options{
		Addr: addrs[0], Username: cfg.Username, Password: cfg.Password, CredentialsProviderContext: cfg.Credentials, TLSConfig: cfg.TLS, DB: cfg.DB,
		DialTimeout: o.dial, ReadTimeout: o.socket, WriteTimeout: o.socket, PoolTimeout: o.socket, ContextTimeoutEnabled: true,
		MaxRetries: o.retries, DialerRetries: o.dialRetries, MinRetryBackoff: o.backoff, MaxRetryBackoff: o.backoff,
		PoolSize: o.pool, ConnMaxLifetime: cfg.ConnLifetime, MaintNotificationsConfig: quiet, DisableIdentity: true,
	})}
}

// send executes a pipeline. Afterwards each command is judged by its own error.
//
// Exec's error is that of the first failed command, with one exception: when the server
// refuses the connection's handshake (a wrong password), the client returns the error and
// leaves the commands, which were never sent, without one.
func send(ctx context.Context, pipe redis.Pipeliner) []redis.Cmder {
	cmds, err := pipe.Exec(ctx)
	if err == nil || slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return c.Err() != nil }) {
		return cmds
	}
	for _, c := range cmds {
		c.SetErr(err)
	}
	return cmds
}

// clientLog is where the client library's lines go. They hold addresses and errors, no
// values.
type clientLog struct{ to *slog.Logger }

// Printf has the signature that the client library wants.
func (l clientLog) Printf(ctx context.Context, format string, v ...any) {
	if l.to.Enabled(ctx, slog.LevelDebug) {
		l.to.DebugContext(ctx, "redis client: "+fmt.Sprintf(format, v...))
	}
}
