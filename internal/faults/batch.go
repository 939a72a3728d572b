package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
)

const (
	opGet        = "BatchGetItem"
	opWrite      = "BatchWriteItem"
	opStatements = "BatchExecuteStatement"
)

// object is a JSON object of which only the interesting members are decoded,
// so that everything else goes through byte for byte.
type object map[string]json.RawMessage

// batch is the list of elements of a batch request: keys, writes or
// statements.
type batch struct {
	op      string
	request object
	tables  []string          // of each element; empty for statements
	items   []json.RawMessage // the elements
	perTab  map[string]object // members beside the keys, of BatchGetItem
}

// batchSize is the number of elements of a batch request, else 0.
func batchSize(op string, body []byte) int {
	b, err := parseBatch(op, body)
	if err != nil {
		return 0 // the server will have its own opinion about the request
	}
	return len(b.items)
}

func parseBatch(op string, body []byte) (*batch, error) {
	b := &batch{op: op, perTab: map[string]object{}}
	if err := json.Unmarshal(body, &b.request); err != nil {
		return nil, fmt.Errorf("faults: %s request: %w", op, err)
	}
	if op == opStatements {
		if err := json.Unmarshal(b.request["Statements"], &b.items); err != nil {
			return nil, fmt.Errorf("faults: statements: %w", err)
		}
		return b, nil
	}
	if op != opGet && op != opWrite {
		return b, nil
	}
	var tables object
	if err := json.Unmarshal(b.request["RequestItems"], &tables); err != nil {
		return nil, fmt.Errorf("faults: request items: %w", err)
	}
	// Sorted, so that the same seed meets the same elements.
	for _, table := range sortedKeys(tables) {
		list := tables[table]
		if op == opGet {
			var o object
			if err := json.Unmarshal(list, &o); err != nil {
				return nil, fmt.Errorf("faults: keys of %s: %w", table, err)
			}
			list = o["Keys"]
			b.perTab[table] = o
		}
		var items []json.RawMessage
		if err := json.Unmarshal(list, &items); err != nil {
			return nil, fmt.Errorf("faults: elements of %s: %w", table, err)
		}
		for _, it := range items {
			b.tables, b.items = append(b.tables, table), append(b.items, it)
		}
	}
	return b, nil
}

// pick are the elements with hold[i] == held, in the form of RequestItems,
// UnprocessedKeys and UnprocessedItems.
func (b *batch) pick(hold []bool, held bool) (map[string]any, error) {
	lists := map[string][]json.RawMessage{}
	for i, it := range b.items {
		if hold[i] == held {
			lists[b.tables[i]] = append(lists[b.tables[i]], it)
		}
	}
	out := map[string]any{}
	for table, list := range lists {
		if b.op == opWrite {
			out[table] = list
			continue
		}
		keys, err := json.Marshal(list)
		if err != nil {
			return nil, fmt.Errorf("faults: keys of %s: %w", table, err)
		}
		o := object{}
		for k, v := range b.perTab[table] {
			o[k] = v
		}
		o["Keys"] = keys
		out[table] = o
	}
	return out, nil
}

// sendPart sends the elements that are not held back and adds the others to
// the answer as undone.
func (d *DynamoDBTransport) sendPart(req *http.Request, op string, body []byte, hold []bool) (*http.Response, error) {
	b, err := parseBatch(op, body)
	if err != nil {
		return nil, err
	}
	status, header, reply := http.StatusOK, http.Header{}, object{}
	if slices.Contains(hold, false) {
		part, err := b.without(hold)
		if err != nil {
			return nil, err
		}
		resp, err := d.send(req, part)
		if err != nil {
			return nil, err
		}
		raw, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // read to its end, or failed already
		if err != nil {
			return nil, fmt.Errorf("faults: read the answer: %w", err)
		}
		status, header = resp.StatusCode, resp.Header
		if status != http.StatusOK {
			return answer(req, status, header, raw), nil
		}
		if err := json.Unmarshal(raw, &reply); err != nil {
			return nil, fmt.Errorf("faults: answer of %s: %w", op, err)
		}
	}
	if err := b.addUndone(reply, hold); err != nil {
		return nil, err
	}
	out, err := json.Marshal(reply)
	if err != nil {
		return nil, fmt.Errorf("faults: answer of %s: %w", op, err)
	}
	return answer(req, status, header, out), nil
}

// without is the request body with only the elements that are not held back.
func (b *batch) without(hold []bool) ([]byte, error) {
	req := object{}
	for k, v := range b.request {
		req[k] = v
	}
	var value any
	name := "RequestItems"
	if b.op == opStatements {
		name = "Statements"
		var rest []json.RawMessage
		for i, it := range b.items {
			if !hold[i] {
				rest = append(rest, it)
			}
		}
		value = rest
	} else {
		picked, err := b.pick(hold, false)
		if err != nil {
			return nil, err
		}
		value = picked
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("faults: %s request: %w", b.op, err)
	}
	req[name] = raw
	return json.Marshal(req)
}

// addUndone puts the elements held back into the answer.
func (b *batch) addUndone(reply object, hold []bool) error {
	var name string
	var value any
	if b.op == opStatements {
		var got []json.RawMessage
		if raw := reply["Responses"]; raw != nil {
			if err := json.Unmarshal(raw, &got); err != nil {
				return fmt.Errorf("faults: responses: %w", err)
			}
		}
		undone := json.RawMessage(`{"Error":{"Code":"ThrottlingError","Message":"Rate exceeded"}}`)
		all := make([]json.RawMessage, len(hold))
		for i := range hold {
			if hold[i] || len(got) == 0 {
				all[i] = undone
				continue
			}
			all[i], got = got[0], got[1:]
		}
		name, value = "Responses", all
	} else {
		undone, err := b.pick(hold, true)
		if err != nil {
			return err
		}
		if name = "UnprocessedItems"; b.op == opGet {
			name = "UnprocessedKeys"
			if reply["Responses"] == nil {
				reply["Responses"] = json.RawMessage(`{}`)
			}
		}
		if err := mergeUndone(undone, reply[name]); err != nil {
			return err
		}
		value = undone
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("faults: undone elements: %w", err)
	}
	reply[name] = raw
	return nil
}

// mergeUndone adds what the server itself left undone, such as the keys
// beyond 16 MB.
func mergeUndone(undone map[string]any, raw json.RawMessage) error {
	if raw == nil {
		return nil
	}
	var own object
	if err := json.Unmarshal(raw, &own); err != nil {
		return fmt.Errorf("faults: the server's undone elements: %w", err)
	}
	for table, more := range own {
		var err error
		switch have := undone[table].(type) {
		case nil:
			undone[table] = more
		case []json.RawMessage: // writes
			undone[table], err = joinLists(have, more)
		case object: // keys
			var o object
			if err = json.Unmarshal(more, &o); err == nil {
				var keys []json.RawMessage
				if err = json.Unmarshal(have["Keys"], &keys); err == nil {
					if keys, err = joinLists(keys, o["Keys"]); err == nil {
						have["Keys"], err = json.Marshal(keys)
					}
				}
			}
		}
		if err != nil {
			return fmt.Errorf("faults: the server's undone elements of %s: %w", table, err)
		}
	}
	return nil
}

func joinLists(list []json.RawMessage, more json.RawMessage) ([]json.RawMessage, error) {
	var rest []json.RawMessage
	if err := json.Unmarshal(more, &rest); err != nil {
		return nil, err
	}
	return append(list, rest...), nil
}

func sortedKeys(o object) []string {
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
