package feature_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var allFields = []feature.Field{
	{Name: "i64", Type: feature.Int64}, {Name: "i32", Type: feature.Int32},
	{Name: "f64", Type: feature.Float64}, {Name: "f32", Type: feature.Float32},
	{Name: "s", Type: feature.String}, {Name: "b", Type: feature.Bool},
	{Name: "raw", Type: feature.Bytes}, {Name: "ts", Type: feature.Timestamp},
	{Name: "list", Type: feature.ListOf(feature.Float32)}, {Name: "none", Type: feature.String},
}

func allValues() []feature.Value {
	return []feature.Value{
		feature.IntValue(math.MinInt64), feature.IntValue(-1),
		feature.Float64Value(math.Copysign(0, -1)), feature.Float32Value(1.5),
		feature.StringValue("Köln"), feature.BoolValue(true),
		feature.BytesValue([]byte{0, 0xff}), feature.TimestampValue(1629892800000000),
		feature.ListValue(feature.Float32Value(1), feature.Null), feature.Null,
	}
}

// The bytes of format 1 are pinned: a change here is a new format byte, not an edit.
func TestGoldenPayload(t *testing.T) {
	t.Parallel()
	features, err := feature.AppendFeatures(nil, allFields, allValues())
	if err != nil {
		t.Fatal(err)
	}
	version := feature.Version{Event: 1483272000000000, Created: 1483272000000001, Run: 42}
	value := feature.AppendPayload(nil, feature.Header{Fingerprint: feature.Fingerprint(allFields), Version: version}, features)
	tomb := feature.AppendPayload(nil, feature.Header{Fingerprint: feature.Fingerprint(allFields), Version: version, Tombstone: true}, nil)
	got := fmt.Sprintf("fingerprint %016x\ncontent hash %016x\nvalue\n%s\ntombstone\n%s", feature.Fingerprint(allFields), feature.ContentHash(value), hex.Dump(value), hex.Dump(tomb))
	pinned(t, "payload_v1.golden", got)
	h, body, err := feature.ParsePayload(value)
	if err != nil || h.Version != version || h.Tombstone {
		t.Fatalf("ParsePayload = %+v, %v", h, err)
	}
	back, err := feature.DecodeFeatures(body, allFields, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range allValues() {
		if !v.Equal(back[i]) {
			t.Errorf("feature %s: %v came back as %v", allFields[i].Name, v, back[i])
		}
	}
}

func genValue(t *rapid.T, typ feature.Type) feature.Value {
	if rapid.IntRange(0, 5).Draw(t, "null") == 0 {
		return feature.Null
	}
	if typ.IsList() {
		n := rapid.IntRange(0, 4).Draw(t, "n")
		list := make([]feature.Value, n)
		for i := range list {
			list[i] = genValue(t, typ.Elem())
		}
		return feature.ListValue(list...)
	}
	switch typ {
	case feature.Int64:
		return feature.IntValue(rapid.Int64().Draw(t, "i"))
	case feature.Int32:
		return feature.IntValue(int64(rapid.Int32().Draw(t, "i")))
	case feature.Float64:
		return feature.Float64Value(math.Float64frombits(rapid.Uint64().Draw(t, "f")))
	case feature.Float32:
		return feature.Float32Value(math.Float32frombits(rapid.Uint32().Draw(t, "f")))
	case feature.String:
		return feature.StringValue(rapid.String().Draw(t, "s"))
	case feature.Bool:
		return feature.BoolValue(rapid.Bool().Draw(t, "b"))
	case feature.Bytes:
		return feature.BytesValue(rapid.SliceOf(rapid.Byte()).Draw(t, "raw"))
	}
	return feature.TimestampValue(feature.Micros(rapid.Int64().Draw(t, "ts")))
}

// pinned compares stored bytes with the ones of a golden file.
func pinned(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the stored bytes changed:\n%s\nwant:\n%s", got, want)
	}
}

// Every value of every type comes back exactly: int64 beyond 2^53, -0, every NaN, "",
// null and the empty list. Seen red with timestamps written as MessagePack seconds.
func TestFeaturesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var fields []feature.Field
		var values []feature.Value
		for i := range rapid.IntRange(0, 20).Draw(t, "fields") {
			typ := rapid.SampledFrom(feature.ScalarTypes[:]).Draw(t, "type")
			if rapid.IntRange(0, 3).Draw(t, "list") == 0 {
				typ = feature.ListOf(typ)
			}
			fields = append(fields, feature.Field{Name: fmt.Sprint("f", i), Type: typ})
			values = append(values, genValue(t, typ))
		}
		b, err := feature.AppendFeatures(nil, fields, values)
		if err != nil {
			t.Fatal(err)
		}
		back, err := feature.DecodeFeatures(b, fields, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range values {
			if !values[i].Equal(back[i]) {
				t.Fatalf("%s: %v came back as %v", fields[i].Type, values[i], back[i])
			}
		}
		for cut := range b { // any cut is noticed, none panics
			if _, err := feature.DecodeFeatures(b[:cut], fields, nil); !errors.Is(err, feature.ErrCorrupt) {
				t.Fatalf("%d of %d bytes decoded: %v", cut, len(b), err)
			}
		}
		if _, err := feature.DecodeFeatures(append(bytes.Clone(b), 0xc0), fields, nil); !errors.Is(err, feature.ErrCorrupt) {
			t.Fatalf("trailing byte decoded: %v", err)
		}
	})
}

func TestEncodeRefusesOtherTypes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ feature.Type
		v   feature.Value
	}{
		{feature.Int32, feature.IntValue(1 << 31)}, {feature.Int64, feature.Float64Value(1)},
		{feature.Float64, feature.Float32Value(1)}, {feature.ListOf(feature.Int32), feature.ListValue(feature.StringValue("x"))},
	} {
		dst := []byte{7}
		out, err := feature.AppendFeatures(dst, []feature.Field{{Name: "f", Type: c.typ}}, []feature.Value{c.v})
		if !errors.Is(err, feature.ErrInvalid) || !bytes.Equal(out, dst) {
			t.Errorf("%s: %x, %v", c.typ, out, err)
		}
	}
}

func TestParsePayloadTellsUnknownFromCorrupt(t *testing.T) {
	t.Parallel()
	good := feature.AppendPayload(nil, feature.Header{Version: feature.Version{Event: 1}}, []byte{0x90})
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"empty", nil, feature.ErrCorrupt},
		{"cut", good[:20], feature.ErrCorrupt},
		{"later format", append([]byte{0x7f}, good[1:]...), feature.ErrUnknownFormat},
		{"tombstone with features", feature.AppendPayload(nil, feature.Header{Tombstone: true}, []byte{0x90}), feature.ErrCorrupt},
	} {
		if _, _, err := feature.ParsePayload(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// Any burst of up to 32 flipped bits is refused, in values and tombstones, and after the
// version was replaced. Seen red with SetVersion leaving the checksum as it was, and with
// the checksum over the features alone.
func TestDamageIsSeen(t *testing.T) {
	t.Parallel()
	features, err := feature.AppendFeatures(nil, allFields, allValues())
	if err != nil {
		t.Fatal(err)
	}
	value := feature.AppendPayload([]byte("before"), feature.Header{Fingerprint: 7, Version: feature.Version{Event: 1}}, features)[len("before"):]
	tomb := feature.AppendPayload(nil, feature.Header{Fingerprint: 7, Version: feature.Version{Event: 1}, Tombstone: true}, nil)
	for _, whole := range [][]byte{value, tomb} {
		feature.SetVersion(whole, feature.Version{Event: 2, Run: 3})
		if _, _, err := feature.ParsePayload(whole); err != nil {
			t.Fatal(err)
		}
		for bit := range len(whole) * 8 {
			for _, burst := range []uint32{1, 3, 0x80000001, 0xdeadbeef} {
				spoiled := bytes.Clone(whole)
				for n := range 32 {
					if at := bit + n; burst>>n&1 == 1 && at < 8*len(whole) {
						spoiled[at/8] ^= 1 << (at % 8)
					}
				}
				if _, _, err := feature.ParsePayload(spoiled); !errors.Is(err, feature.ErrCorrupt) && !errors.Is(err, feature.ErrUnknownFormat) {
					t.Fatalf("burst %x at bit %d: %v", burst, bit, err)
				}
			}
		}
	}
}

func TestContentHashIgnoresOnlyTheVersion(t *testing.T) {
	t.Parallel()
	p := feature.AppendPayload(nil, feature.Header{Fingerprint: 9, Version: feature.Version{Event: 1, Run: 1}}, []byte{0x91, 0x01})
	q := bytes.Clone(p)
	feature.SetVersion(q, feature.Version{Event: 2, Run: 8})
	if feature.ContentHash(p) != feature.ContentHash(q) {
		t.Error("the version changed the content hash")
	}
	for i := range p {
		if i >= feature.VersionOffset && i < feature.HeaderSize {
			continue
		}
		r := bytes.Clone(p)
		r[i] ^= 1
		if feature.ContentHash(r) == feature.ContentHash(p) {
			t.Errorf("byte %d does not count", i)
		}
	}
}

// Decoders never panic and never read past the end, whatever the bytes (I14).
func FuzzDecode(f *testing.F) {
	// With room for a run of either width at the end.
	allFields := append(slices.Clone(allFields), floatFields(feature.Float32, feature.Float32, feature.Float32, feature.Float32, feature.Float32,
		feature.Float64, feature.Float64, feature.Float64, feature.Float64)...)
	seed := func(head uint64, values []feature.Value) {
		features, err := feature.AppendFeatures(nil, allFields, values)
		if err != nil {
			f.Fatal(err)
		}
		for _, b := range [][]byte{features, oneByOne(values)} {
			f.Add(feature.AppendPayload(nil, feature.Header{Fingerprint: head}, b))
			f.Add(feature.AppendPayload(nil, feature.Header{Fingerprint: head}, b[:len(b)-1])) // a cut run
		}
	}
	values := append(allValues(), make([]feature.Value, 9)...)
	seed(1, values)
	for i := 10; i < 15; i++ {
		values[i] = feature.Float32Value(float32(i))
	}
	seed(2, values)
	for i := 15; i < 19; i++ {
		values[i] = feature.Float64Value(math.NaN())
	}
	seed(3, values)
	values[12] = feature.Null
	seed(4, values)
	f.Add([]byte(strings.Repeat("\xdf", 64)))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := feature.ParsePayload(b)
		if err != nil {
			return
		}
		values, err := feature.DecodeFeatures(body, allFields, nil)
		if err != nil {
			return
		}
		for i, v := range values {
			if !v.Is(allFields[i].Type) {
				t.Fatalf("%s decoded as %v", allFields[i].Type, v)
			}
		}
		again, err := feature.AppendFeatures(nil, allFields, values)
		if err != nil {
			t.Fatal(err)
		}
		back, err := feature.DecodeFeatures(again, allFields, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range back {
			if !back[i].Equal(values[i]) {
				t.Fatalf("%v re-encoded as %v", values[i], back[i])
			}
		}
		_ = h
	})
}
