package dynamodb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash/crc32"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/hearthstore/hearth/internal/clock"
)

// ahead sends the requests of Fetch ahead of the AWS client, whose layers around each
// request cost more than the 100 values in its answer. It is no client of its own: address
// and headers are those of a request that the client sent, the signature is made by the
// client's signer with the client's credentials, and every outcome but a clean answer (a
// refusal, a lost connection, a damaged or unusual answer) is handed to the client as if it
// had sent that request itself. So retries, clock skew and errors stay the client's.
type ahead struct {
	http interface {
		Do(*http.Request) (*http.Response, error)
	}
	credentials aws.CredentialsProvider
	signer      *v4.Signer
	clock       clock.Clock
	model       atomic.Pointer[model] // nil until the client has sent a request
}

// model is what the client's requests have in common.
type model struct {
	url             url.URL
	host            string
	header          http.Header
	region, service string
}

// perRequest are the headers that are of one request alone.
var perRequest = []string{"Authorization", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-Sha256", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "Content-Length"}

// learn takes a request of the client's as the model of those to come. One that is signed in
// another way than Signature Version 4 is none.
func (a *ahead) learn(req *http.Request) {
	credential, ok := strings.CutPrefix(req.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=")
	scope, _, _ := strings.Cut(credential, ",")
	parts := strings.Split(scope, "/")
	if n := len(parts); !ok || n < 5 || parts[n-1] != "aws4_request" {
		a.model.Store(nil)
		return
	}
	m := &model{url: *req.URL, host: req.Host, header: req.Header.Clone(), region: parts[len(parts)-3], service: parts[len(parts)-2]}
	for _, name := range perRequest {
		m.header.Del(name)
	}
	a.model.Store(m)
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// outcome is what a request sent ahead came to, for the client.
type outcome struct {
	resp *http.Response
	err  error
}

// fetch sends the request of sink and reads the answer into its page. When it cannot, done is
// false and sink.sent has the outcome, unless nothing was sent at all.
func (a *ahead) fetch(ctx context.Context, sink *getSink) (done bool) {
	m := a.model.Load()
	if m == nil || sink.stock {
		return false
	}
	credentials, err := a.credentials.Retrieve(ctx)
	if err != nil {
		return false // the client says so
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "", bytes.NewReader(sink.body))
	if err != nil {
		return false
	}
	address := m.url
	req.URL, req.Host, req.Header = &address, m.host, m.header.Clone()
	if err := a.signer.SignHTTP(ctx, credentials, req, sha256Hex(sink.body), m.service, m.region, a.clock.Now()); err != nil {
		return false
	}
	resp, err := a.http.Do(req)
	if err != nil {
		sink.sent = &outcome{err: err}
		return false
	}
	if resp.StatusCode != http.StatusOK {
		sink.sent = &outcome{resp: resp}
		return false
	}
	return sink.takeAhead(resp)
}

// takeAhead reads an answer that is clean, or leaves it in sent.
func (k *getSink) takeAhead(resp *http.Response) bool {
	b := buffers.Get().(*pageBuffer)
	defer buffers.Put(b)
	err := b.fillFrom(resp.Body, resp.ContentLength)
	if err == nil && clean(resp, b.body) && k.decode(b) {
		_ = resp.Body.Close() // everything of it was read
		return true
	}
	if err != nil {
		resp.Body = again(resp.Body, b.body, failing{err})
	} else {
		resp.Body = again(resp.Body, b.body)
	}
	k.sent = &outcome{resp: resp}
	return false
}

// clean says that the checksum is right, or that there is none.
func clean(resp *http.Response, body []byte) bool {
	text := resp.Header.Get("X-Amz-Crc32")
	if text == "" {
		return true
	}
	want, err := strconv.ParseUint(text, 10, 32)
	return err == nil && want == uint64(crc32.ChecksumIEEE(body))
}

// failing is the end of an answer that broke off.
type failing struct{ err error }

// Read fails.
func (f failing) Read([]byte) (int, error) { return 0, f.err }
