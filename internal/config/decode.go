package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// Pos is a place in the configuration file.
type Pos struct {
	File         string
	Line, Column int    // 1-based; 0 when unknown
	Path         string // e.g. jobs[0].schedule
}

// Problem says what is wrong at the place.
func (p Pos) Problem(message, remedy string) feature.Problem {
	return feature.Problem{File: p.File, Line: p.Line, Column: p.Column, Path: p.Path, Message: message, Remedy: remedy}
}

// decoder walks the file's nodes along the declaration tables, fills the structs that
// they are bound to, and collects every problem.
type decoder struct {
	file     string
	dir      string
	env      func(string) (string, bool)
	problems feature.Problems
	path     []string
	at       map[any]Pos    // place of the value that was read into a pointer
	places   map[string]Pos // place of each path
	unset    map[Pos]bool   // places of variables without a value: reported once is enough
}

func (d *decoder) add(p Pos, message, remedy string) {
	if p.File == "" {
		p.File = d.file
	}
	if d.unset[Pos{Line: p.Line, Column: p.Column}] {
		return
	}
	if p.Path == "" {
		p.Path = d.pathText()
	}
	d.problems = append(d.problems, p.Problem(message, remedy))
}

func (d *decoder) pathText() string {
	var b strings.Builder
	for _, part := range d.path {
		if b.Len() > 0 && !strings.HasPrefix(part, "[") {
			b.WriteByte('.')
		}
		b.WriteString(part)
	}
	return b.String()
}

func (d *decoder) pos(n *node) Pos {
	return Pos{File: d.file, Line: n.line, Column: n.col, Path: d.pathText()}
}

// where returns the place of the value that was read into the first of ptrs that stands
// in the file.
func (d *decoder) where(ptrs ...any) Pos {
	for _, ptr := range ptrs {
		if p, ok := d.at[ptr]; ok {
			return p
		}
	}
	return Pos{File: d.file, Line: 1, Column: 1}
}

func (d *decoder) mark(ptr any, n *node) {
	if n.line == 0 {
		return // a default
	}
	p := d.pos(n)
	d.at[ptr] = p
	d.places[p.Path] = p
}

// wrong reports a value of the wrong type.
func (d *decoder) wrong(n *node, want, remedy string) {
	d.add(d.pos(n), "this must be "+want+", but it is "+n.kind.String(), remedy)
}

// value is a kind of value that the file can hold, bound to the Go value it is read into.
type value struct {
	typeName string // for documents: "duration", "list of text"
	schema   func() map[string]any
	// read fills the bound value. n is nil when the key is absent and has no default.
	read   func(d *decoder, n *node)
	fields []field // of an object, or of a list's elements
	rules  []rule
	list   bool
	oneOf  []value // the accepted forms, when there are several
}

// field is one key of an object.
type field struct {
	key      string
	doc      string
	def      string // the default, as it would stand in the file; "" for none
	note     string // for documents: what an absent key means, when def cannot say it
	required bool
	val      value
}

func key(name string, val value, doc string) field { return field{key: name, val: val, doc: doc} }

func (f field) or(def string) field      { f.def = def; return f }
func (f field) absent(note string) field { f.note = note; return f }
func (f field) must() field              { f.required = true; return f }

// rule is a condition on which of some keys of an object may stand together.
type rule struct {
	keys     []string
	min, max int
}

func exactlyOne(keys ...string) rule { return rule{keys, 1, 1} }
func atMostOne(keys ...string) rule  { return rule{keys, 0, 1} }
func allOrNone(keys ...string) rule  { return rule{keys, len(keys), -1} }

func object(fields []field, rules ...rule) value {
	v := value{typeName: "mapping", fields: fields, rules: rules}
	v.schema = func() map[string]any { return objectSchema(fields, rules) }
	v.read = func(d *decoder, n *node) {
		if n != nil && n.kind != mapNode && n.kind != nullNode {
			d.wrong(n, "a mapping", "its keys are: "+keyNames(fields))
			n = nil
		}
		readFields(d, n, fields)
		if n != nil {
			checkRules(d, n, rules)
		}
	}
	return v
}

func readFields(d *decoder, n *node, fields []field) {
	if n != nil {
		unknownKeys(d, n, fields)
	}
	for _, f := range fields {
		var child *node
		if n != nil {
			child = n.get(f.key)
		}
		d.path = append(d.path, f.key)
		switch {
		case child != nil:
			d.places[d.pathText()] = d.pos(child)
			f.val.read(d, child)
		case f.def != "":
			f.val.read(d, &node{kind: stringNode, text: f.def, raw: f.def, untyped: true})
		case f.required && n != nil:
			d.path = d.path[:len(d.path)-1]
			d.add(d.pos(n), fmt.Sprintf("key %q is missing", f.key), f.doc)
			d.path = append(d.path, f.key)
		default:
			f.val.read(d, nil)
		}
		d.path = d.path[:len(d.path)-1]
	}
}

func keyNames(fields []field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.key
	}
	return strings.Join(names, ", ")
}

func unknownKeys(d *decoder, n *node, fields []field) {
	for _, e := range n.entries {
		if slices.ContainsFunc(fields, func(f field) bool { return f.key == e.key }) {
			continue
		}
		if len(d.path) == 0 && strings.HasPrefix(e.key, "x-") {
			continue // a place for anchors
		}
		p := Pos{Line: e.line, Column: e.col}
		if p.Line == 0 {
			p = d.pos(e.val)
		}
		if slices.ContainsFunc(fields, func(f field) bool { return f.key == e.key+"_env" }) {
			d.add(p, fmt.Sprintf("a secret must not stand in the file: %q", e.key),
				fmt.Sprintf("name where it is kept: %s_env (a variable) or %s_file (a file)", e.key, e.key))
			continue
		}
		names := make([]string, len(fields))
		for i, f := range fields {
			names[i] = f.key
		}
		remedy := "known here: " + strings.Join(names, ", ")
		if near := nearest(e.key, names); near != "" {
			remedy = fmt.Sprintf("did you mean %q?", near)
		}
		d.add(p, fmt.Sprintf("unknown key %q", e.key), remedy)
	}
}

func checkRules(d *decoder, n *node, rules []rule) {
	for _, r := range rules {
		var have []string
		for _, k := range r.keys {
			if n.get(k) != nil {
				have = append(have, k)
			}
		}
		names := strings.Join(r.keys, ", ")
		switch {
		case r.max < 0:
			if len(have) > 0 && len(have) < len(r.keys) {
				d.add(d.pos(n), fmt.Sprintf("%s is given alone", have[0]), "these belong together: "+names)
			}
		case len(have) < r.min:
			d.add(d.pos(n), "one of these keys is missing: "+names, "give exactly one")
		case len(have) > r.max:
			second := n.get(have[1])
			d.add(d.pos(second), fmt.Sprintf("%s cannot stand together", strings.Join(have, " and ")), "keep one")
		}
	}
}

// optional makes *dst point to a new T when the key is present, and leaves it nil when not.
func optional[T any](dst **T, of func(*T) value) value {
	v := of(new(T))
	v.read = func(d *decoder, n *node) {
		if n == nil {
			return
		}
		t := new(T)
		*dst = t
		d.mark(t, n)
		of(t).read(d, n)
	}
	return v
}

// inline reads an object into dst whether it is present or not, for its defaults.
func inline[T any](dst *T, of func(*T) value) value {
	v := of(dst)
	read := v.read
	v.read = func(d *decoder, n *node) {
		if n != nil {
			d.mark(dst, n)
		}
		read(d, n)
	}
	return v
}

// list reads a list. The elements of *dst keep their places, so pointers to them are
// good keys for [decoder.where].
func list[T any](dst *[]T, of func(*T) value) value {
	elem := of(new(T))
	v := value{typeName: "list of " + elem.typeName, fields: elem.fields, rules: elem.rules, oneOf: elem.oneOf, list: true}
	v.schema = func() map[string]any { return map[string]any{"type": "array", "items": elem.schema()} }
	v.read = func(d *decoder, n *node) {
		if n == nil || n.kind == nullNode {
			return
		}
		if n.kind != listNode {
			d.wrong(n, "a list", "write [a, b], or one item a line with - before it")
			return
		}
		d.mark(dst, n)
		*dst = make([]T, len(n.items))
		for i, item := range n.items {
			d.path = append(d.path, "["+strconv.Itoa(i)+"]")
			d.mark(&(*dst)[i], item)
			of(&(*dst)[i]).read(d, item)
			d.path = d.path[:len(d.path)-1]
		}
	}
	return v
}
