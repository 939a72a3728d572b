package dynamodb

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

// canned is an HTTP client that answers every request with one body.
type canned struct{ body []byte }

func (c *canned) Do(req *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		Body: io.NopCloser(bytes.NewReader(c.body)), ContentLength: int64(len(c.body)), Request: req,
	}, nil
}

func cannedStore(t testing.TB, stock bool) (*Store, *canned) {
	t.Helper()
	c := &canned{}
	s, err := Open(t.Context(), Config{Table: "table", Endpoint: "http://127.0.0.1:1", HTTPClient: c, StockDecoder: stock, RetryFor: 1, RetryMaxAttempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// pages makes the JSON of scan answers.
type pages struct{ *rand.Rand }

func (p pages) text(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// item makes an item; odd ones are foreign or unusual, and all are what DynamoDB could send.
func (p pages) item(odd bool) string {
	v := feature.Version{Event: feature.Micros(p.Int64()), Created: feature.NoTime, Run: p.Uint64()}
	payload := feature.AppendPayload(nil, feature.Header{Fingerprint: p.Uint64(), Version: v}, make([]byte, p.IntN(300)))
	for i := feature.HeaderSize; i < len(payload); i++ {
		payload[i] = byte(p.Uint32())
	}
	e, view := fmt.Sprintf("id=%d&zip=%%2F%d", p.IntN(1e9), p.IntN(100)), fmt.Sprintf("view%d@%d", p.IntN(3), 1+p.IntN(3))
	x := ""
	if p.IntN(3) == 0 {
		x = fmt.Sprint(p.IntN(2e9))
	}
	if odd {
		switch p.IntN(9) {
		case 0:
			view = "no view"
		case 1:
			e = "ключ \"<>&\u2028\U0001F525"
		case 2:
			payload = payload[:p.IntN(len(payload))]
		case 3:
			x = []string{"1e3", "-5", "12.5", "1E+2", "007", "99999999999999999999", "NaN", "5000000000000"}[p.IntN(8)]
		case 4:
			e = ""
		case 5:
			payload[0] = 9
		case 6:
			e = "a\x00\n\t\\b"
		}
	}
	members := []string{
		fmt.Sprintf(`"e":{"S":%s}`, p.text(e)), fmt.Sprintf(`"v":{"S":%s}`, p.text(view)),
		fmt.Sprintf(`"p":{"B":"%s"}`, base64.StdEncoding.EncodeToString(payload)),
	}
	if x != "" {
		members = append(members, fmt.Sprintf(`"x":{"N":"%s"}`, x))
	}
	if odd {
		switch p.IntN(6) {
		case 0:
			members = members[1:]
		case 1:
			members = members[:2]
		case 2:
			members = append(members, `"other":{"M":{"a":{"L":[{"NULL":true}]}}}`)
		}
	}
	p.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return "{" + strings.Join(members, ",") + "}"
}

func (p pages) page(n int, odd bool) string {
	items := make([]string, n)
	for i := range items {
		items[i] = p.item(odd && p.IntN(5) == 0)
	}
	members := []string{fmt.Sprintf(`"Items":[%s]`, strings.Join(items, ",")), fmt.Sprintf(`"Count":%d`, n), fmt.Sprintf(`"ScannedCount":%d`, n+p.IntN(5))}
	if p.IntN(2) == 0 {
		members = append(members, `"LastEvaluatedKey":{"e":{"S":"id=1"},"v":{"S":"view@1"}}`)
	}
	if p.IntN(2) == 0 {
		members = append(members, fmt.Sprintf(`"ConsumedCapacity":{"TableName":"table","CapacityUnits":%g}`, p.Float64()*200))
	}
	p.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	text := "{" + strings.Join(members, ",") + "}"
	if odd && p.IntN(3) == 0 {
		text = strings.ReplaceAll(text, `":`, "\" :\n\t")
	}
	if odd && p.IntN(3) == 0 {
		text = strings.ReplaceAll(strings.ReplaceAll(text, "/", `\/`), "=", `\u003d`)
	}
	return text
}

func show(page *feature.ScanPage) string {
	var b strings.Builder
	for _, r := range page.Records {
		fmt.Fprintf(&b, "%s %q %s %x online %d retain %d\n", r.View, r.Key, r.Version, r.Payload, r.Online, r.Retain)
	}
	fmt.Fprintf(&b, "next %q units %v", page.Next, page.ReadUnits)
	return b.String()
}

// compare reads a page with both decoders. What the fast one accepts, the client's has to
// read in the same way; it may refuse more.
func compare(t *testing.T, stock *Store, answer *canned, fast *scanDecoder, page *feature.ScanPage, text []byte) (accepted bool) {
	t.Helper()
	answer.body = text
	foreign, err := fast.decode(bytes.Clone(text), page)
	if err != nil {
		if len(page.Records) != 0 || page.Next != nil {
			t.Fatalf("a refused page left something: %s", show(page))
		}
		return false
	}
	var want feature.ScanPage
	before := stock.Stats().ForeignItems
	if err := stock.Scan(t.Context(), feature.ScanRequest{Segments: 1}, &want); err != nil {
		t.Fatalf("the client refuses what the fast decoder accepts: %v\n%s", err, text)
	}
	if got, want := show(page), show(&want); got != want {
		t.Fatalf("page %s\nfast:\n%s\nclient:\n%s", text, got, want)
	}
	if got := stock.Stats().ForeignItems - before; got != foreign {
		t.Fatalf("%d foreign items, the client saw %d\n%s", foreign, got, text)
	}
	return true
}

// Seen red with retain times beyond range read as they come.
func TestFastDecoderAgrees(t *testing.T) {
	stock, answer := cannedStore(t, true)
	var (
		fast     scanDecoder
		page     feature.ScanPage
		accepted int
	)
	const n = 600
	for i := range n {
		p := pages{rand.New(rand.NewPCG(uint64(i), 7))}
		odd := i%2 == 1
		ok := compare(t, stock, answer, &fast, &page, []byte(p.page(p.IntN(40), odd)))
		if ok {
			accepted++
		} else if !odd {
			t.Fatalf("the usual page %d was refused", i)
		}
	}
	if accepted < n*6/10 {
		t.Errorf("only %d of %d pages were accepted", accepted, n)
	}
}

// Pages that are no JSON, or not what DynamoDB sends, never make records. Seen red with
// base64's line ends let through, and with the last of two equal members taken.
func TestFastDecoderRefuses(t *testing.T) {
	const item = `{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":"AQID"}}`
	stock, answer := cannedStore(t, true)
	for _, text := range []string{
		``, `{`, `[]`, `null`, `{"Items":[` + item + `]`, `{"Items":[` + item + `]}x`, `{"Items":[` + item + `,]}`, `{"Items":[` + item + `],}`,
		`{"Items":null}`, `{"Items":{}}`, `{"Items":[` + item + `],"Items":[]}`, `{"Items":[],"Count":01}`, `{"Items":[],"Count":-1}`, `{"Items":[],"Count":99999999999}`,
		`{"Items":[{"e":{"S":"id=1"},"e":{"S":"id=2"},"v":{"S":"v@1"},"p":{"B":"AQID"}}]}`,
		`{"Items":[{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":"AQ` + "\n" + `ID"}}]}`, `{"Items":[{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":"AQ\nID"}}]}`,
		`{"Items":[{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":"AQID` + "\n\r\n\n" + `"}}]}`, `{"Items":[{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":"AQID\n\n\r\n"}}]}`,
		`{"Items":[{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":"AQI"}}]}`, `{"Items":[{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":"A==="}}]}`,
		`{"Items":[{"e":{"S":"id=1","N":"1"},"v":{"S":"v@1"},"p":{"B":"AQID"}}]}`, `{"Items":[{"e":{"B":"AQID"},"v":{"S":"v@1"},"p":{"B":"AQID"}}]}`,
		`{"Items":[{"e":{"S":"id=` + "\x01" + `"},"v":{"S":"v@1"},"p":{"B":"AQID"}}]}`, `{"Items":[{"e":{"S":"id=\ud800"},"v":{"S":"v@1"},"p":{"B":"AQID"}}]}`,
		`{"Items":[{"e":{"S":"id=\x"},"v":{"S":"v@1"},"p":{"B":"AQID"}}]}`, `{"Items":[{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":"AQID"},"r":{"B":"AQID"}}]}`,
		`{"Items":[` + item + `],"LastEvaluatedKey":{"id":{"N":"1"}}}`, `{"Items":[` + item + `],"LastEvaluatedKey":{}}`,
		`{"Items":[` + item + `],"ConsumedCapacity":{"CapacityUnits":"1"}}`, `{"Items":[` + item + `],"ConsumedCapacity":{"CapacityUnits":1,"CapacityUnits":2}}`,
	} {
		var (
			fast scanDecoder
			page feature.ScanPage
		)
		if compare(t, stock, answer, &fast, &page, []byte(text)) {
			t.Errorf("accepted %s: %s", text, show(&page))
		}
	}
}

func FuzzFastDecoder(f *testing.F) {
	for i := range uint64(20) {
		p := pages{rand.New(rand.NewPCG(i, 9))}
		f.Add([]byte(p.page(p.IntN(4), i%2 == 1)))
	}
	stock, answer := cannedStore(f, true)
	f.Fuzz(func(t *testing.T, text []byte) {
		var (
			fast scanDecoder
			page feature.ScanPage
		)
		compare(t, stock, answer, &fast, &page, text)
	})
}

// Records of a page keep their keys when the page is used again, and big values do not stay.
// Seen red with keys that point into the reused memory, and with any payload memory reused.
func TestPageReuse(t *testing.T) {
	s, answer := cannedStore(t, false)
	p := pages{rand.New(rand.NewPCG(1, 1))}
	var page feature.ScanPage
	scan := func(text string) {
		t.Helper()
		answer.body = []byte(text)
		if err := s.Scan(t.Context(), feature.ScanRequest{Segments: 1}, &page); err != nil {
			t.Fatal(err)
		}
	}
	scan(p.page(50, false))
	kept := make(map[feature.Key]bool)
	var before []string
	for _, r := range page.Records {
		kept[r.Key] = true
		before = append(before, strings.Clone(string(r.Key)))
	}
	for range 20 {
		scan(p.page(50, false))
	}
	for _, k := range before {
		if !kept[feature.Key(k)] {
			t.Fatalf("key %q has changed", k)
		}
	}
	big := base64.StdEncoding.EncodeToString(feature.AppendPayload(nil, feature.Header{}, make([]byte, 390<<10)))
	var live runtime.MemStats
	for i := range 200 { // each place has a big value once
		items := make([]string, 200)
		for j := range items {
			items[j] = `{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":"AQID"}}`
		}
		items[i] = `{"e":{"S":"id=1"},"v":{"S":"v@1"},"p":{"B":"` + big + `"}}`
		scan(`{"Items":[` + strings.Join(items, ",") + `]}`)
	}
	answer.body = nil
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&live)
	held := 0
	for _, r := range page.Records[:cap(page.Records)] {
		held += cap(r.Payload)
	}
	if held > 4<<20 {
		t.Errorf("the page holds %d MB", held>>20)
	}
	runtime.KeepAlive(page)
}
