package dynamodb

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// newTransport pools enough connections that none is opened anew under load.
func newTransport(inFlight int) *http.Transport {
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConns:          0,
		MaxIdleConnsPerHost:   max(64, 2*inFlight),
		IdleConnTimeout:       90 * time.Second,
		ReadBufferSize:        64 << 10,
		WriteBufferSize:       16 << 10,
	}
}

// wholeBody hands net/http a request body that it recognises as being in memory. The AWS
// client wraps bodies in a type of its own and closes them as soon as Do returns; if
// net/http is then still about to look for the end of the body, it sees an error and closes
// the connection under the answer ("use of closed network connection"). It also makes
// net/http send headers and body in one packet.
//
// It also is where the client meets what was sent ahead of it.
type wholeBody struct {
	client interface {
		Do(*http.Request) (*http.Response, error)
	}
	ahead *ahead
}

// Do sends the request, or says what became of it if it was sent ahead.
func (w wholeBody) Do(req *http.Request) (*http.Response, error) {
	if sink, ok := req.Context().Value(sinkKey{}).(*getSink); ok && sink.body != nil {
		if sent := sink.sent; sent != nil {
			sink.sent = nil
			return sent.resp, sent.err
		}
		w.ahead.learn(req)
	}
	if req.Body == nil || req.Body == http.NoBody || req.ContentLength <= 0 {
		return w.client.Do(req)
	}
	body := make([]byte, req.ContentLength)
	if _, err := io.ReadFull(req.Body, body); err != nil {
		return nil, fmt.Errorf("read request body: %w", err)
	}
	whole := *req
	whole.Body = io.NopCloser(bytes.NewReader(body))
	whole.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	return w.client.Do(&whole)
}
