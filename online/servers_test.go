package online

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/hearthstore/hearth/internal/testservers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testservers.Wrap(m)) }

func startServer(t testing.TB, o testservers.RedisOptions) *testservers.RedisServer {
	t.Helper()
	return testservers.Redis(t, o)
}

func startCluster(t testing.TB, replicas int) *testservers.RedisClusterServers {
	t.Helper()
	return testservers.RedisCluster(t, testservers.ClusterOptions{Replicas: replicas})
}

// plainClient is a client for looking and meddling.
func plainClient(t testing.TB, srv *testservers.RedisServer) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: srv.Addr(), MaxRetries: 5, DisableIdentity: true})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// waitFor polls a condition of a real process, which nothing signals.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited two minutes for %s", what)
		}
	}
}

// mustOpen opens a store that is patient with a busy machine, where the test does not say
// otherwise.
func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, 30*time.Second)
	cfg.ReadDeadline = cmp.Or(cfg.ReadDeadline, 30*time.Second)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 30*time.Second)
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// project is a name that no other test uses, so that tests share a server.
func project(t testing.TB) string {
	return fmt.Sprintf("p_%s", strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, t.Name()))
}
