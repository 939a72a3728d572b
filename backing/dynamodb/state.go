package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
)

// GetState implements backing.StateStore with a strongly consistent read.
func (s *Store) GetState(ctx context.Context, kind, name string) (backing.StateItem, error) {
	item := backing.StateItem{Kind: kind, Name: name, ExpireAt: feature.NoTime}
	if err := backing.CheckState(kind, name, nil); err != nil {
		return item, err
	}
	op := "read state " + kind + "/" + name
	var out *ddb.GetItemOutput
	err := s.retry(ctx, func() (err error) {
		out, err = s.client.GetItem(ctx, &ddb.GetItemInput{TableName: &s.cfg.StateTable, Key: stateKey(kind, name), ConsistentRead: aws.Bool(true)})
		return err
	})
	if err != nil {
		return item, s.wrap(op, s.cfg.StateTable, err)
	}
	if len(out.Item) == 0 {
		return item, fmt.Errorf("state %s/%s: %w", kind, name, feature.ErrNotFound)
	}
	item, err = stateItem(kind, out.Item)
	return item, s.wrap(op, s.cfg.StateTable, err)
}

// PutState implements backing.StateStore with a conditional put.
func (s *Store) PutState(ctx context.Context, item backing.StateItem) (backing.StateItem, error) {
	if err := backing.CheckState(item.Kind, item.Name, item.Value); err != nil {
		return item, err
	}
	revision, err := backing.NewRevision()
	if err != nil {
		return item, err
	}
	row := stateKey(item.Kind, item.Name)
	row["rev"] = revisionAttribute(revision)
	// Text where possible, for who reads the table in the console.
	if utf8.Valid(item.Value) {
		row["b"] = &types.AttributeValueMemberS{Value: string(item.Value)}
	} else {
		row["b"] = &types.AttributeValueMemberB{Value: item.Value}
	}
	if x, expires := retainSeconds(item.ExpireAt); expires {
		row["x"] = &types.AttributeValueMemberN{Value: x}
	}
	in := &ddb.PutItemInput{TableName: &s.cfg.StateTable, Item: row, ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld}
	if item.Revision == 0 {
		in.ConditionExpression = aws.String("attribute_not_exists(k)")
	} else {
		in.ConditionExpression = aws.String("rev = :old")
		in.ExpressionAttributeValues = map[string]types.AttributeValue{":old": revisionAttribute(item.Revision)}
	}
	err = s.retry(ctx, func() error {
		_, err := s.client.PutItem(ctx, in)
		return err
	})
	var failed *types.ConditionalCheckFailedException
	switch {
	case errors.As(err, &failed):
		// Our own revision there: an earlier attempt got through and its answer was lost.
		if stored, ok := failed.Item["rev"].(*types.AttributeValueMemberN); !ok || stored.Value != strconv.FormatInt(revision, 10) {
			return item, fmt.Errorf("state %s/%s: %w", item.Kind, item.Name, feature.ErrConflict)
		}
	case err != nil:
		return item, s.wrap("write state "+item.Kind+"/"+item.Name, s.cfg.StateTable, err)
	}
	item.Revision = revision
	return item, nil
}

// DeleteState implements backing.StateStore with a conditional delete.
func (s *Store) DeleteState(ctx context.Context, kind, name string, revision int64) error {
	if err := backing.CheckState(kind, name, nil); err != nil {
		return err
	}
	err := s.retry(ctx, func() error {
		_, err := s.client.DeleteItem(ctx, &ddb.DeleteItemInput{
			TableName: &s.cfg.StateTable, Key: stateKey(kind, name),
			ConditionExpression:       aws.String("attribute_not_exists(k) OR rev = :old"),
			ExpressionAttributeValues: map[string]types.AttributeValue{":old": revisionAttribute(revision)},
		})
		return err
	})
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		return fmt.Errorf("state %s/%s: %w", kind, name, feature.ErrConflict)
	}
	return s.wrap("delete state "+kind+"/"+name, s.cfg.StateTable, err)
}

// ListState implements backing.StateStore with a strongly consistent query.
func (s *Store) ListState(ctx context.Context, kind string, opt backing.ListOptions) ([]backing.StateItem, error) {
	op := "list state " + kind
	in := &ddb.QueryInput{
		TableName: &s.cfg.StateTable, ConsistentRead: aws.Bool(true), ScanIndexForward: aws.Bool(!opt.Descending),
		KeyConditionExpression:    aws.String("k = :k"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":k": &types.AttributeValueMemberS{Value: kind}},
	}
	if opt.Prefix != "" {
		in.KeyConditionExpression = aws.String("k = :k AND begins_with(n, :p)")
		in.ExpressionAttributeValues[":p"] = &types.AttributeValueMemberS{Value: opt.Prefix}
	} else if opt.After != "" {
		// One condition on the sort key is allowed: with a prefix, After is applied below.
		in.KeyConditionExpression = aws.String("k = :k AND n > :a")
		if opt.Descending {
			in.KeyConditionExpression = aws.String("k = :k AND n < :a")
		}
		in.ExpressionAttributeValues[":a"] = &types.AttributeValueMemberS{Value: opt.After}
	}
	var items []backing.StateItem
	for {
		if opt.Limit > 0 && (opt.Prefix == "" || opt.After == "") {
			in.Limit = aws.Int32(int32(min(opt.Limit-len(items), 1000)))
		}
		var out *ddb.QueryOutput
		err := s.retry(ctx, func() (err error) {
			out, err = s.client.Query(ctx, in)
			return err
		})
		if err != nil {
			return nil, s.wrap(op, s.cfg.StateTable, err)
		}
		for _, row := range out.Items {
			item, err := stateItem(kind, row)
			if err != nil {
				return nil, s.wrap(op, s.cfg.StateTable, err)
			}
			if opt.After != "" && (!opt.Descending && item.Name <= opt.After || opt.Descending && item.Name >= opt.After) {
				continue
			}
			if items = append(items, item); opt.Limit > 0 && len(items) == opt.Limit {
				return items, nil
			}
		}
		if len(out.LastEvaluatedKey) == 0 {
			return items, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

func stateKey(kind, name string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{
		"k": &types.AttributeValueMemberS{Value: kind},
		"n": &types.AttributeValueMemberS{Value: name},
	}
}

func revisionAttribute(r int64) *types.AttributeValueMemberN {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(r, 10)}
}

func stateItem(kind string, row map[string]types.AttributeValue) (backing.StateItem, error) {
	item := backing.StateItem{Kind: kind, ExpireAt: feature.NoTime}
	n, ok := row["n"].(*types.AttributeValueMemberS)
	rev, okRev := row["rev"].(*types.AttributeValueMemberN)
	if !ok || !okRev {
		return item, fmt.Errorf("%w: state item of kind %s without name or revision", feature.ErrCorrupt, kind)
	}
	item.Name = n.Value
	var err error
	if item.Revision, err = strconv.ParseInt(rev.Value, 10, 64); err != nil {
		return item, fmt.Errorf("%w: state %s/%s has revision %q", feature.ErrCorrupt, kind, n.Value, rev.Value)
	}
	switch b := row["b"].(type) {
	case *types.AttributeValueMemberS:
		item.Value = []byte(b.Value)
	case *types.AttributeValueMemberB:
		item.Value = b.Value
	}
	if x, ok := row["x"].(*types.AttributeValueMemberN); ok {
		seconds, err := strconv.ParseInt(x.Value, 10, 64)
		if err != nil {
			return item, fmt.Errorf("%w: state %s/%s has expiry %q", feature.ErrCorrupt, kind, n.Value, x.Value)
		}
		item.ExpireAt = feature.Micros(seconds * 1e6)
	}
	return item, nil
}
