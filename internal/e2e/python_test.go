package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hearthstore/hearth/internal/testservers"
)

// started is a long-running command. It is stopped at the end of the test.
type started struct {
	url  string
	cmd  *exec.Cmd
	mu   sync.Mutex
	text strings.Builder
	done chan struct{}
}

func (s *started) output() string { s.mu.Lock(); defer s.mu.Unlock(); return s.text.String() }

// start runs a command until the test ends, and waits for a line with says, whose first URL
// is where it listens. Its end has to be a clean one.
func start(t *testing.T, cmd *exec.Cmd, says string) *started {
	t.Helper()
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = cmd.Stderr
	s := &started{cmd: cmd, done: make(chan struct{})}
	found := make(chan string, 1)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			line := lines.Text()
			s.mu.Lock()
			s.text.WriteString(line + "\n")
			s.mu.Unlock()
			if i := strings.Index(line, "http"); i >= 0 && strings.Contains(line, says) {
				select {
				case found <- strings.Fields(line[i:])[0]:
				default:
				}
			}
		}
		close(found)
	}()
	t.Cleanup(func() { s.stop(t) })
	s.url = <-found // closed without a URL when the command ended
	if s.url == "" {
		t.Fatalf("%s ended before it listened:\n%s", cmd, s.output())
	}
	return s
}

// stop asks the command to end, once.
func (s *started) stop(t *testing.T) {
	t.Helper()
	if s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.done
	if err := s.cmd.Wait(); err != nil && s.cmd.ProcessState.ExitCode() > 0 {
		t.Errorf("%s: %v\n%s", s.cmd, err, s.output())
	}
}

// serve starts `hearth serve` in the repository on a free port.
func (r *repo) serve(args ...string) *started {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*commandTimeout)
	r.t.Cleanup(cancel)
	return start(r.t, r.command(ctx, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...), "hearth serves on")
}

// python makes a command of the environment that has the Feast SDK.
func (r *repo) python(dir string, args ...string) *exec.Cmd {
	r.t.Helper()
	interpreter, err := testservers.FeastPython()
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*commandTimeout)
	r.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, interpreter, append([]string{"-B"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(r.env, "FEAST_USAGE=False", "PYTHONUNBUFFERED=1")
	return cmd
}

func (r *repo) mustPython(dir string, env []string, args ...string) string {
	r.t.Helper()
	cmd := r.python(dir, args...)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("python %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// typedView is a view of every type.
const typedView = `  - name: typed
    entities: [thing]
    source: {path: data/typed.parquet, timestamp_field: event_timestamp}
    features:
      - {name: f64, type: float64}
      - {name: f32, type: float32}
      - {name: i32, type: int32}
      - {name: flag, type: bool}
      - {name: seen, type: timestamp}
      - {name: raw, type: bytes}
      - {name: tags, type: "list<string>"}
      - {name: scores, type: "list<float64>"}

feature_services:
`

// An unmodified Feast SDK reads, writes, pushes and materializes through hearth serve, with
// Feast's own exceptions for what fails. What is asserted is in the script. Seen red with
// "1" written for the float 1.0, with the statuses left out, with hearth's name for the
// module of errors, with timestamps not read as seconds, and with Forget removed.
func TestFeastSDK(t *testing.T) {
	t.Parallel()
	r := newRepo(t, "{embedded: {}}", "{sqlite: {path: .hearth/backing.db}}")
	r.edit(func(s string) string {
		s = strings.Replace(s, "entities:\n", "entities:\n  - {name: thing, join_keys: [{name: thing, type: int64}]}\n", 1)
		s = strings.Replace(s, "feature_services:\n", typedView, 1)
		return replaceLine(t, s, "server:", "server: {auth: {read_token_env: READ_TOKEN, admin_token_env: ADMIN_TOKEN}}")
	})
	r.env = append(r.env, "READ_TOKEN=r3ad", "ADMIN_TOKEN=adm1n")
	server := r.serve()
	client := t.TempDir()
	write(t, filepath.Join(client, "feature_store.yaml"), `project: credit_scoring
provider: local
registry: registry.db
online_store: {type: remote, path: "`+server.url+`"}
entity_key_serialization_version: 3
auth: {type: oidc, token_env_var: HEARTH_TOKEN}
`)
	script, err := filepath.Abs("testdata/feast_client.py")
	if err != nil {
		t.Fatal(err)
	}
	out := r.mustPython(client, []string{"FEATURES=" + r.dir, "HEARTH_URL=" + server.url, "HEARTH_TOKEN=adm1n"}, script)
	if !strings.HasSuffix(strings.TrimSpace(out), "ok") {
		t.Errorf("the script did not come to its end:\n%s", out)
	}
	if log := server.output(); strings.Contains(log, "4242") || strings.Contains(log, "adm1n") {
		t.Errorf("a feature value or a token is in the log:\n%s", log)
	}
}

// The scripts of examples/python do what their README says: a model is trained on the
// Parquet and the manifest, and both services, with requests and with Feast, give the same
// score, trust a known applicant and not an unknown one.
func TestPythonExamples(t *testing.T) {
	t.Parallel()
	r := newRepo(t, "{embedded: {}}", "{sqlite: {path: .hearth/backing.db}}")
	r.edit(func(s string) string {
		return replaceLine(t, s, "server:", "server: {auth: {read_token_env: READ_TOKEN}}")
	})
	r.env = append(r.env, "READ_TOKEN=r3ad")
	examples, err := filepath.Abs("../../examples/python")
	if err != nil {
		t.Fatal(err)
	}
	r.must(0, nil, "dataset", "build", "loans")
	model := filepath.Join(r.dir, "model.json")
	out := r.mustPython(examples, nil, "train.py", filepath.Join(r.dir, "out", "loans"), model)
	if !strings.Contains(out, "28638 loans") || !strings.Contains(out, "credit_history@1: 3.5% of the loans have a value") {
		t.Errorf("train.py says:\n%s", out)
	}
	r.must(0, nil, "materialize")
	server := r.serve()
	type answer struct {
		Score    float64
		Trusted  bool
		Doubtful map[string]string
		Error    string
	}
	ask := func(url, query string) (a answer) {
		t.Helper()
		resp, err := http.Get(url + "?" + query) //nolint:noctx // of a test's own server
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if cerr := resp.Body.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
		if err := json.Unmarshal(body, &a); err != nil || a.Error != "" {
			t.Errorf("%s: %v %s", query, err, body)
		}
		return a
	}
	var known, unknown []answer
	for _, script := range []string{"service_requests.py", "service_feast.py"} {
		cmd := r.python(examples, script, model, "0")
		cmd.Env = append(cmd.Env, "HEARTH_URL="+server.url, "HEARTH_TOKEN=r3ad")
		url := start(t, cmd, "scores at").url
		known = append(known, ask(url, "zipcode=76104&dob_ssn=19530219_5179"))
		unknown = append(unknown, ask(url, "zipcode=76104&dob_ssn=nobody"))
	}
	if a := known[0]; a.Score != known[1].Score || a.Score <= 0 || a.Score >= 1 || !a.Trusted || !known[1].Trusted {
		t.Errorf("a known applicant: %+v", known)
	}
	for _, a := range unknown {
		if a.Trusted || len(a.Doubtful) != 9 || a.Doubtful["credit_history:hard_pulls"] != "NOT_FOUND" {
			t.Errorf("an unknown applicant: %+v", a)
		}
	}
}
