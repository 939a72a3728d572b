package config

import (
	"fmt"
	"maps"
	"math"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// The kinds of scalar values. Each reports what is wrong, shows the text as it stands in
// the file (never what a variable held), and says what would be right.

// variable is the schema of a value that may be given as "${NAME}" whatever its type.
func variable(schema map[string]any) map[string]any {
	return map[string]any{"anyOf": []any{schema, map[string]any{"type": "string", "pattern": `\$\{[A-Za-z_][A-Za-z0-9_]*\}`}}}
}

// scalarText returns the text of a scalar that may have been written as text. Numbers
// and booleans are refused: `version: 1.10` is not the text "1.10".
func scalarText(d *decoder, n *node) (string, bool) {
	if n == nil {
		return "", false
	}
	switch n.kind {
	case stringNode:
		return n.text, true
	case nullNode:
		d.add(d.pos(n), "there is no value here", "give one, or remove the key")
	case boolNode, intNode, floatNode:
		d.wrong(n, "text", fmt.Sprintf("put it in quotes: %q", n.raw))
	default:
		d.wrong(n, "text", "")
	}
	return "", false
}

func text(dst *string) value {
	return value{typeName: "text",
		schema: func() map[string]any { return map[string]any{"type": "string"} },
		read: func(d *decoder, n *node) {
			if s, ok := scalarText(d, n); ok {
				*dst = s
				d.mark(dst, n)
			}
		}}
}

// checked is text that must satisfy ok; want says what that is.
func checked(dst *string, typeName, want string, schema map[string]any, ok func(string) bool) value {
	v := text(dst)
	read := v.read
	v.typeName = typeName
	v.schema = func() map[string]any { return variable(schema) }
	v.read = func(d *decoder, n *node) {
		before := len(d.problems)
		read(d, n)
		if n == nil || len(d.problems) > before {
			return
		}
		if !ok(*dst) {
			d.add(d.pos(n), fmt.Sprintf("%q is no %s", show(n), typeName), want)
		}
	}
	return v
}

// show is the text of a scalar for a message: as it stands in the file, and cut when it
// looks like a URL with credentials.
func show(n *node) string {
	if i := strings.LastIndexByte(n.raw, '@'); i >= 0 && strings.Contains(n.raw[:i], ":") {
		return "…" + n.raw[i:]
	}
	return n.raw
}

const namePattern = `^[A-Za-z_][A-Za-z0-9_-]{0,127}$`

func name(dst *string) value {
	return checked(dst, "name", "use a letter or underscore, then letters, digits, underscores and hyphens",
		map[string]any{"type": "string", "pattern": namePattern},
		func(s string) bool { return feature.CheckName(s) == nil })
}

func nonEmpty(dst *string) value {
	return checked(dst, "text", "it must not be empty", map[string]any{"type": "string", "minLength": 1},
		func(s string) bool { return s != "" })
}

func typeOf(dst *feature.Type) value {
	var s string
	v := checked(&s, "type", "use int64, int32, float64, float32, string, bool, bytes, timestamp, or list<T> of one of them",
		map[string]any{"enum": typeNames()}, func(s string) bool { _, err := feature.ParseType(s); return err == nil })
	read := v.read
	v.schema = func() map[string]any { return map[string]any{"enum": typeNames()} }
	v.read = func(d *decoder, n *node) {
		if n != nil {
			d.mark(dst, n)
		}
		before := len(d.problems)
		if read(d, n); len(d.problems) == before {
			*dst = feature.Type(s)
		}
	}
	return v
}

func typeNames() []any {
	var names []any
	for _, t := range feature.ScalarTypes {
		names = append(names, string(t))
	}
	for _, t := range feature.ScalarTypes {
		names = append(names, string(feature.ListOf(t)))
	}
	return names
}

func enum(dst *string, allowed ...string) value {
	list := make([]any, len(allowed))
	for i, a := range allowed {
		list[i] = a
	}
	v := text(dst)
	read := v.read
	v.typeName = strings.Join(allowed, " or ")
	v.schema = func() map[string]any { return map[string]any{"enum": list} }
	v.read = func(d *decoder, n *node) {
		before := len(d.problems)
		read(d, n)
		if n == nil || len(d.problems) > before || slices.Contains(allowed, *dst) {
			return
		}
		remedy := "use one of: " + strings.Join(allowed, ", ")
		if near := nearest(*dst, allowed); near != "" && !n.untyped {
			remedy = fmt.Sprintf("did you mean %q?", near)
		}
		d.add(d.pos(n), fmt.Sprintf("%q is not known here", show(n)), remedy)
	}
	return v
}

func boolean(dst *bool) value {
	return value{typeName: "true or false",
		schema: func() map[string]any { return variable(map[string]any{"type": "boolean"}) },
		read: func(d *decoder, n *node) {
			if n == nil {
				return
			}
			if n.kind == stringNode && n.untyped {
				if b, err := strconv.ParseBool(n.text); err == nil {
					*dst = b
					return
				}
			}
			b, ok := n.value.(bool)
			if !ok {
				d.wrong(n, "true or false", "")
				return
			}
			*dst = b
			d.mark(dst, n)
		}}
}

func integer[T int | int64](dst *T, lowest, highest int64) value {
	return value{typeName: "whole number",
		schema: func() map[string]any {
			s := map[string]any{"type": "integer", "minimum": lowest}
			if highest != math.MaxInt64 {
				s["maximum"] = highest
			}
			return variable(s)
		},
		read: func(d *decoder, n *node) {
			if n == nil {
				return
			}
			var i int64
			var err error
			switch v := n.value.(type) {
			case int64:
				i = v
			case uint64:
				i = int64(min(v, math.MaxInt64))
			default:
				err = strconv.ErrSyntax
				if n.untyped {
					i, err = strconv.ParseInt(n.text, 10, 64)
				}
			}
			if err != nil {
				d.wrong(n, "a whole number", "")
				return
			}
			d.mark(dst, n)
			if i < lowest || i > highest {
				want := fmt.Sprintf("it must be at least %d", lowest)
				if highest != math.MaxInt64 {
					want = fmt.Sprintf("it must lie between %d and %d", lowest, highest)
				}
				d.add(d.pos(n), show(n)+" is out of range", want)
				return
			}
			*dst = T(i)
		}}
}

func number(dst *float64, lowest, highest float64) value {
	return value{typeName: "number",
		schema: func() map[string]any {
			return variable(map[string]any{"type": "number", "minimum": lowest, "maximum": highest})
		},
		read: func(d *decoder, n *node) {
			if n == nil {
				return
			}
			f, err := strconv.ParseFloat(strings.ReplaceAll(n.text, "_", ""), 64)
			if n.kind != intNode && n.kind != floatNode && !n.untyped || err != nil {
				d.wrong(n, "a number", "")
				return
			}
			d.mark(dst, n)
			if !(f >= lowest && f <= highest) {
				d.add(d.pos(n), show(n)+" is out of range", fmt.Sprintf("it must lie between %g and %g", lowest, highest))
				return
			}
			*dst = f
		}}
}

// unit is a number with a unit: a duration or a size.
func unit[T ~int64](dst *T, typeName, remedy, pattern string, parse func(string) (T, error)) value {
	return value{typeName: typeName,
		schema: func() map[string]any {
			return variable(map[string]any{"type": []any{"string", "integer"}, "pattern": pattern, "maximum": math.MaxInt64})
		},
		read: func(d *decoder, n *node) {
			if n == nil {
				return
			}
			switch n.kind {
			case stringNode, intNode, floatNode:
			default:
				d.wrong(n, "a "+typeName, remedy)
				return
			}
			d.mark(dst, n)
			t, err := parse(n.text)
			if err != nil {
				d.add(d.pos(n), fmt.Sprintf("%q: %v", show(n), err), remedy)
				return
			}
			*dst = t
		}}
}

func duration(dst *time.Duration) value {
	v := unit(dst, "duration", durationRemedy, `^(0|([0-9]+(\.[0-9]+)?(d|h|ms|m|s))+)$`, parseDuration)
	v.schema = func() map[string]any {
		return variable(map[string]any{"type": []any{"string", "integer"}, "pattern": `^(0|([0-9]+(\.[0-9]+)?(d|h|ms|m|s))+)$`, "maximum": 0})
	}
	return v
}

func size(dst *int64) value {
	v := unit(dst, "size", sizeRemedy, "", ParseSize)
	v.schema = func() map[string]any {
		return variable(map[string]any{"type": []any{"string", "integer"}, "pattern": `^[0-9]+(\.[0-9]+)? ?([kKMGT]i?)?[bB]?$`, "minimum": 0})
	}
	return v
}

// timePartitions is a pattern of folder names.
func timePartitions(dst *feature.TimePartitions) value {
	return checked((*string)(dst), "pattern of folders", "write name=pattern with %Y, then %m, %d and %H as far as the folders go: day=%Y-%m-%d, year=%Y/month=%m/day=%d, dt=%Y%m%d/hour=%H",
		map[string]any{"type": "string", "pattern": "=.*%Y"}, func(s string) bool { return s != "" && feature.TimePartitions(s).Validate() == nil })
}

// path is a file or folder, relative to the configuration file; a URL (s3://…) is kept.
func path(dst *string) value {
	v := nonEmpty(dst)
	read := v.read
	v.typeName = "path"
	v.read = func(d *decoder, n *node) {
		read(d, n)
		if n != nil {
			*dst = d.resolve(*dst)
		}
	}
	return v
}

// localPath is a path that something on this machine opens or writes: a URL is refused.
func localPath(dst *string) value {
	v := path(dst)
	read := v.read
	v.read = func(d *decoder, n *node) {
		before := len(d.problems)
		if read(d, n); n != nil && len(d.problems) == before && strings.Contains(*dst, "://") {
			d.add(d.pos(n), fmt.Sprintf("%q is no path of this machine", show(n)), "name a local file or folder; copy to and from elsewhere around the run")
		}
	}
	return v
}

func (d *decoder) resolve(p string) string {
	if p == "" || filepath.IsAbs(p) || strings.Contains(p, "://") {
		return p
	}
	return filepath.Join(d.dir, p)
}

func hostPort(dst *string) value {
	return checked(dst, "address", `write host:port, for example "127.0.0.1:6379"`,
		map[string]any{"type": "string", "pattern": `^.+:[0-9]{1,5}$`}, func(s string) bool { return validAddress(s, true) })
}

func listenAddress(dst *string) value {
	return checked(dst, "address", `write host:port, for example "127.0.0.1:6566", or ":6566" for every interface`,
		map[string]any{"type": "string", "pattern": `^.*:[0-9]{1,5}$`}, func(s string) bool { return validAddress(s, false) })
}

func validAddress(s string, needHost bool) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || needHost && host == "" || strings.ContainsAny(host, "/@ ") {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && (n > 0 || !needHost)
}

func httpURL(dst *string) value {
	return checked(dst, "URL", "write http://host:port or https://host", map[string]any{"type": "string", "pattern": `^(https?://.+)?$`},
		func(s string) bool {
			host, ok := strings.CutPrefix(s, "http://")
			if !ok {
				host, ok = strings.CutPrefix(s, "https://")
			}
			return s == "" || ok && host != ""
		})
}

func zone(dst *string) value {
	return checked(dst, "time zone", "use a name of the IANA database, for example UTC or Europe/Berlin", map[string]any{"type": "string"},
		validZone)
}

func validZone(s string) bool {
	_, err := time.LoadLocation(s)
	return err == nil && s != "" && s != "Local"
}

// secretEnv and secretFile bind the two keys that say where a secret is kept. The value
// is never shown in a message: it may be a secret in the wrong place.
func secretEnv(dst *Secret) value {
	return value{typeName: "name of an environment variable",
		schema: func() map[string]any {
			return map[string]any{"type": "string", "pattern": `^[A-Za-z_][A-Za-z0-9_]*$`}
		},
		read: func(d *decoder, n *node) {
			if n == nil {
				return
			}
			if n.kind != stringNode || !validEnvName(n.text) {
				d.add(d.pos(n), "this is not the name of an environment variable", "give the variable's name, not the secret and not ${…}")
				return
			}
			dst.env, dst.lookup = n.text, d.env
			d.mark(dst, n)
		}}
}

func secretFile(dst *Secret) value {
	return value{typeName: "path",
		schema: func() map[string]any { return map[string]any{"type": "string", "minLength": 1} },
		read: func(d *decoder, n *node) {
			if n == nil {
				return
			}
			if n.kind != stringNode || n.text == "" {
				d.add(d.pos(n), "this is not the path of a file", "")
				return
			}
			dst.file = d.resolve(n.text)
			d.mark(dst, n)
		}}
}

// mapping reads name: text pairs.
func mapping(dst *map[string]string, keyWord, valueWord string) value {
	return value{typeName: "mapping of " + keyWord + " to " + valueWord,
		schema: func() map[string]any {
			return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}
		},
		read: func(d *decoder, n *node) {
			if n == nil || n.kind == nullNode {
				return
			}
			if n.kind != mapNode {
				d.wrong(n, "a mapping of "+keyWord+" to "+valueWord, "write {"+keyWord+": "+valueWord+"}")
				return
			}
			d.mark(dst, n)
			out := make(map[string]string, len(n.entries))
			for _, e := range n.entries {
				d.path = append(d.path, e.key)
				d.places[d.pathText()] = Pos{File: d.file, Line: e.line, Column: e.col, Path: d.pathText()}
				if s, ok := scalarText(d, e.val); ok {
					if s == "" {
						d.add(d.pos(e.val), "the "+valueWord+" is empty", "")
					}
					out[e.key] = s
				}
				d.path = d.path[:len(d.path)-1]
			}
			*dst = out
		}}
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// anything keeps the node for later, when its type is known.
func anything(dst **node) value {
	return value{typeName: "value of the feature's type",
		schema: func() map[string]any { return map[string]any{} },
		read: func(d *decoder, n *node) {
			if n != nil {
				*dst = n
				d.mark(dst, n)
			}
		}}
}
