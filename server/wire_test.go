package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/testservers"
	"github.com/hearthstore/hearth/server"
)

// listen serves until the returned function is called, which gives Serve's error.
func (b *bundle) listen() (address string, stop func() error) {
	b.t.Helper()
	l, err := b.server.Listen(b.t.Context(), "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.server.Serve(ctx, l) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-served
	}
	b.t.Cleanup(func() {
		if err := stop(); err != nil {
			b.t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String(), stop
}

const aRead = `{"entities": [{"driver_id": 1}], "features": ["stats:trips"]}`

// send makes one request over the network and returns the protocol it was answered in.
func (b *bundle) send(tr *http.Transport, url string) (proto string, code int) {
	b.t.Helper()
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(b.t.Context(), post, url, strings.NewReader(aRead))
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if cerr := resp.Body.Close(); err != nil || cerr != nil {
		b.t.Fatal(err, cerr)
	}
	return resp.Proto, resp.StatusCode
}

// HTTP/1.1 and HTTP/2, with and without TLS. Seen red without SetUnencryptedHTTP2.
func TestProtocols(t *testing.T) {
	t.Parallel()
	certs := testservers.NewCerts(t)
	pair, err := tls.LoadX509KeyPair(certs.ServerCertFile, certs.ServerKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	plain := newBundle(t)
	secure := newBundle(t, func(c *server.Config) {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	})
	plainAddr, _ := plain.listen()
	secureAddr, _ := secure.listen()
	for _, c := range []struct {
		url, proto        string
		http1, http2, h2c bool
	}{
		{"http://" + plainAddr, "HTTP/1.1", true, false, false},
		{"http://" + plainAddr, "HTTP/2.0", false, false, true},
		{"https://" + secureAddr, "HTTP/1.1", true, false, false},
		{"https://" + secureAddr, "HTTP/2.0", true, true, false},
	} {
		var protocols http.Protocols
		protocols.SetHTTP1(c.http1)
		protocols.SetHTTP2(c.http2)
		protocols.SetUnencryptedHTTP2(c.h2c)
		tr := &http.Transport{Protocols: &protocols, TLSClientConfig: certs.ClientConfig()}
		if proto, code := plain.send(tr, c.url+"/v1/features"); proto != c.proto || code != http.StatusOK {
			t.Errorf("%s: %s %d, want %s 200", c.url, proto, code, c.proto)
		}
	}
}

// The end, in order: /readyz says no while requests are still taken, then a request under
// way gets its answer, then Serve returns. Seen red with the delay left out, and with
// Close in place of Shutdown.
func TestDrainInOrder(t *testing.T) {
	t.Parallel()
	fake := clock.NewFake(start)
	b := newBundle(t, func(c *server.Config) { c.DrainDelay, c.Clock = time.Minute, fake })
	b.work.block, b.work.end.Status = make(chan struct{}), "done"
	address, stop := b.listen()
	tr := &http.Transport{DisableKeepAlives: true}
	under := make(chan int, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), post, "http://"+address+"/materialize", strings.NewReader(`{}`))
		if err != nil {
			under <- 0
			return
		}
		req.Header.Set("Authorization", "Bearer "+b.token)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Errorf("the request under way: %v", err)
			under <- 0
			return
		}
		under <- resp.StatusCode
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}()
	b.work.waitAsked(1)
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	if err := fake.WaitForWaiters(t.Context(), 1); err != nil { // it drains, and waits for the delay
		t.Fatal(err)
	}
	b.wantSays(b.call(get, "/readyz", ""), http.StatusServiceUnavailable, "stopping")
	if _, code := b.send(tr, "http://"+address+"/v1/features"); code != http.StatusOK {
		t.Errorf("a request during the delay: %d", code)
	}
	fake.Advance(time.Minute)
	for { // the listener closes; the request under way goes on
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			break
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	select {
	case code := <-under:
		t.Fatalf("the request under way ended with %d before its work did", code)
	case err := <-stopped:
		t.Fatalf("Serve returned %v with a request under way", err)
	default:
	}
	close(b.work.block)
	if code := <-under; code != http.StatusOK {
		t.Errorf("the request under way: %d", code)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// A client that does not take its answer gives its slot back: WriteTimeout. Seen red
// without the deadline (the test then ends with its own).
func TestSlowClient(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *server.Config) { c.WriteTimeout, c.MaxInFlight = 200*time.Millisecond, 1 })
	b.store(b.online, 0, 1, start, feature.Null, feature.Null, feature.Null, feature.ListValue(feature.StringValue(strings.Repeat("x", 300_000))), feature.Null)
	address, _ := b.listen()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // the server may have closed it
	entities := strings.Repeat(`,{"driver_id": 1}`, 100)
	body := `{"entities": [` + entities[1:] + `], "features": ["stats:tags"]}`
	if _, err := io.WriteString(c, "POST /v1/features HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: "+itoa(len(body))+"\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(c).ReadByte(); err != nil { // the 30 MB answer has begun; nobody takes the rest
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for b.call(post, "/v1/features", aRead).Code != http.StatusOK { // 429 until the slot is back
		<-tick.C
	}
}

// What may listen where, and who may then ask.
func TestListenPolicy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change func(*server.Config)
		ok     bool
	}{
		{func(*server.Config) {}, false},
		{func(c *server.Config) { c.AdminToken = "a" }, false}, // reads would be open
		{func(c *server.Config) { c.ReadToken = "r" }, true},
		{func(c *server.Config) { c.Insecure = true }, true},
	} {
		b := newBundle(t, func(cfg *server.Config) { cfg.AdminToken = ""; c.change(cfg) })
		l, err := b.server.Listen(t.Context(), "0.0.0.0:0")
		if err == nil {
			err = l.Close()
		}
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), "read_token_env")) {
			t.Errorf("listen: %v, want ok %t", err, c.ok)
		}
	}
	open := newBundle(t, func(c *server.Config) { c.Insecure, c.AdminToken = true, "" })
	open.want(open.call(post, "/v1/features", aRead, "Host", "features.internal"), http.StatusOK, "")
	open.wantSays(open.call(post, "/push", `{}`), http.StatusForbidden, "no admin token")
	open.want(open.call(get, "/", "", "Host", "features.internal"), http.StatusOK, "")

	// A token for writes alone leaves reads open, to this machine's names only.
	admin := newBundle(t)
	admin.token = ""
	admin.want(admin.call(post, "/v1/features", aRead), http.StatusOK, "")
	admin.want(admin.call(post, "/v1/features", aRead, "Host", "rebound.example", "Origin", "http://rebound.example"), http.StatusForbidden, "")
	admin.want(admin.call(post, "/push", `{}`), http.StatusUnauthorized, "")
	// A token for reads alone is also that of the status page.
	read := newBundle(t, func(c *server.Config) { c.ReadToken, c.AdminToken = "r", "" })
	read.want(read.call(get, "/", ""), http.StatusUnauthorized, "")
	read.token = "r"
	read.want(read.call(get, "/", ""), http.StatusOK, "")
	read.wantSays(read.call(post, "/materialize", `{}`), http.StatusForbidden, "no admin token")
}

// A browser asks for a password and sends it as Basic; what changes something does not
// take that, because a browser would send it for any page.
func TestBrowserToken(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *server.Config) { c.ReadToken = "r3ad" })
	b.token = ""
	w := b.call(get, "/", "")
	if got := strings.Join(w.Header().Values("WWW-Authenticate"), ", "); w.Code != http.StatusUnauthorized || !strings.Contains(got, "Basic") {
		t.Errorf("%d, WWW-Authenticate: %s", w.Code, got)
	}
	const basic = "Basic YnJvd3NlcjphZG0xbg==" // browser:adm1n
	b.want(b.call(get, "/", "", "Authorization", basic), http.StatusOK, "")
	b.want(b.call(post, "/materialize", `{}`, "Authorization", basic), http.StatusUnauthorized, "")
	b.want(b.call(get, "/", "", "Authorization", "Basic !"), http.StatusUnauthorized, "")
}
