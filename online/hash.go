package online

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
)

// The fields of LayoutHash, beside one field per feature that is not null:
//
//	_v   version, 48 lower-case hexadecimal digits; always first in a write
//	_f   schema fingerprint, 16 lower-case hexadecimal digits
//	_t   event time, RFC 3339 (for people; _v decides)
//	_c   the payload's checksum, 8 lower-case hexadecimal digits: a field that was changed
//	     by anybody but Hearth makes the value damaged
//	_d   "1" for a tombstone, which has no features
//	_p   the payload's feature bytes, only where the text fields could not give them
//	     back: an unknown view or schema, or an encoding that is not the shortest
//
// A null feature has no field. Values are text: integers in decimal; floats in the shortest
// form that reads back exactly, with "-0", "NaN", "Infinity" and "-Infinity", and "NaN:<hex>"
// for a NaN of unusual bits; strings as they are; booleans as true and false; timestamps as
// RFC 3339 in UTC, and "@<microseconds>" outside the years 1 to 9999; bytes in base64; lists
// as JSON arrays of the same texts, numbers and booleans bare, and {"base64": "…"} for a
// string that is not UTF-8. What Get returns is byte for byte what Put was given.
const (
	fieldVersion     = "_v"
	fieldFingerprint = "_f"
	fieldTime        = "_t"
	fieldChecksum    = "_c"
	fieldTombstone   = "_d"
	fieldRaw         = "_p"
)

// hashView is what the layout needs of a view.
type hashView struct {
	fields      []feature.Field
	fingerprint uint64
	older       map[uint64]int
}

// under returns the fields that a value of a fingerprint has; nil for another schema.
func (v *hashView) under(fingerprint uint64) []feature.Field {
	switch {
	case v == nil:
		return nil
	case v.fingerprint == fingerprint:
		return v.fields
	}
	return v.fields[:v.older[fingerprint]]
}

func checkHashView(v *feature.View) error {
	for _, f := range v.Features {
		switch f.Name {
		case fieldVersion, fieldFingerprint, fieldTime, fieldChecksum, fieldTombstone, fieldRaw:
			return fmt.Errorf("online: view %s: %w: feature %q has a name that layout hash uses itself; rename it or use layout blob", v.ID(), feature.ErrInvalid, f.Name)
		}
	}
	return nil
}

func hashViews(views []*feature.View) map[feature.ViewID]*hashView {
	out := make(map[feature.ViewID]*hashView, len(views))
	for _, v := range views {
		out[v.ID()] = &hashView{fields: v.Fields(), fingerprint: v.Fingerprint(), older: feature.OlderSchemas(v.Fields())}
	}
	return out
}

// hashFields returns the names and values of a record that checkRecord accepted.
func (s *Store) hashFields(rec *feature.Record) []any {
	h, features, err := feature.ParsePayload(rec.Payload)
	if err != nil { // checkRecord has looked at everything ParsePayload does
		return []any{fieldVersion, rec.Version.Hex(), fieldRaw, rec.Payload}
	}
	out := []any{fieldVersion, h.Version.Hex(), fieldFingerprint, fmt.Sprintf("%016x", h.Fingerprint), fieldTime, timeText(h.Version.Event), fieldChecksum, checksumText(rec.Payload)}
	if h.Tombstone {
		return append(out, fieldTombstone, "1")
	}
	declared := s.views[rec.View].under(h.Fingerprint)
	if len(declared) == 0 {
		return append(out, fieldRaw, features)
	}
	values, err := feature.DecodeFeatures(features, declared, make([]feature.Value, 0, len(declared)))
	if err != nil {
		return append(out, fieldRaw, features)
	}
	again, err := feature.AppendFeatures(make([]byte, 0, len(features)), declared, values)
	if err != nil || !bytes.Equal(again, features) && !bytes.Equal(oneByOne(values), features) {
		return append(out, fieldRaw, features)
	}
	for i, value := range values {
		if !value.IsNull() {
			out = append(out, declared[i].Name, text(declared[i].Type, value))
		}
	}
	return out
}

// oneByOne is the array without runs: values that were written before there were runs.
func oneByOne(values []feature.Value) []byte {
	b := feature.AppendArrayHeader(make([]byte, 0, 16*len(values)), len(values))
	for _, v := range values {
		b = feature.AppendValue(b, v)
	}
	return b
}

func checksumText(payload []byte) string {
	return hex.EncodeToString(payload[feature.ChecksumOffset:feature.HeaderSize])
}

// payload is the inverse of hashFields. What does not give back the bytes that were put
// is damaged.
func (s *Store) payload(ref feature.Ref, fields map[string]string) ([]byte, error) {
	payload, err := s.rebuild(ref, fields)
	if err == nil && fields[fieldChecksum] != checksumText(payload) {
		return nil, fmt.Errorf("%w: the fields do not give back the checksum %s", feature.ErrCorrupt, fieldChecksum)
	}
	return payload, err
}

func (s *Store) rebuild(ref feature.Ref, fields map[string]string) ([]byte, error) {
	version, err := hexVersion(fields[fieldVersion])
	if err != nil {
		return nil, err
	}
	fingerprint, err := strconv.ParseUint(fields[fieldFingerprint], 16, 64)
	if err != nil || len(fields[fieldFingerprint]) != 16 {
		return nil, fmt.Errorf("%w: field %s is no fingerprint", feature.ErrCorrupt, fieldFingerprint)
	}
	h := feature.Header{Fingerprint: fingerprint, Version: version}
	if fields[fieldTombstone] == "1" {
		h.Tombstone = true
		return feature.AppendPayload(nil, h, nil), nil
	}
	if raw, ok := fields[fieldRaw]; ok {
		return feature.AppendPayload(nil, h, []byte(raw)), nil
	}
	declared := s.views[ref.View].under(fingerprint)
	if len(declared) == 0 {
		return nil, fmt.Errorf("%w: fingerprint %016x is not that of the configured view", feature.ErrUnknownFormat, fingerprint)
	}
	values := make([]feature.Value, len(declared))
	for i, f := range declared {
		if t, ok := fields[f.Name]; ok {
			if values[i], err = parseText(f.Type, t); err != nil {
				return nil, fmt.Errorf("%w: field %s is no %s", feature.ErrCorrupt, f.Name, f.Type)
			}
		}
	}
	features, err := feature.AppendFeatures(make([]byte, 0, 16*len(values)), declared, values)
	if err != nil {
		return nil, err
	}
	payload := feature.AppendPayload(make([]byte, 0, feature.HeaderSize+len(features)), h, features)
	if payload[0] == feature.FormatRuns && fields[fieldChecksum] != checksumText(payload) {
		return feature.AppendPayload(nil, h, oneByOne(values)), nil
	}
	return payload, nil
}

func hexVersion(s string) (feature.Version, error) {
	if len(s) != 2*feature.VersionSize {
		return feature.Version{}, fmt.Errorf("%w: field %s is no version", feature.ErrCorrupt, fieldVersion)
	}
	var b [feature.VersionSize]byte
	for i := range b {
		n, err := strconv.ParseUint(s[2*i:2*i+2], 16, 8)
		if err != nil {
			return feature.Version{}, fmt.Errorf("%w: field %s is no version", feature.ErrCorrupt, fieldVersion)
		}
		b[i] = byte(n)
	}
	return feature.ParseVersion(b[:])
}

// fetchHashes reads one node's share, one HGETALL per key in a pipeline.
func (s *Store) fetchHashes(ctx context.Context, sh share, refs []feature.Ref, keys []string, results []feature.GetResult) {
	s.readHashes(ctx, sh.node, sh, refs, keys, results)
}

func (s *Store) readHashes(ctx context.Context, on redis.UniversalClient, sh share, refs []feature.Ref, keys []string, results []feature.GetResult) {
	index := sh.index
	if index == nil {
		index = make([]int, len(keys))
		for i := range index {
			index[i] = i
		}
	}
	pipe := on.Pipeline()
	cmds := make([]*redis.MapStringStringCmd, len(index))
	for n, i := range index {
		cmds[n] = pipe.HGetAll(ctx, keys[i])
	}
	send(ctx, pipe)
	faults := sharedFault{store: s, addr: sh.addr}
	for n, i := range index {
		fields, err := cmds[n].Result()
		switch {
		case err != nil && redirected(err.Error()) && sh.node != nil:
			results[i] = feature.GetResult{Err: &errRedirected{err.Error()}}
		case err != nil:
			results[i] = feature.GetResult{Err: faults.of(err)}
		case len(fields) == 0:
			results[i] = feature.GetResult{}
		default:
			payload, err := s.payload(refs[i], fields)
			if err != nil {
				err = fmt.Errorf("get %s: %w", refs[i], err)
			}
			results[i] = feature.GetResult{Payload: payload, Err: err}
		}
	}
}

// The NaN that has the short name: the quiet one that hardware makes.
const (
	quietNaN64 = 0x7ff8000000000000
	quietNaN32 = 0x7fc00000
)

// text is the text form of a value that is not null.
func text(t feature.Type, v feature.Value) any {
	switch {
	case t.IsList():
		return listText(t.Elem(), v.List())
	case t == feature.String:
		return v.Str()
	}
	s, _ := scalarText(t, v)
	return s
}

// scalarText returns the text and whether JSON can hold it bare.
func scalarText(t feature.Type, v feature.Value) (s string, bare bool) {
	switch t {
	case feature.Int64, feature.Int32:
		return strconv.FormatInt(v.Int(), 10), true
	case feature.Float64:
		return floatText(v.Float(), 64, math.Float64bits(v.Float()), quietNaN64)
	case feature.Float32:
		f := v.Float32()
		return floatText(float64(f), 32, uint64(math.Float32bits(f)), quietNaN32)
	case feature.Bool:
		return strconv.FormatBool(v.Bool()), true
	case feature.Bytes:
		return base64.StdEncoding.EncodeToString(v.Bytes()), false
	case feature.Timestamp:
		return timeText(v.Micros()), false
	}
	return v.Str(), false
}

func floatText(f float64, size int, bits, quiet uint64) (s string, bare bool) {
	switch {
	case math.IsInf(f, 1):
		return "Infinity", false
	case math.IsInf(f, -1):
		return "-Infinity", false
	case f != f && bits == quiet:
		return "NaN", false
	case f != f:
		return "NaN:" + strconv.FormatUint(bits, 16), false
	}
	return strconv.FormatFloat(f, 'g', -1, size), true
}

var (
	firstTextTime = feature.MicrosOf(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC))
	lastTextTime  = feature.MicrosOf(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC))
)

func timeText(m feature.Micros) string {
	if m < firstTextTime || m > lastTextTime {
		return "@" + strconv.FormatInt(int64(m), 10)
	}
	return m.String()
}

func listText(elem feature.Type, list []feature.Value) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, v := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		s, bare := "null", true
		if !v.IsNull() {
			s, bare = scalarText(elem, v)
		}
		switch {
		case bare:
			b.WriteString(s)
		case !utf8.ValidString(s):
			b.WriteString(`{"base64":"` + base64.StdEncoding.EncodeToString([]byte(s)) + `"}`)
		default:
			quoted, _ := json.Marshal(s) // a string always can be
			b.Write(quoted)
		}
	}
	b.WriteByte(']')
	return b.String()
}

var errText = errors.New("not the text of its type")

func parseText(t feature.Type, s string) (feature.Value, error) {
	if t.IsList() {
		return parseList(t.Elem(), s)
	}
	switch t {
	case feature.String:
		return feature.StringValue(s), nil
	case feature.Int64, feature.Int32:
		size := 64
		if t == feature.Int32 {
			size = 32
		}
		n, err := strconv.ParseInt(s, 10, size)
		return feature.IntValue(n), err
	case feature.Float64:
		if suffix, ok := strings.CutPrefix(s, "NaN"); ok {
			bits, err := nanBits(suffix, quietNaN64, 64)
			return feature.Float64Value(math.Float64frombits(bits)), err
		}
		f, err := strconv.ParseFloat(s, 64)
		return feature.Float64Value(f), err
	case feature.Float32:
		if suffix, ok := strings.CutPrefix(s, "NaN"); ok {
			bits, err := nanBits(suffix, quietNaN32, 32)
			return feature.Float32Value(math.Float32frombits(uint32(bits))), err
		}
		f, err := strconv.ParseFloat(s, 32)
		return feature.Float32Value(float32(f)), err
	case feature.Bool:
		if s != "true" && s != "false" {
			return feature.Null, errText
		}
		return feature.BoolValue(s == "true"), nil
	case feature.Bytes:
		b, err := base64.StdEncoding.DecodeString(s)
		return feature.BytesValue(b), err
	case feature.Timestamp:
		if us, ok := strings.CutPrefix(s, "@"); ok {
			n, err := strconv.ParseInt(us, 10, 64)
			return feature.TimestampValue(feature.Micros(n)), err
		}
		at, err := time.Parse(time.RFC3339Nano, s)
		return feature.TimestampValue(feature.MicrosOf(at)), err
	}
	return feature.Null, errText
}

func nanBits(suffix string, quiet uint64, size int) (uint64, error) {
	if suffix == "" {
		return quiet, nil
	}
	digits, ok := strings.CutPrefix(suffix, ":")
	if !ok {
		return 0, errText
	}
	return strconv.ParseUint(digits, 16, size)
}

func parseList(elem feature.Type, s string) (feature.Value, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal([]byte(s), &raw); err != nil {
		return feature.Null, err
	}
	if raw == nil {
		return feature.Null, errText
	}
	list := make([]feature.Value, len(raw))
	for i, r := range raw {
		if string(r) == "null" {
			continue
		}
		t := string(r)
		switch r[0] {
		case '"':
			if err := json.Unmarshal(r, &t); err != nil {
				return feature.Null, err
			}
		case '{':
			var odd struct {
				Base64 []byte `json:"base64"`
			}
			if err := json.Unmarshal(r, &odd); err != nil {
				return feature.Null, err
			}
			t = string(odd.Base64)
		}
		var err error
		if list[i], err = parseText(elem, t); err != nil {
			return feature.Null, err
		}
	}
	return feature.ListValue(list...), nil
}
