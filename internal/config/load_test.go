package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
)

var update = flag.Bool("update", false, "rewrite golden files")

func noEnv(string) (string, bool) { return "", false }

func env(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func mustParse(t testing.TB, text string, lookup func(string) (string, bool)) *Config {
	t.Helper()
	c, err := Parse("hearth.yaml", []byte(text), lookup)
	if err != nil {
		t.Fatalf("parse:\n%v", err)
	}
	return c
}

// minimal is the smallest file that is right; tests add to it.
const minimal = `project: p
entities: [{name: customer, join_keys: [{name: id, type: int64}]}]
feature_views:
  - name: v
    entities: [customer]
    source: {path: v.parquet, timestamp_field: ts}
    features: [{name: f, type: int64}]
`

func TestLoadExample(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "examples", "credit_scoring", "hearth.yaml")
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Project.Name != "credit_scoring" || len(c.Project.Views) != 2 || len(c.Jobs) != 3 {
		t.Fatalf("got project %q, %d views, %d jobs", c.Project.Name, len(c.Project.Views), len(c.Jobs))
	}
	if !filepath.IsAbs(c.Dir) || !filepath.IsAbs(c.Path) {
		t.Errorf("Dir %q and Path %q are not absolute", c.Dir, c.Path)
	}
	v := c.Project.View(feature.ViewID{Name: "zipcode_features", Version: 1})
	if got, want := v.Source.Path, filepath.Join(c.Dir, "data", "zipcode_table.parquet"); got != want {
		t.Errorf("source path %q, want %q", got, want)
	}
	if v.TTL != 7300*24*time.Hour {
		t.Errorf("ttl %v", v.TTL)
	}
	if len(v.JoinKeys) != 1 || v.JoinKeys[0] != (feature.JoinKey{Name: "zipcode", Type: feature.Int64}) {
		t.Errorf("join keys %v", v.JoinKeys)
	}
	if d := v.Features[v.FeatureIndex("population")].Default; d.IsNull() || d.Int() != 0 {
		t.Errorf("default of population is %v", d)
	}
	ds := c.Dataset("loans")
	if ds == nil || ds.Selection == nil || len(ds.Selection.Order) != 15 {
		t.Fatalf("dataset loans: %+v", ds)
	}
	if ds.Output.Path != filepath.Join(c.Dir, "out", "loans") {
		t.Errorf("output %q", ds.Output.Path)
	}
	if c.Online.Embedded == nil || c.Backing.SQLite == nil || c.Backing.SQLite.Path != filepath.Join(c.Dir, ".hearth", "backing.db") {
		t.Errorf("tiers: %+v %+v", c.Online, c.Backing)
	}
	if j := c.Job("hourly"); j.Kind() != "materialize" || j.Pos.Line == 0 || j.Timezone != "UTC" || j.CatchUp != "last" || j.Retries != 2 {
		t.Errorf("job hourly: %+v", j)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := mustParse(t, minimal, noEnv)
	switch {
	case c.Online.Embedded == nil || c.Online.Redis != nil || c.Online.Layout != "blob" || c.Online.TombstoneTTL != time.Hour:
		t.Errorf("online: %+v", c.Online)
	case c.Backing.SQLite == nil || c.Backing.SQLite.Path != ".hearth/backing.db":
		t.Errorf("backing: %+v", c.Backing)
	case c.Reader != (Reader{Cache: Cache{MaxEntries: 100000, TTL: 5 * time.Second}, OnlineTimeout: 20 * time.Millisecond,
		BackingTimeout: 100 * time.Millisecond, MaxBackingRPS: 500, NegativeTTL: time.Second, ServeStale: time.Minute}):
		t.Errorf("reader: %+v", c.Reader)
	case c.Server.Listen != "127.0.0.1:6566" || c.Server.TLS != nil:
		t.Errorf("server: %+v", c.Server)
	case c.Offline != (Offline{Engine: "duckdb", TempDir: ".hearth/tmp", Chunk: 1 << 30, S3: S3{StagingDir: ".hearth/staging"}}):
		t.Errorf("offline: %+v", c.Offline)
	case c.Project.Views[0].Version != 1 || c.Project.Views[0].TTL != 0:
		t.Errorf("view: %+v", c.Project.Views[0])
	}
}

// TestProblems: every kind of mistake is reported, all of a file at once, each with its
// place and a remedy. Red when a check of resolve.go is removed or a position is taken
// from the wrong node.
func TestProblems(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	check := func(spec, zone string) error {
		if strings.Contains(spec, "bad") {
			return errors.New("schedule: expected 5 fields, found 1")
		}
		return nil
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(filepath.Base(file), data, env("SECRET", "hunter2", "NUMBER", "hunter2", "PORT", "6379"), WithScheduleCheck(check))
			if err == nil {
				t.Fatal("no problem was found")
			}
			var ps feature.Problems
			if !errors.As(err, &ps) || !errors.Is(err, feature.ErrInvalid) {
				t.Fatalf("error is %T, want feature.Problems", err)
			}
			for _, p := range ps {
				if p.Line == 0 || p.Column == 0 || p.Message == "" {
					t.Errorf("problem without place or message: %+v", p)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is shown:\n%v", err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", err.Error()+"\n")
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if got != string(want) {
		t.Errorf("differs from %s\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestLoadMissingFile(t *testing.T) {
	t.Parallel()
	_, err := Load(filepath.Join(t.TempDir(), "hearth.yaml"))
	if !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), "hearth init") {
		t.Errorf("got %v", err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		t.Error("a missing file is a problem to show, not one to handle")
	}
}
