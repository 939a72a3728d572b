package feature_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

func project() *feature.Project {
	str := func(names ...string) []feature.Feature {
		out := make([]feature.Feature, len(names))
		for i, n := range names {
			out[i] = feature.Feature{Field: feature.Field{Name: n, Type: feature.Int64}}
		}
		return out
	}
	zip := []feature.JoinKey{{Name: "zipcode", Type: feature.Int64}}
	return &feature.Project{Name: "p", Views: []feature.View{
		{Name: "zip", Version: 1, JoinKeys: zip, Features: str("city", "population")},
		{Name: "credit", Version: 1, JoinKeys: []feature.JoinKey{{Name: "ssn", Type: feature.String}}, Features: str("due")},
		{Name: "credit", Version: 2, JoinKeys: []feature.JoinKey{{Name: "ssn", Type: feature.String}}, Features: str("due", "pulls")},
	}}
}

func refs(t *testing.T, texts ...string) []feature.FeatureRef {
	t.Helper()
	out := make([]feature.FeatureRef, len(texts))
	for i, s := range texts {
		var err error
		if out[i], err = feature.ParseFeatureRef(s); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestResolveExpandsGroupsAndKeepsOrder(t *testing.T) {
	t.Parallel()
	rs := refs(t, "credit@2:pulls", "zip:*", "credit:due", "zip:city")
	home := refs(t, "zip:city")[0]
	home.As, home.JoinKeys = "home", map[string]string{"zipcode": "home_zip"}
	sel, err := project().Resolve(append(rs, home))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range sel.Order {
		names = append(names, sel.Name(i))
	}
	if got, want := strings.Join(names, " "), "credit@2:pulls zip:city zip:population credit:due home:city"; got != want {
		t.Errorf("names %q, want %q", got, want)
	}
	if len(sel.Groups) != 4 {
		t.Errorf("%d groups, want 4", len(sel.Groups))
	}
	if got := sel.Groups[3].JoinKeys["zipcode"]; got != "home_zip" {
		t.Errorf("alias joins on %q", got)
	}
}

func TestResolveReportsEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := project().Resolve(refs(t, "zip:nope", "gone:*", "credit@3:due"))
	var ps feature.Problems
	if !errors.As(err, &ps) || len(ps) != 3 || !errors.Is(err, feature.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(ps[0].Remedy, "population") {
		t.Errorf("remedy %q does not list the features", ps[0].Remedy)
	}
}

func TestViewKeyNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	v := project().View(feature.ViewID{Name: "zip", Version: 1})
	if _, err := v.Key(map[string]string{"zip": "1"}); err == nil || !strings.Contains(err.Error(), `"zipcode"`) {
		t.Errorf("got %v", err)
	}
	if k, err := v.Key(map[string]string{"zipcode": "076104", "other": "x"}); err != nil || k != "zipcode=76104" {
		t.Errorf("got %q, %v", k, err)
	}
}

// The schema is names, types and order: each change is a new fingerprint.
func TestFingerprintSeesEveryChange(t *testing.T) {
	t.Parallel()
	f := func(pairs ...string) uint64 {
		var fs []feature.Field
		for i := 0; i < len(pairs); i += 2 {
			fs = append(fs, feature.Field{Name: pairs[i], Type: feature.Type(pairs[i+1])})
		}
		return feature.Fingerprint(fs)
	}
	seen := map[uint64]int{}
	for i, x := range []uint64{f("a", "int64", "b", "string"), f("b", "string", "a", "int64"), f("a", "int32", "b", "string"), f("a", "int64"), f("ai", "nt64", "b", "string")} {
		if j, dup := seen[x]; dup {
			t.Errorf("schemas %d and %d share a fingerprint", i, j)
		}
		seen[x] = i
	}
}

func TestParseNames(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"a:", "a", "a@0:b", "a@01:b", "a@x:b", ":b", "a:b:c", "1a:b", "a b:c"} {
		if r, err := feature.ParseFeatureRef(s); !errors.Is(err, feature.ErrInvalid) {
			t.Errorf("ParseFeatureRef(%q) = %v, %v", s, r, err)
		}
	}
	for _, s := range []string{"int", "list<", "list<list<int64>>", "", "INT64", "list<int64"} {
		if ty, err := feature.ParseType(s); err == nil {
			t.Errorf("ParseType(%q) = %q", s, ty)
		}
	}
}

func TestValueOfAndJSON(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ  feature.Type
		in   any
		want string // JSON; "" for refused
	}{
		{feature.Int64, json.Number("9223372036854775807"), "9223372036854775807"},
		{feature.Int64, 1.5, ""}, {feature.Int32, 1 << 31, ""},
		{feature.Float64, "NaN", `"NaN"`}, {feature.Float32, 0.1, "0.1"},
		{feature.String, 1, ""}, {feature.Bool, "true", "true"},
		{feature.Timestamp, "2021-08-25", `"2021-08-25T00:00:00Z"`},
		{feature.ListOf(feature.Int64), []any{1, nil}, "[1,null]"},
		{feature.Bytes, "AP8=", `"AP8="`}, {feature.String, nil, "null"},
	} {
		v, err := feature.ValueOf(c.typ, c.in)
		if c.want == "" {
			if !errors.Is(err, feature.ErrInvalid) {
				t.Errorf("ValueOf(%s, %v) = %v, %v", c.typ, c.in, v, err)
			}
			continue
		}
		b, jerr := json.Marshal(v)
		if err != nil || jerr != nil || string(b) != c.want {
			t.Errorf("ValueOf(%s, %v) = %s, %v, %v; want %s", c.typ, c.in, b, err, jerr, c.want)
		}
	}
}
