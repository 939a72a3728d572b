//go:build unix

package testservers

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// remedy ends the message about every missing server.
const remedy = "run: make deps"

const (
	redisBinary    = "redis-server"
	redisStartTime = 2 * time.Minute
	// startTries covers a port that a foreign process takes between the look
	// and the start of the server.
	startTries = 3
)

// RedisOptions describe one redis-server. The zero value is an open server
// without persistence or memory limit.
type RedisOptions struct {
	// MaxMemory is the maxmemory setting, such as "64mb". Defaults to no limit.
	MaxMemory string
	// Policy is the maxmemory-policy. Defaults to noeviction.
	Policy string
	// Username names an ACL user with all rights; the default user is switched
	// off. Needs a Password.
	Username string
	// Password is the user's; without a Username it is the default user's.
	Password string
	// TLS switches the plain port off; see [RedisServer.Certs].
	TLS bool
	// RequireClientCert makes the server refuse clients without a certificate.
	RequireClientCert bool
	// AOF makes data survive Stop, Kill and Restart.
	AOF bool
	// Env is added to the server's environment ("LC_ALL=en_US.UTF-8"). A locale
	// named here must be installed, or the test fails: the server would run on
	// in the C locale without a word.
	Env []string
	// Args are further command line arguments ("--maxclients", "50").
	Args []string

	// clusterTimeout makes the server a node that is ready to join a cluster; the others
	// think it lost when it does not answer for so long.
	clusterTimeout time.Duration
}

// RedisServer is a redis-server process. Its methods fail the test that
// started it, so they belong into that test's goroutine.
type RedisServer struct {
	t       testing.TB // nil for servers that tests share
	options RedisOptions
	port    *port
	proc    *process
	certs   *Certs
}

// Redis starts a redis-server for one test and stops it when the test ends.
func Redis(t testing.TB, o RedisOptions) *RedisServer {
	t.Helper()
	s, err := startRedis(t.TempDir(), o)
	if err != nil {
		t.Fatalf("testservers: %v", err)
	}
	s.t = t
	t.Cleanup(s.cleanup)
	return s
}

// Addr is host:port of the server. It stays the same over Restart.
func (s *RedisServer) Addr() string { return s.port.addr() }

// PID is the process id, or 0 while the server is down.
func (s *RedisServer) PID() int { return s.proc.currentPID() }

// Certs are the certificates of a server with TLS, else nil.
func (s *RedisServer) Certs() *Certs { return s.certs }

// TLSConfig is a client configuration for a server with TLS, else nil.
func (s *RedisServer) TLSConfig() *tls.Config {
	if s.certs == nil {
		return nil
	}
	return s.certs.ClientConfig()
}

// Stop ends the server in the orderly way and waits for it.
func (s *RedisServer) Stop() { s.t.Helper(); must(s.t, s.proc.stop()) }

// Kill ends the server with SIGKILL and waits for it.
func (s *RedisServer) Kill() { s.t.Helper(); must(s.t, s.proc.kill()) }

// Pause freezes the server: connections stay open, nothing is answered.
func (s *RedisServer) Pause() { s.t.Helper(); must(s.t, s.proc.pause()) }

// Resume lets a paused server go on.
func (s *RedisServer) Resume() { s.t.Helper(); must(s.t, s.proc.signal(syscall.SIGCONT)) }

// Restart starts the server again on the same port (stopping it first when it
// runs) and waits until it answers. Without AOF it comes back empty.
func (s *RedisServer) Restart() {
	s.t.Helper()
	must(s.t, s.proc.stop())
	must(s.t, s.proc.start())
	must(s.t, s.waitReady())
}

// Do sends one command over a connection of its own: string, int64, nil or
// []any. It is for looking at the server from outside of the code under test.
func (s *RedisServer) Do(args ...string) (any, error) {
	var cfg *tls.Config
	if s.certs != nil {
		cfg = s.certs.ClientConfig()
	}
	c, err := dialResp(s.Addr(), cfg, s.options.Username, s.options.Password)
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.do(args...)
}

func startRedis(dir string, o RedisOptions) (*RedisServer, error) {
	var last error
	for range startTries {
		s, err := launchRedis(dir, o, nil)
		if err != nil {
			return nil, err
		}
		if last = s.waitReady(); last == nil {
			return s, nil
		}
		if err := s.shutdown(); err != nil {
			return nil, errors.Join(last, err)
		}
	}
	return nil, last
}

// launchRedis starts the process and does not wait until it answers. Without
// certs a server with TLS makes its own.
func launchRedis(dir string, o RedisOptions, certs *Certs) (*RedisServer, error) {
	binary, err := exec.LookPath(redisBinary)
	if err != nil {
		return nil, fmt.Errorf("%s is not installed; %s", redisBinary, remedy)
	}
	if err := checkLocale(o.Env); err != nil {
		return nil, err
	}
	p, err := reservePort()
	if err != nil {
		return nil, err
	}
	s := &RedisServer{options: o, port: p, certs: certs}
	if o.TLS && certs == nil {
		if s.certs, err = newCerts(filepath.Join(dir, "tls")); err != nil {
			p.release()
			return nil, err
		}
	}
	home := filepath.Join(dir, fmt.Sprintf("redis-%d", p.number))
	conf := filepath.Join(home, "redis.conf")
	s.proc = &process{
		name: fmt.Sprintf("%s on port %d", redisBinary, p.number),
		argv: append([]string{binary, conf}, o.Args...),
		env:  o.Env, dir: home, log: filepath.Join(home, "log"),
	}
	err = os.MkdirAll(home, 0o700)
	if err == nil {
		err = os.WriteFile(conf, []byte(s.config(home)), 0o600)
	}
	if err == nil {
		err = s.proc.start()
	}
	if err != nil {
		p.release()
		return nil, fmt.Errorf("start %s: %w", redisBinary, err)
	}
	return s, nil
}

// config is the text of redis.conf.
func (s *RedisServer) config(home string) string {
	o := s.options
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("bind 127.0.0.1")
	line("protected-mode no")
	line("daemonize no")
	line("dir %q", home)
	line("save \"\"")
	if o.AOF {
		line("appendonly yes")
		// A test that kills the server expects every acknowledged write back.
		line("appendfsync always")
	}
	if o.MaxMemory != "" {
		line("maxmemory %s", o.MaxMemory)
	}
	if o.Policy != "" {
		line("maxmemory-policy %s", o.Policy)
	}
	if o.TLS {
		line("port 0")
		line("tls-port %d", s.port.number)
		line("tls-cert-file %q", s.certs.ServerCertFile)
		line("tls-key-file %q", s.certs.ServerKeyFile)
		line("tls-ca-cert-file %q", s.certs.CAFile)
		if o.RequireClientCert {
			line("tls-auth-clients yes")
		} else {
			line("tls-auth-clients optional")
		}
		line("tls-replication yes")
	} else {
		line("port %d", s.port.number)
	}
	switch {
	case o.Username != "":
		line("user default off")
		line("user %s on >%s ~* &* +@all", o.Username, o.Password)
		line("masteruser %s", o.Username)
		line("masterauth %q", o.Password)
	case o.Password != "":
		line("requirepass %q", o.Password)
		line("masterauth %q", o.Password)
	}
	if o.clusterTimeout > 0 {
		line("cluster-enabled yes")
		line("cluster-config-file nodes.conf")
		line("cluster-node-timeout %d", o.clusterTimeout.Milliseconds())
		line("cluster-require-full-coverage no")
		// Redis waits 5 s before a first diskless sync, and a replica that has
		// not synced is not promoted.
		line("repl-diskless-sync-delay 0")
		if o.TLS {
			line("tls-cluster yes")
		}
	}
	return b.String()
}

// waitReady waits until the server answers and is the process that we started,
// not a foreign one that sits on the same port.
func (s *RedisServer) waitReady() error {
	return s.proc.waitReady(redisStartTime, func() error {
		v, err := s.Do("INFO", "server")
		if err != nil {
			return err
		}
		want := fmt.Sprintf("process_id:%d\r\n", s.proc.currentPID())
		if info, ok := v.(string); !ok || !strings.Contains(info, want) {
			return fmt.Errorf("another server answers on %s", s.Addr())
		}
		_, err = s.Do("PING") // an error while the append-only file is loaded
		return err
	})
}

// shutdown stops the server and gives its port back.
func (s *RedisServer) shutdown() error {
	err := s.proc.stop()
	s.port.release()
	return err
}

func (s *RedisServer) cleanup() {
	err := s.shutdown()
	if err != nil {
		s.t.Errorf("testservers: %v", err)
	}
	if s.t.Failed() {
		s.t.Log(s.proc.tail())
	}
}

// must fails the test that owns a server.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("testservers: %v", err)
	}
}

// checkLocale reports a locale in env that this machine does not have.
func checkLocale(env []string) error {
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if name != "LANG" && !strings.HasPrefix(name, "LC_") {
			continue
		}
		if value == "" || value == "C" || value == "POSIX" {
			continue
		}
		out, err := exec.Command("locale", "-a").Output()
		if err != nil {
			return fmt.Errorf("list the locales: %w; %s", err, remedy)
		}
		if !hasLocale(string(out), value) {
			return fmt.Errorf("locale %s is not installed; %s", value, remedy)
		}
	}
	return nil
}

// hasLocale looks for name in the output of "locale -a", which writes the
// character set in its own way (en_US.utf8 for en_US.UTF-8).
func hasLocale(list, name string) bool {
	plain := func(s string) string {
		return strings.ReplaceAll(strings.ToLower(strings.TrimSpace(s)), "-", "")
	}
	for l := range strings.Lines(list) {
		if plain(l) == plain(name) {
			return true
		}
	}
	return false
}
