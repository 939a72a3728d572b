package faults

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hearthstore/hearth/internal/testservers"
)

// Fault is what a [Proxy] does to its connections. The zero value forwards
// everything untouched. Fields may be combined.
type Fault struct {
	// Latency delays every piece of an answer.
	Latency time.Duration
	// BlackHole accepts connections and moves no byte in either direction. What
	// was held back flows when the fault is lifted.
	BlackHole bool
	// Reset breaks open connections, and new ones as soon as they are made.
	Reset bool
	// Refuse is a server that is down: open connections break, new ones are
	// refused.
	Refuse bool
	// CutAfter breaks a connection after that many bytes of answers, counted
	// from the moment the fault is set. 0 means never.
	CutAfter int
	// BytesPerSecond limits the answers of each connection. 0 means no limit.
	BytesPerSecond int
}

// Proxy forwards TCP connections to a server until it is told otherwise.
type Proxy struct {
	addr   string
	target string

	mu       sync.Mutex
	fault    Fault
	changed  chan struct{} // closed when the fault changes or the proxy closes
	listener net.Listener  // nil while refusing
	links    map[*link]bool
	accepted int
	closed   bool
	wg       sync.WaitGroup
}

// link is one client connection and its counterpart to the server.
type link struct {
	client, server net.Conn // server is nil until it is dialled
	done           chan struct{}
	broken         bool
	answered       int // bytes of answers since the fault was set
}

// NewProxy starts a proxy in front of target (host:port). It ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{
		addr: testservers.FreeAddr(t), target: target,
		changed: make(chan struct{}), links: map[*link]bool{},
	}
	if err := p.listen(); err != nil {
		t.Fatalf("faults: %v", err)
	}
	t.Cleanup(p.close)
	return p
}

// Addr is host:port of the proxy. It stays the same over Refuse.
func (p *Proxy) Addr() string { return p.addr }

// Accepted is the number of connections made so far.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Heal lifts all faults.
func (p *Proxy) Heal() error { return p.Set(Fault{}) }

// Set replaces the faults, for open connections as well. It fails only when
// the proxy cannot listen again after Refuse.
func (p *Proxy) Set(f Fault) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("faults: the proxy is closed")
	}
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
	for l := range p.links {
		l.answered = 0
		if f.Reset || f.Refuse {
			l.breakLocked()
		}
	}
	if f.Refuse && p.listener != nil {
		_ = p.listener.Close() // a listener holds nothing that could be lost
		p.listener = nil
	}
	if !f.Refuse && p.listener == nil {
		return p.listen()
	}
	return nil
}

// listen opens the listener; the caller holds the lock or the only reference.
func (p *Proxy) listen() error {
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return fmt.Errorf("faults: proxy: %w", err)
	}
	p.listener = l
	p.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			p.wg.Go(func() { p.serve(conn) })
		}
	})
	return nil
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	close(p.changed)
	if p.listener != nil {
		_ = p.listener.Close() // as above
	}
	for l := range p.links {
		l.breakLocked()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxy) serve(client net.Conn) {
	l := &link{client: client, done: make(chan struct{})}
	p.mu.Lock()
	p.accepted++
	p.links[l] = true
	if p.closed || p.fault.Reset || p.fault.Refuse {
		l.breakLocked()
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		// Without effect on a broken connection. One that ended by itself must
		// not be reset: that would discard bytes still on their way.
		l.endLocked(hangUp, hangUp)
		delete(p.links, l)
		p.mu.Unlock()
	}()
	if _, ok := p.pass(l); !ok {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	p.mu.Lock()
	l.server = server
	if l.broken { // while dialling
		reset(server)
	}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copyRequests(l) })
	both.Go(func() { p.copyAnswers(l) })
	both.Wait()
}

// pass waits until bytes may flow and returns the fault that then holds. It
// reports false when the connection is broken.
func (p *Proxy) pass(l *link) (Fault, bool) {
	for {
		p.mu.Lock()
		f, changed, broken := p.fault, p.changed, l.broken
		p.mu.Unlock()
		if broken {
			return f, false
		}
		if !f.BlackHole {
			return f, true
		}
		select {
		case <-changed:
		case <-l.done:
		}
	}
}

// wait lets time pass, unless the connection breaks.
func (l *link) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.done:
		return false
	}
}

func (p *Proxy) copyRequests(l *link) {
	p.pump(l, l.server, l.client, func(_ Fault, b []byte) bool {
		_, err := l.server.Write(b)
		return err == nil
	})
}

func (p *Proxy) copyAnswers(l *link) {
	p.pump(l, l.client, l.server, func(f Fault, b []byte) bool {
		return l.wait(f.Latency) && p.answer(l, f, b)
	})
}

// pump moves bytes in one direction until either side ends or the connection
// is broken. An orderly end of one direction is passed on.
func (p *Proxy) pump(l *link, dst, src net.Conn, deliver func(Fault, []byte) bool) {
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		f, ok := p.pass(l)
		if ok && n > 0 {
			ok = deliver(f, buf[:n])
		}
		if ok && err == nil {
			continue
		}
		if half, can := dst.(*net.TCPConn); ok && can && errors.Is(err, io.EOF) && half.CloseWrite() == nil {
			return
		}
		p.mu.Lock()
		l.breakLocked()
		p.mu.Unlock()
		return
	}
}

// answer writes one piece of an answer under the limits of the fault.
func (p *Proxy) answer(l *link, f Fault, b []byte) bool {
	piece := len(b)
	if f.BytesPerSecond > 0 {
		piece = max(1, f.BytesPerSecond/100) // a hundred steps a second
	}
	for len(b) > 0 {
		part := b[:min(piece, len(b))]
		b = b[len(part):]
		cut := false
		if f.CutAfter > 0 {
			p.mu.Lock()
			left := max(0, f.CutAfter-l.answered)
			l.answered += len(part)
			p.mu.Unlock()
			if cut = len(part) >= left; cut {
				part = part[:left]
			}
		}
		if _, err := l.client.Write(part); err != nil {
			return false
		}
		if cut {
			// An orderly end for the client: a reset could overtake the bytes
			// before it.
			p.mu.Lock()
			l.endLocked(hangUp, reset)
			p.mu.Unlock()
			return false
		}
		if f.BytesPerSecond > 0 && !l.wait(time.Duration(len(part))*time.Second/time.Duration(f.BytesPerSecond)) {
			return false
		}
	}
	return true
}

// breakLocked resets both sides; the caller holds the proxy's lock.
func (l *link) breakLocked() { l.endLocked(reset, reset) }

// endLocked ends both sides, once; the caller holds the proxy's lock.
func (l *link) endLocked(client, server func(net.Conn)) {
	if l.broken {
		return
	}
	l.broken = true
	close(l.done)
	client(l.client)
	if l.server != nil {
		server(l.server)
	}
}

// hangUp closes a connection in the orderly way.
func hangUp(c net.Conn) {
	_ = c.Close() // the kernel still delivers what was written
}

// reset closes a connection so that the peer gets an error and not an orderly
// end.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // without it the close is merely orderly
	}
	_ = c.Close() // there is nothing to flush
}
