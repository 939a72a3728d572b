package dynamodb

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

// getAnswer makes the JSON of a BatchGetItem answer, and the refs that were asked for.
func (p pages) getAnswer(n int, odd bool) (text string, refs []feature.Ref) {
	var items []string
	seen := map[string]bool{}
	for range n {
		item := p.item(odd && p.IntN(5) == 0)
		var in struct{ E, V struct{ S string } }
		if json.Unmarshal([]byte(item), &in) != nil {
			continue
		}
		key := in.E.S + "\x00" + in.V.S
		if seen[key] {
			continue
		}
		seen[key] = true
		items = append(items, item)
		if id, err := feature.ParseViewID(in.V.S); err == nil && in.E.S != "" {
			refs = append(refs, feature.Ref{View: id, Key: feature.Key(in.E.S)})
		}
	}
	absent := feature.Ref{View: feature.ViewID{Name: "view1", Version: 1}, Key: "id=absent"}
	refs = append(refs, absent)
	unprocessed := "{}"
	if odd && p.IntN(4) == 0 {
		unprocessed = `{"table":{"Keys":[{"e":{"S":"id=absent"},"v":{"S":"view1@1"}}]}}`
	}
	members := []string{fmt.Sprintf(`"Responses":{"table":[%s]}`, strings.Join(items, ",")), `"UnprocessedKeys":` + unprocessed}
	if odd && p.IntN(4) == 0 {
		members = append(members, `"ConsumedCapacity":[{"TableName":"table","CapacityUnits":1}]`)
	}
	p.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	text = "{" + strings.Join(members, ",") + "}"
	if odd && p.IntN(3) == 0 {
		text = strings.ReplaceAll(text, "/", `\/`)
	}
	return text, refs
}

// Whatever DynamoDB answers, the store reads the same with its own decoder and with the
// client's: what the first does not know, it leaves to the second.
// Seen red with: unprocessed keys passed over (absent instead of throttled); the answer not
// given back to the client's decoder.
func TestFastGetAgrees(t *testing.T) {
	t.Parallel()
	fast, answerFast := cannedStore(t, false)
	stock, answerStock := cannedStore(t, true)
	for i := range 400 {
		p := pages{rand.New(rand.NewPCG(uint64(i), 11))}
		odd := i%2 == 1
		text, refs := p.getAnswer(p.IntN(40), odd)
		answerFast.body, answerStock.body = []byte(text), []byte(text)
		show := func(s *Store) string {
			got, err := s.Get(t.Context(), refs)
			out := fmt.Sprintf("%v\n", err)
			for j, g := range got {
				out += fmt.Sprintf("%s %x %v\n", refs[j], g.Payload, g.Err)
			}
			return out
		}
		if got, want := show(fast), show(stock); got != want {
			t.Fatalf("answer %d: %s\nfast:\n%s\nclient:\n%s", i, text, got, want)
		}
		var (
			d    scanDecoder
			page feature.ScanPage
		)
		if ok := d.decodeGet([]byte(text), "table", &page); !odd && !ok {
			t.Fatalf("the usual answer %d was left to the client's decoder: %s", i, text)
		}
	}
}

// Answers that are no JSON, or of another table, are left to the client's decoder.
func TestFastGetRefuses(t *testing.T) {
	t.Parallel()
	const item = `{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":"AQID"}}`
	for _, text := range []string{
		``, `{`, `[]`, `null`, `{}`, `{"UnprocessedKeys":{}}`, `{"Responses":null}`, `{"Responses":{"table":[` + item + `]`, `{"Responses":{"table":[` + item + `]}}x`,
		`{"Responses":{"other":[` + item + `]}}`, `{"Responses":{"table":[],"table":[` + item + `]}}`, `{"Responses":{"table":[]},"Responses":{"table":[` + item + `]}}`,
		`{"Responses":{"table":[` + item + `]},"UnprocessedKeys":{"table":{}}}`, `{"Responses":{"table":[` + item + `]},"UnprocessedKeys":{},"UnprocessedKeys":{}}`,
		`{"Responses":{"table":[{"e":{"S":"id=1"},"v":{"S":"v@1"}}]}}`, `{"Responses":{"table":[` + item + `]},"More":1}`,
	} {
		var (
			d    scanDecoder
			page feature.ScanPage
		)
		if d.decodeGet([]byte(text), "table", &page) || len(page.Records) > 0 {
			t.Errorf("accepted %s: %s", text, show(&page))
		}
	}
}
