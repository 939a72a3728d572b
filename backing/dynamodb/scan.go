package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/hearthstore/hearth/feature"
)

// Scan implements backing.Store with one Scan request per page: up to 1 MB, or req.Limit
// items looked at. A filter by views saves transfer, not read units. Items that are no
// values of Hearth are skipped and counted.
func (s *Store) Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error {
	in, err := s.scanInput(req)
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	op := fmt.Sprintf("scan segment %d of %d", req.Segment, req.Segments)
	if err := s.read.Wait(ctx, 0); err != nil {
		return s.wrap(op, s.cfg.Table, err)
	}
	stock := s.cfg.StockDecoder
	err = s.retry(ctx, func() error {
		if !stock {
			err := s.scanFast(ctx, in, page)
			if !errors.Is(err, errUnexpected) {
				return err
			}
			// The same page again, at the price of its read units: better than to guess.
			stock = true
			s.stats.stockPages.Add(1)
			s.log.Debug("a scan page goes to the AWS client's own decoder", "table", s.cfg.Table, "reason", err)
		}
		return s.scanStock(ctx, in, page)
	})
	if err != nil {
		page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
		return s.wrap(op, s.cfg.Table, err)
	}
	s.read.Spend(page.ReadUnits)
	return nil
}

func (s *Store) scanInput(req feature.ScanRequest) (*ddb.ScanInput, error) {
	if req.Segments < 1 || req.Segment < 0 || req.Segment >= req.Segments {
		return nil, fmt.Errorf("%w: segment %d of %d", feature.ErrInvalid, req.Segment, req.Segments)
	}
	in := &ddb.ScanInput{
		TableName: &s.cfg.Table, ConsistentRead: aws.Bool(s.cfg.ConsistentScan),
		ProjectionExpression: aws.String("e, v, p, x"), ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal,
	}
	if req.Segments > 1 {
		in.Segment, in.TotalSegments = aws.Int32(int32(req.Segment)), aws.Int32(int32(req.Segments))
	}
	if req.Limit > 0 {
		in.Limit = aws.Int32(int32(req.Limit))
	}
	if len(req.Cursor) > 0 {
		start, err := parseCursor(req.Cursor)
		if err != nil {
			return nil, err
		}
		in.ExclusiveStartKey = start
	}
	if len(req.Views) > 0 {
		in.ExpressionAttributeValues = map[string]types.AttributeValue{}
		var groups []string // IN takes up to 100 operands
		for chunk := range slices.Chunk(req.Views, 100) {
			names := make([]string, len(chunk))
			for i, v := range chunk {
				names[i] = ":v" + strconv.Itoa(len(in.ExpressionAttributeValues))
				in.ExpressionAttributeValues[names[i]] = &types.AttributeValueMemberS{Value: v.String()}
			}
			groups = append(groups, "v IN ("+strings.Join(names, ",")+")")
		}
		in.FilterExpression = aws.String(strings.Join(groups, " OR "))
	}
	return in, nil
}

// scanFast reads a page with the fast decoder. An error that matches errUnexpected means
// that the page is for the other one.
func (s *Store) scanFast(ctx context.Context, in *ddb.ScanInput, page *feature.ScanPage) error {
	sink := &scanSink{page: page}
	out, err := s.client.Scan(context.WithValue(ctx, sinkKey{}, sink), in)
	if err != nil {
		return err
	}
	if !sink.used {
		return s.takeOutput(out, page)
	}
	s.stats.foreign.Add(sink.foreign)
	return nil
}

// scanStock reads a page with the client's own decoder.
func (s *Store) scanStock(ctx context.Context, in *ddb.ScanInput, page *feature.ScanPage) error {
	out, err := s.client.Scan(ctx, in)
	if err != nil {
		return err
	}
	return s.takeOutput(out, page)
}

func (s *Store) takeOutput(out *ddb.ScanOutput, page *feature.ScanPage) error {
	page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
	for _, item := range out.Items {
		if rec, ok := recordOf(item); ok {
			page.Records = append(page.Records, rec)
		} else {
			s.stats.foreign.Add(1)
		}
	}
	if len(out.LastEvaluatedKey) > 0 {
		last := rawOf(out.LastEvaluatedKey)
		if last.e == "" || last.v == "" {
			return fmt.Errorf("%w: the last key of the page is not of this table's schema", feature.ErrCorrupt)
		}
		page.Next = appendCursor(nil, last.e, last.v)
	}
	if out.ConsumedCapacity != nil {
		page.ReadUnits = aws.ToFloat64(out.ConsumedCapacity.CapacityUnits)
	}
	return nil
}

// recordOf reads an item; false means that it is no value of Hearth.
func recordOf(item map[string]types.AttributeValue) (rec feature.Record, ok bool) {
	key := rawOf(item)
	p, ok := item["p"].(*types.AttributeValueMemberB)
	if !ok {
		return rec, false
	}
	rec.Payload = p.Value
	var x string
	if n, ok := item["x"].(*types.AttributeValueMemberN); ok {
		x = n.Value
	}
	ok = fillRecord(&rec, key.e, key.v, x) // before the return copies rec
	return rec, ok
}

// fillRecord completes a record from the attributes beside its payload; false means that
// the item is no value of Hearth. A payload that cannot be read gives a zero version.
func fillRecord(rec *feature.Record, e, v, x string) bool {
	id, err := feature.ParseViewID(v)
	if err != nil || e == "" {
		return false
	}
	rec.Ref = feature.Ref{View: id, Key: feature.Key(e)}
	rec.Version, rec.Online, rec.Retain = feature.Version{}, feature.NoTime, feature.NoTime
	if h, _, err := feature.ParsePayload(rec.Payload); err == nil {
		rec.Version = h.Version
	}
	if x != "" {
		seconds, err := strconv.ParseFloat(x, 64)
		if err != nil || math.Abs(seconds) > 1e12 {
			return false
		}
		rec.Retain = feature.Micros(seconds * 1e6)
	}
	return true
}

// A cursor is a format byte, the length of v in two bytes, v and e.
const cursorFormat = 2

func appendCursor(dst []byte, e, v string) []byte {
	dst = append(dst, cursorFormat, byte(len(v)>>8), byte(len(v)))
	dst = append(dst, v...)
	return append(dst, e...)
}

func parseCursor(b []byte) (map[string]types.AttributeValue, error) {
	if len(b) < 3 || b[0] != cursorFormat {
		return nil, fmt.Errorf("%w: the cursor is not of this store", feature.ErrInvalid)
	}
	n := int(b[1])<<8 | int(b[2])
	if len(b) <= 3+n {
		return nil, fmt.Errorf("%w: the cursor is cut", feature.ErrInvalid)
	}
	return map[string]types.AttributeValue{
		"v": &types.AttributeValueMemberS{Value: string(b[3 : 3+n])},
		"e": &types.AttributeValueMemberS{Value: string(b[3+n:])},
	}, nil
}
