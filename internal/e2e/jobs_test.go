package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hearthstore/hearth/internal/testservers"
)

type historyDoc struct {
	Runs []struct {
		Run      uint64     `json:"run"`
		Job      string     `json:"job"`
		Due      *time.Time `json:"due"`
		Finished *time.Time `json:"finished"`
		Status   string     `json:"status"`
	} `json:"runs"`
}

// The scheduler of the test has jobs that are due every five seconds, and runs until each
// has run for six due times: half a minute.
const (
	dueEvery = 5 * time.Second
	dueTimes = 6
)

// withJobs replaces the jobs of the repository.
func (r *repo) withJobs(jobs string) {
	r.t.Helper()
	r.edit(func(s string) string {
		before, _, ok := strings.Cut(s, "\njobs:")
		if !ok {
			r.t.Fatal("hearth.yaml has no jobs")
		}
		return before + "\njobs:\n" + jobs
	})
}

// A scheduler over DynamoDB Local and redis-server for half a minute: every due run is in
// the ledger once, with none left out between the first and the last; both tiers are
// fresh; SIGTERM stops it cleanly. A busy machine makes runs late, and `catch_up: all` has
// them run all the same: nothing here depends on how fast they are.
//
// It guards against due times that nobody claims (two runs for one) and a Schedule.Next that
// skips one.
func TestSchedulerRunsEveryDueJobOnce(t *testing.T) {
	t.Parallel()
	redis := testservers.Redis(t, testservers.RedisOptions{})
	r := newRepo(t,
		fmt.Sprintf("{redis: {addrs: [%q]}}", redis.Addr()),
		fmt.Sprintf("{dynamodb: {table: scheduled, region: us-east-1, endpoint: %q}}", testservers.SharedDynamoDB(t)))
	r.withJobs(`
  - {name: fill, schedule: "@every 5s", catch_up: all, materialize: {feature_views: [credit_history]}}
  - {name: training, schedule: "@every 5s", catch_up: all, dataset: {name: loans}}
  - {name: warm, schedule: "@every 5s", catch_up: all, rewarm: {if_cold: true}}
`)
	r.must(0, nil, "apply")
	r.must(0, nil, "jobs", "list")

	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	daemon := r.command(ctx, "jobs", "start", "--log-level", "info", "--log-format", "json")
	logs := watchRuns(map[string]int{"fill": dueTimes, "training": dueTimes, "warm": dueTimes})
	daemon.Stdout, daemon.Stderr = logs, logs
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-logs.enough:
	case <-ctx.Done():
		t.Errorf("the jobs did not run %d times each in %s", dueTimes, commandTimeout)
	}
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := daemon.Wait()
	if code := daemon.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("jobs start ended with %d (%v)\n%s", code, err, logs)
	}

	var history historyDoc
	r.must(0, &history, "jobs", "history", "--limit", "1000")
	dues := map[string][]time.Time{}
	for _, run := range history.Runs {
		if run.Due == nil {
			t.Errorf("run %d of %s has no due time", run.Run, run.Job)
			continue
		}
		if run.Status != "done" && run.Status != "nothing" || run.Finished == nil {
			t.Errorf("run %d of %s ended %s at %v", run.Run, run.Job, run.Status, run.Finished)
		}
		dues[run.Job] = append(dues[run.Job], *run.Due)
	}
	for _, job := range []string{"fill", "training", "warm"} {
		all := dues[job]
		slices.SortFunc(all, time.Time.Compare)
		if len(all) < dueTimes {
			t.Errorf("%s ran %d times, want at least %d", job, len(all), dueTimes)
		}
		for i := 1; i < len(all); i++ {
			if gap := all[i].Sub(all[i-1]); gap != dueEvery {
				t.Errorf("%s ran for %s and then for %s: %s apart", job, all[i-1], all[i], gap)
			}
		}
	}
	if t.Failed() {
		t.Log(logs)
	}
	var v verifyDoc
	r.must(0, &v, "verify")
	if v.Compared != 1000 {
		t.Errorf("verify: %+v, want the 1000 credit histories", v)
	}
	if _, err := os.Stat(r.dir + "/out/loans/manifest.json"); err != nil {
		t.Error(err)
	}

	// The same job alone, as plain cron or Step Functions runs it.
	var one outcomeDoc
	r.must(0, &one, "jobs", "run", "fill")
	if one.Job != "fill" || one.Status != "nothing" {
		t.Errorf("jobs run fill: %+v", one)
	}
}

type outcomeDoc struct {
	Run    uint64 `json:"run"`
	Job    string `json:"job"`
	Status string `json:"status"`
}

// runWatch keeps a log and counts the runs that finished.
type runWatch struct {
	enough chan struct{} // closed when every job has run as often as wanted

	mu   sync.Mutex
	text bytes.Buffer
	rest []byte
	want map[string]int
}

func watchRuns(want map[string]int) *runWatch {
	return &runWatch{enough: make(chan struct{}), want: want}
}

func (w *runWatch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	w.rest = append(w.rest, p...)
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		w.rest = rest
		var entry struct{ Msg, Job string }
		if json.Unmarshal(line, &entry) != nil || entry.Msg != "run finished" || w.want[entry.Job] == 0 {
			continue
		}
		if w.want[entry.Job]--; w.want[entry.Job] == 0 {
			if delete(w.want, entry.Job); len(w.want) == 0 {
				close(w.enough)
			}
		}
	}
}

func (w *runWatch) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// A run that a state machine waits for tells it how it ended, by its task token; also when
// it could not begin. The token is in no output.
func TestJobTellsTheStateMachine(t *testing.T) {
	t.Parallel()
	var (
		mu    sync.Mutex
		calls []string
	)
	machine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		mu.Lock()
		calls = append(calls, req.Header.Get("X-Amz-Target")+" "+string(body))
		mu.Unlock()
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = io.WriteString(w, "{}")
	}))
	defer machine.Close()
	r := newRepo(t, embedded, sqlite)
	r.env = append(r.env, "AWS_ENDPOINT_URL_SFN="+machine.URL, "HEARTH_TASK_TOKEN=tok-1234")

	var one outcomeDoc
	r.must(0, &one, "jobs", "run", "hourly")
	if res := r.run("jobs", "run", "nothing"); res.code != 2 || strings.Contains(res.stdout+res.stderr, "tok-1234") {
		t.Errorf("unknown job: exit %d\n%s%s", res.code, res.stdout, res.stderr)
	}
	mu.Lock()
	defer mu.Unlock()
	want := [][]string{
		{"SendTaskSuccess", "tok-1234", `\"status\":\"done\"`, `\"job\":\"hourly\"`},
		{"SendTaskFailure", "tok-1234", "Hearth.Invalid", "unknown job"},
	}
	if len(calls) != len(want) {
		t.Fatalf("calls %q", calls)
	}
	for i, words := range want {
		for _, word := range words {
			if !strings.Contains(calls[i], word) {
				t.Errorf("call %d has no %s: %s", i, word, calls[i])
			}
		}
	}
}
