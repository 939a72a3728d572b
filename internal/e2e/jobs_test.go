package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hearthstore/hearth/internal/testservers"
)

type historyDoc struct {
	Runs []struct {
		Run    uint64     `json:"run"`
		Job    string     `json:"job"`
		Due    *time.Time `json:"due"`
		Status string     `json:"status"`
	} `json:"runs"`
}

// scheduleFor is how long the scheduler runs: six due times of every job.
const scheduleFor = 30 * time.Second

// A scheduler with jobs due every five seconds (the view is one that the slow emulator takes
// within that time), over DynamoDB Local and redis-server:
// every due run is in the ledger once, both tiers are fresh, SIGTERM stops it cleanly.
func TestSchedulerRunsEveryDueJobOnce(t *testing.T) {
	t.Parallel()
	redis := testservers.Redis(t, testservers.RedisOptions{})
	table := testservers.DynamoDBLocal(t, testservers.DynamoDBOptions{})
	r := newRepo(t,
		fmt.Sprintf("{redis: {addrs: [%q]}}", redis.Addr()),
		fmt.Sprintf("{dynamodb: {table: scheduled, region: us-east-1, endpoint: %q}}", table.Endpoint()))
	r.edit(func(s string) string {
		before, _, ok := strings.Cut(s, "\njobs:")
		if !ok {
			t.Fatal("hearth.yaml has no jobs")
		}
		return before + `
jobs:
  - {name: fill, schedule: "@every 5s", materialize: {feature_views: [credit_history]}}
  - {name: training, schedule: "@every 5s", dataset: {name: loans}}
  - {name: warm, schedule: "@every 5s", rewarm: {if_cold: true}}
`
	})
	r.must(0, nil, "apply")
	r.must(0, nil, "jobs", "list")

	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	daemon := r.command(ctx, "jobs", "start", "--log-level", "info")
	var logs bytes.Buffer
	daemon.Stdout, daemon.Stderr = &logs, &logs
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	<-time.After(scheduleFor)
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := daemon.Wait()
	if code := daemon.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("jobs start ended with %d (%v)\n%s", code, err, logs.String())
	}

	var history historyDoc
	r.must(0, &history, "jobs", "history", "--limit", "100")
	dues := map[string][]time.Time{}
	for _, run := range history.Runs {
		if run.Due == nil {
			t.Errorf("run %d of %s has no due time", run.Run, run.Job)
			continue
		}
		if run.Status != "done" && run.Status != "nothing" {
			t.Errorf("run %d of %s ended %s", run.Run, run.Job, run.Status)
		}
		for _, seen := range dues[run.Job] {
			if seen.Equal(*run.Due) {
				t.Errorf("%s ran twice for %s", run.Job, run.Due)
			}
		}
		dues[run.Job] = append(dues[run.Job], *run.Due)
	}
	for _, job := range []string{"fill", "training", "warm"} {
		if n := len(dues[job]); n < 4 || n > 7 {
			t.Errorf("%s ran %d times in %s, want about 6\n%s", job, n, scheduleFor, logs.String())
		}
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
	var one struct {
		Job    string `json:"job"`
		Status string `json:"status"`
	}
	r.must(0, &one, "jobs", "run", "fill")
	if one.Job != "fill" || one.Status != "nothing" {
		t.Errorf("jobs run fill: %+v", one)
	}
}
