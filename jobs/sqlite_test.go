package jobs_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/backing/sqlite"
	"github.com/hearthstore/hearth/jobs"
)

// ledger is the backing tier's ledger as the jobs see it.
type ledger struct {
	*backing.Ledger
	state backing.StateStore
}

func (l ledger) NextRun(ctx context.Context) (uint64, error) { return backing.NextRun(ctx, l.state) }

func (l ledger) Start(ctx context.Context, r jobs.Run) error {
	return l.Ledger.Start(ctx, backing.Run(r))
}

func (l ledger) Finish(ctx context.Context, r jobs.Run) error {
	return l.Ledger.Finish(ctx, backing.Run(r))
}

func (l ledger) List(ctx context.Context, job string, limit int) ([]jobs.Run, error) {
	runs, err := l.Ledger.List(ctx, job, limit)
	var out []jobs.Run
	for _, r := range runs {
		out = append(out, jobs.Run(r))
	}
	return out, err
}

// TestTwoSchedulersOverSQLite: the real state store, the machine's clock and two
// schedulers with stores of their own over one file: each due time runs once. Red when
// Execute neither looks at nor claims the due time.
func TestTwoSchedulersOverSQLite(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	path := filepath.Join(t.TempDir(), "state.db")
	every, err := jobs.ParseSchedule("@every 1s", "UTC")
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan jobs.Outcome, 100)
	ended := make(chan error, 2)
	var last ledger
	for _, holder := range []string{"a", "b"} {
		store, err := sqlite.Open(ctx, sqlite.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
		if _, err := store.Apply(ctx); err != nil {
			t.Fatal(err)
		}
		last = ledger{backing.NewLedger(store, nil), store}
		runner, err := jobs.NewRunner(jobs.RunnerConfig{Leases: backing.NewLeases(backing.LeaseConfig{State: store}), Ledger: last})
		if err != nil {
			t.Fatal(err)
		}
		sched, err := jobs.NewScheduler(jobs.SchedulerConfig{Runner: runner, Ledger: last, Holder: holder, Observe: func(o jobs.Outcome) { ran <- o },
			Jobs: []jobs.Job{{Name: "j", Schedule: every, CatchUp: jobs.CatchUpAll, Run: func(context.Context, uint64) (jobs.Result, error) { return jobs.Result{}, nil }}}})
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- sched.Run(ctx) }()
	}
	seen := map[time.Time]bool{}
	for range 3 {
		select {
		case o := <-ran:
			if o.Status != jobs.StatusDone || o.Due == nil || seen[*o.Due] {
				t.Errorf("outcome %+v, seen before: %v", o, o.Due != nil && seen[*o.Due])
				continue
			}
			seen[*o.Due] = true
		case <-ctx.Done():
			t.Fatal("no run within the time")
		}
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	runs, err := last.List(t.Context(), "j", 100)
	if err != nil || len(runs) < 3 {
		t.Fatalf("ledger: %v, %v", runs, err)
	}
	dues := map[time.Time]bool{}
	for _, r := range runs {
		if r.Due == nil || dues[*r.Due] || r.Status != jobs.StatusDone {
			t.Errorf("ledger entry %+v", r)
			continue
		}
		dues[*r.Due] = true
	}
}
