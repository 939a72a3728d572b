package archtest

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// ban is a function that must not be called.
type ban struct {
	what    string // package function ("time.Now"), method of a test (".Skip") or built-in ("panic")
	tests   bool   // whether test files must not either
	only    bool   // whether only test files must not
	allowed []string
	why     string
}

var bans = []ban{
	{what: "time.Now", allowed: withTools(clock), why: "the time comes from internal/clock, so that tests can turn it"},
	{what: "time.Since", allowed: withTools(clock), why: "the time comes from internal/clock, so that tests can turn it"},
	{what: "time.Until", allowed: withTools(clock), why: "the time comes from internal/clock, so that tests can turn it"},
	{what: "time.Sleep", tests: true, allowed: []string{"internal/testservers"},
		why: "code waits on the clock with a context, and tests wait for what they expect"},
	{what: "os.Exit", allowed: programs, why: "only a command ends the process, with a documented code"},
	{what: "log.Fatal", allowed: programs, why: "only a command ends the process, with a documented code"},
	{what: "log.Fatalf", allowed: programs, why: "only a command ends the process, with a documented code"},
	{what: "log.Fatalln", allowed: programs, why: "only a command ends the process, with a documented code"},
	{what: "log.Panic", why: "errors are returned"},
	{what: "log.Panicf", why: "errors are returned"},
	{what: "panic", allowed: programs, why: "errors are returned"},
	{what: ".Skip", tests: true, only: true, why: skipped},
	{what: ".Skipf", tests: true, only: true, why: skipped},
	{what: ".SkipNow", tests: true, only: true, why: skipped},
}

const skipped = "a check that did not run has not passed; let it fail and say what is missing"

// programs are commands and the programs around the product.
var programs = []string{"cmd/...", "internal/testservers/cmd/...", "bench/...", "examples/..."}

// withTools adds the code that is not part of the product.
func withTools(pkg string) []string {
	return []string{pkg, "internal/testservers/...", "internal/faults", "bench/...", "examples/..."}
}

// testNames are what a test calls its testing.T; a property-based test names
// its own kind of T otherwise and may discard a case.
var testNames = []string{"t", "tb", "b", "f"}

func TestNothingForbiddenIsCalled(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, call := range calls(s.file) {
			for _, b := range bans {
				if call.name == b.what && b.applies(s) {
					t.Errorf("%s: %s is called: %s", s.fset.Position(call.node.Pos()), strings.TrimPrefix(b.what, "."), b.why)
				}
			}
		}
	}
}

func (b ban) applies(s source) bool {
	if s.test && !b.tests || !s.test && b.only {
		return false
	}
	return !under(s.pkg, b.allowed)
}

type namedCall struct {
	name string
	node ast.Node
}

// calls are the names that the file uses: calls of built-ins, and functions of
// packages and methods of tests even where they are only passed on.
func calls(file *ast.File) []namedCall {
	var out []namedCall
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok {
				out = append(out, namedCall{id.Name, n})
			}
		case *ast.SelectorExpr:
			if id, ok := n.X.(*ast.Ident); ok {
				out = append(out, namedCall{id.Name + "." + n.Sel.Name, n})
				if slices.Contains(testNames, id.Name) {
					out = append(out, namedCall{"." + n.Sel.Name, n})
				}
			}
		}
		return true
	})
	return out
}

// privatePath finds home and work folders of one machine. It is put together
// from pieces so that this file does not contain what it looks for.
var privatePath = regexp.MustCompile("(^|[^A-Za-z0-9_.~$}/-])/(" + strings.Join([]string{"root", "work", "home/[a-z]+", "Users/[A-Za-z]+"}, "|") + ")/[A-Za-z0-9_.]")

func TestNoPathsOfOneMachine(t *testing.T) {
	t.Parallel()
	const longest = 1 << 20 // data files are not read
	dir := root(t)
	for _, name := range files(t) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() > longest {
			continue // deleted but still tracked, a link, or data
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if !utf8.Valid(b) {
			continue
		}
		for i, line := range strings.Split(string(b), "\n") {
			if m := privatePath.FindString(line); m != "" {
				t.Errorf("%s:%d: %q is a path of one machine", name, i+1, strings.TrimSpace(m))
			}
		}
	}
}

// TestTheBansHold proves that the checks can fail.
func TestTheBansHold(t *testing.T) {
	t.Parallel()
	find := func(what string) ban {
		i := slices.IndexFunc(bans, func(b ban) bool { return b.what == what })
		if i < 0 {
			t.Fatalf("no ban of %s", what)
		}
		return bans[i]
	}
	for _, c := range []struct {
		what string
		s    source
		want bool
	}{
		{"time.Now", source{pkg: "reader"}, true},
		{"time.Now", source{pkg: "reader", test: true}, false},
		{"time.Now", source{pkg: "internal/clock"}, false},
		{"time.Sleep", source{pkg: "reader", test: true}, true},
		{"panic", source{pkg: "feature"}, true},
		{"os.Exit", source{pkg: "cmd/hearth"}, false},
		{".Skip", source{pkg: "offline", test: true}, true},
		{".Skip", source{pkg: "offline"}, false},
	} {
		if got := find(c.what).applies(c.s); got != c.want {
			t.Errorf("%s in %+v: banned = %v, want %v", c.what, c.s, got, c.want)
		}
	}
	for text, want := range map[string]bool{
		"see /" + "root/.cache": true, `"/` + `work/main"`: true, "https://example.com/work/x": false,
		"./" + "work/x": false, "/" + "home/someone/x": true, "$HOME/work/x": false,
	} {
		if got := privatePath.MatchString(text); got != want {
			t.Errorf("%q: private = %v, want %v", text, got, want)
		}
	}
}
