package dynamodb

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/hearthstore/hearth/feature"
)

// updateForm is a way of writing UPDATE in PartiQL. DynamoDB documents a SET per attribute;
// not every endpoint that speaks its protocol reads that, and some read only a list.
type updateForm int

const (
	formRepeated updateForm = iota // SET a=? SET b=?
	formList                       // SET a=?, b=?
	formNone                       // neither: PutItem
)

// forms is what the endpoint was found to understand.
type forms struct {
	mu     sync.Mutex
	form   updateForm
	denied bool
}

func (f *forms) update() updateForm { f.mu.Lock(); defer f.mu.Unlock(); return f.form }

func (f *forms) partiQL() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.denied && f.form != formNone
}

// reject notes that a form was not understood; the next one is tried.
func (f *forms) reject(form updateForm, log *slog.Logger) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.form != form {
		return // another request has found out already
	}
	if f.form++; f.form == formNone {
		log.Warn("this endpoint does not understand PartiQL updates: values are written one by one, at about ten times the CPU")
	}
}

// deny notes that the role may not use PartiQL.
func (f *forms) deny(log *slog.Logger, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.denied {
		f.denied = true
		log.Warn("PartiQL is denied: values are written one by one, at about ten times the CPU; allow dynamodb:PartiQLInsert and dynamodb:PartiQLUpdate", "reason", reason)
	}
}

// statements makes one statement per op.
func (s *Store) statements(batch []*putOp, form updateForm) []types.BatchStatementRequest {
	t := texts(s.cfg.Table, form)
	out := make([]types.BatchStatementRequest, len(batch))
	for i, op := range batch {
		retain, expires := retainSeconds(op.rec.Retain)
		r := op.rec.Version.Append(make([]byte, 0, 2*feature.VersionSize))
		var hash [8]byte
		binary.BigEndian.PutUint64(hash[:], op.hash)
		var (
			e  types.AttributeValue = &types.AttributeValueMemberS{Value: string(op.rec.Key)}
			v  types.AttributeValue = &types.AttributeValueMemberS{Value: op.view}
			rv types.AttributeValue = &types.AttributeValueMemberB{Value: r}
			p  types.AttributeValue = &types.AttributeValueMemberB{Value: op.rec.Payload}
			h  types.AttributeValue = &types.AttributeValueMemberB{Value: hash[:]}
			x  types.AttributeValue
		)
		if expires {
			x = &types.AttributeValueMemberN{Value: retain}
		}
		switch {
		case !op.update && !expires:
			out[i] = types.BatchStatementRequest{Statement: &t.insert, Parameters: []types.AttributeValue{e, v, rv, p, h}}
		case !op.update:
			out[i] = types.BatchStatementRequest{Statement: &t.insertX, Parameters: []types.AttributeValue{e, v, rv, p, h, x}}
		default:
			floor := &types.AttributeValueMemberB{Value: op.rec.Version.Floor().Append(r[len(r):])}
			// UPDATE keeps attributes that it does not name, so x is set or removed.
			if out[i].Statement = &t.update; expires {
				out[i].Statement = &t.updateX
				out[i].Parameters = []types.AttributeValue{rv, p, h, x, e, v, floor, rv, h}
			} else {
				out[i].Parameters = []types.AttributeValue{rv, p, h, e, v, floor, rv, h}
			}
			out[i].ReturnValuesOnConditionCheckFailure = types.ReturnValuesOnConditionCheckFailureAllOld
		}
	}
	return out
}

type statementTexts struct{ insert, insertX, update, updateX string }

func texts(table string, form updateForm) *statementTexts {
	sep := " SET "
	if form == formList {
		sep = ", "
	}
	where := ` WHERE e=? AND v=? AND (r < ? OR (r < ? AND h <> ?))`
	set := `UPDATE "` + table + `" SET ` + strings.Join([]string{"r=?", "p=?", "h=?"}, sep)
	return &statementTexts{
		insert:  `INSERT INTO "` + table + `" VALUE {'e':?,'v':?,'r':?,'p':?,'h':?}`,
		insertX: `INSERT INTO "` + table + `" VALUE {'e':?,'v':?,'r':?,'p':?,'h':?,'x':?}`,
		update:  set + ` REMOVE x` + where,
		updateX: set + sep + `x=?` + where,
	}
}

// putItem is the whole conditional upsert, for one record.
func (s *Store) putItem(op *putOp) *ddb.PutItemInput {
	v := op.rec.Version
	r := &types.AttributeValueMemberB{Value: v.Bytes()}
	h := &types.AttributeValueMemberB{Value: binary.BigEndian.AppendUint64(nil, op.hash)}
	item := itemKey(op.rec.Ref)
	item["r"], item["h"] = r, h
	item["p"] = &types.AttributeValueMemberB{Value: op.rec.Payload}
	if retain, expires := retainSeconds(op.rec.Retain); expires {
		item["x"] = &types.AttributeValueMemberN{Value: retain}
	}
	return &ddb.PutItemInput{
		TableName:           &s.cfg.Table,
		Item:                item,
		ConditionExpression: aws.String("attribute_not_exists(e) OR r < :f OR (r < :r AND h <> :h)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":f": &types.AttributeValueMemberB{Value: v.Floor().Bytes()}, ":r": r, ":h": h,
		},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
}

// retainSeconds rounds up: the value lives at least as long as was asked for.
func retainSeconds(m feature.Micros) (string, bool) {
	if m == feature.NoTime {
		return "", false
	}
	n := int64(m) / 1e6
	if int64(m)%1e6 > 0 {
		n++
	}
	return strconv.FormatInt(n, 10), true
}

// storedVersion reads what a refusal returned.
func storedVersion(item map[string]types.AttributeValue) (feature.Version, uint64, error) {
	r, ok := item["r"].(*types.AttributeValueMemberB)
	if !ok {
		return feature.Version{}, 0, fmt.Errorf("%w: the stored item has no version attribute r", feature.ErrCorrupt)
	}
	v, err := feature.ParseVersion(r.Value)
	if err != nil {
		return v, 0, fmt.Errorf("stored item: %w", err)
	}
	h, ok := item["h"].(*types.AttributeValueMemberB)
	if !ok || len(h.Value) != 8 {
		return v, 0, fmt.Errorf("%w: the stored item has no content hash h", feature.ErrCorrupt)
	}
	return v, binary.BigEndian.Uint64(h.Value), nil
}

// verdict is what one statement's answer means.
type verdict int

const (
	verdictOther     verdict = iota // unexpected: let PutItem say
	verdictWritten                  // applied
	verdictRefused                  // UPDATE: the condition failed, and here is the item
	verdictPresent                  // INSERT: the key exists
	verdictAbsent                   // UPDATE: the key does not exist
	verdictThrottled                // not tried, or not known: send again
	verdictSyntax                   // the statement was not understood
)

// tellsPresence reports whether the verdict says if the key existed.
func (v verdict) tellsPresence() bool {
	return v == verdictWritten || v == verdictRefused || v == verdictPresent || v == verdictAbsent
}

func (s *Store) verdict(op *putOp, e *types.BatchStatementError) verdict {
	if e == nil {
		return verdictWritten
	}
	switch c := string(e.Code); {
	case e.Code == types.BatchStatementErrorCodeEnumDuplicateItem:
		return verdictPresent
	case e.Code == types.BatchStatementErrorCodeEnumConditionalCheckFailed && len(e.Item) > 0:
		return verdictRefused
	case e.Code == types.BatchStatementErrorCodeEnumConditionalCheckFailed && op.update:
		return verdictAbsent
	case slices.Contains(throttleCodes, c), slices.Contains(retryCodes, c):
		return verdictThrottled
	case e.Code == types.BatchStatementErrorCodeEnumValidationError && op.update && syntaxMessage(aws.ToString(e.Message)):
		return verdictSyntax
	}
	return verdictOther
}

// syntaxMessage tells a statement that was not parsed from one whose values are wrong.
func syntaxMessage(m string) bool {
	return strings.Contains(m, "wellformed") || strings.Contains(m, "well-formed") || strings.Contains(m, "WHERE clause") ||
		strings.Contains(m, "syntax") || strings.Contains(m, "Unexpected") || strings.Contains(m, "parse")
}

func (s *Store) wrapStatement(e *types.BatchStatementError) error {
	sentinel := feature.ErrThrottled
	if slices.Contains(retryCodes, string(e.Code)) {
		sentinel = feature.ErrUnreachable
	}
	return fmt.Errorf("dynamodb table %s (%s): %w: %s", s.cfg.Table, s.where(), sentinel, e.Code)
}

// hitRates remembers, per view, how often its keys existed of late, to begin with the
// statement that settles more of them. A wrong guess costs one write unit and nothing else.
type hitRates struct {
	mu    sync.Mutex
	rates map[string]float64
}

// hitWeight is how much the last batch counts.
const hitWeight = 0.2

func (h *hitRates) updateFirst(view string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rates[view] > 0.5
}

func (h *hitRates) note(view string, present, n int) {
	if n == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.rates == nil {
		h.rates = map[string]float64{}
	}
	h.rates[view] += hitWeight * (float64(present)/float64(n) - h.rates[view])
}

// writeUnits is what a batch will cost: one unit per item and started KB.
func writeUnits(batch []*putOp) (units float64) {
	for _, op := range batch {
		size := len(op.rec.Key) + len(op.view) + len(op.rec.Payload) + feature.VersionSize + 8 + 6 + 8
		units += float64((size + 1023) / 1024)
	}
	return units
}
