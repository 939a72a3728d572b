package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// Option adds to what [Load] checks.
type Option func(*options)

type options struct {
	schedule func(spec, zone string) error
}

// WithScheduleCheck has the schedules of jobs checked by the parser that will run them, so
// that a cron line that cannot be parsed is reported with all other problems.
func WithScheduleCheck(check func(spec, zone string) error) Option {
	return func(o *options) { o.schedule = check }
}

// Load reads and checks a configuration file. Variables come from the environment. The
// error is [feature.Problems] with every problem of the file, and matches
// feature.ErrInvalid; so does the error of a file that cannot be read.
func Load(path string, opts ...Option) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		remedy := "check its rights"
		if os.IsNotExist(err) {
			remedy = "run in the folder of a hearth.yaml, name one with --config, or start one with: hearth init DIR"
		}
		return nil, feature.Problems{{File: path, Message: "cannot read the configuration: " + reason(err), Remedy: remedy}}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the folder of %s: %w", path, err)
	}
	return parse(path, abs, data, os.LookupEnv, opts)
}

// reason is the cause of an error of package os without the path, which stands before it.
func reason(err error) string {
	s := err.Error()
	if i := strings.LastIndex(s, ": "); i >= 0 {
		return s[i+2:]
	}
	return s
}

// Parse is [Load] for data in memory. name stands for the file in problems, and relative
// paths are relative to its folder; env looks up variables.
func Parse(name string, data []byte, env func(string) (string, bool), opts ...Option) (*Config, error) {
	return parse(name, name, data, env, opts)
}

func parse(name, path string, data []byte, env func(string) (string, bool), opts []Option) (*Config, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	d := &decoder{file: name, dir: filepath.Dir(path), env: env, at: map[any]Pos{}, places: map[string]Pos{}, unset: map[Pos]bool{}}
	root := parseTree(d, data)
	if root == nil {
		return nil, d.sorted()
	}
	var doc document
	documentTable(&doc).read(d, root)
	c := &Config{Path: path, Dir: d.dir, places: d.places}
	resolveConfig(d, &doc, c, o)
	if len(d.problems) > 0 {
		return nil, d.sorted()
	}
	root.entries = slices.DeleteFunc(root.entries, func(e entry) bool { return strings.HasPrefix(e.key, "x-") })
	var canonical bytes.Buffer
	writeCanonical(&canonical, root)
	sum := sha256.Sum256(canonical.Bytes())
	c.Digest = hex.EncodeToString(sum[:])
	return c, nil
}

// sorted returns the problems in the order of the file, each once.
func (d *decoder) sorted() error {
	slices.SortStableFunc(d.problems, func(a, b feature.Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	d.problems = slices.Compact(d.problems)
	return d.problems.Err()
}

// writeCanonical writes the content in one form: mappings sorted by key, anchors expanded,
// variables filled in, comments gone.
func writeCanonical(w *bytes.Buffer, n *node) {
	switch n.kind {
	case mapNode:
		w.WriteByte('{')
		entries := slices.Clone(n.entries)
		slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
		for _, e := range entries {
			w.WriteString(strconv.Quote(e.key))
			w.WriteByte(':')
			writeCanonical(w, e.val)
			w.WriteByte(',')
		}
		w.WriteByte('}')
	case listNode:
		w.WriteByte('[')
		for _, item := range n.items {
			writeCanonical(w, item)
			w.WriteByte(',')
		}
		w.WriteByte(']')
	case nullNode:
		w.WriteString("null")
	case stringNode:
		w.WriteString(strconv.Quote(n.text))
	default:
		fmt.Fprintf(w, "%v", n.value)
	}
}

func sortedByFile(ps feature.Problems) feature.Problems {
	slices.SortFunc(ps, func(a, b feature.Problem) int { return strings.Compare(a.File, b.File) })
	return ps
}
