package dynamodb

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
)

// FetchLimit is the most refs of one Fetch.
const FetchLimit = getKeys

// Fetch reads up to FetchLimit values with one BatchGetItem into page, whose memory it
// reuses as Scan does; page.Next is nil. What the table does not hold is not on the page.
// The refs must differ. left are those that DynamoDB did not read, for its rate or because
// the answer would have been over 16 MB: ask for them again, with a pause when none was read.
//
// It is for bulk reading at a pace of the caller's own: beyond the client's three tries of a
// request that failed in transit it repeats nothing, and it takes none of the slots of Get.
// Its request is written and sent and its answer read by this package (see ahead):
// bench/README.md has what that saves.
func (s *Store) Fetch(ctx context.Context, refs []feature.Ref, page *feature.ScanPage) (left []feature.Ref, err error) {
	page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
	if len(refs) > FetchLimit {
		return nil, fmt.Errorf("fetch: %w: %d keys in one request, the limit is %d", feature.ErrInvalid, len(refs), FetchLimit)
	}
	if err := s.read.Wait(ctx, 0); err != nil {
		return nil, s.wrap("fetch", s.cfg.Table, err)
	}
	body, n := s.appendFetch(make([]byte, 0, 200+64*len(refs)), refs)
	if n == 0 {
		return nil, nil
	}
	sink := &getSink{table: s.cfg.Table, body: body, page: page, stock: s.cfg.StockDecoder}
	if s.ahead.fetch(ctx, sink) {
		s.read.Spend(page.ReadUnits)
		return nil, nil
	}
	out, err := s.client.BatchGetItem(context.WithValue(ctx, sinkKey{}, sink), s.fetchInput)
	if sent := sink.sent; sent != nil && sent.resp != nil { // the client did not come so far as to take it
		_ = sent.resp.Body.Close()
	}
	if err != nil {
		page.Records, page.ReadUnits = page.Records[:0], 0
		if isThrottle(err) {
			s.stats.throttles.Add(1)
		}
		return nil, s.wrap("fetch", s.cfg.Table, err)
	}
	if !sink.used {
		left = s.takeFetched(out, refs, page)
	}
	s.read.Spend(page.ReadUnits)
	return left, nil
}

// fetchInput satisfies the client's checks; the request's text is Fetch's own.
func fetchInput(table string) *ddb.BatchGetItemInput {
	return &ddb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{table: {Keys: []map[string]types.AttributeValue{}}}}
}

// appendFetch writes the request for refs, and says how many of them it holds: one that no
// store could hold is absent.
func (s *Store) appendFetch(b []byte, refs []feature.Ref) (body []byte, n int) {
	b = append(b, `{"RequestItems":{`...)
	b = appendJSON(b, s.cfg.Table)
	b = append(b, `:{"Keys":[`...)
	var (
		id   feature.ViewID
		view []byte // its text
	)
	for _, ref := range refs {
		if backing.CheckRef(ref) != nil {
			continue
		}
		if view == nil || ref.View != id {
			id, view = ref.View, appendJSON(view[:0], ref.View.String())
		}
		if n > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"e":{"S":`...)
		b = appendJSON(b, string(ref.Key))
		b = append(b, `},"v":{"S":`...)
		b = append(b, view...)
		b = append(b, "}}"...)
		n++
	}
	b = append(b, `],"ProjectionExpression":"e, v, p, x"`...)
	if s.cfg.ConsistentRead {
		b = append(b, `,"ConsistentRead":true`...)
	}
	return append(b, `}},"ReturnConsumedCapacity":"TOTAL"}`...), n
}

// appendJSON writes a string. Nearly all are plain: entity keys are percent-encoded.
func appendJSON(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(text) // a string always can be
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}

// takeFetched fills page from an answer that went to the client's own decoder.
func (s *Store) takeFetched(out *ddb.BatchGetItemOutput, refs []feature.Ref, page *feature.ScanPage) (left []feature.Ref) {
	page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
	for _, item := range out.Responses[s.cfg.Table] {
		if rec, ok := recordOf(item); ok {
			page.Records = append(page.Records, rec)
		} else {
			s.stats.foreign.Add(1)
		}
	}
	for _, c := range out.ConsumedCapacity {
		page.ReadUnits += aws.ToFloat64(c.CapacityUnits)
	}
	unread := out.UnprocessedKeys[s.cfg.Table].Keys
	if len(unread) == 0 {
		return nil
	}
	s.stats.throttles.Add(1)
	asked := make(map[rawKey]feature.Ref, len(refs))
	for _, ref := range refs {
		asked[rawKey{string(ref.Key), ref.View.String()}] = ref
	}
	for _, key := range unread {
		if ref, ok := asked[rawOf(key)]; ok {
			left = append(left, ref)
		}
	}
	return left
}
