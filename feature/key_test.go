package feature_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

func TestKeyExamples(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		parts []feature.KeyPart
		want  string
	}{
		{[]feature.KeyPart{{Name: "driver_id", Value: "1001"}}, "driver_id=1001"},
		{[]feature.KeyPart{{Name: "b", Value: "23"}, {Name: "a", Value: "1"}}, "a=1&b=23"},
		{[]feature.KeyPart{{Name: "a", Value: "1,23"}}, "a=1%2C23"},
		{[]feature.KeyPart{{Name: "a", Value: "x&b=2"}}, "a=x%26b%3D2"},
		{[]feature.KeyPart{{Name: "a", Value: ""}}, "a="},
		{[]feature.KeyPart{{Name: "ü", Value: "\xff"}}, "%C3%BC=%FF"},
	} {
		k, err := feature.NewKey(c.parts...)
		if err != nil || string(k) != c.want {
			t.Errorf("NewKey(%v) = %q, %v; want %q", c.parts, k, err, c.want)
		}
	}
}

func TestKeyRefusesWhatIsNoKey(t *testing.T) {
	t.Parallel()
	if _, err := feature.NewKey(); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("no parts: %v", err)
	}
	if _, err := feature.NewKey(feature.KeyPart{Name: "a"}, feature.KeyPart{Name: "a"}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("repeated name: %v", err)
	}
	if _, err := feature.NewKey(feature.KeyPart{Name: "a", Value: strings.Repeat("x", feature.MaxKeyBytes)}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("too long: %v", err)
	}
	for _, text := range []string{"", "a", "=1", "b=1&a=2", "a=1&a=1", "a=%2c", "a=%61", "a=%4", "a=b c", "a=1&"} {
		if k, err := feature.ParseKey(text); !errors.Is(err, feature.ErrInvalid) {
			t.Errorf("ParseKey(%q) = %q, %v; want ErrInvalid", text, k, err)
		}
	}
}

func genParts(t *rapid.T) []feature.KeyPart {
	names := rapid.SliceOfNDistinct(rapid.StringN(1, 8, 16), 1, 4, rapid.ID[string]).Draw(t, "names")
	parts := make([]feature.KeyPart, len(names))
	for i, n := range names {
		parts[i] = feature.KeyPart{Name: n, Value: string(rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "value"))}
	}
	return parts
}

// Seen red with '%' left unescaped, and with the parts joined in the given order.
func TestKeyIsExactlyInvertible(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parts := genParts(t)
		k, err := feature.NewKey(parts...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := feature.ParseKey(string(k))
		if err != nil || again != k {
			t.Fatalf("ParseKey(%q) = %q, %v", k, again, err)
		}
		back, err := k.Parts()
		if err != nil || len(back) != len(parts) {
			t.Fatalf("Parts(%q) = %v, %v", k, back, err)
		}
		want := map[string]string{}
		for _, p := range parts {
			want[p.Name] = p.Value
		}
		for _, p := range back {
			if v, ok := want[p.Name]; !ok || v != p.Value {
				t.Fatalf("%q: part %q = %q, want %q", k, p.Name, p.Value, v)
			}
		}
	})
}

// Two different entities never share a key: the fault of stores that join values with a
// separator ("1,23" and "12,3"). Seen red with AppendKeyPart writing values unescaped.
func TestDifferentEntitiesHaveDifferentKeys(t *testing.T) {
	t.Parallel()
	alphabet := rapid.SampledFrom([]string{"1", "2", "3", ",", "&", "=", "%", ""})
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) string {
			return strings.Join(rapid.SliceOfN(alphabet, 0, 4).Draw(t, label), "")
		}
		a := []feature.KeyPart{{Name: "a", Value: draw("a1")}, {Name: "b", Value: draw("b1")}}
		b := []feature.KeyPart{{Name: "a", Value: draw("a2")}, {Name: "b", Value: draw("b2")}}
		ka, err1 := feature.NewKey(a...)
		kb, err2 := feature.NewKey(b...)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if same := a[0] == b[0] && a[1] == b[1]; same != (ka == kb) {
			t.Fatalf("%v and %v: keys %q and %q", a, b, ka, kb)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add("a=1&b=23")
	f.Add("a=%")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := feature.ParseKey(s)
		if err == nil && string(k) != s {
			t.Fatalf("ParseKey(%q) = %q", s, k)
		}
	})
}

func TestCanonicalKeyText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		t    feature.Type
		in   string
		want string
		ok   bool
	}{
		{feature.Int64, "007", "7", true},
		{feature.Int64, "-0", "0", true},
		{feature.Int64, "1.5", "", false},
		{feature.Int32, "2147483648", "", false},
		{feature.Bool, "T", "true", true},
		{feature.String, "007", "007", true},
		{feature.Float64, "1", "", false},
	} {
		got, err := feature.CanonicalKeyText(c.t, c.in)
		if (err == nil) != c.ok || got != c.want {
			t.Errorf("CanonicalKeyText(%s, %q) = %q, %v", c.t, c.in, got, err)
		}
	}
}
