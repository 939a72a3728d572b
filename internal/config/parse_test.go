package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// TestDesignExample: the configuration that the design shows is read; only the names that
// the design leaves to the reader are missing.
func TestDesignExample(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/design.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse("hearth.yaml", data, noEnv)
	var ps feature.Problems
	if !errors.As(err, &ps) {
		t.Fatalf("got %v, want the undeclared views as problems", err)
	}
	for _, p := range ps {
		if !strings.Contains(p.Message, `unknown feature view "credit_history`) {
			t.Errorf("unexpected problem: %v", p)
		}
	}
	history := `
  - name: credit_history
    entities: [customer]
    source: {path: data/credit_history.parquet, timestamp_field: event_timestamp}
    features: [{name: credit_card_due, type: int64}]
  - name: credit_history
    version: 2
    entities: [customer]
    source: {path: data/credit_history.parquet, timestamp_field: event_timestamp}
    features: [{name: hard_pulls, type: int64}]
feature_services:`
	c := mustParse(t, strings.Replace(string(data), "\nfeature_services:", history, 1), noEnv)
	sel := c.Dataset("loans").Selection
	var names []string
	for i := range sel.Order {
		names = append(names, sel.Name(i))
	}
	want := []string{"zipcode_features:city", "zipcode_features:population", "credit_history:credit_card_due", "credit_history@2:hard_pulls"}
	if !slices.Equal(names, want) {
		t.Errorf("selection %v, want %v", names, want)
	}
	if r := c.Online.Redis; r == nil || r.Username != "app" || !r.Password.IsSet() || c.Backing.DynamoDB.StateTable != "credit_scoring-state" {
		t.Errorf("tiers: %+v %+v", c.Online.Redis, c.Backing.DynamoDB)
	}
	if got := c.Offline.Memory; got != 4e9 {
		t.Errorf("memory %d", got)
	}
	if src := c.Project.Views[0].Source; src.Column("population") != "pop" || src.DeletedColumn != "is_deleted" {
		t.Errorf("source %+v", src)
	}
}

// TestDigest: the digest follows what the file says, not how. Red when writeCanonical
// stops sorting mappings, and when it leaves scalars out.
func TestDigest(t *testing.T) {
	t.Parallel()
	base := mustParse(t, minimal, noEnv).Digest
	const pinned = "2f2486e6360cd48f893b80de8a186abd" // first half; a change orphans recorded digests
	if !strings.HasPrefix(base, pinned) {
		t.Errorf("digest of the minimal file is %s, was %s…", base, pinned)
	}
	same := []string{
		"# a comment\n" + minimal,
		strings.Replace(minimal, "project: p\n", "", 1) + "project: \"p\"\n",
		strings.Replace(minimal, "{path: v.parquet, timestamp_field: ts}", "{timestamp_field: ts, path: 'v.parquet'}", 1),
		"x-shared: &s {path: v.parquet, timestamp_field: ts}\n" + strings.Replace(minimal, "{path: v.parquet, timestamp_field: ts}", "*s", 1),
		"x-shared: &s {path: v.parquet}\n" + strings.Replace(minimal, "{path: v.parquet, timestamp_field: ts}", "{<<: *s, timestamp_field: ts}", 1),
		strings.Replace(minimal, "project: p", "project: ${P}", 1),
	}
	for i, text := range same {
		if got := mustParse(t, text, env("P", "p")).Digest; got != base {
			t.Errorf("case %d: digest differs for the same content:\n%s", i, text)
		}
	}
	other, err := Parse("/somewhere/else.yaml", []byte(minimal), noEnv)
	if err != nil || other.Digest != base {
		t.Errorf("digest depends on the place of the file: %v", err)
	}
	for _, change := range [][2]string{{"project: p", "project: q"}, {"type: int64}]\n", "type: int32}]\n"}, {"ts}", "tt}"}, {"name: f", "name: g"}} {
		if got := mustParse(t, strings.Replace(minimal, change[0], change[1], 1), noEnv).Digest; got == base {
			t.Errorf("digest does not see %v", change)
		}
	}
}

// TestSecretsAreNotShown (I15): a configuration that is printed, logged or marshalled
// shows no secret, nor does the error of one that cannot be read. Red when a method of
// Secret returns the text, and when Secret keeps the value in an exported field.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(secret+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := mustParse(t, minimal+`
online: {redis: {addrs: ["a:1"], password_env: REDIS_PASSWORD}}
server: {auth: {read_token_file: `+file+`, admin_token_env: ABSENT}}
`, env("REDIS_PASSWORD", secret))
	for what, s := range map[string]Secret{"password": c.Online.Redis.Password, "read token": c.Server.Auth.ReadToken} {
		if got, err := s.Reveal(); err != nil || got != secret {
			t.Errorf("%s: Reveal gives %q, %v", what, got, err)
		}
	}
	if _, err := c.Server.Auth.AdminToken.Reveal(); !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), "ABSENT") {
		t.Errorf("a missing variable gives %v", err)
	}
	if got, err := (Secret{}).Reveal(); got != "" || err != nil {
		t.Errorf("no secret gives %q, %v", got, err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c.Online.Redis, "secret", c.Online.Redis.Password)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", *c.Online.Redis, "secret", c.Online.Redis.Password)
	doc, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %v %s", c, c.Online.Redis, *c.Online.Redis, c.Online.Redis.Password, c.Server, doc) + log.String()
	if strings.Contains(shown, secret) {
		t.Errorf("the secret is shown: %s", shown)
	}
	if !strings.Contains(string(doc), redacted) {
		t.Error("the document does not say that there is a secret")
	}
}

func TestInterpolation(t *testing.T) {
	t.Parallel()
	c := mustParse(t, strings.Replace(minimal, "path: v.parquet", `path: "s3://${BUCKET}/$${x}/${BUCKET}"`, 1)+`
online: {redis: {addrs: ["${HOST}:6379"], cluster: "${CLUSTER}", pool_size: "${POOL}"}}
`, env("BUCKET", "b", "HOST", "h", "CLUSTER", "true", "POOL", "12"))
	if r := c.Online.Redis; r.Addrs[0] != "h:6379" || !r.Cluster || r.PoolSize != 12 {
		t.Errorf("redis %+v", r)
	}
	if got := c.Project.Views[0].Source.Path; got != "s3://b/${x}/b" {
		t.Errorf("path %q", got)
	}
}

func TestDurationsAndSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"0": 0, "90d": 90 * 24 * time.Hour, "36h": 36 * time.Hour, "15m": 15 * time.Minute,
		"250ms": 250 * time.Millisecond, "1d12h": 36 * time.Hour, "1.5h": 90 * time.Minute, "7300d": 7300 * 24 * time.Hour} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5", "d", "1w", "-1s", "1 d", "1d ", "1.2.3s", "1e9s", "999999999d", "٣s"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("parseDuration(%q) = %v, want an error", text, got)
		}
	}
	for text, want := range map[string]int64{"0": 0, "512MB": 512e6, "4GB": 4e9, "4GiB": 4 << 30, "1.5 KiB": 1536, "12": 12, "12B": 12, "1T": 1e12} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "GB", "4XB", "-1GB", "4GBs", "99999999999TB", "1iB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %v, want an error", text, got)
		}
	}
}

func TestLocate(t *testing.T) {
	t.Parallel()
	c := mustParse(t, minimal, noEnv)
	ps := c.Locate(feature.Problems{{Path: "feature_views[0].source.path", Message: "x"}, {Path: "feature_views[0].features[0].nothing.like[3]"}, {Path: "nowhere"}})
	if ps[0].Line != 6 || ps[0].Column != 20 || ps[0].File != "hearth.yaml" {
		t.Errorf("path is placed at %d:%d", ps[0].Line, ps[0].Column)
	}
	if ps[1].Line != 7 || ps[2].Line != 0 {
		t.Errorf("got lines %d and %d", ps[1].Line, ps[2].Line)
	}
}

// TestTablesAreSound: every default can be read by its own key, every key has a text, and
// the schema has exactly the keys that the reader accepts.
func TestTablesAreSound(t *testing.T) {
	t.Parallel()
	keys := map[string]bool{}
	for _, k := range Keys() {
		if k.Doc == "" || k.Type == "" || strings.Contains(k.Doc, "\n") {
			t.Errorf("%s: type %q, text %q", k.Path, k.Type, k.Doc)
		}
		if k.Required && (k.Default != "" || k.Absent != "") {
			t.Errorf("%s is required and has a default", k.Path)
		}
		if keys[k.Path] {
			t.Errorf("%s stands twice", k.Path)
		}
		keys[k.Path] = true
	}
	raw, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(raw, &schema); err != nil {
		t.Fatal(err)
	}
	inSchema := map[string]bool{}
	schemaKeys(schema, "", inSchema)
	if !reflect.DeepEqual(keys, inSchema) {
		for k := range keys {
			if !inSchema[k] {
				t.Errorf("%s is read, but not in the schema", k)
			}
		}
		for k := range inSchema {
			if !keys[k] {
				t.Errorf("%s is in the schema, but not read", k)
			}
		}
	}
	again, err := Schema()
	if err != nil || !bytes.Equal(raw, again) {
		t.Error("the schema differs from call to call")
	}
}

func schemaKeys(s map[string]any, prefix string, into map[string]bool) {
	if items, ok := s["items"].(map[string]any); ok {
		schemaKeys(items, prefix+"[]", into)
	}
	if forms, ok := s["oneOf"].([]any); ok {
		for _, form := range forms {
			schemaKeys(form.(map[string]any), prefix, into)
		}
	}
	properties, ok := s["properties"].(map[string]any)
	if !ok {
		return
	}
	if s["additionalProperties"] != false {
		into[prefix+" (open)"] = true
	}
	for k, sub := range properties {
		path := strings.TrimPrefix(prefix+"."+k, ".")
		into[path] = true
		schemaKeys(sub.(map[string]any), path, into)
	}
}

// FuzzParse: no input brings the process down, and what is refused is refused with
// problems that have a place.
func FuzzParse(f *testing.F) {
	f.Add(minimal)
	for _, pattern := range []string{"testdata/*.yaml", "testdata/problems/*.yaml", "../../examples/*/hearth.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data))
		}
	}
	f.Add(strings.Repeat("[", 200))
	f.Add(strings.Repeat("- ", 200))
	f.Add(strings.Repeat("? ", 200))
	f.Add("a: &a [x]\nb: &b [*a, *a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f.yaml", []byte(text), env("A", "b"))
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v with error %v", c, err)
		}
		var ps feature.Problems
		if err != nil && !errors.As(err, &ps) {
			t.Fatalf("error is a %T", err)
		}
		for _, p := range ps {
			if p.Line < 1 || p.Column < 1 {
				t.Fatalf("problem without a place: %+v", p)
			}
		}
	})
}

// TestAnchorsDoNotExplode: anchors of anchors expand to billions of values in a kilobyte.
// Red (it does not end) when maxValues is not checked.
func TestAnchorsDoNotExplode(t *testing.T) {
	t.Parallel()
	text := "project: p\nx-a: &a [1,2,3,4,5,6,7,8]\n"
	for c := 'b'; c <= 'p'; c++ {
		p := string(c - 1)
		text += fmt.Sprintf("x-%c: &%c [*%s,*%s,*%s,*%s,*%s,*%s,*%s,*%s]\n", c, c, p, p, p, p, p, p, p, p)
	}
	text += "entities: [{name: e, join_keys: [{name: k, type: int64}]}]\nfeature_views: [{name: v, entities: [e], source: {path: a, timestamp_field: t}, features: [{name: f, type: list<int64>, default: *p}]}]\n"
	if _, err := Parse("f.yaml", []byte(text), noEnv); err == nil {
		t.Fatal("it was accepted")
	}
}
