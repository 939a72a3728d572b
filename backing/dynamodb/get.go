package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
)

// getKeys is DynamoDB's limit of keys per BatchGetItem.
const getKeys = 100

// errUnprocessed says why keys that DynamoDB kept returning unread have no answer.
var errUnprocessed = fmt.Errorf("%w: DynamoDB returned the key unprocessed", feature.ErrThrottled)

// Get implements backing.Store with BatchGetItem. Keys that DynamoDB returns unprocessed
// (throttled, or beyond 16 MB) are asked for again with full jitter until ctx ends or
// RetryFor passes without progress.
func (s *Store) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	results := make([]feature.GetResult, len(refs))
	first := make(map[feature.Ref]int, len(refs))
	unique := make([]feature.Ref, 0, len(refs))
	for i, ref := range refs {
		if err := backing.CheckRef(ref); err != nil {
			results[i].Err = fmt.Errorf("get %s: %w", ref, err)
		} else if _, ok := first[ref]; !ok {
			first[ref] = i
			unique = append(unique, ref)
		}
	}
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		ok  bool  // some call was answered
		bad error // the first call that was not
	)
	for start := 0; start < len(unique); start += getKeys {
		batch := unique[start:min(start+getKeys, len(unique))]
		get := func() {
			answered, err := s.getBatch(ctx, batch, first, results)
			mu.Lock()
			defer mu.Unlock()
			ok = ok || answered
			if bad == nil {
				bad = err
			}
		}
		if len(unique) <= getKeys {
			get() // the usual read: no goroutine
			continue
		}
		wg.Go(get)
	}
	wg.Wait()
	if !ok && bad != nil && !errors.Is(bad, feature.ErrThrottled) {
		return nil, bad
	}
	for i, ref := range refs {
		if j, ok := first[ref]; ok && j != i {
			results[i] = results[j]
		}
	}
	return results, nil
}

// getBatch reads up to getKeys keys into results. Each index belongs to one batch, so the
// batches write without a lock. answered says that DynamoDB accepted at least one request;
// err is why some keys have no answer.
func (s *Store) getBatch(ctx context.Context, refs []feature.Ref, first map[feature.Ref]int, results []feature.GetResult) (answered bool, err error) {
	keys := itemKeys(refs)
	var index map[rawKey]int // of the results; made when it is needed, which is seldom
	place := func() map[rawKey]int {
		if index == nil {
			index = make(map[rawKey]int, len(refs))
			for _, ref := range refs {
				index[rawKey{string(ref.Key), ref.View.String()}] = first[ref]
			}
		}
		return index
	}
	lastProgress := s.clock.Now()
	for n := 0; ; n++ {
		sink := &getSink{table: s.cfg.Table, page: new(feature.ScanPage)}
		out, callErr := s.batchGet(ctx, keys, sink)
		left := keys
		switch {
		case callErr == nil && sink.used:
			takeRecords(sink.page.Records, first, results)
			return true, nil // what was not returned is absent
		case callErr == nil:
			answered = true
			takeItems(out.Responses[s.cfg.Table], place(), results)
			if left = out.UnprocessedKeys[s.cfg.Table].Keys; len(left) == 0 {
				return true, nil // what was not returned is absent
			}
			s.stats.throttles.Add(1)
			err = errUnprocessed
		case err == nil || ctx.Err() == nil: // the end of ctx does not hide what went before
			err = s.wrap("get", s.cfg.Table, callErr)
		}
		if callErr != nil && !isThrottle(callErr) && !isTransient(callErr) {
			break
		}
		if len(left) < len(keys) {
			n, lastProgress = 0, s.clock.Now()
		}
		keys = left
		if s.clock.Now().Sub(lastProgress) >= s.cfg.RetryFor || s.pause(ctx, n) != nil {
			break
		}
	}
	for _, key := range keys {
		if i, ok := place()[rawOf(key)]; ok {
			results[i].Err = fmt.Errorf("get %s: %w", rawOf(key), err)
		}
	}
	return answered, err
}

// Attempt reads up to 100 refs with exactly one request, and repeats nothing: a reader that
// bounds its requests per second repeats what comes back with an error matching
// feature.ErrThrottled or feature.ErrUnreachable itself. Results are aligned by index.
func (s *Store) Attempt(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	if len(refs) > getKeys {
		return nil, fmt.Errorf("get: %w: %d keys in one request, the limit is %d", feature.ErrInvalid, len(refs), getKeys)
	}
	results := make([]feature.GetResult, len(refs))
	keys := make([]map[string]types.AttributeValue, 0, len(refs))
	index := make(map[rawKey]int, len(refs))
	for i, ref := range refs {
		if err := backing.CheckRef(ref); err != nil {
			results[i].Err = fmt.Errorf("get %s: %w", ref, err)
			continue
		}
		key := rawKey{string(ref.Key), ref.View.String()}
		if _, twice := index[key]; twice {
			return nil, fmt.Errorf("get %s: %w: asked twice in one request", ref, feature.ErrInvalid)
		}
		index[key] = i
		keys = append(keys, itemKey(ref))
	}
	if len(keys) == 0 {
		return results, nil
	}
	out, err := s.client.BatchGetItem(ctx, s.batchGetInput(keys), func(o *ddb.Options) { o.Retryer = aws.NopRetryer{} })
	if err != nil {
		if isThrottle(err) {
			s.stats.throttles.Add(1)
		}
		return nil, s.wrap("get", s.cfg.Table, err)
	}
	takeItems(out.Responses[s.cfg.Table], index, results)
	left := out.UnprocessedKeys[s.cfg.Table].Keys
	if len(left) > 0 {
		s.stats.throttles.Add(1)
	}
	for _, key := range left {
		if i, ok := index[rawOf(key)]; ok {
			results[i].Err = fmt.Errorf("get %s: %w", rawOf(key), errUnprocessed)
		}
	}
	return results, nil
}

func (s *Store) batchGetInput(keys []map[string]types.AttributeValue) *ddb.BatchGetItemInput {
	return &ddb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{s.cfg.Table: {
		Keys: keys, ConsistentRead: aws.Bool(s.cfg.ConsistentRead), ProjectionExpression: aws.String("e, v, p"),
	}}}
}

func (s *Store) batchGet(ctx context.Context, keys []map[string]types.AttributeValue, sink *getSink) (*ddb.BatchGetItemOutput, error) {
	if err := s.acquire(ctx); err != nil {
		return nil, err
	}
	defer s.release()
	if !s.cfg.StockDecoder {
		ctx = context.WithValue(ctx, sinkKey{}, sink)
	}
	out, err := s.client.BatchGetItem(ctx, s.batchGetInput(keys))
	if isThrottle(err) {
		s.stats.throttles.Add(1)
	}
	return out, err
}

// takeRecords stores what was found by the fast decoder.
func takeRecords(records []feature.Record, first map[feature.Ref]int, results []feature.GetResult) {
	for i := range records {
		rec := &records[i]
		at, ok := first[rec.Ref]
		switch {
		case !ok:
		case len(rec.Payload) > 0:
			results[at] = feature.GetResult{Payload: rec.Payload}
		default:
			results[at].Err = fmt.Errorf("get %s: %w: the item has no value attribute p", rec.Ref, feature.ErrCorrupt)
		}
	}
}

// takeItems stores what was found.
func takeItems(items []map[string]types.AttributeValue, index map[rawKey]int, results []feature.GetResult) {
	for _, item := range items {
		key := rawOf(item)
		i, ok := index[key]
		if !ok {
			continue
		}
		if p, ok := item["p"].(*types.AttributeValueMemberB); ok && len(p.Value) > 0 {
			results[i] = feature.GetResult{Payload: p.Value}
		} else {
			results[i].Err = fmt.Errorf("get %s: %w: the item has no value attribute p", key, feature.ErrCorrupt)
		}
	}
}

// rawKey is the key of an item as stored.
type rawKey struct{ e, v string }

func (k rawKey) String() string { return k.v + "/" + k.e }

// rawOf reads the key of an item; it is empty for an item that has another one.
func rawOf(item map[string]types.AttributeValue) (k rawKey) {
	if e, ok := item["e"].(*types.AttributeValueMemberS); ok {
		k.e = e.Value
	}
	if v, ok := item["v"].(*types.AttributeValueMemberS); ok {
		k.v = v.Value
	}
	return k
}

// itemKeys makes the keys of many refs, most of which are of the same view.
func itemKeys(refs []feature.Ref) []map[string]types.AttributeValue {
	keys := make([]map[string]types.AttributeValue, len(refs))
	entities := make([]types.AttributeValueMemberS, len(refs))
	var (
		id   feature.ViewID
		view *types.AttributeValueMemberS
	)
	for i, ref := range refs {
		if view == nil || ref.View != id {
			id, view = ref.View, &types.AttributeValueMemberS{Value: ref.View.String()}
		}
		entities[i].Value = string(ref.Key)
		keys[i] = map[string]types.AttributeValue{"e": &entities[i], "v": view}
	}
	return keys
}

func itemKey(ref feature.Ref) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{
		"e": &types.AttributeValueMemberS{Value: string(ref.Key)},
		"v": &types.AttributeValueMemberS{Value: ref.View.String()},
	}
}
