//go:build unix

package testservers

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// Run runs the tests of a package and stops the shared servers afterwards. It
// is the whole of a TestMain, which need not call os.Exit:
//
//	func TestMain(m *testing.M) { testservers.Run(m) }
func Run(m *testing.M) int { return Wrap(m).Run() }

// Runner is what [testing.M] and wrappers around it have in common.
type Runner interface{ Run() int }

// Wrap is [Run] for helpers that want to call m.Run themselves:
//
//	goleak.VerifyTestMain(testservers.Wrap(m))
func Wrap(m Runner) Runner { return wrapped{m} }

type wrapped struct{ Runner }

func (w wrapped) Run() int {
	all.mu.Lock()
	all.active = true
	all.mu.Unlock()
	code := w.Runner.Run()
	if err := all.stop(); err != nil {
		fmt.Fprintf(os.Stderr, "testservers: %v\n", err)
		return 1
	}
	return code
}

// SharedRedis is the address of a redis-server that all tests of this process
// share. It has no limits and keeps nothing. Tests use key prefixes of their
// own and do not flush it. It starts on first use.
func SharedRedis(t testing.TB) string {
	t.Helper()
	s, err := get(&all, &all.redis, func(dir string) (*RedisServer, error) {
		return startRedis(dir, RedisOptions{})
	})
	must(t, err)
	return s.Addr()
}

// SharedCluster are the addresses of a shared cluster of three masters, under
// the same rules as [SharedRedis].
func SharedCluster(t testing.TB) []string {
	t.Helper()
	s, err := get(&all, &all.cluster, func(dir string) (*RedisClusterServers, error) {
		return startCluster(dir, ClusterOptions{})
	})
	must(t, err)
	return s.Addrs()
}

// SharedDynamoDB is the endpoint of a shared DynamoDB Local that keeps its
// tables in memory. Tests use table names of their own.
func SharedDynamoDB(t testing.TB) string {
	t.Helper()
	s, err := get(&all, &all.dynamodb, func(dir string) (*DynamoDBServer, error) {
		return startDynamoDBLocal(dir, DynamoDBOptions{})
	})
	must(t, err)
	return s.Endpoint()
}

// all are the shared servers of this process.
var all shared

type shared struct {
	mu       sync.Mutex
	active   bool // Run was called and has not ended
	dir      string
	stops    []func() error
	redis    slot[*RedisServer]
	cluster  slot[*RedisClusterServers]
	dynamodb slot[*DynamoDBServer]
}

// slot is one shared server. A failed start is kept: another try would only
// make every further test wait for the same failure.
type slot[S stopper] struct {
	mu     sync.Mutex
	done   bool
	server S
	err    error
}

type stopper interface{ shutdown() error }

func get[S stopper](all *shared, sl *slot[S], start func(dir string) (S, error)) (S, error) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.done {
		return sl.server, sl.err
	}
	dir, err := all.folder()
	if err != nil {
		return sl.server, err
	}
	sl.server, sl.err = start(dir)
	sl.done = true
	if sl.err == nil {
		all.mu.Lock()
		all.stops = append(all.stops, sl.server.shutdown)
		all.mu.Unlock()
	}
	return sl.server, sl.err
}

// folder makes a folder for one server.
func (s *shared) folder() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.active {
		return "", fmt.Errorf("shared servers need: func TestMain(m *testing.M) { testservers.Run(m) }")
	}
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "hearth-testservers-")
		if err != nil {
			return "", fmt.Errorf("make a folder: %w", err)
		}
		s.dir = dir
	}
	dir, err := os.MkdirTemp(s.dir, "")
	if err != nil {
		return "", fmt.Errorf("make a folder: %w", err)
	}
	return dir, nil
}

// stop ends all shared servers and removes their files.
func (s *shared) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = false
	var first error
	for _, stop := range s.stops {
		if err := stop(); err != nil && first == nil {
			first = err
		}
	}
	s.stops = nil
	if s.dir != "" {
		if err := os.RemoveAll(s.dir); err != nil && first == nil {
			first = fmt.Errorf("remove %s: %w", s.dir, err)
		}
	}
	return first
}
