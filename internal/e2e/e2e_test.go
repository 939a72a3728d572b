package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	creditscoring "github.com/hearthstore/hearth/examples/credit_scoring"
	"github.com/hearthstore/hearth/internal/testservers"
)

var binary string

func TestMain(m *testing.M) {
	if code := testservers.Wrap(builder{m}).Run(); code != 0 {
		os.Exit(code) // also when the build failed and m never ran
	}
}

// builder builds the binary once before the tests run.
type builder struct{ m *testing.M }

func (b builder) Run() int {
	dir, err := os.MkdirTemp("", "hearth-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "hearth")
	build := exec.Command("go", "build", "-o", binary, "github.com/hearthstore/hearth/cmd/hearth")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: build the binary:", err)
		return 1
	}
	return b.m.Run()
}

// commandTimeout bounds every command: a hanging one is a failed one.
const commandTimeout = 5 * time.Minute

// repo is a feature repository on disk, and the binary run inside it.
type repo struct {
	t   *testing.T
	dir string
	env []string
}

// result is what one command left.
type result struct {
	code   int
	stdout string
	stderr string
}

// newRepo unpacks the credit-scoring example with other tiers.
func newRepo(t *testing.T, online, backing string) *repo {
	t.Helper()
	r := &repo{t: t, dir: t.TempDir()}
	if err := os.CopyFS(r.dir, creditscoring.FS()); err != nil {
		t.Fatal(err)
	}
	r.edit(func(s string) string {
		s = replaceLine(t, s, "online:", "online: "+online)
		return replaceLine(t, s, "backing:", "backing: "+backing)
	})
	// No credentials of the machine may leak into a test, and none is needed for loopback.
	r.env = append(os.Environ(), "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_REGION=us-east-1",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent")
	return r
}

func (r *repo) edit(f func(string) string) {
	r.t.Helper()
	path := filepath.Join(r.dir, "hearth.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(f(string(b))), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// replaceLine replaces the line of a top-level key.
func replaceLine(t *testing.T, text, key, line string) string {
	t.Helper()
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, key) {
			lines[i] = line
			return strings.Join(lines, "\n")
		}
	}
	t.Fatalf("hearth.yaml has no line %s", key)
	return ""
}

func (r *repo) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, binary, args...)
	c.Dir, c.Env = r.dir, r.env
	return c
}

// run runs one command and returns whatever happened.
func (r *repo) run(args ...string) result {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), commandTimeout)
	defer cancel()
	c := r.command(ctx, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	began := time.Now()
	err := c.Run()
	r.t.Logf("hearth %s: exit %d in %.1f s", strings.Join(args, " "), c.ProcessState.ExitCode(), time.Since(began).Seconds())
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("hearth %s: %v", strings.Join(args, " "), err)
	}
	return result{c.ProcessState.ExitCode(), out.String(), errs.String()}
}

// must runs a command with --json, checks the exit code and decodes the document.
func (r *repo) must(code int, doc any, args ...string) {
	r.t.Helper()
	res := r.run(append(args, "--json")...)
	if res.code != code {
		r.t.Fatalf("hearth %s: exit code %d, want %d\n%s\n%s", strings.Join(args, " "), res.code, code, res.stdout, res.stderr)
	}
	if doc == nil {
		return
	}
	if err := json.Unmarshal([]byte(res.stdout), doc); err != nil {
		r.t.Fatalf("hearth %s --json: %v\n%s", strings.Join(args, " "), err, res.stdout)
	}
}

// The documents, as far as the tests read them.
type datasetDoc struct {
	Rows    int64 `json:"rows"`
	Leakage int64 `json:"leakage_rows"`
	Views   []struct {
		View    string `json:"view"`
		Matched int64  `json:"matched"`
	} `json:"views"`
	Manifest string `json:"manifest"`
	Digest   string `json:"output_digest"`
}

type counts struct {
	Written   int64 `json:"written"`
	Unchanged int64 `json:"unchanged"`
	Older     int64 `json:"older"`
	Failed    int64 `json:"failed"`
	Behind    int64 `json:"behind"`
}

type materializeDoc struct {
	Run    uint64 `json:"run"`
	Status string `json:"status"`
	Views  []struct {
		View     string `json:"view"`
		Files    int    `json:"files"`
		RowsRead int64  `json:"rows_read"`
		Backing  counts `json:"backing"`
		Online   counts `json:"online"`
	} `json:"views"`
}

type rewarmDoc struct {
	Status  string `json:"status"`
	Cold    bool   `json:"cold"`
	Written int64  `json:"written"`
}

type verifyDoc struct {
	Compared  int64 `json:"compared"`
	Missing   int64 `json:"missing"`
	Older     int64 `json:"older"`
	Different int64 `json:"different"`
	Extra     int64 `json:"extra"`
}

type getDoc struct {
	Results []struct {
		Entity   map[string]string `json:"entity"`
		Features []struct {
			Name           string   `json:"name"`
			Value          any      `json:"value"`
			Status         string   `json:"status"`
			Tier           string   `json:"tier"`
			EventTimestamp *string  `json:"event_timestamp"`
			AgeSeconds     *float64 `json:"age_seconds"`
		} `json:"features"`
	} `json:"results"`
	Unreachable []string `json:"unreachable"`
}

// from checks that every value of the first entity has the given status and tier.
func (d getDoc) from(t *testing.T, status, tier string) {
	t.Helper()
	if len(d.Results) == 0 || len(d.Results[0].Features) != 15 {
		t.Fatalf("got %+v, want one entity with 15 features", d)
	}
	for _, f := range d.Results[0].Features {
		if f.Status != status || f.Tier != tier {
			t.Errorf("%s: %s from %s, want %s from %s", f.Name, f.Status, f.Tier, status, tier)
		}
	}
}

const applicant = "zipcode=43128,dob_ssn=19450101_7094"
