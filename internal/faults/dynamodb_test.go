package faults

import (
	"context"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeDynamoDB notes the bodies that reach it and answers them with reply.
type fakeDynamoDB struct {
	*httptest.Server
	bodies []string
}

func newFakeDynamoDB(t *testing.T, reply func(op string, body []byte) (int, string)) *fakeDynamoDB {
	t.Helper()
	f := &fakeDynamoDB{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if int64(len(body)) != r.ContentLength {
			t.Errorf("content length %d of a body of %d bytes", r.ContentLength, len(body))
		}
		f.bodies = append(f.bodies, string(body))
		_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		status, text := reply(op, body)
		w.WriteHeader(status)
		if _, err := io.WriteString(w, text); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(f.Close)
	return f
}

func okay(string, []byte) (int, string) { return http.StatusOK, `{}` }

type result struct {
	status int
	body   string
}

func call(t *testing.T, d *DynamoDBTransport, url, op, body string) (result, error) {
	t.Helper()
	return callContext(t.Context(), t, d, url, op, body)
}

func callContext(ctx context.Context, t *testing.T, d *DynamoDBTransport, url, op, body string) (result, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Amz-Target", "DynamoDB_20120810."+op)
	resp, err := d.Do(req)
	if err != nil {
		return result{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if sum := resp.Header.Get("X-Amz-Crc32"); sum != "" && sum != strconv.Itoa(int(crc32.ChecksumIEEE(raw))) {
		t.Errorf("checksum %s does not fit the answer", sum)
	}
	return result{resp.StatusCode, string(raw)}, nil
}

func always(k Kind) DynamoDBFaults {
	return DynamoDBFaults{Decide: func(Call) Kind { return k }}
}

func TestExceptions(t *testing.T) {
	t.Parallel()
	for kind, want := range map[Kind]struct {
		status int
		name   string
	}{
		Throttled:   {400, "#ThrottlingException"},
		Exceeded:    {400, "#ProvisionedThroughputExceededException"},
		ServerError: {500, "#InternalServerError"},
	} {
		f := newFakeDynamoDB(t, okay)
		d := NewDynamoDBTransport(nil, 1, always(kind))
		got, err := call(t, d, f.URL, "PutItem", `{}`)
		if err != nil || got.status != want.status || !strings.Contains(got.body, want.name) {
			t.Errorf("%s: %+v, %v", kind, got, err)
		}
		if len(f.bodies) != 0 || d.Calls("PutItem") != 1 || d.Injected(kind) != 1 {
			t.Errorf("%s: sent %d, calls %v, injected %d", kind, len(f.bodies), d.AllCalls(), d.Injected(kind))
		}
		d.Heal()
		if got, err := call(t, d, f.URL, "PutItem", `{}`); err != nil || got.status != 200 || len(f.bodies) != 1 {
			t.Errorf("%s: after healing %+v, %v", kind, got, err)
		}
	}
}

func TestConnectionFaults(t *testing.T) {
	t.Parallel()
	for kind, sent := range map[Kind]int{Reset: 0, LostAnswer: 1} {
		f := newFakeDynamoDB(t, okay)
		_, err := call(t, NewDynamoDBTransport(nil, 1, always(kind)), f.URL, "PutItem", `{}`)
		if !errors.Is(err, syscall.ECONNRESET) || len(f.bodies) != sent {
			t.Errorf("%s: %v, and %d requests reached the server, want %d", kind, err, len(f.bodies), sent)
		}
	}
}

func TestHangEndsWithTheContext(t *testing.T) {
	t.Parallel()
	f := newFakeDynamoDB(t, okay)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := callContext(ctx, t, NewDynamoDBTransport(nil, 1, always(Hang)), f.URL, "GetItem", `{}`)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v", err)
	}
}

func TestOperationsLimitTheFaults(t *testing.T) {
	t.Parallel()
	f := newFakeDynamoDB(t, okay)
	d := NewDynamoDBTransport(nil, 1, DynamoDBFaults{Throttle: 1, Operations: []string{"PutItem"}})
	for op, want := range map[string]int{"PutItem": 400, "GetItem": 200} {
		if got, err := call(t, d, f.URL, op, `{}`); err != nil || got.status != want {
			t.Errorf("%s: %+v, %v", op, got, err)
		}
	}
}

func TestProbabilitiesFollowTheSeed(t *testing.T) {
	t.Parallel()
	f := newFakeDynamoDB(t, okay)
	faults := DynamoDBFaults{Throttle: 0.2, ServerError: 0.2, Reset: 0.2, LostAnswer: 0.2}
	history := func(seed uint64) (out []string) {
		d := NewDynamoDBTransport(nil, seed, faults)
		for range 200 {
			got, err := call(t, d, f.URL, "PutItem", `{}`)
			out = append(out, strconv.Itoa(got.status)+got.body, strconv.FormatBool(err != nil))
		}
		for _, k := range []Kind{Throttled, Exceeded, ServerError, Reset, LostAnswer} {
			if d.Injected(k) == 0 {
				t.Errorf("200 calls and no fault of the kind %q", k)
			}
		}
		return out
	}
	first := history(7)
	if !reflect.DeepEqual(first, history(7)) {
		t.Error("the same seed gave different faults")
	}
	if reflect.DeepEqual(first, history(8)) {
		t.Error("different seeds gave the same faults")
	}
}

// getBody asks for the keys 0 to n-1 of the table t and one of the table u.
func getBody(n int) string {
	var keys []string
	for i := range n {
		keys = append(keys, `{"e":{"S":"`+strconv.Itoa(i)+`"}}`)
	}
	return `{"RequestItems":{"t":{"ConsistentRead":true,"Keys":[` + strings.Join(keys, ",") +
		`]},"u":{"Keys":[{"e":{"S":"other"}}]}},"ReturnConsumedCapacity":"TOTAL"}`
}

type keyLists map[string]struct {
	ConsistentRead bool
	Keys           []map[string]map[string]string
}

func decode[T any](t *testing.T, raw string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(raw), &v); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return v
}

// count notes every key of the lists once.
func (k keyLists) count(seen map[string]int) {
	for table, l := range k {
		for _, key := range l.Keys {
			seen[table+"/"+key["e"]["S"]]++
		}
	}
}

func TestPartialBatchGet(t *testing.T) {
	t.Parallel()
	f := newFakeDynamoDB(t, func(string, []byte) (int, string) {
		// The server itself leaves one key of t undone as well.
		return http.StatusOK, `{"Responses":{"t":[]},"UnprocessedKeys":{"t":{"Keys":[{"e":{"S":"by server"}}]}}}`
	})
	d := NewDynamoDBTransport(nil, 3, DynamoDBFaults{Unprocessed: 0.5})
	got, err := call(t, d, f.URL, "BatchGetItem", getBody(20))
	if err != nil || got.status != 200 || d.Injected(Partial) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	sent := decode[struct {
		RequestItems           keyLists
		ReturnConsumedCapacity string
	}](t, f.bodies[0])
	undone := decode[struct{ UnprocessedKeys keyLists }](t, got.body).UnprocessedKeys
	if sent.ReturnConsumedCapacity != "TOTAL" || !sent.RequestItems["t"].ConsistentRead || !undone["t"].ConsistentRead {
		t.Errorf("the rest of the request was lost: sent %s, undone %s", f.bodies[0], got.body)
	}
	seen := map[string]int{}
	sent.RequestItems.count(seen)
	if n := len(seen); n == 0 || n == 21 {
		t.Errorf("%d of 21 keys were sent", n)
	}
	undone.count(seen)
	if len(seen) != 22 || seen["t/by server"] != 1 {
		t.Errorf("keys sent or undone: %v, want 21 and the one of the server", seen)
	}
	for key, n := range seen {
		if n != 1 {
			t.Errorf("key %s was sent and left undone", key)
		}
	}
}

func TestPartialAlwaysDoesSomething(t *testing.T) {
	t.Parallel()
	f := newFakeDynamoDB(t, okay)
	d := NewDynamoDBTransport(nil, 1, DynamoDBFaults{Unprocessed: 1})
	body := `{"RequestItems":{"t":[{"PutRequest":{"Item":{"e":{"S":"1"}}}},{"DeleteRequest":{"Key":{"e":{"S":"2"}}}}]}}`
	got, err := call(t, d, f.URL, "BatchWriteItem", body)
	if err != nil {
		t.Fatal(err)
	}
	type writes map[string][]json.RawMessage
	sent := decode[struct{ RequestItems writes }](t, f.bodies[0]).RequestItems["t"]
	undone := decode[struct{ UnprocessedItems writes }](t, got.body).UnprocessedItems["t"]
	if len(sent) != 1 || len(undone) != 1 || string(sent[0]) == string(undone[0]) {
		t.Errorf("sent %s, undone %s, want one each", sent, undone)
	}
}

func TestNothingIsSent(t *testing.T) {
	t.Parallel()
	f := newFakeDynamoDB(t, okay)
	d := NewDynamoDBTransport(nil, 1, DynamoDBFaults{Decide: func(c Call) Kind {
		if c.N <= 2 {
			return Nothing
		}
		return None
	}})
	for range 2 {
		got, err := call(t, d, f.URL, "BatchGetItem", getBody(3))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		decode[struct{ UnprocessedKeys keyLists }](t, got.body).UnprocessedKeys.count(seen)
		if len(seen) != 4 || len(f.bodies) != 0 {
			t.Errorf("undone %v, sent %v", seen, f.bodies)
		}
	}
	if got, err := call(t, d, f.URL, "BatchGetItem", getBody(3)); err != nil || got.body != `{}` || f.bodies[0] != getBody(3) {
		t.Errorf("third call: %+v, %v, sent %v", got, err, f.bodies)
	}
}

func TestThrottledStatementsKeepTheirPlaces(t *testing.T) {
	t.Parallel()
	f := newFakeDynamoDB(t, func(_ string, body []byte) (int, string) {
		// Every statement is answered with its own text.
		req := decode[struct{ Statements []struct{ Statement string } }](t, string(body))
		var out []map[string]string
		for _, s := range req.Statements {
			out = append(out, map[string]string{"TableName": s.Statement})
		}
		raw, err := json.Marshal(map[string]any{"Responses": out})
		if err != nil {
			t.Error(err)
		}
		return http.StatusOK, string(raw)
	})
	d := NewDynamoDBTransport(nil, 5, always(Partial))
	var list []string
	for i := range 25 {
		list = append(list, `{"Statement":"`+strconv.Itoa(i)+`"}`)
	}
	got, err := call(t, d, f.URL, "BatchExecuteStatement", `{"Statements":[`+strings.Join(list, ",")+`]}`)
	if err != nil {
		t.Fatal(err)
	}
	answers := decode[struct {
		Responses []struct {
			TableName string
			Error     struct{ Code string }
		}
	}](t, got.body).Responses
	if len(answers) != 25 {
		t.Fatalf("%d answers to 25 statements", len(answers))
	}
	throttled := 0
	for i, a := range answers {
		if a.Error.Code == "ThrottlingError" && a.TableName == "" {
			throttled++
			continue
		}
		if a.TableName != strconv.Itoa(i) {
			t.Errorf("answer %d is that of statement %q", i, a.TableName)
		}
	}
	if throttled == 0 || throttled == 25 {
		t.Errorf("%d of 25 statements throttled", throttled)
	}
}

func TestErrorsOfTheServerPass(t *testing.T) {
	t.Parallel()
	f := newFakeDynamoDB(t, func(string, []byte) (int, string) { return http.StatusBadRequest, `{"__type":"x#ValidationException"}` })
	d := NewDynamoDBTransport(nil, 1, DynamoDBFaults{Unprocessed: 0.5})
	got, err := call(t, d, f.URL, "BatchGetItem", getBody(9))
	if err != nil || got.status != http.StatusBadRequest || !strings.Contains(got.body, "ValidationException") {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := call(t, d, f.URL, "BatchGetItem", `not json`); err != nil || got.status != http.StatusBadRequest {
		t.Errorf("a request that is no batch: %+v, %v", got, err)
	}
}

func TestSeedFromTheEnvironment(t *testing.T) {
	t.Setenv(SeedVariable, "42")
	if got := Seed(t); got != 42 {
		t.Errorf("seed = %d", got)
	}
}
