package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/internal/testservers"
)

const (
	embedded = "{embedded: {}}"
	sqlite   = "{sqlite: {path: .hearth/backing.db}}"
)

// Each bad input is a clear error: its exit code, and the words that a person needs.
func TestBadInputIsAClearError(t *testing.T) {
	t.Parallel()
	replace := func(old, with string) func(*repo) {
		return func(r *repo) {
			r.edit(func(s string) string {
				if !strings.Contains(s, old) {
					r.t.Fatalf("hearth.yaml has no %q", old)
				}
				return strings.Replace(s, old, with, 1)
			})
		}
	}
	write := func(name, text string) func(*repo) {
		return func(r *repo) {
			if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(*repo)
		args  []string
		code  int
		says  []string
	}{
		{"no configuration", func(r *repo) { _ = os.Remove(filepath.Join(r.dir, "hearth.yaml")) }, []string{"validate"}, 2, []string{"hearth.yaml", "hearth init"}},
		{"missing file", replace("path: data/zipcode_table.parquet", "path: data/gone.parquet"), []string{"validate"}, 2, []string{"gone.parquet"}},
		{"missing file of a dataset", replace("path: data/loan_table.parquet", "path: data/gone.parquet"), []string{"dataset", "build", "loans"}, 2, []string{"gone.parquet"}},
		{"wrong column", replace("{name: city, type: string", "{name: town, type: string"), []string{"validate"}, 2, []string{"hearth.yaml:", "town"}},
		{"wrong type", replace("{name: city, type: string, default: \"\"}", "{name: city, type: int64}"), []string{"validate"}, 2, []string{"hearth.yaml:", "city", "int64"}},
		{"unreadable Parquet", write("data/zipcode_table.parquet", "this is no Parquet"), []string{"validate"}, 2, []string{"zipcode_table.parquet"}},
		{"empty folder", func(r *repo) {
			if err := os.Mkdir(filepath.Join(r.dir, "empty"), 0o700); err != nil {
				r.t.Fatal(err)
			}
			replace("path: data/zipcode_table.parquet", "path: empty")(r)
		}, []string{"validate"}, 2, []string{"empty"}},
		{"unknown feature", func(*repo) {}, []string{"get", "--features", "zipcode_features:mayor", "zipcode=1"}, 2, []string{"mayor", "population"}},
		{"unknown view", func(*repo) {}, []string{"materialize", "--feature-views", "nothing"}, 2, []string{"nothing"}},
		{"unknown dataset", func(*repo) {}, []string{"dataset", "build", "nothing"}, 2, []string{"nothing", "loans"}},
		{"unknown job", func(*repo) {}, []string{"jobs", "run", "nothing"}, 2, []string{"nothing"}},
		{"missing join key", func(*repo) {}, []string{"get", "zipcode=1"}, 2, []string{"dob_ssn"}},
		{"malformed join key", func(*repo) {}, []string{"get", "zipcode=x,dob_ssn=1"}, 2, []string{"zipcode", "int64"}},
		{"duplicate names", replace("- name: credit_history", "- name: zipcode_features"), []string{"validate"}, 2, []string{"hearth.yaml:", "zipcode_features"}},
		{"unknown key", replace("server: {listen", "servre: {listen"), []string{"validate"}, 2, []string{"hearth.yaml:", "servre", "server"}},
		{"bad cron line", replace(`"5 * * * *"`, `"5 * * *"`), []string{"validate"}, 2, []string{"hearth.yaml:", "5 * * *"}},
		{"negative rate", func(*repo) {}, []string{"verify", "--max-read-rate=-1"}, 2, []string{"negative rate"}},
		{"unknown flag", func(*repo) {}, []string{"materialize", "--fast"}, 2, []string{"--fast", "--help"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRepo(t, embedded, sqlite)
			c.spoil(r)
			res := r.run(c.args...)
			if res.code != c.code {
				t.Errorf("exit code %d, want %d", res.code, c.code)
			}
			for _, word := range c.says {
				if !strings.Contains(res.stderr, word) {
					t.Errorf("stderr does not say %q", word)
				}
			}
			if t.Failed() {
				t.Logf("stdout:\n%s\nstderr:\n%s", res.stdout, res.stderr)
			}
		})
	}
}

// All problems of a file are reported at once.
func TestValidateReportsAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRepo(t, embedded, sqlite)
	r.edit(func(s string) string {
		s = strings.Replace(s, "ttl: 7300d", "ttl: soon", 1)
		s = strings.Replace(s, "{name: population, type: int64", "{name: population, type: integer", 1)
		return strings.Replace(s, `"credit_history:*"]`, `"credit_histroy:*"]`, 1)
	})
	res := r.run("validate")
	for _, word := range []string{"soon", "integer", "credit_histroy", "3 problem"} {
		if !strings.Contains(res.stderr, word) {
			t.Errorf("stderr does not say %q", word)
		}
	}
	if res.code != 2 || t.Failed() {
		t.Errorf("exit code %d\n%s", res.code, res.stderr)
	}
	var doc struct {
		Valid    bool `json:"valid"`
		Problems []struct {
			File, Path, Message, Remedy string
			Line, Column                int
		} `json:"problems"`
	}
	r.must(2, &doc, "validate")
	if doc.Valid || len(doc.Problems) != 3 {
		t.Fatalf("validate --json: %+v, want 3 problems", doc)
	}
	for _, p := range doc.Problems {
		if p.File == "" || p.Line == 0 || p.Column == 0 || p.Message == "" || p.Remedy == "" {
			t.Errorf("problem without place or remedy: %+v", p)
		}
	}
}

func TestUnreachableTiersAndWrongCredentials(t *testing.T) {
	t.Parallel()
	closed := "127.0.0.1:1" // nothing listens on port 1
	t.Run("no Redis: the run is partial, nothing is lost", func(t *testing.T) {
		t.Parallel()
		r := newRepo(t, fmt.Sprintf("{redis: {addrs: [%q]}}", closed), sqlite)
		var m materializeDoc
		r.must(3, &m, "materialize")
		if m.Status != "partial" || m.Views[0].Backing.Failed != 0 || m.Views[0].Online.Behind == 0 {
			t.Errorf("materialize: %+v", m)
		}
		var got getDoc
		r.must(0, &got, "get", applicant)
		got.from(t, "PRESENT", "backing")
	})
	t.Run("no DynamoDB", func(t *testing.T) {
		t.Parallel()
		r := newRepo(t, embedded, fmt.Sprintf("{dynamodb: {region: us-east-1, endpoint: %q}}", "http://"+closed))
		for _, args := range [][]string{{"materialize"}, {"rewarm"}, {"apply"}} {
			if res := r.run(args...); res.code != 1 || !strings.Contains(res.stderr, closed) {
				t.Errorf("%v: exit %d\n%s", args, res.code, res.stderr)
			}
		}
		r.must(3, nil, "get", applicant)
		r.must(3, nil, "status")
	})
	t.Run("wrong Redis password", func(t *testing.T) {
		t.Parallel()
		redis := testservers.Redis(t, testservers.RedisOptions{Username: "app", Password: "right"})
		r := newRepo(t, fmt.Sprintf("{redis: {addrs: [%q], username: app, password_env: HEARTH_TEST_PASSWORD}}", redis.Addr()), sqlite)
		right := append(slices.Clone(r.env), "HEARTH_TEST_PASSWORD=right")
		r.env = append(slices.Clone(r.env), "HEARTH_TEST_PASSWORD=wr0ng-secret")
		res := r.run("materialize")
		if res.code != 3 || strings.Contains(res.stdout+res.stderr, "wr0ng-secret") {
			t.Errorf("exit %d, or the password was printed\n%s\n%s", res.code, res.stdout, res.stderr)
		}
		if !strings.Contains(res.stdout+res.stderr, "denied") {
			t.Errorf("nothing says that access was denied:\n%s\n%s", res.stdout, res.stderr)
		}
		r.env = right // the next run heals it
		r.must(0, nil, "materialize")
		r.must(0, nil, "verify")
	})
	t.Run("no AWS credentials", func(t *testing.T) {
		t.Parallel()
		r := newRepo(t, embedded, "{dynamodb: {region: us-east-1}}")
		kept := r.env[:0:0]
		for _, e := range r.env {
			if !strings.HasPrefix(e, "AWS_ACCESS_KEY_ID") && !strings.HasPrefix(e, "AWS_SECRET_ACCESS_KEY") && !strings.HasPrefix(e, "AWS_SESSION") && !strings.HasPrefix(e, "AWS_PROFILE") {
				kept = append(kept, e)
			}
		}
		r.env = kept
		res := r.run("materialize")
		if res.code != 1 || !strings.Contains(strings.ToLower(res.stderr), "credentials") {
			t.Errorf("exit %d\n%s", res.code, res.stderr)
		}
	})
}
