package feature_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

// oneByOne is the reference: the array that was stored before there were runs.
func oneByOne(values []feature.Value) []byte {
	b := feature.AppendArrayHeader(nil, len(values))
	for _, v := range values {
		b = feature.AppendValue(b, v)
	}
	return b
}

func floatFields(types ...feature.Type) []feature.Field {
	fields := make([]feature.Field, len(types))
	for i, t := range types {
		fields[i] = feature.Field{Name: fmt.Sprint("f", i), Type: t}
	}
	return fields
}

// The bytes of format 3 are pinned: both widths, each form of a run's header, the floats
// that are no numbers, and what ends a run: a null, another type, the last feature.
func TestGoldenRuns(t *testing.T) {
	t.Parallel()
	var fields []feature.Field
	var values []feature.Value
	add := func(typ feature.Type, vs ...feature.Value) {
		for _, v := range vs {
			fields = append(fields, feature.Field{Name: fmt.Sprint("f", len(fields)), Type: typ})
			values = append(values, v)
		}
	}
	f32, f64 := feature.Float32Value, feature.Float64Value
	add(feature.Float32, f32(1), f32(float32(math.Copysign(0, -1))), f32(math.Float32frombits(0x7fc00001)), f32(float32(math.Inf(1))))
	add(feature.Float64, f64(1), f64(math.Copysign(0, -1)), f64(math.Float64frombits(0xfff8000000000002)), f64(math.Inf(-1)), f64(0.1))
	add(feature.String, feature.StringValue("between"))
	add(feature.Float32, f32(1), f32(2), f32(3), feature.Null, f32(5), f32(6), f32(7), f32(8), f32(9))
	add(feature.ListOf(feature.Float32), feature.ListValue(f32(1), f32(2), f32(3), f32(4), f32(5)))
	add(feature.Float64, f64(1), f64(2), f64(3))
	features, err := feature.AppendFeatures(nil, fields, values)
	if err != nil {
		t.Fatal(err)
	}
	version := feature.Version{Event: 1483272000000000, Created: 1483272000000001, Run: 42}
	payload := feature.AppendPayload(nil, feature.Header{Fingerprint: feature.Fingerprint(fields), Version: version}, features)
	got := fmt.Sprintf("content hash %016x\nvalue\n%s", feature.ContentHash(payload), hex.Dump(payload))
	pinned(t, "payload_v3.golden", got)
	if payload[0] != feature.FormatRuns || !feature.IsValue(payload) {
		t.Errorf("format byte %d", payload[0])
	}
	for n, form := range map[int]string{50: "c7c804", 100: "c8019004", 20000: "c90001388004"} {
		body := encode32(t, n, 0)
		if !bytes.Contains(body[:12], unhex(t, form)) {
			t.Errorf("a run of %d begins % x", n, body[:12])
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encode32(t testing.TB, n int, first float32) []byte {
	t.Helper()
	fields, values := make([]feature.Field, n), make([]feature.Value, n)
	for i := range values {
		fields[i], values[i] = feature.Field{Name: fmt.Sprint("f", i), Type: feature.Float32}, feature.Float32Value(first+float32(i))
	}
	b, err := feature.AppendFeatures(nil, fields, values)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// 50 float32 features are 8 bytes of Redis each at most (bench/online measures it) because
// the payload has four for each and 43 more.
func TestFiftyFloats(t *testing.T) {
	t.Parallel()
	if got := len(feature.AppendPayload(nil, feature.Header{}, encode32(t, 50, 1))); got != feature.HeaderSize+1+3+200 {
		t.Errorf("a payload of %d bytes", got)
	}
}

// Whatever the values, the array of runs says what the array of single values says, is
// never longer, has no run where none is due and every run that is due, and its format
// byte says so. Old arrays decode as well. Seen red with runs from two floats on (longer,
// with a run that is not due), with a run that takes a null in, with one that goes on into
// another width, with the numbers little-endian, and with hasRuns always false.
func TestRunsAgreeWithSingles(t *testing.T) {
	t.Parallel()
	types := []feature.Type{feature.Float32, feature.Float32, feature.Float32, feature.Float64, feature.Float64, feature.Int64, feature.String, feature.ListOf(feature.Float32)}
	rapid.Check(t, func(t *rapid.T) {
		var fields []feature.Field
		var values []feature.Value
		for range rapid.IntRange(0, 6).Draw(t, "stretches") {
			typ := rapid.SampledFrom(types).Draw(t, "type")
			for range rapid.SampledFrom([]int{1, 2, 3, 4, 5, 20, 80}).Draw(t, "n") {
				fields = append(fields, feature.Field{Name: fmt.Sprint("f", len(fields)), Type: typ})
				v := feature.Null
				if rapid.IntRange(0, 15).Draw(t, "null") > 0 {
					v = genPresent(t, typ)
				}
				values = append(values, v)
			}
		}
		single := oneByOne(values)
		packed, err := feature.AppendFeatures([]byte("before"), fields, values)
		if err != nil || !bytes.HasPrefix(packed, []byte("before")) {
			t.Fatal(err)
		}
		packed = packed[len("before"):]
		if len(packed) > len(single) {
			t.Fatalf("%d bytes, one by one %d", len(packed), len(single))
		}
		if again := feature.PackRuns(bytes.Clone(packed), 0); !bytes.Equal(again, packed) {
			t.Fatalf("% x packed again is % x", packed, again)
		}
		for _, b := range [][]byte{single, packed} {
			back, err := feature.DecodeFeatures(b, fields, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range values {
				if !values[i].Equal(back[i]) {
					t.Fatalf("%s %d: %v came back as %v", fields[i].Type, i, values[i], back[i])
				}
			}
		}
		due := 0
		for i := 0; i < len(values); {
			k := 0
			for i+k < len(values) && !values[i+k].IsNull() && fields[i+k].Type == fields[i].Type && (fields[i].Type == feature.Float32 || fields[i].Type == feature.Float64) {
				k++
			}
			if k >= 4 {
				due++
			}
			i += max(k, 1)
		}
		if runs := len(runsOf(t, packed)); runs != due {
			t.Fatalf("%d runs, %d are due: % x", runs, due, packed)
		}
		payload := feature.AppendPayload(nil, feature.Header{}, packed)
		if (payload[0] == feature.FormatRuns) != (due > 0) {
			t.Fatalf("format %d with %d runs", payload[0], due)
		}
		if _, body, err := feature.ParsePayload(payload); err != nil || !bytes.Equal(body, packed) {
			t.Fatal(err)
		}
	})
}

func genPresent(t *rapid.T, typ feature.Type) feature.Value {
	for {
		if v := genValue(t, typ); !v.IsNull() {
			return v
		}
	}
}

// runsOf are the runs of an array, each by its place.
func runsOf(t *rapid.T, b []byte) (at []int) {
	pos := 1
	switch b[0] {
	case 0xdc:
		pos = 3
	case 0xdd:
		pos = 5
	}
	for pos < len(b) {
		if r, ok := feature.RunAt(b, pos); ok {
			at = append(at, pos)
			pos = r.First + r.Width*r.Count
			continue
		}
		next := skipPlain(b, pos)
		if next < 0 {
			t.Fatalf("no element at %d: % x", pos, b)
		}
		pos = next
	}
	return at
}

// skipPlain knows the few forms that TestRunsAgreeWithSingles writes.
func skipPlain(b []byte, pos int) int {
	switch lead := b[pos]; {
	case lead <= 0x7f, lead >= 0xe0, lead == 0xc0:
		return pos + 1
	case lead == 0xca, lead == 0xce, lead == 0xd2:
		return pos + 5
	case lead == 0xcb, lead == 0xcf, lead == 0xd3:
		return pos + 9
	case lead == 0xcc, lead == 0xd0:
		return pos + 2
	case lead == 0xcd, lead == 0xd1:
		return pos + 3
	case lead&0xe0 == 0xa0:
		return pos + 1 + int(lead&0x1f)
	case lead == 0xd9:
		return pos + 2 + int(b[pos+1])
	case lead == 0xda:
		return pos + 3 + int(binary.BigEndian.Uint16(b[pos+1:]))
	case lead&0xf0 == 0x90:
		n := int(lead & 0x0f)
		for pos++; n > 0 && pos > 0; n-- {
			pos = skipPlain(b, pos)
		}
		return pos
	}
	return -1
}

// A run that is not whole, holds nothing, reaches beyond the view, lies over another type
// or in an array of another length is corrupt, and the error says what is wrong. Seen red
// with the count, the types, the size and the array's length not looked at.
func TestCorruptRuns(t *testing.T) {
	t.Parallel()
	f32, f64 := feature.Float32, feature.Float64
	numbers := func(n int) string { return strings.Repeat("3f800000", n) }
	for _, c := range []struct {
		name, hex string
		types     []feature.Type
		want      string
	}{
		{"half a number", "91c70f04" + numbers(3) + "000000", []feature.Type{f32, f32, f32, f32}, `"f0": not a whole run`},
		{"cut", "91c71004" + numbers(3), []feature.Type{f32, f32, f32, f32}, `"f0": not a whole run`},
		{"cut in its header", "91c7", []feature.Type{f32}, "not a whole run"},
		{"no type", "91d4", []feature.Type{f32}, "not a whole run"},
		{"empty", "91c70004", []feature.Type{f32}, "not a whole run"},
		{"size beyond the bytes", "91c9ffffffff04" + numbers(4), []feature.Type{f32, f32, f32, f32}, "not a whole run"},
		{"another extension", "91d8" + "05" + numbers(4), []feature.Type{f32, f32, f32, f32}, "not a whole run"},
		{"a timestamp extension", "91d7ff" + numbers(2), []feature.Type{f32, f32}, "not a whole run"},
		{"more than the view", "91c71404" + numbers(5), []feature.Type{f32, f32, f32, f32}, "a run of 5 floats, and 4 features are left"},
		{"fewer than the view", "91d804" + numbers(4), []feature.Type{f32, f32, f32, f32, f32}, `"f4"`},
		{"over a string", "91d804" + numbers(4), []feature.Type{f32, f32, feature.String, f32}, `"f2": string in a run of float32`},
		{"over a list", "91d804" + numbers(4), []feature.Type{f32, f32, f32, feature.ListOf(f32)}, `"f3": list<float32> in a run`},
		{"over doubles", "91d804" + numbers(4), []feature.Type{f64, f64, f64, f64}, `"f0": float64 in a run of float32`},
		{"of doubles over floats", "91d808" + numbers(4), []feature.Type{f32, f32}, `"f0": float32 in a run of float64`},
		{"a run in a list", "9191d804" + numbers(4), []feature.Type{feature.ListOf(f32)}, `"f0"`},
		{"an array that says more", "92d804" + numbers(4), []feature.Type{f32, f32, f32, f32}, "an array of 2, and 1 make up the 4 features"},
		{"an array that says less", "91d804" + numbers(4) + "c0", []feature.Type{f32, f32, f32, f32, f32}, "an array of 1, and 2 make up the 5 features"},
		{"something after it", "91d804" + numbers(4) + "c0", []feature.Type{f32, f32, f32, f32}, "1 bytes after"},
	} {
		values, err := feature.DecodeFeatures(unhex(t, c.hex), floatFields(c.types...), nil)
		if !errors.Is(err, feature.ErrCorrupt) || values != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; want %q", c.name, values, err, c.want)
		}
	}
	// A short run is not what a writer makes, but it says what it says.
	values, err := feature.DecodeFeatures(unhex(t, "91d604"+numbers(1)), floatFields(f32), nil)
	if err != nil || values[0].Float32() != 1 {
		t.Errorf("a run of one: %v, %v", values, err)
	}
}

// PackRuns leaves alone what it does not understand.
func TestPackRunsTotal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		start := rapid.IntRange(0, len(b)).Draw(t, "start")
		got := feature.PackRuns(bytes.Clone(b), start)
		if !bytes.Equal(got[:start], b[:start]) || len(got) > len(b) {
			t.Fatalf("% x from %d on became % x", b, start, got)
		}
	})
	b := oneByOne([]feature.Value{feature.Float32Value(1), feature.Float32Value(2), feature.Float32Value(3), feature.Float32Value(4)})
	if got := feature.PackRuns(append(bytes.Clone(b), 7), 0); !bytes.Equal(got, append(b, 7)) {
		t.Errorf("bytes after the array are gone: % x", got)
	}
}

func benchmarkFloats(b *testing.B, encode func([]feature.Field, []feature.Value) []byte) {
	fields, values := make([]feature.Field, 50), make([]feature.Value, 50)
	for i := range values {
		fields[i], values[i] = feature.Field{Name: fmt.Sprint("f", i), Type: feature.Float32}, feature.Float32Value(float32(i)/3)
	}
	body := encode(fields, values)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if values, err = feature.DecodeFeatures(body, fields, values); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeRun(b *testing.B) {
	benchmarkFloats(b, func(fields []feature.Field, values []feature.Value) []byte {
		out, err := feature.AppendFeatures(nil, fields, values)
		if err != nil {
			b.Fatal(err)
		}
		return out
	})
}

func BenchmarkDecodeSingles(b *testing.B) {
	benchmarkFloats(b, func(_ []feature.Field, values []feature.Value) []byte { return oneByOne(values) })
}

func BenchmarkPack(b *testing.B) {
	values := make([]feature.Value, 50)
	for i := range values {
		values[i] = feature.Float32Value(float32(i) / 3)
	}
	single := oneByOne(values)
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = feature.PackRuns(append(buf[:0], single...), 0)
	}
}
