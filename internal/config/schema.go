package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Schema returns the JSON Schema (draft 2020-12) of the file, for editors that complete
// and check it. It is made of the same tables that [Load] reads with. What spans several
// places (names that must exist, say) is beyond it: hearth validate checks that.
func Schema() ([]byte, error) {
	var doc document
	s := documentTable(&doc).schema()
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "hearth.yaml"
	s["patternProperties"] = map[string]any{"^x-": map[string]any{}}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	return b.Bytes(), nil
}

func objectSchema(fields []field, rules []rule) map[string]any {
	properties := map[string]any{}
	var required []any
	for _, f := range fields {
		s := f.val.schema()
		description := f.doc
		switch {
		case f.note != "":
			description += " Without it: " + f.note + "."
		case f.def != "":
			description += " Defaults to " + f.def + "."
		}
		s["description"] = description
		properties[f.key] = s
		if f.required {
			required = append(required, f.key)
		}
	}
	types := any("object")
	if len(required) == 0 {
		types = []any{"object", "null"} // "embedded:" with nothing after it
	}
	out := map[string]any{"type": types, "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		out["required"] = required
	}
	if all := ruleSchemas(rules); len(all) > 0 {
		out["allOf"] = all
	}
	return out
}

func ruleSchemas(rules []rule) []any {
	var all []any
	for _, r := range rules {
		if r.max < 0 {
			for _, k := range r.keys {
				all = append(all, map[string]any{"if": required(k), "then": required(r.keys...)})
			}
			continue
		}
		alternatives := make([]any, 0, len(r.keys)+1)
		for _, k := range r.keys {
			alternatives = append(alternatives, required(k))
		}
		if r.min == 0 {
			alternatives = append(alternatives, map[string]any{"not": map[string]any{"anyOf": append([]any{}, alternatives...)}})
		}
		all = append(all, map[string]any{"oneOf": alternatives})
	}
	return all
}

func required(keys ...string) map[string]any {
	list := make([]any, len(keys))
	for i, k := range keys {
		list[i] = k
	}
	return map[string]any{"required": list}
}

// Key is one key of the file, for documents and completion.
type Key struct {
	Path     string // e.g. feature_views[].source.path
	Type     string
	Default  string // as it would stand in the file; "" for none
	Absent   string // what its absence means, when there is no default
	Required bool
	Doc      string
}

// Keys lists every key of the file, in the order of the tables.
func Keys() []Key {
	var doc document
	return walkKeys(nil, "", documentTable(&doc).fields)
}

func walkKeys(keys []Key, prefix string, fields []field) []Key {
	for _, f := range fields {
		path := f.key
		if prefix != "" {
			path = prefix + "." + f.key
		}
		keys = append(keys, Key{Path: path, Type: f.val.typeName, Default: f.def, Absent: f.note, Required: f.required, Doc: strings.TrimSpace(f.doc)})
		if f.val.list {
			path += "[]"
		}
		keys = walkKeys(keys, path, f.val.fields)
	}
	return keys
}
