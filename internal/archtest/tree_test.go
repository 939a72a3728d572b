package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/hearthstore/hearth"

// source is one parsed Go file of the module.
type source struct {
	path string // with slashes, relative to the root
	pkg  string // folder of path; "." for the root
	test bool   // a _test.go file
	file *ast.File
	fset *token.FileSet
}

// imports are the import paths of the file.
func (s source) imports() []string {
	var out []string
	for _, spec := range s.file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// root is the folder of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatalf("the tests of the tree must run inside of it: %v", err)
	}
	return dir
}

// sources parses every Go file of the module, for all systems and build tags:
// that is why it does not ask "go list".
func sources(t *testing.T) []source {
	t.Helper()
	dir := root(t)
	fset := token.NewFileSet()
	var out []source
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != dir && notPartOfModule(p, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		file, err := parser.ParseFile(fset, p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		out = append(out, source{path: rel, pkg: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"), file: file, fset: fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatal("no Go files found")
	}
	return out
}

// notPartOfModule are the folders that the go command leaves out too.
func notPartOfModule(dir, name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// files are the paths that belong to the repository: what git tracks or would
// add. Without git it is everything.
func files(t *testing.T) []string {
	t.Helper()
	dir := root(t)
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = dir
	if out, err := cmd.Output(); err == nil && len(out) > 0 {
		return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	}
	var all []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != dir && strings.HasPrefix(d.Name(), ".") && d.Name() != ".ci" {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			rel, err := filepath.Rel(dir, p)
			if err != nil {
				return err
			}
			all = append(all, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// under says whether pkg matches one of the patterns: "a" is the package a,
// "a/..." that and everything below, "..." everything, "." the root package.
func under(pkg string, patterns []string) bool {
	for _, p := range patterns {
		base, deep := strings.CutSuffix(p, "...")
		base = strings.TrimSuffix(base, "/")
		if pkg == base || deep && (base == "" || strings.HasPrefix(pkg, base+"/")) {
			return true
		}
	}
	return false
}
