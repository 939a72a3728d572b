package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// endless would run for days, in DuckDB: that a build over it ends is the signal.
const endless = `SELECT zipcode, event_timestamp, created_timestamp, city, state, location_type, tax_returns_filed, population,
	(SELECT sum(a.range * b.range) FROM range(100000000) a, range(100000000) b)::BIGINT AS total_wages FROM {{source "zipcodes"}}`

// endlessQuery makes a view of the repository one over an endless query.
func endlessQuery(r *repo) {
	if err := os.WriteFile(filepath.Join(r.dir, "endless.sql"), []byte(endless), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.edit(func(s string) string {
		return strings.Replace(s, "      path: data/zipcode_table.parquet\n", "      query: endless.sql\n", 1) +
			"\nsources:\n  - {name: zipcodes, path: data/zipcode_table.parquet}\noffline: {temp_dir: tmp}\n"
	})
}

// inTheMiddle starts a build of the endless view and returns when it says that DuckDB runs its query.
func (r *repo) inTheMiddle(ctx context.Context) (*exec.Cmd, *lineWatch) {
	r.t.Helper()
	c := r.command(ctx, "dataset", "build", "loans")
	step := &lineWatch{word: "zipcode_features: query: for", seen: make(chan struct{})}
	c.Stderr = step
	if err := c.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Process.Kill() })
	select {
	case <-step.seen:
	case <-ctx.Done():
		r.t.Fatal("the build did not come to its query")
	}
	return c, step
}

// files lists what is below a folder of the repository, folders too.
func (r *repo) files(dir string) string {
	r.t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(r.dir, dir), func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(r.dir, path)
		out = append(out, rel)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return strings.Join(out, " ")
}

// Ctrl-C in the middle of a build, in the middle of a statement: the process ends with 130 and
// says so, and leaves nothing: no scratch in temp_dir, none beside the output, and the set that
// stood there is the one that stands there. Killed with -9 at the same point it leaves both, and
// the next build removes them and publishes.
// Seen red with SIGINT not passed to the statement (it ends at the deadline of the test), with the
// scratch folder kept by the publisher, and with openTemp and prepare not cleaning up.
func TestBuildInterruptedAndKilled(t *testing.T) {
	t.Parallel()
	r := newRepo(t, embedded, sqlite)
	r.must(0, nil, "dataset", "build", "loans")
	whole, err := os.ReadFile(filepath.Join(r.dir, "hearth.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(r.dir, "out", "loans", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	untouched := func(when string) {
		t.Helper()
		after, err := os.ReadFile(filepath.Join(r.dir, "out", "loans", "manifest.json"))
		if err != nil || string(after) != string(before) {
			t.Errorf("%s: the training set that stood there was touched (%v)", when, err)
		}
	}
	published := "out out/loans out/loans/manifest.json out/loans/part-00000.parquet"
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	endlessQuery(r)

	c, step := r.inTheMiddle(ctx)
	scratch := r.files("tmp") // so that the check below is of something that was there
	if !strings.Contains(scratch, "tmp/offline-") || !strings.Contains(r.files("out"), "out/.loans.tmp-") {
		t.Errorf("the running build has no scratch: %s, %s", scratch, r.files("out"))
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit %d after SIGINT, want 130\n%s", code, step.text)
	}
	if left := r.files("tmp"); left != "tmp" {
		t.Errorf("interrupted: left in temp_dir: %s", left)
	}
	if left := r.files("out"); left != published {
		t.Errorf("interrupted: beside the output: %s", left)
	}
	untouched("interrupted")

	c, _ = r.inTheMiddle(ctx)
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if left := r.files("tmp"); !strings.Contains(left, "tmp/offline-") {
		t.Errorf("killed: nothing is left in temp_dir, so that there is nothing to clean: %s", left)
	}
	if left := r.files("out"); !strings.Contains(left, "out/.loans.tmp-") {
		t.Errorf("killed: nothing is left beside the output, so that there is nothing to clean: %s", left)
	}
	untouched("killed")

	r.edit(func(string) string { return string(whole) + "\noffline: {temp_dir: tmp}\n" })
	r.must(0, nil, "dataset", "build", "loans")
	if left := r.files("tmp"); left != "tmp" {
		t.Errorf("the next build left in temp_dir: %s", left)
	}
	if left := r.files("out"); left != published {
		t.Errorf("the next build left beside the output: %s", left)
	}
}
