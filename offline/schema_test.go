package offline

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
)

const schemaPath = "../docs/manifest.schema.json"

// schemas builds the JSON Schema of the manifest from its Go types and their comments.
type schemas struct {
	comments map[string]string // "Type.Field" -> text
	defs     map[string]any
}

func fieldComments(t *testing.T, paths ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			s, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, f := range s.Fields.List {
				text := strings.TrimSpace(f.Doc.Text())
				if text == "" {
					text = strings.TrimSpace(f.Comment.Text())
				}
				for _, name := range f.Names {
					out[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(text), " ")
				}
			}
			return true
		})
	}
	return out
}

func (s *schemas) of(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[Timestamp]():
		return map[string]any{"type": []string{"string", "null"}, "format": "date-time"}
	case reflect.TypeFor[feature.Micros]():
		return map[string]any{"type": "integer", "description": "microseconds since 1970, UTC"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return map[string]any{"type": "integer"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Slice: // nil is written as null
		return map[string]any{"type": []string{"array", "null"}, "items": s.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": s.of(t.Elem())}
	}
	if _, ok := s.defs[t.Name()]; !ok {
		s.defs[t.Name()] = nil
		properties, required := map[string]any{}, []string{}
		s.fields(t, properties, &required)
		s.defs[t.Name()] = map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": true}
	}
	return map[string]any{"$ref": "#/$defs/" + t.Name()}
}

func (s *schemas) fields(t reflect.Type, properties map[string]any, required *[]string) {
	for f := range fieldsOf(t) {
		if f.Anonymous && f.Tag.Get("json") == "" {
			s.fields(f.Type, properties, required)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		p := s.of(f.Type)
		if text := s.comments[t.Name()+"."+f.Name]; text != "" {
			p["description"] = text
		}
		properties[name] = p
		if !strings.Contains(options, "omitempty") {
			*required = append(*required, name)
		}
	}
}

func fieldsOf(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

// The published schema of manifest.json is that of the code: UPDATE_GOLDEN=1 writes it anew.
// A change that takes a field away or gives it another meaning needs a new manifestVersion.
func TestManifestSchema(t *testing.T) {
	t.Parallel()
	s := schemas{comments: fieldComments(t, "manifest.go", "plan.go", "../feature/record.go"), defs: map[string]any{}}
	root := s.of(reflect.TypeFor[Manifest]())
	root["$schema"], root["title"] = "https://json-schema.org/draft/2020-12/schema", "manifest.json of a training set, version 1"
	root["$defs"] = s.defs
	got, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(schemaPath, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(schemaPath)
	if err != nil || string(want) != string(got) {
		t.Errorf("docs/manifest.schema.json is not what the code writes (%v): run with UPDATE_GOLDEN=1, and think of manifest_version", err)
	}
}

// What a build writes is what the schema says: every field is there that it requires, and
// none that it does not know. Seen red with a required field taken out of the manifest.
func TestManifestKeepsSchema(t *testing.T) {
	t.Parallel()
	set := newSetting(t, 200, 100)
	set.build(t, openEngine(t), func(r *DatasetRequest) { r.Service, r.ConfigDigest, r.Run = "svc", "abc", 7 })
	var schema, manifest map[string]any
	for path, to := range map[string]*map[string]any{schemaPath: &schema, filepath.Join(set.req.Output, manifestName): &manifest} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, to); err != nil {
			t.Fatal(err)
		}
	}
	var check func(where string, v any, s map[string]any)
	check = func(where string, v any, s map[string]any) {
		if to, ok := s["$ref"].(string); ok {
			s = schema["$defs"].(map[string]any)[strings.TrimPrefix(to, "#/$defs/")].(map[string]any)
		}
		kinds, _ := json.Marshal(s["type"])
		switch v := v.(type) {
		case map[string]any:
			properties, _ := s["properties"].(map[string]any)
			for name, item := range v {
				p, ok := properties[name].(map[string]any)
				if !ok {
					p, ok = s["additionalProperties"].(map[string]any)
				}
				if !ok {
					t.Errorf("%s.%s is not in the schema", where, name)
					continue
				}
				check(where+"."+name, item, p)
			}
			required, _ := s["required"].([]any)
			for _, name := range required {
				if _, ok := v[name.(string)]; !ok {
					t.Errorf("%s.%s is missing", where, name)
				}
			}
		case []any:
			for _, item := range v {
				check(where+"[]", item, s["items"].(map[string]any))
			}
		case string:
			if !strings.Contains(string(kinds), `"string"`) {
				t.Errorf("%s is text, the schema says %s", where, kinds)
			}
		case float64:
			if !strings.Contains(string(kinds), `"integer"`) && !strings.Contains(string(kinds), `"number"`) {
				t.Errorf("%s is a number, the schema says %s", where, kinds)
			}
		}
	}
	check("manifest", manifest, schema)
}
