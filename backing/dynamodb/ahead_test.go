package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/hearthstore/hearth/feature"
)

// scripted answers the n-th request with the n-th answer, and keeps the requests.
type scripted struct {
	answers []func(*http.Request) (*http.Response, error)
	asked   []*http.Request
}

func (s *scripted) Do(req *http.Request) (*http.Response, error) {
	kept := req.Clone(context.Background())
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return nil, err
	}
	s.asked = append(s.asked, kept)
	return s.answers[min(len(s.asked), len(s.answers))-1](req)
}

// answer makes a response of a status, with the checksum of its text.
func answer(status int, text string, change func(*http.Response)) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		resp := &http.Response{
			StatusCode: status, Request: req, ContentLength: int64(len(text)), Body: io.NopCloser(strings.NewReader(text)),
			Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}, "X-Amz-Crc32": {fmt.Sprint(crc32.ChecksumIEEE([]byte(text)))}},
		}
		if change != nil {
			change(resp)
		}
		return resp, nil
	}
}

const nothingFound = `{"Responses":{"table":[]},"UnprocessedKeys":{}}`

func scriptedStore(t *testing.T, answers ...func(*http.Request) (*http.Response, error)) (*Store, *scripted) {
	t.Helper()
	s := &scripted{answers: answers}
	store, err := Open(t.Context(), Config{
		Table: "table", Region: "eu-west-9", HTTPClient: s, RetryMaxAttempts: 3,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "hush", SessionToken: "token"}, nil
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	return store, s
}

func fetchOne(t *testing.T, s *Store) error {
	t.Helper()
	var page feature.ScanPage
	_, err := s.Fetch(t.Context(), []feature.Ref{{View: feature.ViewID{Name: "v", Version: 1}, Key: "id=1"}}, &page)
	return err
}

// A request sent ahead is the one that the client would send: same address, same headers but
// those of one request alone, and a good signature of its own.
// Seen red with: the signature's headers kept in the model; the body's hash left empty; the
// session token left out.
func TestAheadSendsTheClientsRequest(t *testing.T) {
	t.Parallel()
	s, script := scriptedStore(t, answer(http.StatusOK, nothingFound, nil))
	for range 3 {
		if err := fetchOne(t, s); err != nil {
			t.Fatal(err)
		}
	}
	client := script.asked[0]
	for i, req := range script.asked[1:] {
		if req.Header.Get("Amz-Sdk-Invocation-Id") != "" {
			t.Fatalf("request %d was not sent ahead", i+2)
		}
		if *req.URL != *client.URL || req.Host != client.Host || req.Method != client.Method || req.ContentLength != client.ContentLength {
			t.Errorf("request %d goes to %s %s of %s with %d bytes, the client's to %s %s of %s with %d", i+2, req.Method, req.URL, req.Host, req.ContentLength,
				client.Method, client.URL, client.Host, client.ContentLength)
		}
		for name, values := range client.Header {
			if !slices.Contains(perRequest, name) && !slices.Equal(req.Header[name], values) {
				t.Errorf("request %d has %s %q, the client's has %q", i+2, name, req.Header[name], values)
			}
		}
		got := req.Header.Get("Authorization")
		if again := signedAgain(t, req); got == "" || got != again {
			t.Errorf("request %d is signed\n%s\nwant\n%s", i+2, got, again)
		}
	}
	if again := signedAgain(t, client); client.Header.Get("Authorization") != again {
		t.Errorf("the client signs in another way than this test: %s, %s", client.Header.Get("Authorization"), again)
	}
}

// signedAgain is the signature that a request should have.
func signedAgain(t *testing.T, req *http.Request) string {
	t.Helper()
	body, err := req.GetBody()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse("20060102T150405Z", req.Header.Get("X-Amz-Date"))
	if err != nil {
		t.Fatal(err)
	}
	bare := req.Clone(t.Context())
	bare.Header.Del("Authorization")
	for name := range bare.Header { // the client adds its retry header after it has signed
		if !strings.Contains(req.Header.Get("Authorization"), strings.ToLower(name)) {
			bare.Header.Del(name)
		}
	}
	sum := sha256Hex(text)
	if err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "hush", SessionToken: "token"}, bare, sum, "dynamodb", "eu-west-9", at); err != nil {
		t.Fatal(err)
	}
	return bare.Header.Get("Authorization")
}

// Whatever becomes of a request sent ahead but a clean answer is the client's first try: it
// judges it, tries again where that may help, and sends no request more than it would have.
// Seen red with: the outcome not handed to the client (a request more each time); the
// checksum not looked at; the end of an answer that broke off not said.
func TestAheadLeavesTheRestToTheClient(t *testing.T) {
	t.Parallel()
	fine := answer(http.StatusOK, nothingFound, nil)
	throttle := answer(http.StatusBadRequest, `{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"slow down"}`, nil)
	damaged := answer(http.StatusOK, nothingFound, func(r *http.Response) { r.Header.Set("X-Amz-Crc32", "7") })
	broken := answer(http.StatusOK, nothingFound, func(r *http.Response) {
		r.Header.Del("X-Amz-Crc32")
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader(nothingFound[:20]), failing{syscall.ECONNRESET}))
	})
	reset := func(*http.Request) (*http.Response, error) { return nil, syscall.ECONNRESET }
	denied := answer(http.StatusBadRequest, `{"__type":"com.amazon.coral.service#AccessDeniedException","message":"no"}`, nil)
	type answers = []func(*http.Request) (*http.Response, error)
	for _, c := range []struct {
		name  string
		then  answers
		sent  int // after the one that the client sent first
		want  error
		check func(Stats) bool
	}{
		{"a clean answer", answers{fine}, 1, nil, nil},
		{"lost once", answers{reset, fine}, 2, nil, nil},
		{"lost for good", answers{reset}, 3, feature.ErrUnreachable, nil},
		{"broken off once", answers{broken, fine}, 2, nil, nil},
		{"damaged once", answers{damaged, fine}, 2, nil, func(s Stats) bool { return s.ChecksumErrors == 1 }},
		{"throttled for good", answers{throttle}, 3, feature.ErrThrottled, func(s Stats) bool { return s.Throttles == 1 }},
		{"throttled once", answers{throttle, fine}, 2, nil, nil},
		{"denied", answers{denied}, 1, feature.ErrDenied, nil},
		{"of another shape", answers{answer(http.StatusOK, `{"New":1,`+nothingFound[1:], nil)}, 1, nil, nil},
		{"with an escape", answers{answer(http.StatusOK, strings.Replace(nothingFound, "table", `\u0074able`, 1), nil)}, 1, nil, nil},
	} {
		s, script := scriptedStore(t, append(answers{fine}, c.then...)...)
		if err := fetchOne(t, s); err != nil {
			t.Fatal(err)
		}
		err := fetchOne(t, s)
		if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if sent := len(script.asked) - 1; sent != c.sent {
			t.Errorf("%s: %d requests, want %d", c.name, sent, c.sent)
		}
		if c.check != nil && !c.check(s.Stats()) {
			t.Errorf("%s: %+v", c.name, s.Stats())
		}
		if first := script.asked[1]; first.Header.Get("Amz-Sdk-Invocation-Id") != "" {
			t.Errorf("%s: the first request was not sent ahead", c.name)
		}
	}
}
