package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestSchemaWithAValidator: the published JSON Schema is valid for draft 2020-12 (the
// compiler checks it against the meta-schema); what Load accepts, it accepts; and the
// mistakes that an editor can see in one place, it refuses. Red when a rule makes a schema
// of the wrong shape, when a key is required of which Load knows a default, and when
// unknown keys are let in.
func TestSchemaWithAValidator(t *testing.T) {
	t.Parallel()
	raw, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("hearth.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("hearth.schema.json")
	if err != nil {
		t.Fatalf("the schema is not valid: %v", err)
	}
	for _, pattern := range []string{"testdata/design.yaml", "template/hearth.yaml", "../../examples/*/hearth.yaml", "../../deploy/compose/hearth.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files (%v)", pattern, err)
		}
		for _, file := range files {
			if err := schema.Validate(asJSON(t, file)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	// Only names that stand elsewhere, and text that is no YAML, are beyond a schema.
	beyond := []string{"duplicates", "bracket", "documents", "flow_variable", "odd", "tab", "utf8"}
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file[:len(file)-len(".yaml")])
		if slices.Contains(beyond, name) {
			continue
		}
		if schema.Validate(asJSON(t, file)) == nil {
			t.Errorf("%s: the schema sees nothing wrong", file)
		}
	}
}

func asJSON(t *testing.T, file string) any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return doc
}
