package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// SeedVariable is the environment variable that repeats a run with the seed of
// an earlier one, which the test log shows.
const SeedVariable = "HEARTH_FAULT_SEED"

// Seed is the seed of this run: that of the environment, else a new one. It is
// logged, so that a failure can be repeated.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv(SeedVariable); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("faults: %s: %v", SeedVariable, err)
		}
	}
	t.Logf("faults: repeat with %s=%d", SeedVariable, seed)
	return seed
}

// Kind is one way in which a DynamoDB call goes wrong.
type Kind string

// The kinds of faults. Those of batches leave other operations alone.
const (
	// None sends the request and returns the answer.
	None Kind = ""
	// Throttled answers 400 ThrottlingException; nothing is sent.
	Throttled Kind = "throttled"
	// Exceeded answers 400 ProvisionedThroughputExceededException; nothing is sent.
	Exceeded Kind = "exceeded"
	// ServerError answers 500 InternalServerError; nothing is sent.
	ServerError Kind = "server error"
	// Reset is a connection reset before anything is sent.
	Reset Kind = "reset"
	// LostAnswer sends the request, which the server applies, and then resets
	// the connection: the caller cannot know.
	LostAnswer Kind = "lost answer"
	// Hang answers nothing until the caller gives up.
	Hang Kind = "hang"
	// Partial leaves a part of a batch undone: unprocessed keys or items of
	// BatchGetItem and BatchWriteItem, throttled statements of
	// BatchExecuteStatement. The rest is sent. At least one element of a
	// BatchGetItem or BatchWriteItem is, as AWS promises.
	Partial Kind = "partial"
	// Nothing leaves a whole batch undone, with status 200. AWS documents an
	// exception for that case; it is the endless loop of a careless client.
	Nothing Kind = "nothing"
)

// Call is one request that reached the transport. Retries of the client count.
type Call struct {
	Operation string // "BatchGetItem"
	N         int    // 1 for the first call of this operation
	Body      []byte
}

// DynamoDBFaults say how often calls go wrong: probabilities between 0 and 1.
type DynamoDBFaults struct {
	// Throttle is answered with either throttling exception.
	Throttle float64
	// ServerError, Reset and LostAnswer are the kinds of these names.
	ServerError, Reset, LostAnswer float64
	// Unprocessed is the chance of each element of a batch to be left undone.
	Unprocessed float64
	// Operations limits the faults to some operations. Defaults to all.
	Operations []string
	// Decide replaces the probabilities, except that of Unprocessed for the
	// kind Partial (one half when it is 0). It runs under a lock.
	Decide func(Call) Kind
}

// DynamoDBTransport injects faults into the calls of a DynamoDB client. It is
// an [http.RoundTripper] and, with Do, an HTTP client of the AWS SDK.
type DynamoDBTransport struct {
	next http.RoundTripper

	mu       sync.Mutex
	rng      *rand.Rand
	faults   DynamoDBFaults
	calls    map[string]int
	injected map[Kind]int
}

// NewDynamoDBTransport wraps next; nil stands for [http.DefaultTransport]. The
// seed is usually that of [Seed].
func NewDynamoDBTransport(next http.RoundTripper, seed uint64, f DynamoDBFaults) *DynamoDBTransport {
	if next == nil {
		next = http.DefaultTransport
	}
	return &DynamoDBTransport{
		next: next, faults: f, rng: rand.New(rand.NewPCG(seed, 0)),
		calls: map[string]int{}, injected: map[Kind]int{},
	}
}

// Set replaces the faults.
func (d *DynamoDBTransport) Set(f DynamoDBFaults) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = f
}

// Heal lifts all faults.
func (d *DynamoDBTransport) Heal() { d.Set(DynamoDBFaults{}) }

// Calls is the number of calls of one operation so far.
func (d *DynamoDBTransport) Calls(operation string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls[operation]
}

// AllCalls is the number of calls of every operation so far.
func (d *DynamoDBTransport) AllCalls() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.calls)
}

// Injected is the number of faults of one kind so far.
func (d *DynamoDBTransport) Injected(k Kind) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.injected[k]
}

// Do is RoundTrip under the name that the AWS SDK asks for.
func (d *DynamoDBTransport) Do(req *http.Request) (*http.Response, error) { return d.RoundTrip(req) }

// RoundTrip sends the request, unless a fault prevents it.
func (d *DynamoDBTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, fmt.Errorf("faults: read the request: %w", err)
		}
		_ = req.Body.Close() // read to its end
	}
	_, op, _ := strings.Cut(req.Header.Get("X-Amz-Target"), ".")
	kind, hold := d.decide(op, body)
	switch kind {
	case Throttled:
		return exception(req, http.StatusBadRequest, "com.amazon.coral.availability#ThrottlingException", "Rate exceeded"), nil
	case Exceeded:
		return exception(req, http.StatusBadRequest, exceededType, "The level of configured provisioned throughput for the table was exceeded"), nil
	case ServerError:
		return exception(req, http.StatusInternalServerError, typePrefix+"InternalServerError", "injected"), nil
	case Reset:
		return nil, connectionReset("write")
	case Hang:
		<-req.Context().Done()
		return nil, context.Cause(req.Context())
	case LostAnswer:
		resp, err := d.send(req, body)
		if err != nil {
			return nil, err
		}
		// Read to the end: only then has the server certainly done its work.
		_, err = io.Copy(io.Discard, resp.Body)
		return nil, errors.Join(connectionReset("read"), err, resp.Body.Close())
	case Partial, Nothing:
		return d.sendPart(req, op, body, hold)
	}
	return d.send(req, body)
}

// decide counts the call and draws its fate. hold says of every element of a
// batch whether it is left undone.
func (d *DynamoDBTransport) decide(op string, body []byte) (Kind, []bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls[op]++
	f := d.faults
	if len(f.Operations) > 0 && !slices.Contains(f.Operations, op) {
		return None, nil
	}
	kind, share := d.draw(), f.Unprocessed
	if f.Decide != nil {
		kind = f.Decide(Call{Operation: op, N: d.calls[op], Body: body})
		if kind == Partial && share == 0 {
			share = 0.5
		}
	}
	var hold []bool
	if kind == Partial || kind == Nothing {
		hold = make([]bool, batchSize(op, body))
		held := 0
		for i := range hold {
			if hold[i] = kind == Nothing || d.rng.Float64() < share; hold[i] {
				held++
			}
		}
		if kind == Partial && held == len(hold) && held > 0 && op != opStatements {
			hold[d.rng.IntN(held)] = false
			held--
		}
		if held == 0 {
			return None, nil
		}
	}
	if kind != None {
		d.injected[kind]++
	}
	return kind, hold
}

// draw picks a kind by the probabilities. Partial is always tried last: it
// means that elements draw for themselves.
func (d *DynamoDBTransport) draw() Kind {
	f, x := d.faults, d.rng.Float64()
	for _, c := range []struct {
		kind   Kind
		chance float64
	}{
		{Throttled, f.Throttle / 2}, {Exceeded, f.Throttle / 2},
		{ServerError, f.ServerError}, {Reset, f.Reset}, {LostAnswer, f.LostAnswer},
	} {
		if x < c.chance {
			return c.kind
		}
		x -= c.chance
	}
	if f.Unprocessed > 0 {
		return Partial
	}
	return None
}

// send passes a request on with the given body.
func (d *DynamoDBTransport) send(req *http.Request, body []byte) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.Body = io.NopCloser(bytes.NewReader(body))
	out.ContentLength = int64(len(body))
	if out.Header.Get("Content-Length") != "" {
		out.Header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	return d.next.RoundTrip(out)
}

const (
	typePrefix   = "com.amazonaws.dynamodb.v20120810#"
	exceededType = typePrefix + "ProvisionedThroughputExceededException"
)

func exception(req *http.Request, status int, kind, message string) *http.Response {
	body, _ := json.Marshal(map[string]string{"__type": kind, "message": message}) // strings always encode
	return answer(req, status, http.Header{}, body)
}

// answer is a response with the checksum that the SDK verifies.
func answer(req *http.Request, status int, header http.Header, body []byte) *http.Response {
	header.Set("Content-Type", "application/x-amz-json-1.0")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Amz-Crc32", strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10))
	if header.Get("X-Amzn-Requestid") == "" {
		header.Set("X-Amzn-Requestid", "INJECTED")
	}
	return &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}
}

func connectionReset(op string) error {
	return &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, syscall.ECONNRESET)}
}
