package dynamodb

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/hearthstore/hearth/feature"
)

// errUnexpected says that a page is not of the one shape that the fast decoder knows. The
// page is then read again with the client's own decoder.
var errUnexpected = errors.New("scan page of an unexpected shape")

// scanDecoder reads the JSON of a Scan answer straight into records: about a tenth of the
// CPU of the client's decoder, and no garbage. It knows exactly what this package asks for
// (items of e, v, p and x) and gives up on everything else, rather than being lenient. What
// it accepts, it reads as the client's decoder does; a fuzz test holds it to that.
//
// It changes the text that it reads.
type scanDecoder struct {
	b []byte
	i int

	keys []byte // the entity keys of the page, end to end
	ends []int  // of each record's key in keys

	viewText []byte // the last view seen, and its meaning: few follow one another
	view     feature.ViewID
	viewOK   bool
}

// decode fills the page and returns how many items are no values of Hearth.
func (d *scanDecoder) decode(text []byte, page *feature.ScanPage) (foreign int64, err error) {
	d.b, d.i, d.keys, d.ends = text, 0, d.keys[:0], d.ends[:0]
	defer func() { d.b = nil }()
	page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
	var items, last, capacity, count, scanned bool
	once := func(seen *bool) bool { was := *seen; *seen = true; return !was }
	ok := d.object(func(name []byte) bool {
		switch string(name) {
		case "Items":
			return once(&items) && d.items(page, &foreign)
		case "LastEvaluatedKey":
			return once(&last) && d.lastKey(page)
		case "ConsumedCapacity":
			return once(&capacity) && d.capacity(page)
		case "Count":
			return once(&count) && d.digits()
		case "ScannedCount":
			return once(&scanned) && d.digits()
		}
		return false
	})
	if ok {
		d.space()
	}
	if !ok || d.i != len(d.b) {
		at := d.i
		page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
		return 0, fmt.Errorf("%w at byte %d of %d", errUnexpected, at, len(text))
	}
	d.nameKeys(page)
	return foreign, nil
}

// nameKeys makes one string of all keys of the page: they stay good when it is reused.
func (d *scanDecoder) nameKeys(page *feature.ScanPage) {
	all, begin := string(d.keys), 0
	for i, end := range d.ends {
		page.Records[i].Key = feature.Key(all[begin:end])
		begin = end
	}
}

// decodeGet reads the JSON of a BatchGetItem answer of one table. False means that it holds
// anything but values: keys that were not processed, foreign items, an unexpected shape.
func (d *scanDecoder) decodeGet(text []byte, table string, page *feature.ScanPage) bool {
	d.b, d.i, d.keys, d.ends = text, 0, d.keys[:0], d.ends[:0]
	defer func() { d.b = nil }()
	page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
	var answered, named, processed, consumed bool
	var foreign int64
	ok := d.object(func(name []byte) bool {
		switch string(name) {
		case "Responses":
			was := answered
			answered = true
			return !was && d.object(func(name []byte) bool {
				was := named
				named = true
				return !was && string(name) == table && d.items(page, &foreign)
			})
		case "UnprocessedKeys":
			was := processed
			processed = true
			return !was && d.take('{') && d.take('}')
		case "ConsumedCapacity": // of the one table
			was := consumed
			consumed = true
			return !was && d.take('[') && d.capacity(page) && d.take(']')
		}
		return false
	})
	if ok {
		d.space()
	}
	if !ok || d.i != len(d.b) || foreign > 0 || !answered {
		page.Records, page.ReadUnits = page.Records[:0], 0
		return false
	}
	d.nameKeys(page)
	return true
}

// object reads {"name": value, …}; member is called at each value and reads it.
func (d *scanDecoder) object(member func(name []byte) bool) bool {
	if !d.take('{') {
		return false
	}
	if d.take('}') {
		return true
	}
	for {
		name, ok := d.text()
		if !ok || !d.take(':') || !member(name) {
			return false
		}
		if d.take('}') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

func (d *scanDecoder) items(page *feature.ScanPage, foreign *int64) bool {
	if !d.take('[') {
		return false
	}
	if d.take(']') {
		return true
	}
	fresh := cap(page.Records) == 0
	var arena []byte // payloads of a page that has no memory yet
	for {
		e, v, p, x, ok := d.item()
		if !ok {
			return false
		}
		if len(e) == 0 || p == nil || !d.viewID(v) {
			*foreign++
		} else {
			n := len(page.Records)
			if n < cap(page.Records) {
				page.Records = page.Records[:n+1]
			} else {
				page.Records = append(page.Records, feature.Record{})
			}
			rec := &page.Records[n]
			if fresh && cap(arena) < len(p)/4*3 {
				// What is left of the text bounds what is left of the payloads.
				arena = make([]byte, 0, max(len(p), (len(d.b)-d.i+len(p))/4*3))
			}
			if !d.fill(rec, p, x, &arena) {
				return false
			}
			d.keys = append(d.keys, e...)
			d.ends = append(d.ends, len(d.keys))
		}
		if d.take(']') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

// item reads one item; p is base64 text, nil when there is none.
func (d *scanDecoder) item() (e, v, p, x []byte, ok bool) {
	if !d.take('{') {
		return nil, nil, nil, nil, false
	}
	if d.take('}') {
		return nil, nil, nil, nil, true
	}
	for {
		name, tag, ok := d.attribute()
		if !ok {
			return nil, nil, nil, nil, false
		}
		var (
			to   *[]byte
			kind byte
		)
		switch name {
		case 'e':
			to, kind = &e, 'S'
		case 'v':
			to, kind = &v, 'S'
		case 'p':
			to, kind = &p, 'B'
		case 'x':
			to, kind = &x, 'N'
		default:
			return nil, nil, nil, nil, false
		}
		if *to != nil || tag != kind {
			return nil, nil, nil, nil, false
		}
		if kind == 'B' {
			*to, ok = d.raw()
		} else {
			*to, ok = d.text()
		}
		if !ok || !d.take('}') {
			return nil, nil, nil, nil, false
		}
		if d.take('}') {
			return e, v, p, x, true
		}
		if !d.take(',') {
			return nil, nil, nil, nil, false
		}
	}
}

// attribute reads "name":{"tag": where both are one character, up to the value.
func (d *scanDecoder) attribute() (name, tag byte, ok bool) {
	if b := d.b[d.i:]; len(b) > 9 && b[0] == '"' && string(b[2:6]) == `":{"` && string(b[7:9]) == `":` && b[1] >= 'a' && b[6] >= 'A' {
		d.i += 9 // as every server writes it
		return b[1], b[6], true
	}
	n, ok := d.text()
	if !ok || len(n) != 1 || !d.take(':') || !d.take('{') {
		return 0, 0, false
	}
	t, ok := d.text()
	if !ok || len(t) != 1 || !d.take(':') {
		return 0, 0, false
	}
	return n[0], t[0], true
}

// viewID reads view@version; false if it is none.
func (d *scanDecoder) viewID(text []byte) bool {
	if len(text) > 0 && bytes.Equal(text, d.viewText) {
		return d.viewOK
	}
	id, err := feature.ParseViewID(string(text))
	d.viewText, d.view, d.viewOK = append(d.viewText[:0], text...), id, err == nil
	return d.viewOK
}

// fill completes a record, decoding the payload into the memory that the record had on the
// page before if that fits, but not if it is far too large: one big value would otherwise
// stay for good at every place where one has been.
func (d *scanDecoder) fill(rec *feature.Record, p, x []byte, arena *[]byte) bool {
	if len(p)%4 != 0 {
		return false
	}
	size := len(p) / 4 * 3
	for i := len(p) - 1; i >= 0 && i >= len(p)-2 && p[i] == '='; i-- {
		size--
	}
	memory := rec.Payload[:0]
	switch need := len(p) / 4 * 3; { // the decoder may write beyond size
	case cap(memory) >= need && cap(memory) <= 4*need+1024:
	case cap(*arena)-len(*arena) >= need:
		at := len(*arena)
		*arena = (*arena)[:at+need]
		memory = (*arena)[at : at+need : at+need]
	default:
		memory = make([]byte, need)
	}
	n, err := base64.StdEncoding.Decode(memory[:cap(memory)], p)
	if err != nil || n != size { // fewer: there were line ends, which no JSON string has
		return false
	}
	rec.Payload = memory[:n]
	rec.View, rec.Version, rec.Online, rec.Retain = d.view, feature.Version{}, feature.NoTime, feature.NoTime
	if h, _, err := feature.ParsePayload(rec.Payload); err == nil {
		rec.Version = h.Version
	}
	if x != nil {
		seconds, err := strconv.ParseInt(string(x), 10, 64)
		if err != nil || seconds > 1e12 || seconds < -1e12 {
			return false
		}
		rec.Retain = feature.Micros(seconds * 1e6)
	}
	return true
}

func (d *scanDecoder) lastKey(page *feature.ScanPage) bool {
	e, v, p, x, ok := d.item()
	if !ok || len(e) == 0 || len(v) == 0 || len(v) > 1<<16-1 || p != nil || x != nil {
		return false
	}
	page.Next = appendCursor(nil, string(e), string(v))
	return true
}

// capacity reads ConsumedCapacity, of which only CapacityUnits is of interest.
func (d *scanDecoder) capacity(page *feature.ScanPage) bool {
	seen := false
	return d.object(func(name []byte) bool {
		if string(name) != "CapacityUnits" {
			return d.skip()
		}
		if seen {
			return false
		}
		seen = true
		begin := d.i
		if !d.skip() {
			return false
		}
		units, err := strconv.ParseFloat(string(bytes.TrimSpace(d.b[begin:d.i])), 64)
		page.ReadUnits = units
		return err == nil
	})
}

// skip passes over one value that need not be understood.
func (d *scanDecoder) skip() bool {
	dec := json.NewDecoder(bytes.NewReader(d.b[d.i:]))
	var value json.RawMessage
	if dec.Decode(&value) != nil || string(value) == "null" {
		return false
	}
	d.i += int(dec.InputOffset())
	return true
}

// digits passes over a count.
func (d *scanDecoder) digits() bool {
	d.space()
	begin := d.i
	for d.i < len(d.b) && d.b[d.i] >= '0' && d.b[d.i] <= '9' {
		d.i++
	}
	n := d.i - begin
	return n == 1 || n > 1 && n < 10 && d.b[begin] != '0' // it has to fit 32 bits
}

func (d *scanDecoder) space() {
	for d.i < len(d.b) {
		switch d.b[d.i] {
		case ' ', '\t', '\n', '\r':
			d.i++
		default:
			return
		}
	}
}

// take passes over c, if that is what comes.
func (d *scanDecoder) take(c byte) bool {
	if d.i < len(d.b) && d.b[d.i] == c {
		d.i++
		return true
	}
	d.space()
	if d.i < len(d.b) && d.b[d.i] == c {
		d.i++
		return true
	}
	return false
}

// text reads a string and checks it as JSON does.
func (d *scanDecoder) text() ([]byte, bool) {
	s, ok := d.raw()
	if !ok {
		return nil, false
	}
	for _, c := range s {
		if c < ' ' || c >= utf8.RuneSelf {
			// Not what this package writes; an escaped control character is fine for
			// JSON, but then the client's decoder may say so.
			return nil, false
		}
	}
	return s, true
}

// raw reads a string without looking at its characters: for base64, which checks them.
func (d *scanDecoder) raw() ([]byte, bool) {
	if !d.take('"') {
		return nil, false
	}
	rest := d.b[d.i:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return nil, false
	}
	if bytes.IndexByte(rest[:end], '\\') < 0 {
		d.i += end + 1
		return rest[:end:end], true
	}
	return d.escaped()
}

// escaped reads a string that has escapes, in place: what it stands for is never longer.
func (d *scanDecoder) escaped() ([]byte, bool) {
	begin, to := d.i, d.i
	for d.i < len(d.b) {
		c := d.b[d.i]
		d.i++
		switch {
		case c == '"':
			return d.b[begin:to:to], true
		case c < ' ':
			return nil, false
		case c != '\\':
			d.b[to] = c
			to++
			continue
		}
		if d.i == len(d.b) {
			return nil, false
		}
		c = d.b[d.i]
		d.i++
		switch c {
		case '"', '\\', '/':
			d.b[to] = c
		case 'b':
			d.b[to] = '\b'
		case 'f':
			d.b[to] = '\f'
		case 'n':
			d.b[to] = '\n'
		case 'r':
			d.b[to] = '\r'
		case 't':
			d.b[to] = '\t'
		case 'u':
			if d.i+4 > len(d.b) {
				return nil, false
			}
			n, err := strconv.ParseUint(string(d.b[d.i:d.i+4]), 16, 16)
			if err != nil || utf16.IsSurrogate(rune(n)) {
				return nil, false
			}
			d.i += 4
			to += utf8.EncodeRune(d.b[to:to+utf8.UTFMax], rune(n)) - 1
		default:
			return nil, false
		}
		to++
	}
	return nil, false
}
