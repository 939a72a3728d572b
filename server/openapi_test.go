package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/server"
)

// The document describes what the handlers do: every path and method of it is served and
// no other, each answer has a documented status, and its body is what the schema says.
// Seen red with a member renamed in the document, and a path.
func TestOpenAPIDescribesTheHandlers(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *server.Config) { c.ReadToken, c.AdminToken = "r", "a" })
	var doc map[string]any
	if err := json.Unmarshal(b.call(get, "/openapi.json", "").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	b.store(b.online, 0, 1, start, feature.Float64Value(0.5), feature.IntValue(1), feature.Null, feature.Null, feature.Null)
	b.work.end.Status = "done"
	calls := []struct{ method, path, body string }{
		{post, "/get-online-features", `{"entities": {"driver_id": [1, 2]}, "feature_service": "v1"}`},
		{post, "/get-online-features", `{"entities": {"driver_id": [1]}, "feature_service": "v1", "include_feature_view_version_metadata": true}`},
		{post, "/get-online-features", `{"entities": {"driver_id": ["x"]}, "feature_service": "v1"}`},
		{post, "/get-online-features", `{"entities": {"driver_id": [1]}, "feature_service": "v2"}`},
		{post, "/get-online-features", `{`},
		{post, "/v1/features", `{"entities": [{"driver_id": 1}, {"driver_id": 2}], "feature_service": "v1"}`},
		{post, "/v1/features", `{"entities": {"driver_id": [1, 2]}, "feature_service": "v1", "layout": "rows"}`},
		{post, "/v1/features", `{"entities": {"driver_id": [1]}, "feature_service": "v2"}`},
		{post, "/v1/features", `{`},
		{post, "/push", `{"push_source_name": "stats", "df": {"driver_id": [1]}}`},
		{post, "/push", `{`},
		{post, "/write-to-online-store", `{"feature_view_name": "stats", "df": {"driver_id": [1]}}`},
		{post, "/write-to-online-store", `{"feature_view_name": "none", "df": {"driver_id": [1]}}`},
		{post, "/materialize", `{}`},
		{post, "/materialize?async=true", `{}`},
		{post, "/materialize-incremental", `{}`},
		{get, "/health", ""}, {get, "/livez", ""}, {get, "/readyz", ""}, {get, "/metrics", ""},
		{get, "/v1/status", ""}, {get, "/openapi.json", ""}, {get, "/", ""},
	}
	paths := doc["paths"].(map[string]any)
	tried := map[string]bool{}
	for _, token := range []string{"a", "r", ""} {
		for _, c := range calls {
			b.token = token
			path, _, _ := strings.Cut(c.path, "?")
			tried[path] = true
			where := fmt.Sprintf("%s %s with token %q", c.method, c.path, token)
			op, ok := member(paths, path, strings.ToLower(c.method))
			if !ok {
				t.Errorf("%s is not in the document", where)
				continue
			}
			w := b.call(c.method, c.path, c.body)
			answer, ok := member(op, "responses", fmt.Sprint(w.Code))
			if !ok {
				t.Errorf("%s answers %d, which the document does not have", where, w.Code)
				continue
			}
			schema, ok := member(resolve(doc, answer), "content", "application/json", "schema")
			if !ok {
				continue
			}
			var body any
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Errorf("%s: %v", where, err)
				continue
			}
			for _, problem := range check(doc, schema, body, "body") {
				t.Errorf("%s: %s", where, problem)
			}
		}
	}
	b.token = "a"
	for path, ops := range paths {
		if !tried[path] {
			t.Errorf("%s is in the document and was not tried", path)
		}
		for method := range ops.(map[string]any) {
			if w := b.call(strings.ToUpper(method), path, ""); w.Code == http.StatusNotFound || w.Code == http.StatusMethodNotAllowed {
				t.Errorf("%s %s is in the document and not served", method, path)
			}
		}
	}
}

func member(v any, names ...string) (any, bool) {
	for _, name := range names {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[name]; !ok {
			return nil, false
		}
	}
	return v, true
}

func resolve(doc, v any) any {
	ref, ok := member(v, "$ref")
	if !ok {
		return v
	}
	found, ok := member(doc, strings.Split(strings.TrimPrefix(ref.(string), "#/"), "/")...)
	if !ok {
		return map[string]any{"type": "missing " + ref.(string)}
	}
	return found
}

// check is as much of JSON Schema as the document uses, and stricter: an object may not
// have a member that its properties do not name.
func check(doc, schema, v any, at string) (problems []string) {
	s, _ := resolve(doc, schema).(map[string]any)
	if choices, ok := s["oneOf"].([]any); ok {
		fits := 0
		for _, choice := range choices {
			why := check(doc, choice, v, at)
			if problems = append(problems, why...); len(why) == 0 {
				fits++
			}
		}
		if fits == 1 {
			return nil
		}
		return append(problems, fmt.Sprintf("%s fits %d of the schemas of which it must be one", at, fits))
	}
	if typ, ok := s["type"]; ok {
		types, many := typ.([]any)
		if !many {
			types = []any{typ}
		}
		if !slices.ContainsFunc(types, func(t any) bool { return isType(t.(string), v) }) {
			return []string{fmt.Sprintf("%s is no %v: %v", at, typ, v)}
		}
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		problems = append(problems, fmt.Sprintf("%s: %v is none of %v", at, v, enum))
	}
	if list, ok := v.([]any); ok && s["items"] != nil {
		for i, e := range list {
			problems = append(problems, check(doc, s["items"], e, fmt.Sprintf("%s[%d]", at, i))...)
		}
	}
	object, ok := v.(map[string]any)
	if !ok {
		return problems
	}
	required, _ := s["required"].([]any)
	for _, name := range required {
		if _, ok := object[name.(string)]; !ok {
			problems = append(problems, at+" lacks "+name.(string))
		}
	}
	properties, ok := s["properties"].(map[string]any)
	if !ok {
		return problems
	}
	for name, value := range object {
		if p, ok := properties[name]; ok {
			problems = append(problems, check(doc, p, value, at+"."+name)...)
		} else {
			problems = append(problems, at+" has "+name+", which the schema does not name")
		}
	}
	return problems
}

func isType(t string, v any) bool {
	switch v := v.(type) {
	case nil:
		return t == "null"
	case bool:
		return t == "boolean"
	case string:
		return t == "string"
	case float64:
		return t == "number" || t == "integer" && v == float64(int64(v))
	case []any:
		return t == "array"
	case map[string]any:
		return t == "object"
	}
	return false
}
