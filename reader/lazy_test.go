package reader

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

// everyType is a schema with each type, scalar and list.
func everyType() []feature.Field {
	var fields []feature.Field
	for _, t := range feature.ScalarTypes {
		fields = append(fields, feature.Field{Name: "s_" + string(t), Type: t}, feature.Field{Name: "l_" + string(t), Type: feature.ListOf(t)})
	}
	return fields
}

func wiresOf(fields []feature.Field) []wire {
	var ws []wire
	for _, f := range fields {
		ws = append(ws, wireOf(f.Type))
	}
	return ws
}

func drawValue(t *rapid.T, typ feature.Type) feature.Value {
	if rapid.IntRange(0, 5).Draw(t, "null") == 0 {
		return feature.Null
	}
	if typ.IsList() {
		list := make([]feature.Value, rapid.IntRange(0, 20).Draw(t, "len"))
		for i := range list {
			list[i] = drawValue(t, typ.Elem())
		}
		return feature.ListValue(list...)
	}
	switch typ {
	case feature.Int64:
		return feature.IntValue(rapid.OneOf(rapid.Int64(), rapid.Just(int64(math.MinInt64)), rapid.Just(int64(math.MaxInt64)), rapid.Just(int64(1<<53+1))).Draw(t, "int"))
	case feature.Int32:
		return feature.IntValue(int64(rapid.Int32().Draw(t, "int32")))
	case feature.Float64:
		return feature.Float64Value(rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1)})).Draw(t, "f64"))
	case feature.Float32:
		return feature.Float32Value(rapid.Float32().Draw(t, "f32"))
	case feature.String:
		return feature.StringValue(rapid.StringN(0, 300, 400).Draw(t, "str"))
	case feature.Bool:
		return feature.BoolValue(rapid.Bool().Draw(t, "bool"))
	case feature.Bytes:
		return feature.BytesValue(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes"))
	}
	return feature.TimestampValue(feature.Micros(rapid.Int64().Draw(t, "time")))
}

// same compares with the bits of floats, so that NaN equals itself and -0 differs from 0.
func same(a, b feature.Value) bool {
	return hex.EncodeToString(feature.AppendValue(nil, a)) == hex.EncodeToString(feature.AppendValue(nil, b))
}

// The walk accepts what the codec accepts and decodes it to the same values: whole
// payloads, cut ones, ones with bytes changed, and random bytes. Nothing panics. Seen
// red with the check for bytes after the end removed, with a run's numbers taken for 8 bytes each, and with the array's length not compared.
func TestIndexAgreesWithCodec(t *testing.T) {
	t.Parallel()
	all := everyType()
	rapid.Check(t, func(t *rapid.T) {
		var fields []feature.Field
		for range rapid.IntRange(1, 8).Draw(t, "stretches") {
			one := rapid.SampledFrom(all).Draw(t, "field")
			for range rapid.SampledFrom([]int{1, 1, 2, 4, 6}).Draw(t, "n") { // from four on a run, where they are floats
				fields = append(fields, one)
			}
		}
		values := make([]feature.Value, len(fields))
		for i, f := range fields {
			values[i] = drawValue(t, f.Type)
		}
		b, err := feature.AppendFeatures(nil, fields, values)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "without runs") {
			b = feature.AppendArrayHeader(nil, len(values))
			for _, v := range values {
				b = feature.AppendValue(b, v)
			}
		}
		switch rapid.IntRange(0, 6).Draw(t, "damage") {
		case 1:
			b = b[:rapid.IntRange(0, len(b)).Draw(t, "cut")]
		case 2:
			for range rapid.IntRange(1, 4).Draw(t, "flips") {
				b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "to")
			}
		case 3:
			b = append(b, rapid.SliceOfN(rapid.Byte(), 1, 3).Draw(t, "more")...)
		case 4:
			b = rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "noise")
		case 6: // the bytes of another schema
			fields[rapid.IntRange(0, len(fields)-1).Draw(t, "other")] = rapid.SampledFrom(all).Draw(t, "than it was")
		case 5: // an array that says one more or one less
			last := 0
			if b[0] == 0xdc {
				last = 2
			}
			b[last] += rapid.SampledFrom([]byte{1, 0xff}).Draw(t, "by")
		}
		agree(t, b, fields)
	})
}

func agree(t interface {
	Helper()
	Fatalf(string, ...any)
}, b []byte, fields []feature.Field) {
	t.Helper()
	wires := wiresOf(fields)
	wanted, wantErr := feature.DecodeFeatures(b, fields, nil)
	offsets, err := index(b, wires, nil)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%x: index says %v, the codec %v", b, err, wantErr)
	}
	if err != nil {
		return
	}
	for i := range fields {
		got := valueAt(b, offsets[i], wires[i])
		if !same(got, wanted[i]) {
			t.Fatalf("%x: feature %d (%s) differs", b, i, fields[i].Type)
		}
		f, g := float32At(b, offsets[i], wires[i]), wanted[i].Float32()
		if math.Float32bits(f) != math.Float32bits(g) && (f == f || g == g) {
			t.Fatalf("%x: feature %d (%s) as float32: %v, want %v", b, i, fields[i].Type, f, g)
		}
	}
}

// FuzzIndex looks for bytes on which the walk and the codec disagree. Seen red with a
// run's types not looked at.
func FuzzIndex(f *testing.F) {
	fields := everyType()
	for _, t := range []feature.Type{feature.Float32, feature.Float64} {
		for i := range 5 {
			fields = append(fields, feature.Field{Name: fmt.Sprint(t, i), Type: t})
		}
	}
	values := make([]feature.Value, len(fields))
	for _, floats := range []bool{false, true} {
		for i := len(fields) - 10; i < len(fields) && floats; i++ {
			if values[i] = feature.Float32Value(float32(i)); i >= len(fields)-5 {
				values[i] = feature.Float64Value(float64(i))
			}
		}
		b, err := feature.AppendFeatures(nil, fields, values)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	// A run over other types, and nulls for the rest.
	over := append([]byte{0xdc, 0, byte(len(fields) - 3), 0xd8, feature.RunFloat32}, make([]byte, 16)...)
	f.Add(append(over, bytes.Repeat([]byte{mpNil}, len(fields)-4)...))
	f.Add([]byte{0xdc, 0, 16, 0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) { agree(t, b, fields) })
}

// A payload with any one bit flipped is refused: no panic, and never a value that nobody
// wrote. Seen red with the checksum not compared in feature.ParsePayload.
func TestEveryBitFlip(t *testing.T) {
	t.Parallel()
	fields := everyType()
	for i := range 4 { // a run
		fields = append(fields, feature.Field{Name: fmt.Sprint("run", i), Type: feature.Float64})
	}
	values := make([]feature.Value, len(fields))
	for i, f := range fields {
		one := feature.IntValue(77)
		switch f.Type.Elem() {
		case feature.Float64:
			one = feature.Float64Value(0.3)
		case feature.Float32:
			one = feature.Float32Value(0.3)
		case feature.String:
			one = feature.StringValue("some text")
		case feature.Bool:
			one = feature.BoolValue(true)
		case feature.Bytes:
			one = feature.BytesValue([]byte{1, 2, 3})
		case feature.Timestamp:
			one = feature.TimestampValue(1_700_000_000_000_000)
		}
		values[i] = one
		if f.Type.IsList() {
			values[i] = feature.ListValue(one, feature.Null, one)
		}
	}
	body, err := feature.AppendFeatures(nil, fields, values)
	if err != nil {
		t.Fatal(err)
	}
	v := &feature.View{Name: "v", Version: 1}
	for _, f := range fields {
		v.Features = append(v.Features, feature.Feature{Field: f})
	}
	s := newSchema(v, &memory{})
	payload := feature.AppendPayload(nil, feature.Header{Fingerprint: v.Fingerprint(), Version: feature.Version{Event: 5, Created: 6, Run: 7}}, body)
	for bit := range len(payload) * 8 {
		p := append([]byte(nil), payload...)
		p[bit/8] ^= 1 << (bit % 8)
		if _, err := parse(s, p, &arena{}); err == nil {
			t.Errorf("bit %d of byte %d flipped and nobody noticed", bit%8, bit/8)
		}
	}
}
