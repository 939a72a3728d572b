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

// Delete implements backing.Store with BatchWriteItem in batches of 25.
func (s *Store) Delete(ctx context.Context, refs []feature.Ref) ([]error, error) {
	results := make([]error, len(refs))
	first := make(map[rawKey]int, len(refs))
	keys := make([]map[string]types.AttributeValue, 0, len(refs))
	for i, ref := range refs {
		raw := rawKey{string(ref.Key), ref.View.String()}
		if err := backing.CheckRef(ref); err != nil {
			results[i] = fmt.Errorf("delete %s: %w", ref, err)
		} else if _, ok := first[raw]; !ok { // a key may be in a request once
			first[raw] = i
			keys = append(keys, itemKey(ref))
		}
	}
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		ok  bool
		bad error
	)
	for start := 0; start < len(keys); start += batchSize {
		batch := keys[start:min(start+batchSize, len(keys))]
		wg.Go(func() {
			answered, left, err := s.deleteBatch(ctx, batch)
			mu.Lock()
			defer mu.Unlock()
			ok = ok || answered
			if bad == nil {
				bad = err
			}
			for _, key := range left {
				raw := rawOf(key)
				results[first[raw]] = fmt.Errorf("delete %s: %w", raw, err)
			}
		})
	}
	wg.Wait()
	for i, ref := range refs {
		if j, dup := first[rawKey{string(ref.Key), ref.View.String()}]; dup && results[i] == nil {
			results[i] = results[j]
		}
	}
	if bad != nil && ctx.Err() != nil {
		return results, bad
	}
	if !ok && bad != nil && !errors.Is(bad, feature.ErrThrottled) {
		return nil, bad
	}
	return results, nil
}

// ViewsOf implements backing.Store with a strongly consistent query of one partition.
func (s *Store) ViewsOf(ctx context.Context, key feature.Key) ([]feature.ViewID, error) {
	in := &ddb.QueryInput{
		TableName: &s.cfg.Table, ConsistentRead: aws.Bool(true), ProjectionExpression: aws.String("v"), KeyConditionExpression: aws.String("e = :e"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":e": &types.AttributeValueMemberS{Value: string(key)}},
	}
	var ids []feature.ViewID
	for {
		var out *ddb.QueryOutput
		err := s.retry(ctx, func() (err error) {
			out, err = s.client.Query(ctx, in)
			return err
		})
		if err != nil {
			return nil, s.wrap("list the views of a key", s.cfg.Table, err)
		}
		for _, item := range out.Items {
			v, ok := item["v"].(*types.AttributeValueMemberS)
			if !ok {
				continue
			}
			if id, err := feature.ParseViewID(v.Value); err == nil { // else no value of Hearth
				ids = append(ids, id)
			}
		}
		if len(out.LastEvaluatedKey) == 0 {
			return ids, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// deleteBatch deletes up to 25 keys and returns those that are left because of err.
func (s *Store) deleteBatch(ctx context.Context, keys []map[string]types.AttributeValue) (answered bool, left []map[string]types.AttributeValue, err error) {
	lastProgress := s.clock.Now()
	for n := 0; ; n++ {
		out, callErr := s.batchDelete(ctx, keys)
		left = keys
		switch {
		case callErr == nil:
			answered, left = true, nil
			for _, w := range out.UnprocessedItems[s.cfg.Table] {
				if w.DeleteRequest != nil {
					left = append(left, w.DeleteRequest.Key)
				}
			}
			if len(left) == 0 {
				return true, nil, nil
			}
			s.stats.throttles.Add(1)
			err = fmt.Errorf("%w: DynamoDB returned the key unprocessed", feature.ErrThrottled)
		case err == nil || ctx.Err() == nil:
			err = s.wrap("delete", s.cfg.Table, callErr)
		}
		if callErr != nil && !isThrottle(callErr) && !isTransient(callErr) {
			return answered, left, err
		}
		if len(left) < len(keys) {
			n, lastProgress = 0, s.clock.Now()
		}
		keys = left
		if s.clock.Now().Sub(lastProgress) >= s.cfg.RetryFor || s.pause(ctx, n) != nil {
			return answered, left, err
		}
	}
}

func (s *Store) batchDelete(ctx context.Context, keys []map[string]types.AttributeValue) (*ddb.BatchWriteItemOutput, error) {
	// An item's size is not known before it is gone: one unit each.
	if err := s.write.Wait(ctx, float64(len(keys))); err != nil {
		return nil, err
	}
	if err := s.acquire(ctx); err != nil {
		return nil, err
	}
	defer s.release()
	requests := make([]types.WriteRequest, len(keys))
	for i, key := range keys {
		requests[i].DeleteRequest = &types.DeleteRequest{Key: key}
	}
	out, err := s.client.BatchWriteItem(ctx, &ddb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{s.cfg.Table: requests}})
	if isThrottle(err) {
		s.stats.throttles.Add(1)
	}
	return out, err
}
