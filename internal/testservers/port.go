//go:build unix

package testservers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Ports and, for Redis Cluster, bus ports (port + busOffset) lie below the
// range from which systems take the ports of outgoing connections, so that a
// stopped server finds its port free when it starts again.
const (
	firstPort = 11000
	lastPort  = 20999
	busOffset = 10000
)

// port is a port that no other test process of this user takes, also while
// the server on it is down.
type port struct {
	number int
	lock   *os.File
}

// reservePort picks a free port of which the bus port is free as well.
func reservePort() (*port, error) {
	dir := filepath.Join(os.TempDir(), "hearth-test-ports-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	var last error
	for range 200 {
		n := firstPort + rand.IntN(lastPort-firstPort+1)
		p, err := tryPort(dir, n)
		if err == nil {
			return p, nil
		}
		last = err
	}
	return nil, fmt.Errorf("reserve a port: none of 200 tries was free: %w", last)
}

func tryPort(dir string, n int) (*port, error) {
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(n)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock port %d: %w", n, err)
	}
	// The kernel lets go of the lock when this process ends.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock port %d: %w", n, err), f.Close())
	}
	for _, q := range []int{n, n + busOffset} {
		l, err := net.Listen("tcp", loopback(q))
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("port %d: %w", q, err), f.Close())
		}
	}
	return &port{number: n, lock: f}, nil
}

// release gives the port back.
func (p *port) release() {
	_ = p.lock.Close() // nothing was written
}

func (p *port) addr() string { return loopback(p.number) }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// FreeAddr is a loopback address that no other test takes while this one runs,
// not even when it closes its listener and opens it again.
func FreeAddr(t testing.TB) string {
	t.Helper()
	p, err := reservePort()
	must(t, err)
	t.Cleanup(p.release)
	return p.addr()
}
