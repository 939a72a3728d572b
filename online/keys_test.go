package online

import (
	"errors"
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

// TestKeys: keys read back, differ where refs differ, and match their own scan pattern.
func TestKeys(t *testing.T) {
	t.Parallel()
	s := &Store{cfg: Config{Project: "credit_scoring"}}
	if got, want := s.RedisKey(feature.Ref{View: feature.ViewID{Name: "zip", Version: 3}, Key: "a=1&b=23"}), "credit_scoring:zip@3:{a=1&b=23}"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	rapid.Check(t, func(r *rapid.T) {
		k, err := feature.NewKey(feature.KeyPart{Name: "n" + rapid.String().Draw(r, "name"), Value: rapid.String().Draw(r, "value")})
		if err != nil {
			r.Skip("no key")
		}
		id := feature.ViewID{Name: "v", Version: rapid.IntRange(1, 12).Draw(r, "version")}
		ref := feature.Ref{View: id, Key: k}
		prefix := string(s.appendPrefix(nil, id))
		if got, ok := parseKey(prefix, s.RedisKey(ref)); !ok || got != k {
			r.Fatalf("%s reads back as %s", k, got)
		}
		if keys := s.keys(2, func(int) feature.Ref { return ref }); keys[0] != s.RedisKey(ref) || keys[1] != keys[0] {
			r.Fatalf("keys: %q", keys)
		}
		if _, ok := parseKey(prefix, s.RedisKey(feature.Ref{View: feature.ViewID{Name: "v", Version: id.Version + 20}, Key: k})); ok {
			r.Fatal("another view's key was taken")
		}
	})
	for _, odd := range []string{`a*b`, `a?b`, `a[b]`, `a\b`, `a^b`} {
		if ok, err := path.Match(globEscape(odd), odd); !ok || err != nil {
			t.Errorf("%q does not match itself: %v", odd, err)
		}
		if ok, _ := path.Match(globEscape(odd), strings.Map(func(r rune) rune {
			if r == '*' || r == '?' {
				return 'x'
			}
			return r
		}, odd)+"y"); ok {
			t.Errorf("%q matches another", odd)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	reserved := &feature.View{Name: "v", Version: 1, Features: []feature.Feature{{Field: feature.Field{Name: "_v", Type: feature.Int64}}}}
	for name, cfg := range map[string]Config{
		"no project":        {Embedded: true},
		"bad project":       {Project: "a{b", Embedded: true},
		"no address":        {Project: "p"},
		"two singles":       {Project: "p", Addrs: []string{"a:1", "b:1"}},
		"embedded and more": {Project: "p", Embedded: true, Addrs: []string{"a:1"}},
		"cluster database":  {Project: "p", Addrs: []string{"a:1"}, Cluster: true, DB: 1},
		"layout":            {Project: "p", Embedded: true, Layout: "json"},
		"reserved name":     {Project: "p", Embedded: true, Layout: LayoutHash, Views: []*feature.View{reserved}},
	} {
		if _, err := Open(t.Context(), cfg); !errors.Is(err, feature.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}
