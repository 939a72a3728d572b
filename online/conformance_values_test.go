package online

import (
	"bytes"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

// conformRoundTrip: what comes back is byte for byte what went in, whatever the values.
func conformRoundTrip(t *testing.T, b backend) {
	s := b.open(t)
	values := genValues()
	run := uint64(0)
	rapid.Check(t, func(r *rapid.T) {
		run++
		rec := valuesRecord(t, key(1), feature.Version{Event: 1, Created: feature.NoTime, Run: run}, values.Draw(r, "values"))
		if got := put(t, s, rec)[0]; got.Outcome != feature.Written {
			r.Fatal(got.Outcome, got.Err)
		}
		if got := get(t, s, key(1))[0]; got.Err != nil || !bytes.Equal(got.Payload, rec.Payload) {
			r.Fatalf("got % x (%v)\nput % x", got.Payload, got.Err, rec.Payload)
		}
	})
	// Other schemas and other encodings of the same values survive as well.
	foreign := record(t, key(2), feature.Version{Event: 1, Run: 1}, 5)
	foreign.Payload[3] ^= 0xff
	feature.SetVersion(foreign.Payload, foreign.Version) // the checksum again
	long := record(t, key(3), feature.Version{Event: 1, Run: 1}, 0)
	long.Payload = append(long.Payload[:feature.HeaderSize+1:feature.HeaderSize+1], append([]byte{0xd3, 0, 0, 0, 0, 0, 0, 0, 7}, long.Payload[feature.HeaderSize+2:]...)...)
	feature.SetVersion(long.Payload, long.Version)
	wantOutcomes(t, put(t, s, foreign, long), feature.Written, feature.Written)
	wantStored(t, s, foreign)
	wantStored(t, s, long)
	conformOneByOne(t, s)
}

// conformOneByOne: a value that was written before there were runs comes back as it was,
// from readable fields too. Seen red with hashFields comparing with the array of runs
// alone, and with rebuild making no other.
func conformOneByOne(t *testing.T, s *Store) {
	values := make([]feature.Value, len(testView.Features))
	for i := 12; i < 20; i++ {
		values[i] = feature.Float32Value(float32(i))
		if i >= 16 {
			values[i] = feature.Float64Value(float64(i))
		}
	}
	head := feature.Header{Fingerprint: testView.Fingerprint(), Version: feature.Version{Event: 1, Run: 1}}
	before, err := feature.NewRecord(testView, key(4), feature.AppendPayload(nil, head, oneByOne(values)))
	if err != nil {
		t.Fatal(err)
	}
	if before.Payload[0] != feature.FormatValue {
		t.Fatalf("format %d", before.Payload[0])
	}
	wantOutcomes(t, put(t, s, before), feature.Written)
	wantStored(t, s, before)
	if s.cfg.Layout != LayoutHash {
		return
	}
	if raw := s.plain().HExists(t.Context(), s.RedisKey(before.Ref), fieldRaw).Val(); raw {
		t.Error("the fields are not readable")
	}
	// The later run writes the same values as runs.
	head.Version.Run = 2
	after := valuesRecord(t, key(4), head.Version, values)
	wantOutcomes(t, put(t, s, after), feature.Written)
	wantStored(t, s, after)
}

func genValues() *rapid.Generator[[]feature.Value] {
	floats := rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, 5e-324,
		math.Float64frombits(quietNaN64), math.Float64frombits(0xfff0000000000001), 0.1, 1e21}))
	floats32 := rapid.OneOf(rapid.Float32(), rapid.SampledFrom([]float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(-1)), math.Float32frombits(quietNaN32), math.Float32frombits(0xffc00123), 0.1}))
	texts := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "null", "\xff\xfe", "1", "NaN", "\"", "{", "\u2028", "\x00"}))
	times := rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, -1, 1, math.MinInt64, math.MaxInt64, int64(firstTextTime), int64(firstTextTime) - 1, int64(lastTextTime), int64(lastTextTime) + 1, 1_600_000_000_123_456}))
	return rapid.Custom(func(r *rapid.T) []feature.Value {
		list := func(one func() feature.Value) feature.Value {
			var out []feature.Value
			for range rapid.IntRange(0, 3).Draw(r, "n") {
				if rapid.IntRange(0, 4).Draw(r, "null element") == 0 {
					out = append(out, feature.Null)
				} else {
					out = append(out, one())
				}
			}
			return feature.ListValue(out...)
		}
		out := []feature.Value{
			feature.IntValue(rapid.Int64().Draw(r, "i")), feature.IntValue(int64(rapid.Int32().Draw(r, "j"))),
			feature.Float64Value(floats.Draw(r, "f")), feature.Float32Value(floats32.Draw(r, "g")), feature.StringValue(texts.Draw(r, "s")),
			feature.BoolValue(rapid.Bool().Draw(r, "b")), feature.BytesValue(rapid.SliceOf(rapid.Byte()).Draw(r, "x")), feature.TimestampValue(feature.Micros(times.Draw(r, "t"))),
			list(func() feature.Value { return feature.IntValue(rapid.Int64().Draw(r, "li")) }),
			list(func() feature.Value { return feature.Float64Value(floats.Draw(r, "lf")) }),
			list(func() feature.Value { return feature.StringValue(texts.Draw(r, "ls")) }),
			list(func() feature.Value { return feature.TimestampValue(feature.Micros(times.Draw(r, "lt"))) }),
		}
		for range 4 {
			out = append(out, feature.Float32Value(floats32.Draw(r, "r")))
		}
		for range 4 {
			out = append(out, feature.Float64Value(floats.Draw(r, "q")))
		}
		for i := range out {
			if rapid.IntRange(0, 4).Draw(r, "null") == 0 {
				out[i] = feature.Null
			}
		}
		return out
	})
}
