package online

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
)

// Sentinels of this tier. Beside them the package uses ErrUnreachable, ErrDenied,
// ErrCorrupt, ErrUnknownFormat and ErrInvalid of package feature.
var (
	// ErrFull marks a write that Redis refused because it is at maxmemory and its policy
	// evicts nothing. What was stored before is still there.
	// It matches feature.ErrFull.
	ErrFull error = fullError{}
	// ErrReadOnly marks a write that reached a replica. Retrying after a failover is right.
	ErrReadOnly = errors.New("redis node is a read-only replica")
	// ErrTopology marks a configuration that does not fit the server, for example a
	// Redis Cluster that is used as a single node.
	ErrTopology = errors.New("redis topology does not fit the configuration")
)

type fullError struct{}

func (fullError) Error() string { return "redis is full" }

func (fullError) Unwrap() error { return feature.ErrFull }

// NodeError says which Redis node failed. Err matches one of the sentinels.
type NodeError struct {
	Addr string // host:port; for a command that reached no particular node, the configured addresses
	Err  error
}

func (e *NodeError) Error() string { return "redis " + e.Addr + ": " + e.Err.Error() }

func (e *NodeError) Unwrap() error { return e.Err }

// prefixes maps the first word of a Redis error to what it means for a caller, and to
// what helps where that is not obvious.
var prefixes = [...]struct {
	prefix string
	err    error
	remedy string
}{
	{"NOAUTH", feature.ErrDenied, "set the user and password of online.redis"},
	{"WRONGPASS", feature.ErrDenied, "check the user and password of online.redis"},
	{"NOPERM", feature.ErrDenied, "give the Redis user the commands and keys that the documentation of package online lists"},
	{"ERR AUTH", feature.ErrDenied, "the server has no such user or no password at all"},
	{"ERR invalid password", feature.ErrDenied, "check the password of online.redis"},
	{"OOM", ErrFull, "raise maxmemory or choose an evicting policy; `hearth size` says how much is needed"},
	{"READONLY", ErrReadOnly, "use the address of the master"},
	{"LOADING", feature.ErrUnreachable, ""},
	{"BUSY", feature.ErrUnreachable, ""},
	{"CLUSTERDOWN", feature.ErrUnreachable, ""},
	{"MASTERDOWN", feature.ErrUnreachable, ""},
	{"TRYAGAIN", feature.ErrUnreachable, ""},
	{"NOREPLICAS", feature.ErrUnreachable, ""},
	{"MISCONF", feature.ErrUnreachable, "the server cannot save to disk and refuses writes"},
	{"ERR max number of clients", feature.ErrUnreachable, "raise maxclients or lower the pool size"},
	{"MOVED", ErrTopology, "the server is a Redis Cluster: set online.redis.cluster: true"},
	{"ASK", ErrTopology, "the server is a Redis Cluster: set online.redis.cluster: true"},
	{"CROSSSLOT", ErrTopology, "the server is a Redis Cluster: set online.redis.cluster: true"},
	{"ERR This instance has cluster support disabled", ErrTopology, "the server is no Redis Cluster: set online.redis.cluster: false"},
	{"WRONGTYPE", feature.ErrCorrupt, "the key holds another type; was the layout changed?"},
}

// fault turns what the client reported into an error of the tier. addr may be "".
func (s *Store) fault(addr string, err error) error {
	var node *NodeError
	if errors.As(err, &node) {
		return err
	}
	if addr == "" {
		addr = s.addrs()
	}
	return &NodeError{Addr: addr, Err: classify(err)}
}

func classify(err error) error {
	var reply redis.Error
	if errors.As(err, &reply) {
		return classifyReply(reply.Error())
	}
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &certificate), errors.As(err, &authority):
		return fmt.Errorf("%w: %w (check online.redis.tls)", feature.ErrUnreachable, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.EOF),
		errors.Is(err, redis.ErrClosed), errors.Is(err, redis.ErrPoolTimeout), isNet(err):
		return fmt.Errorf("%w: %w", feature.ErrUnreachable, err)
	}
	// Anything else came from between us and the server (a broken reply, a TLS alert, a
	// client without nodes): the tier did not answer.
	return fmt.Errorf("%w: %w", feature.ErrUnreachable, err)
}

func classifyReply(text string) error {
	// An unknown command is reported with the beginning of its arguments, which are
	// feature values here; those never reach an error text.
	text, _, _ = strings.Cut(text, ", with args beginning with")
	for _, p := range prefixes {
		// KVRocks and scripts put "ERR " or "-" before the word.
		bare := strings.TrimPrefix(strings.TrimPrefix(text, "-"), "ERR ")
		if !strings.HasPrefix(text, p.prefix) && !strings.HasPrefix(bare, p.prefix) {
			continue
		}
		if p.remedy == "" {
			return fmt.Errorf("%w: %s", p.err, text)
		}
		return fmt.Errorf("%w: %s (%s)", p.err, text, p.remedy)
	}
	return errors.New(text)
}

func isNet(err error) bool {
	var n net.Error
	return errors.As(err, &n)
}

// redirected reports whether a reply says that the slot lives or is moving elsewhere.
func redirected(reply string) bool {
	return strings.HasPrefix(reply, "MOVED ") || strings.HasPrefix(reply, "ASK ")
}
