package dynamodb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

// What Fetch reads is the same with its own decoder and with the client's: values, what was
// left unread, read units.
// Seen red with: ConsumedCapacity skipped; left always empty.
func TestFetchAgrees(t *testing.T) {
	t.Parallel()
	fast, answerFast := cannedStore(t, false)
	stock, answerStock := cannedStore(t, true)
	var fastPage, stockPage feature.ScanPage
	for i := range 400 {
		p := pages{rand.New(rand.NewPCG(uint64(i), 13))}
		text, refs := p.getAnswer(p.IntN(40), i%2 == 1)
		if i%2 == 0 {
			text = fmt.Sprintf(`{"ConsumedCapacity":[{"TableName":"table","CapacityUnits":%d.5}],%s`, i, text[1:])
		}
		answerFast.body, answerStock.body = []byte(text), []byte(text)
		read := func(s *Store, page *feature.ScanPage) string {
			left, err := s.Fetch(t.Context(), refs, page)
			return fmt.Sprintf("%s of %v units, left %v, %v", show(page), page.ReadUnits, left, err)
		}
		if got, want := read(fast, &fastPage), read(stock, &stockPage); got != want {
			t.Fatalf("answer %d: %s\nfast:\n%s\nclient:\n%s", i, text, got, want)
		}
	}
}

// Unread keys come back as left, and count as a throttle; the units are those of the answer.
func TestFetchLeavesUnread(t *testing.T) {
	t.Parallel()
	s, answer := cannedStore(t, false)
	h := feature.AppendPayload(nil, feature.Header{Version: feature.Version{Run: 1}}, nil)
	payload, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	answer.body = fmt.Appendf(nil, `{"Responses":{"table":[{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":%s}}]},
		"UnprocessedKeys":{"table":{"Keys":[{"e":{"S":"id=2"},"v":{"S":"v@1"}}]}},"ConsumedCapacity":[{"TableName":"table","CapacityUnits":1.5}]}`, payload)
	var page feature.ScanPage
	view := feature.ViewID{Name: "v", Version: 1}
	refs := []feature.Ref{{View: view, Key: "id=1"}, {View: view, Key: "id=2"}, {View: view, Key: "id=3"}}
	left, err := s.Fetch(t.Context(), refs, &page)
	if err != nil || !reflect.DeepEqual(left, refs[1:2]) || len(page.Records) != 1 || page.Records[0].Ref != refs[0] || page.ReadUnits != 1.5 || s.Stats().Throttles != 1 {
		t.Errorf("left %v, %v, page %s of %v units, %d throttles", left, err, show(&page), page.ReadUnits, s.Stats().Throttles)
	}
	if _, err := s.Fetch(t.Context(), make([]feature.Ref, FetchLimit+1), &page); !errors.Is(err, feature.ErrInvalid) || len(page.Records) != 0 {
		t.Errorf("too many refs: %v, %d records", err, len(page.Records))
	}
	answer.body = []byte("no answer is needed for refs that no store can hold")
	if left, err := s.Fetch(t.Context(), []feature.Ref{{View: view}}, &page); err != nil || len(left) != 0 {
		t.Errorf("an impossible ref: %v, %v", left, err)
	}
}

// asking notes the last request.
type asking struct {
	canned
	target string
	asked  []byte
}

func (a *asking) Do(req *http.Request) (*http.Response, error) {
	var err error
	if a.asked, err = io.ReadAll(req.Body); err != nil {
		return nil, err
	}
	a.target = req.Header.Get("X-Amz-Target")
	if got := req.ContentLength; got != int64(len(a.asked)) {
		return nil, fmt.Errorf("Content-Length %d of %d bytes", got, len(a.asked))
	}
	return a.canned.Do(req)
}

// The request that Fetch writes means what the client's own would, whatever the keys hold.
// Seen red with: keys copied without quoting; ConsistentRead left out.
func TestFetchRequest(t *testing.T) {
	t.Parallel()
	for _, consistent := range []bool{false, true} {
		a := &asking{canned: canned{body: []byte(`{"Responses":{"a.b":[]},"UnprocessedKeys":{}}`)}}
		s, err := Open(t.Context(), Config{Table: "a.b", Endpoint: "http://127.0.0.1:1", HTTPClient: a, ConsistentRead: consistent, RetryFor: 1, RetryMaxAttempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		refs := []feature.Ref{
			{View: feature.ViewID{Name: "v", Version: 1}, Key: "id=1"}, {View: feature.ViewID{Name: "v", Version: 2}, Key: "id=%22&zip=7"},
			{View: feature.ViewID{Name: "w\"", Version: 1}, Key: "id=\"\\\x01<é>"},
		}
		var page feature.ScanPage
		if _, err := s.Fetch(t.Context(), refs, &page); err != nil {
			t.Fatal(err)
		}
		type text struct{ S string }
		type key struct{ E, V text }
		var got struct {
			RequestItems map[string]struct {
				Keys                 []key
				ProjectionExpression string
				ConsistentRead       bool
			}
			ReturnConsumedCapacity string
		}
		dec := json.NewDecoder(bytes.NewReader(a.asked))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&got); err != nil {
			t.Fatalf("%v: %s", err, a.asked)
		}
		var want []key
		for _, ref := range refs {
			want = append(want, key{text{string(ref.Key)}, text{ref.View.String()}})
		}
		in := got.RequestItems["a.b"]
		if !reflect.DeepEqual(in.Keys, want) || in.ProjectionExpression != "e, v, p, x" || in.ConsistentRead != consistent ||
			got.ReturnConsumedCapacity != "TOTAL" || a.target != "DynamoDB_20120810.BatchGetItem" {
			t.Errorf("%s: %s, want %+v", a.target, a.asked, want)
		}
	}
}
