package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/config"
	"github.com/hearthstore/hearth/internal/tiers"
)

// The program, built without cgo and run as a process against the embedded tiers: scores
// a known applicant, says so for an unknown one, refuses a bad request, and ends cleanly
// when it is told to.
func TestServiceEndToEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text, err := os.ReadFile("../credit_scoring/hearth.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "hearth.yaml")
	// A loaded test machine is no reason for a fallback.
	text = append(text, "\nreader: {online_timeout: 10s, backing_timeout: 30s, cache: {ttl: 1h}}\n"...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-48 * time.Hour)
	materialize(t, path, at)

	bin := filepath.Join(dir, "online_service")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), bin, "-config", path, "-listen", "127.0.0.1:0", "-budget", "30s")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	address := ""
	for address == "" && lines.Scan() {
		if _, after, ok := strings.Cut(lines.Text(), "address="); ok {
			address = after
		}
	}
	if address == "" {
		t.Fatal("the service did not say where it listens")
	}
	drained := make(chan struct{})
	go func() { defer close(drained); _, _ = io.Copy(io.Discard, stderr) }()

	known := score(t, address, "zipcode=76104&dob_ssn=19630621_4278", http.StatusOK)
	if !known.Trusted || known.Score <= 0 || known.Score >= 1 || known.Features[0].Status != "PRESENT" || known.Features[0].Tier != "backing" {
		t.Errorf("known applicant: %+v", known)
	}
	if again := score(t, address, "zipcode=76104&dob_ssn=19630621_4278", http.StatusOK); again.Features[0].Tier != "cache" || again.Score != known.Score {
		t.Errorf("second read: %+v", again)
	}
	if nobody := score(t, address, "zipcode=1&dob_ssn=nobody", http.StatusOK); nobody.Trusted || nobody.Features[0].Status != "NOT_FOUND" {
		t.Errorf("unknown applicant: %+v", nobody)
	}
	score(t, address, "zipcode=abc&dob_ssn=x", http.StatusBadRequest)

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-drained
	if err := cmd.Wait(); err != nil {
		t.Errorf("the service ended with %v", err)
	}
}

func score(t *testing.T, address, query string, status int) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/score?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	if resp.StatusCode != status {
		t.Fatalf("%s: status %d, want %d: %s", query, resp.StatusCode, status, body)
	}
	var a answer
	if status == http.StatusOK {
		if err := json.Unmarshal(body, &a); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// materialize puts one applicant and one postal code into the backing tier.
func materialize(t *testing.T, path string, at time.Time) {
	t.Helper()
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	store, err := tiers.OpenBacking(t.Context(), cfg, tiers.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys := map[string]feature.Key{"zipcode_features": "zipcode=76104", "credit_history": "dob_ssn=19630621_4278"}
	for i := range cfg.Project.Views {
		v := &cfg.Project.Views[i]
		values := make([]feature.Value, len(v.Features))
		for j, f := range v.Features {
			if values[j] = feature.IntValue(int64(j)); f.Type == feature.String {
				values[j] = feature.StringValue("x")
			}
		}
		features, err := feature.AppendFeatures(nil, v.Fields(), values)
		if err != nil {
			t.Fatal(err)
		}
		h := feature.Header{Fingerprint: v.Fingerprint(), Version: feature.Version{Event: feature.MicrosOf(at), Created: feature.NoTime, Run: 1}}
		rec, err := feature.NewRecord(v, keys[v.Name], feature.AppendPayload(nil, h, features))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := store.Put(t.Context(), []feature.Record{rec}); err != nil || got[0].Outcome != feature.Written {
			t.Fatal(got, err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}
