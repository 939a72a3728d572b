package dynamodb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/faults"
	"github.com/hearthstore/hearth/internal/testservers"
)

const (
	opGet        = "BatchGetItem"
	opStatements = "BatchExecuteStatement"
	opPut        = "PutItem"
)

// broken opens a store whose calls go through a fault injector, over an emulator that
// starts in milliseconds.
func broken(t *testing.T, change func(*dynamodb.Config)) (*dynamodb.Store, *faults.DynamoDBTransport) {
	t.Helper()
	endpoint := testservers.Dynoxide(t, testservers.DynamoDBOptions{}).Endpoint()
	inner := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(inner.CloseIdleConnections)
	transport := faults.NewDynamoDBTransport(inner, faults.Seed(t), faults.DynamoDBFaults{})
	cfg := config(endpoint)
	cfg.HTTPClient, cfg.RetryMaxAttempts = transport, 1
	if change != nil {
		change(&cfg)
	}
	return applied(t, cfg), transport
}

var view = feature.ViewID{Name: "driver_stats", Version: 1}

func record(i int, v feature.Version, content string) feature.Record {
	features := feature.AppendValue(feature.AppendArrayHeader(nil, 1), feature.StringValue(content))
	return feature.Record{
		Ref: feature.Ref{View: view, Key: feature.Key(fmt.Sprintf("id=%d", i))}, Version: v,
		Payload: feature.AppendPayload(nil, feature.Header{Version: v}, features), Online: feature.NoTime, Retain: feature.NoTime,
	}
}

func records(n int, event int64, run uint64) ([]feature.Record, []feature.Ref) {
	recs, refs := make([]feature.Record, n), make([]feature.Ref, n)
	for i := range recs {
		recs[i] = record(i, feature.Version{Event: feature.Micros(event), Created: feature.NoTime, Run: run}, fmt.Sprintf("run %d", run))
		refs[i] = recs[i].Ref
	}
	return recs, refs
}

func mustPut(t *testing.T, s *dynamodb.Store, recs []feature.Record) {
	t.Helper()
	results, err := s.Put(t.Context(), recs)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

// only injects one kind into one operation.
func only(op string, kind faults.Kind) faults.DynamoDBFaults {
	return faults.DynamoDBFaults{Decide: func(c faults.Call) faults.Kind {
		if c.Operation == op {
			return kind
		}
		return faults.None
	}}
}

// firstTimes injects a kind into the first n calls of an operation from now on.
func firstTimes(op string, n int, kind faults.Kind) faults.DynamoDBFaults {
	left := n
	return faults.DynamoDBFaults{Decide: func(c faults.Call) faults.Kind {
		if c.Operation != op || left == 0 {
			return faults.None
		}
		left--
		return kind
	}}
}

// Keys that come back unprocessed are asked for again and are not missing. Seen red with
// UnprocessedKeys ignored.
func TestUnprocessedKeysAreRetried(t *testing.T) {
	s, tr := broken(t, nil)
	recs, refs := records(250, 1, 1)
	mustPut(t, s, recs)
	for _, kind := range []faults.Kind{faults.Partial, faults.Nothing, faults.Throttled, faults.ServerError, faults.Reset} {
		tr.Set(firstTimes(opGet, 5, kind))
		results, err := s.Get(t.Context(), refs)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		for i, r := range results {
			if r.Err != nil || !bytes.Equal(r.Payload, recs[i].Payload) {
				t.Fatalf("%s: get %s: %d bytes, %v", kind, refs[i], len(r.Payload), r.Err)
			}
		}
	}
	for _, kind := range []faults.Kind{faults.Partial, faults.Nothing} {
		if tr.Injected(kind) == 0 {
			t.Errorf("%s was never injected", kind)
		}
	}
}

// What stays unprocessed is throttled, never absent: after RetryFor, or at the end of the
// context, whichever is first. Seen red with pending keys left as absent.
func TestThrottledForEverIsNotAbsent(t *testing.T) {
	s, tr := broken(t, func(c *dynamodb.Config) { c.RetryFor = 300 * time.Millisecond })
	recs, refs := records(120, 1, 1)
	mustPut(t, s, recs)
	for _, kind := range []faults.Kind{faults.Nothing, faults.Throttled} {
		for _, deadline := range []time.Duration{time.Minute, 200 * time.Millisecond} {
			tr.Set(only(opGet, kind))
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			results, err := s.Get(ctx, refs)
			cancel()
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			for i, r := range results {
				if !errors.Is(r.Err, feature.ErrThrottled) || r.Payload != nil {
					t.Fatalf("%s: get %s: %v", kind, refs[i], r.Err)
				}
			}
		}
	}
	if calls := tr.Calls(opGet); calls > 120 {
		t.Errorf("%d calls for 8 batches", calls)
	}
}

// Throttled statements are sent again, alone, until all are stored. Seen red with
// ThrottlingError taken as failure.
func TestStatementThrottles(t *testing.T) {
	s, tr := broken(t, nil)
	tr.Set(faults.DynamoDBFaults{Unprocessed: 0.2, Throttle: 0.2})
	for run := uint64(1); run <= 3; run++ {
		recs, refs := records(200, int64(run), run)
		results, err := s.Put(t.Context(), recs)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Outcome != feature.Written {
				t.Fatalf("run %d: put %s: %s, %v", run, refs[i], r.Outcome, r.Err)
			}
		}
		got, err := s.Get(t.Context(), refs)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range got {
			if !bytes.Equal(r.Payload, recs[i].Payload) {
				t.Fatalf("run %d: get %s: %v", run, refs[i], r.Err)
			}
		}
	}
	if s.Stats().Throttles == 0 {
		t.Error("no throttle was counted")
	}
}

// Without progress for RetryFor a put ends with a reason per record.
func TestPutThrottledForEver(t *testing.T) {
	s, tr := broken(t, func(c *dynamodb.Config) { c.RetryFor = 300 * time.Millisecond })
	recs, _ := records(60, 1, 1)
	for _, kind := range []faults.Kind{faults.Nothing, faults.Exceeded} {
		tr.Set(only(opStatements, kind))
		results, err := s.Put(t.Context(), recs)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Outcome != feature.Failed || !errors.Is(r.Err, feature.ErrThrottled) {
				t.Fatalf("%s: %s, %v", kind, r.Outcome, r.Err)
			}
		}
	}
}

// A write whose answer was lost is recognised when it is sent again: acknowledged, and
// stored once. Seen red with equal versions reported as older.
func TestLostAnswers(t *testing.T) {
	s, tr := broken(t, nil)
	recs, refs := records(100, 1, 1)
	tr.Set(firstTimes(opStatements, 3, faults.LostAnswer))
	results, err := s.Put(t.Context(), recs)
	if err != nil {
		t.Fatal(err)
	}
	unchanged := 0
	for i, r := range results {
		if r.Outcome == feature.Unchanged {
			unchanged++
		} else if r.Outcome != feature.Written {
			t.Fatalf("put %s: %s, %v", refs[i], r.Outcome, r.Err)
		}
		if r.Stored != recs[i].Version {
			t.Fatalf("put %s: stored %s", refs[i], r.Stored)
		}
	}
	if unchanged == 0 {
		t.Error("no answer was lost")
	}
	// State: neither a conflict with oneself (seen red with the stored revision not looked at),
	// nor a number given twice.
	item := backing.StateItem{Kind: "kind", Name: "name", Value: []byte("{}"), ExpireAt: feature.NoTime}
	for range 2 {
		tr.Set(firstTimes(opPut, 1, faults.LostAnswer))
		if item, err = s.PutState(t.Context(), item); err != nil {
			t.Errorf("state write with a lost answer: %v", err)
		}
	}
	tr.Set(faults.DynamoDBFaults{LostAnswer: 0.3, Operations: []string{opPut}})
	var (
		wg   sync.WaitGroup
		seen sync.Map
	)
	for range 4 {
		wg.Go(func() {
			for range 10 {
				run, err := backing.NextRun(t.Context(), s)
				if err != nil {
					t.Errorf("next run: %v", err)
					return
				}
				if _, twice := seen.LoadOrStore(run, true); twice {
					t.Errorf("run %d was given twice", run)
				}
			}
		})
	}
	wg.Wait()
	if tr.Injected(faults.LostAnswer) < 4 {
		t.Errorf("only %d answers were lost", tr.Injected(faults.LostAnswer))
	}
}

// Cancelling ends a call that is being throttled at once, and no more requests follow.
func TestCancelDuringThrottling(t *testing.T) {
	s, tr := broken(t, nil)
	recs, refs := records(500, 1, 1)
	for _, op := range []string{opStatements, opGet} {
		started := make(chan struct{}, 1000)
		tr.Set(faults.DynamoDBFaults{Decide: func(c faults.Call) faults.Kind {
			if c.Operation != op {
				return faults.None
			}
			started <- struct{}{}
			return faults.Nothing
		}})
		before := tr.Calls(op)
		ctx, cancel := context.WithCancel(t.Context())
		type answer struct {
			puts []feature.PutResult
			gets []feature.GetResult
			err  error
		}
		done := make(chan answer, 1)
		go func() {
			var a answer
			if op == opStatements {
				a.puts, a.err = s.Put(ctx, recs)
			} else {
				a.gets, a.err = s.Get(ctx, refs)
			}
			done <- a
		}()
		<-started
		cancel()
		var a answer
		select {
		case a = <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s goes on after the cancellation", op)
		}
		for _, r := range a.puts {
			if r.Outcome != feature.Failed || r.Err == nil {
				t.Fatalf("put: %v", r)
			}
		}
		for _, r := range a.gets {
			if r.Err == nil {
				t.Fatalf("get: %v", r)
			}
		}
		if op == opStatements && !errors.Is(a.err, context.Canceled) {
			t.Errorf("put: error %v", a.err)
		}
		if calls := tr.Calls(op) - before; calls > 40 {
			t.Errorf("%d calls of %s", calls, op)
		}
	}
}

// I4 and I7 under every fault at once: what was acknowledged is stored or surpassed, and at
// the end every key has the newest version.
func TestChaos(t *testing.T) {
	s, tr := broken(t, func(c *dynamodb.Config) { c.RetryMaxAttempts = 2 })
	const keys, rounds = 80, 6
	rng := rand.New(rand.NewPCG(faults.Seed(t), 1))
	newest := make([]feature.Version, keys)
	tr.Set(faults.DynamoDBFaults{Throttle: 0.1, ServerError: 0.05, Reset: 0.05, LostAnswer: 0.1, Unprocessed: 0.1})
	var wg sync.WaitGroup
	for run := range uint64(rounds) {
		var recs []feature.Record
		for _, k := range rng.Perm(keys) {
			v := feature.Version{Event: feature.Micros(rng.Int64N(4)), Created: feature.Micros(rng.Int64N(2)), Run: run + 1}
			if newest[k].IsZero() || newest[k].Compare(v) < 0 {
				newest[k] = v
			}
			recs = append(recs, record(k, v, fmt.Sprint("run ", run)))
		}
		wg.Go(func() {
			results, err := s.Put(t.Context(), recs)
			if err != nil {
				t.Errorf("put: %v", err)
				return
			}
			for i, r := range results {
				switch {
				case r.Err != nil:
					t.Errorf("put: %v", r.Err)
				case r.Stored.Compare(recs[i].Version) < 0:
					t.Errorf("put %s at %s: %s with %s stored", recs[i].Ref, recs[i].Version, r.Outcome, r.Stored)
				}
			}
		})
	}
	wg.Wait()
	_, refs := records(keys, 1, 1)
	results, err := s.Get(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	for k, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		h, _, err := feature.ParsePayload(r.Payload)
		if err != nil || h.Version != newest[k] {
			t.Errorf("key %d ended at %s, want %s (%v)", k, h.Version, newest[k], err)
		}
	}
}

// answers is an HTTP client that changes what comes back.
type answers struct {
	next   http.RoundTripper
	change func(op string, req *http.Request, resp *http.Response) *http.Response
}

func (a answers) Do(req *http.Request) (*http.Response, error) {
	resp, err := a.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	_, op, _ := strings.Cut(req.Header.Get("X-Amz-Target"), ".")
	return a.change(op, req, resp), nil
}

func withAnswers(t *testing.T, change func(op string, req *http.Request, resp *http.Response) *http.Response) *dynamodb.Store {
	s, _ := broken(t, func(c *dynamodb.Config) {
		inner := &http.Transport{}
		t.Cleanup(inner.CloseIdleConnections)
		c.HTTPClient, c.RetryMaxAttempts = answers{next: inner, change: change}, 3
	})
	return s
}

func replaceBody(t *testing.T, resp *http.Response, change func([]byte) []byte) *http.Response {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("read: %v", err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	body = change(body)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp
}

// A role without PartiQL rights still writes, one by one.
func TestPartiQLDenied(t *testing.T) {
	s := withAnswers(t, func(op string, _ *http.Request, resp *http.Response) *http.Response {
		if op != opStatements {
			return resp
		}
		resp.StatusCode, resp.Header = http.StatusBadRequest, http.Header{}
		return replaceBody(t, resp, func([]byte) []byte {
			return []byte(`{"__type":"com.amazon.coral.service#AccessDeniedException","message":"User is not authorized to perform: dynamodb:PartiQLInsert"}`)
		})
	})
	recs, _ := records(60, 1, 1)
	for _, want := range []feature.Outcome{feature.Written, feature.Unchanged} {
		results, err := s.Put(t.Context(), recs)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			// The denied batch of the first round did reach the emulator.
			if r.Outcome != want && (want != feature.Written || r.Outcome != feature.Unchanged) {
				t.Fatalf("put %d: %s, %v", i, r.Outcome, r.Err)
			}
		}
	}
	if s.Stats().PutItems != 120 {
		t.Errorf("%d single puts", s.Stats().PutItems)
	}
}

// A damaged page is asked for again. Seen red with the client's own check: its error is
// only logged, and the page is taken.
func TestDamagedAnswer(t *testing.T) {
	var damaged, clean atomic.Int64
	s := withAnswers(t, func(op string, _ *http.Request, resp *http.Response) *http.Response {
		if op != "Scan" && op != opGet {
			return resp
		}
		sum := ""
		resp = replaceBody(t, resp, func(b []byte) []byte {
			sum = crc(b)
			if clean.Load() > damaged.Load() {
				damaged.Add(1)
				at := bytes.LastIndexByte(b, '8') // somewhere in the digits of a version or count
				b[max(at, 0)] = '9'
			} else {
				clean.Add(1)
			}
			return b
		})
		resp.Header.Set("X-Amz-Crc32", sum)
		return resp
	})
	recs, refs := records(40, 88, 1)
	mustPut(t, s, recs)
	for range 2 {
		var page feature.ScanPage
		if err := s.Scan(t.Context(), feature.ScanRequest{Segments: 1}, &page); err != nil {
			t.Fatal(err)
		}
		if len(page.Records) != len(recs) {
			t.Errorf("%d records", len(page.Records))
		}
		results, err := s.Get(t.Context(), refs)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Err != nil || !bytes.Equal(r.Payload, recs[i].Payload) {
				t.Fatalf("get %s: %v", refs[i], r.Err)
			}
		}
	}
	if damaged.Load() == 0 || s.Stats().ChecksumErrors != damaged.Load() {
		t.Errorf("%d answers were damaged, %d were noticed", damaged.Load(), s.Stats().ChecksumErrors)
	}
}

// A page that the fast decoder does not know is read by the other one, and counted.
func TestUnknownPageShape(t *testing.T) {
	s := withAnswers(t, func(op string, _ *http.Request, resp *http.Response) *http.Response {
		if op != "Scan" {
			return resp
		}
		resp.Header.Del("X-Amz-Crc32")
		return replaceBody(t, resp, func(b []byte) []byte { return append([]byte(`{"New":{"a":[1]},`), b[1:]...) })
	})
	recs, _ := records(40, 1, 1)
	mustPut(t, s, recs)
	var page feature.ScanPage
	if err := s.Scan(t.Context(), feature.ScanRequest{Segments: 1}, &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Records) != len(recs) || s.Stats().StockPages != 1 {
		t.Errorf("%d records, %+v", len(page.Records), s.Stats())
	}
}
