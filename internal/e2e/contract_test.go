package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hearthstore/hearth/backing"
	sqlitestore "github.com/hearthstore/hearth/backing/sqlite"
	"github.com/hearthstore/hearth/internal/testservers"
)

// The --json documents hold what the README and the design promise, under these names.
// A name in brackets is of every element of a list that is not empty. Programs read them:
// a missing key here breaks somebody's pipeline.
func TestDocumentsHoldWhatTheyPromise(t *testing.T) {
	t.Parallel()
	redis := testservers.Redis(t, testservers.RedisOptions{})
	r := newRepo(t, fmt.Sprintf("{redis: {addrs: [%q]}}", redis.Addr()), sqlite)
	view := func(tier string, keys ...string) []string {
		for i := range keys {
			keys[i] = "views[]." + tier + "." + keys[i]
		}
		return keys
	}
	run := []string{"run", "job", "due", "started", "finished", "status", "holder", "attempts"}
	for _, c := range []struct {
		args []string
		keys []string
	}{
		{[]string{"validate"}, []string{"valid", "project", "feature_views", "sources_checked"}},
		{[]string{"apply", "--dry-run"}, []string{"dry_run", "actions[].resource", "actions[].name", "actions[].change"}},
		{[]string{"apply"}, []string{"dry_run", "actions[].change"}},
		{[]string{"dataset", "build", "loans"}, []string{"dataset", "rows", "path", "manifest", "seconds", "views[].view", "views[].matched", "views[].match_rate"}},
		{[]string{"materialize"}, append(append([]string{"run", "status", "seconds", "views[].view", "views[].rows_read", "views[].rejected", "views[].pending_files"},
			view("backing", "written", "unchanged", "older", "failed")...), view("online", "written", "older", "failed", "behind")...)},
		{[]string{"rewarm"}, []string{"run", "status", "cold", "scanned", "written", "already_newer", "expired", "skipped", "bytes", "seconds", "items_per_second", "resumed_from"}},
		{[]string{"verify"}, []string{"compared", "missing", "older", "different", "extra", "sampled", "upper_bound_95"}},
		{[]string{"get", applicant}, []string{"results[].entity.zipcode", "results[].features[].name", "results[].features[].value", "results[].features[].status",
			"results[].features[].tier", "results[].features[].event_timestamp", "results[].features[].age_seconds", "unreachable"}},
		{[]string{"get", "zipcode=1,dob_ssn=nobody"}, []string{"results[].features[].event_timestamp", "results[].features[].age_seconds"}},
		{[]string{"jobs", "list"}, []string{"jobs[].name", "jobs[].kind", "jobs[].schedule", "jobs[].next"}},
		{[]string{"jobs", "run", "hourly"}, run},
		{[]string{"jobs", "history"}, prefixed("runs[].", run)},
		{[]string{"status"}, append([]string{"views[].view", "views[].watermark", "views[].newest_event_timestamp", "views[].entities_estimate", "views[].last_run",
			"online.reachable", "online.cold", "online.cold_shards", "backing.reachable"}, prefixed("runs[].", run)...)},
		{[]string{"size", "--peak-rps", "2000"}, []string{"views[].view", "views[].entities", "views[].sampled", "views[].bytes_per_value", "views[].bytes", "redis.max_memory",
			"redis.max_memory_per_master", "redis.masters", "redis.used_memory", "pool.connections", "pool.connections_at_worst", "pool.latency_seconds", "pool.latency_from", "backing.max_backing_rps", "notes"}},
		{[]string{"version"}, []string{"version", "go", "duckdb"}},
	} {
		var doc any
		r.must(0, &doc, c.args...)
		for _, key := range c.keys {
			if err := has(doc, strings.Split(key, ".")); err != nil {
				t.Errorf("hearth %s --json has no %s: %v", strings.Join(c.args, " "), key, err)
			}
		}
		snakeCase(t, strings.Join(c.args, " "), doc)
	}
}

func prefixed(prefix string, keys []string) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = prefix + k
	}
	return out
}

// has looks for a key; null is a value.
func has(doc any, path []string) error {
	if len(path) == 0 {
		return nil
	}
	name, list := strings.CutSuffix(path[0], "[]")
	m, ok := doc.(map[string]any)
	if !ok {
		return fmt.Errorf("%T holds no key %s", doc, name)
	}
	v, ok := m[name]
	if !ok {
		return fmt.Errorf("no key %s", name)
	}
	if !list {
		return has(v, path[1:])
	}
	items, ok := v.([]any)
	if !ok || len(items) == 0 {
		return fmt.Errorf("%s is no list with elements: %v", name, v)
	}
	for _, item := range items {
		if err := has(item, path[1:]); err != nil {
			return err
		}
	}
	return nil
}

var snake = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

func snakeCase(t *testing.T, what string, doc any) {
	t.Helper()
	switch doc := doc.(type) {
	case map[string]any:
		for k, v := range doc {
			if !snake.MatchString(k) {
				t.Errorf("hearth %s --json: key %q is not in snake_case", what, k)
			}
			snakeCase(t, what, v)
		}
	case []any:
		for _, v := range doc {
			snakeCase(t, what, v)
		}
	}
}

// A lease that another run holds: exit 4, nothing done, and the holder is named. It
// guards against a materialize that takes no lease.
func TestLeaseHeldIsExitCode4(t *testing.T) {
	t.Parallel()
	r := newRepo(t, embedded, sqlite)
	store, err := sqlitestore.Open(t.Context(), sqlitestore.Config{Path: filepath.Join(r.dir, ".hearth", "backing.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if _, err := store.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, release, err := backing.NewLeases(backing.LeaseConfig{State: store}).Hold(t.Context(), "view/zipcode_features@1", "another-machine/1")
	if err != nil {
		t.Fatal(err)
	}
	res := r.run("materialize")
	if res.code != 4 || !strings.Contains(res.stderr, "another-machine/1") {
		t.Errorf("materialize under a held lease: exit %d\n%s", res.code, res.stderr)
	}
	var history historyDoc
	r.must(0, &history, "jobs", "history")
	if len(history.Runs) != 0 {
		t.Errorf("a run that did not begin is in the ledger: %+v", history.Runs)
	}
	if err := release(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.must(0, nil, "materialize", "--feature-views", "zipcode_features")

	// A run of one shard keeps a retirement out, which would delete what it writes.
	// Red when only the lease of the whole view was taken.
	_, release, err = backing.NewLeases(backing.LeaseConfig{State: store}).Hold(t.Context(), "view/zipcode_features@1/2/3", "shard-machine/1")
	if err != nil {
		t.Fatal(err)
	}
	if res := r.run("retire", "zipcode_features@1", "--force"); res.code != 4 || !strings.Contains(res.stderr, "shard-machine/1") {
		t.Errorf("retire beside a run of a shard: exit %d\n%s", res.code, res.stderr)
	}
	if err := release(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.must(0, nil, "retire", "zipcode_features@1", "--force")
}

// SIGINT in the middle of a run: exit 130, the ledger says interrupted, and running again
// brings the rest. The run is slow because it may use few write units, not by chance.
func TestInterruptedIsExitCode130(t *testing.T) {
	t.Parallel()
	redis := testservers.Redis(t, testservers.RedisOptions{})
	slow := "max_write_units: 20, "
	r := newRepo(t, fmt.Sprintf("{redis: {addrs: [%q]}}", redis.Addr()),
		fmt.Sprintf("{dynamodb: {table: interrupted, %sregion: us-east-1, endpoint: %q}}", slow, testservers.SharedDynamoDB(t)))
	r.must(0, nil, "apply")
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	c := r.command(ctx, "materialize", "--feature-views", "credit_history", "--log-level", "info", "--log-format", "json")
	started := &lineWatch{word: `"run started"`, seen: make(chan struct{})}
	c.Stderr = started
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-started.seen:
	case <-ctx.Done():
		t.Fatal("the run did not start")
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit %d after SIGINT, want 130\n%s", code, started.text)
	}
	var history historyDoc
	r.must(0, &history, "jobs", "history")
	if len(history.Runs) != 1 || history.Runs[0].Status != "interrupted" || history.Runs[0].Finished == nil {
		t.Errorf("history: %+v, want one interrupted run", history.Runs)
	}
	r.edit(func(s string) string { return strings.Replace(s, slow, "", 1) })
	r.must(0, nil, "materialize", "--feature-views", "credit_history")
	var v verifyDoc
	r.must(0, &v, "verify")
	if v.Compared != 1000 {
		t.Errorf("verify: %+v, want 1000 compared", v)
	}
}

// lineWatch closes seen when the word has been written.
type lineWatch struct {
	word string
	seen chan struct{}
	text []byte
	done bool
}

func (w *lineWatch) Write(p []byte) (int, error) {
	w.text = append(w.text, p...)
	if !w.done && strings.Contains(string(w.text), w.word) {
		w.done = true
		close(w.seen)
	}
	return len(p), nil
}

// Where the configuration comes from, and what it takes from the environment.
func TestConfigurationFromTheEnvironment(t *testing.T) {
	t.Parallel()
	r := newRepo(t, embedded, "{sqlite: {path: \"${HEARTH_TEST_FILE}\"}}")
	if res := r.run("validate", "--config-only"); res.code != 2 || !strings.Contains(res.stderr, "HEARTH_TEST_FILE is not set") {
		t.Errorf("an unset variable: exit %d\n%s", res.code, res.stderr)
	}
	r.env = append(r.env, "HEARTH_TEST_FILE=elsewhere.db", "HEARTH_CONFIG="+filepath.Join(r.dir, "hearth.yaml"))
	r.dir = t.TempDir() // away from the hearth.yaml
	r.must(0, nil, "validate", "--config-only")
	var status struct {
		Backing struct{ Name string }
	}
	r.must(0, &status, "status")
	if filepath.Base(status.Backing.Name) != "elsewhere.db" {
		t.Errorf("backing: %+v", status.Backing)
	}
	if res := r.run("-c", "gone.yaml", "validate"); res.code != 2 || !strings.Contains(res.stderr, "gone.yaml") {
		t.Errorf("--config wins over HEARTH_CONFIG: exit %d\n%s", res.code, res.stderr)
	}
}

// Logs are one JSON object a line when asked for, and go to stderr alone.
func TestLogFormat(t *testing.T) {
	t.Parallel()
	r := newRepo(t, embedded, sqlite)
	res := r.run("materialize", "--json", "--log-format", "json", "--log-level", "info")
	var doc materializeDoc
	if err := json.Unmarshal([]byte(res.stdout), &doc); err != nil || res.code != 0 {
		t.Errorf("stdout is no document: %v\n%s", err, res.stdout)
	}
	lines := strings.Split(strings.TrimSpace(res.stderr), "\n")
	for _, line := range lines {
		var entry struct {
			Time  time.Time
			Level string
			Msg   string
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Msg == "" || entry.Time.IsZero() {
			t.Errorf("%q is no log line: %v", line, err)
		}
	}
}

// The lines that the demo ends with work when they are pasted, also from a folder with a
// blank in its name.
func TestDemoEndsWithCommandsThatWork(t *testing.T) {
	t.Parallel()
	r := newRepo(t, embedded, sqlite)
	res := r.run("demo", "--dir", "the story")
	if res.code != 0 {
		t.Fatalf("demo: exit %d\n%s", res.code, res.stderr)
	}
	_, next, ok := strings.Cut(res.stdout, "Try next")
	if !ok {
		t.Fatalf("no next commands:\n%s", res.stdout)
	}
	commands := 0
	for line := range strings.Lines(next) {
		if !strings.HasPrefix(line, "  ") {
			continue
		}
		commands++
		ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
		c := exec.CommandContext(ctx, "sh", "-c", line)
		c.Dir, c.Env = r.dir, r.env
		out, err := c.CombinedOutput()
		cancel()
		if err != nil {
			t.Errorf("%s: %v\n%s", strings.TrimSpace(line), err, out)
		}
	}
	if commands != 3 {
		t.Errorf("%d next commands, want 3:\n%s", commands, next)
	}
}
