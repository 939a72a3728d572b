package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

type nodeKind uint8

const (
	nullNode nodeKind = iota
	boolNode
	intNode
	floatNode
	stringNode
	listNode
	mapNode
)

func (k nodeKind) String() string {
	return [...]string{"nothing", "a boolean", "a whole number", "a number", "text", "a list", "a mapping"}[k]
}

// node is one value of the file: YAML with anchors resolved, variables filled in, and the
// place of everything kept.
type node struct {
	kind      nodeKind
	line, col int
	value     any    // bool, int64, uint64 or float64 of a scalar that is not text
	text      string // the scalar after interpolation
	raw       string // the scalar as it stands in the file: the only form that messages show
	untyped   bool   // it held a ${variable}: it may also be a number or boolean
	items     []*node
	entries   []entry
}

type entry struct {
	key       string
	line, col int
	val       *node
}

func (n *node) get(key string) *node {
	for _, e := range n.entries {
		if e.key == key {
			return e.val
		}
	}
	return nil
}

// Limits that no configuration comes near. They keep a hostile or damaged file from
// exhausting the stack of the YAML parser, which recurses.
const (
	maxFileBytes = 1 << 20
	maxDepth     = 100
	maxValues    = 1 << 20 // with anchors expanded: a kilobyte of anchors can mean billions
)

// builder turns the YAML library's tree into nodes.
type builder struct {
	d       *decoder
	anchors map[string]*node
}

// parseTree reads the one document of the file. It returns nil when there is nothing to
// decode; the problems say why.
func parseTree(d *decoder, data []byte) *node {
	if len(data) > maxFileBytes {
		d.add(Pos{Line: 1, Column: 1}, fmt.Sprintf("the file has %d bytes", len(data)), fmt.Sprintf("the limit is %d", maxFileBytes))
		return nil
	}
	if !utf8.Valid(data) {
		d.add(placeOfInvalidUTF8(data), "the file is not UTF-8", "save it as UTF-8 text")
		return nil
	}
	file, ok := parseYAML(d, string(data))
	if !ok {
		return nil
	}
	bodies := make([]ast.Node, 0, 1)
	for _, doc := range file.Docs {
		if doc.Body != nil {
			bodies = append(bodies, doc.Body)
		}
	}
	switch {
	case len(bodies) == 0:
		d.add(Pos{Line: 1, Column: 1}, "the file is empty", `begin with "project: NAME"; hearth init DIR writes a file to start from`)
		return nil
	case len(bodies) > 1:
		p := position(bodies[1])
		d.add(p, "the file holds more than one YAML document", "keep one, without ---")
		return nil
	}
	b := &builder{d: d, anchors: map[string]*node{}}
	root := b.build(bodies[0])
	if n := expanded(root, map[*node]int{}); n > maxValues {
		d.add(Pos{Line: 1, Column: 1}, fmt.Sprintf("the file holds more than %d values with its anchors expanded", maxValues), "use fewer anchors")
		return nil
	}
	return root
}

// expanded counts the values below n as often as anchors repeat them, but looks at each
// only once.
func expanded(n *node, known map[*node]int) int {
	if count, ok := known[n]; ok {
		return count
	}
	count := 1
	for _, item := range n.items {
		count = min(count+expanded(item, known), maxValues+1)
	}
	for _, e := range n.entries {
		count = min(count+expanded(e.val, known), maxValues+1)
	}
	known[n] = count
	return count
}

func placeOfInvalidUTF8(data []byte) Pos {
	line, col := 1, 1
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		if r == utf8.RuneError && n == 1 {
			break
		}
		col++
		if r == '\n' {
			line, col = line+1, 1
		}
		data = data[n:]
	}
	return Pos{Line: line, Column: col}
}

// parseYAML runs the YAML library. A panic inside it is a fault of the library on odd
// input, not a reason to take the process down: it becomes a problem of the file.
func parseYAML(d *decoder, text string) (file *ast.File, ok bool) {
	defer func() {
		if recover() != nil {
			d.add(Pos{Line: 1, Column: 1}, "the file is not YAML that can be read", "check quotes, brackets and indentation")
			file, ok = nil, false
		}
	}()
	tokens := lexer.Tokenize(text)
	if p, deep := tooDeep(tokens); deep {
		d.add(p, fmt.Sprintf("values are nested more than %d deep", maxDepth), "")
		return nil, false
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err == nil {
		return file, true
	}
	p := Pos{Line: 1, Column: 1}
	message := "the file is not valid YAML"
	var syntax interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if s, is := err.(interface {
		GetToken() *token.Token
		GetMessage() string
	}); is {
		syntax = s
		if tk := syntax.GetToken(); tk != nil && tk.Position != nil {
			p = Pos{Line: tk.Position.Line, Column: tk.Position.Column}
		}
		message = strings.ReplaceAll(syntax.GetMessage(), "\t", `\t`)
	}
	d.add(p, message, syntaxRemedy(message, lineOf(text, p.Line)))
	return nil, false
}

func lineOf(text string, line int) string {
	for i := 1; i < line; i++ {
		_, rest, found := strings.Cut(text, "\n")
		if !found {
			return ""
		}
		text = rest
	}
	first, _, _ := strings.Cut(text, "\n")
	return first
}

func syntaxRemedy(message, line string) string {
	switch {
	case strings.Contains(message, `\t`):
		return "indent with spaces; YAML does not allow tabs"
	case strings.Contains(line, "${") && strings.ContainsAny(line, "{["):
		return `inside {…} and […] put quotes round a value with a variable: "${NAME}"`
	}
	return "check quotes, brackets and indentation here and on the line before"
}

// tooDeep looks for nesting that would exhaust the parser's stack, before it runs.
func tooDeep(tokens token.Tokens) (Pos, bool) {
	flow, openers, line := 0, 0, 0
	for _, tk := range tokens {
		if tk.Position == nil {
			continue
		}
		if tk.Position.Line != line {
			line, openers = tk.Position.Line, 0
		}
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType, token.TagType, token.AnchorType:
			if flow == 0 { // only these nest without brackets: "- - - a", "? ? ? a"
				openers++
			}
		}
		if flow > maxDepth || openers > maxDepth || tk.Position.IndentNum > maxDepth*20 {
			return Pos{Line: tk.Position.Line, Column: tk.Position.Column}, true
		}
	}
	return Pos{}, false
}

func position(n ast.Node) Pos {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return position(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(n.Key)
	}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return Pos{Line: tk.Position.Line, Column: tk.Position.Column}
	}
	return Pos{}
}

func (b *builder) build(n ast.Node) *node {
	p := position(n)
	out := &node{line: p.Line, col: p.Column}
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return out
	case *ast.BoolNode:
		out.kind, out.value = boolNode, n.Value
		out.text, out.raw = n.GetToken().Value, n.GetToken().Value
	case *ast.IntegerNode:
		out.kind, out.value = intNode, n.Value
		out.text, out.raw = n.GetToken().Value, n.GetToken().Value
	case *ast.FloatNode:
		out.kind, out.value = floatNode, n.Value
		out.text, out.raw = n.GetToken().Value, n.GetToken().Value
	case *ast.InfinityNode:
		out.kind, out.value, out.text, out.raw = floatNode, n.Value, n.GetToken().Value, n.GetToken().Value
	case *ast.NanNode:
		out.kind, out.value, out.text, out.raw = floatNode, n.GetValue(), n.GetToken().Value, n.GetToken().Value
	case *ast.StringNode:
		b.text(out, n.Value)
	case *ast.LiteralNode:
		b.text(out, n.Value.Value)
	case *ast.TagNode:
		b.d.add(p, "YAML tags are not used here", "remove "+n.GetToken().Value)
		if n.Value != nil {
			return b.build(n.Value)
		}
	case *ast.AnchorNode:
		built := b.build(n.Value)
		b.anchors[n.Name.GetToken().Value] = built
		return built
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		target, ok := b.anchors[name]
		if !ok {
			b.d.add(p, fmt.Sprintf("unknown anchor *%s", name), fmt.Sprintf("define &%s above its use", name))
			return out
		}
		return target
	case *ast.SequenceNode:
		out.kind = listNode
		for _, item := range n.Values {
			out.items = append(out.items, b.build(item))
		}
	case *ast.MappingValueNode:
		out.kind = mapNode
		b.entry(out, n)
	case *ast.MappingNode:
		out.kind = mapNode
		for _, v := range n.Values {
			b.entry(out, v)
		}
	default:
		b.d.add(p, "this YAML is not understood here", "write plain mappings, lists and values")
	}
	return out
}

// text fills in variables. Quotes say nothing about the type of what a variable holds:
// inside {…} a value with a variable needs them.
func (b *builder) text(out *node, text string) {
	out.kind, out.raw = stringNode, text
	out.text, out.untyped = b.d.interpolate(Pos{Line: out.line, Column: out.col}, text)
}

// entry adds one key of a mapping. A key given twice is a problem; keys that come through
// a merge (<<) only fill in what the mapping does not say itself.
func (b *builder) entry(out *node, n *ast.MappingValueNode) {
	p := position(n.Key)
	if n.Key.IsMergeKey() {
		b.merge(out, b.build(n.Value), p)
		return
	}
	scalar, ok := n.Key.(ast.ScalarNode)
	if !ok {
		b.d.add(p, "a key must be plain text", "")
		return
	}
	key := scalar.GetToken().Value
	e := entry{key: key, line: p.Line, col: p.Column, val: b.build(n.Value)}
	for i := range out.entries {
		if out.entries[i].key != key {
			continue
		}
		if out.entries[i].line == 0 { // it came through a merge: what is said here counts
			out.entries[i] = e
			return
		}
		b.d.add(p, fmt.Sprintf("key %q is given twice", key), fmt.Sprintf("the first stands on line %d; keep one", out.entries[i].line))
		return
	}
	out.entries = append(out.entries, e)
}

func (b *builder) merge(out, from *node, p Pos) {
	if from.kind == listNode {
		for _, item := range from.items {
			b.merge(out, item, p)
		}
		return
	}
	if from.kind != mapNode {
		b.d.add(p, "<< merges mappings only, this is "+from.kind.String(), "")
		return
	}
	for _, e := range from.entries {
		if out.get(e.key) == nil {
			out.entries = append(out.entries, entry{key: e.key, val: e.val})
		}
	}
}
