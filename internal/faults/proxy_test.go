package faults

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// soon bounds what must happen; shortly is how long a test looks at something
// that must not happen.
const (
	soon    = time.Minute
	shortly = 50 * time.Millisecond
)

// echoServer answers every line with the line.
func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close() //nolint:errcheck // a test server
				rd := bufio.NewReader(c)
				for {
					line, err := rd.ReadString('\n')
					if err != nil {
						return
					}
					if _, err := io.WriteString(c, line); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func set(t *testing.T, p *Proxy, f Fault) {
	t.Helper()
	if err := p.Set(f); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// receive reads n bytes or says why it could not.
func receive(t *testing.T, c net.Conn, n int, patience time.Duration) (string, error) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	got, err := io.ReadFull(c, b)
	return string(b[:got]), err
}

func mustEcho(t *testing.T, c net.Conn, line string) {
	t.Helper()
	send(t, c, line)
	if got, err := receive(t, c, len(line), soon); err != nil || got != line {
		t.Fatalf("echo of %q = %q, %v", line, got, err)
	}
}

func TestProxyForwards(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echoServer(t))
	c := dial(t, p)
	mustEcho(t, c, "hello\n")
	mustEcho(t, c, strings.Repeat("x", 1<<20)+"\n")
	if p.Accepted() != 1 {
		t.Errorf("accepted = %d", p.Accepted())
	}
	// An orderly end of the client comes back as an orderly end of the server.
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := receive(t, c, 1, soon); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want EOF", err)
	}
}

func TestProxyLatency(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echoServer(t))
	c := dial(t, p)
	const latency = 60 * time.Millisecond
	set(t, p, Fault{Latency: latency})
	start := time.Now()
	mustEcho(t, c, "a\n")
	if took := time.Since(start); took < latency {
		t.Errorf("the answer took %s, want at least %s", took, latency)
	}
}

func TestProxyBlackHole(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echoServer(t))
	old := dial(t, p)
	mustEcho(t, old, "before\n")
	set(t, p, Fault{BlackHole: true})
	fresh := dial(t, p) // is accepted
	for _, c := range []net.Conn{old, fresh} {
		send(t, c, "lost\n")
		var timeout net.Error
		if got, err := receive(t, c, 5, shortly); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("got %q, %v, want nothing until the deadline", got, err)
		}
	}
	if err := p.Heal(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{old, fresh} {
		if got, err := receive(t, c, 5, soon); err != nil || got != "lost\n" {
			t.Errorf("after the fault: %q, %v", got, err)
		}
	}
}

func TestProxyReset(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echoServer(t))
	old := dial(t, p)
	mustEcho(t, old, "before\n")
	set(t, p, Fault{Reset: true})
	if _, err := receive(t, old, 1, soon); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("open connection: %v, want a reset", err)
	}
	if _, err := receive(t, dial(t, p), 1, soon); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("new connection: %v, want a reset", err)
	}
	set(t, p, Fault{})
	mustEcho(t, dial(t, p), "after\n")
}

func TestProxyRefuse(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echoServer(t))
	old := dial(t, p)
	mustEcho(t, old, "before\n")
	set(t, p, Fault{Refuse: true})
	if _, err := receive(t, old, 1, soon); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("open connection: %v, want a reset", err)
	}
	if c, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			_ = c.Close()
		}
		t.Errorf("dial: %v, want refused", err)
	}
	set(t, p, Fault{})
	mustEcho(t, dial(t, p), "after\n")
}

func TestProxyCutsAnswers(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echoServer(t))
	c := dial(t, p)
	mustEcho(t, c, "before\n")
	set(t, p, Fault{CutAfter: 5})
	send(t, c, "ab\n")
	send(t, c, "cdefgh\n")
	if got, err := receive(t, c, 10, soon); got != "ab\ncd" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v, want 5 bytes and an end", got, err)
	}
}

func TestProxyBandwidth(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, echoServer(t))
	c := dial(t, p)
	set(t, p, Fault{BytesPerSecond: 10_000})
	start := time.Now()
	mustEcho(t, c, strings.Repeat("x", 999)+"\n")
	if took := time.Since(start); took < 90*time.Millisecond {
		t.Errorf("1000 bytes at 10 kB/s took %s", took)
	}
}

// TestProxyEndsUnderFaults: the cleanup must not wait for a fault to be lifted.
func TestProxyEndsUnderFaults(t *testing.T) {
	t.Parallel()
	for _, f := range []Fault{{BlackHole: true}, {Latency: time.Hour}, {BytesPerSecond: 1}} {
		p := NewProxy(t, echoServer(t))
		c := dial(t, p)
		mustEcho(t, c, "before\n")
		set(t, p, f)
		send(t, c, "more than one byte\n")
	}
}

func TestProxyWithoutServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := receive(t, dial(t, NewProxy(t, addr)), 1, soon); err == nil {
		t.Error("a connection to nowhere delivered a byte")
	}
}
