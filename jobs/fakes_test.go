package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// store is leases and ledger in memory, shared by the schedulers of a test, with faults.
type store struct {
	mu     sync.Mutex
	runs   []Run
	claims map[string]map[time.Time]uint64
	next   uint64
	leases map[string]*hold
	fail   map[string]error // by operation, until it is removed
	log    []string
}

type hold struct {
	holder string
	lose   context.CancelCauseFunc
}

func newStore() *store {
	return &store{claims: map[string]map[time.Time]uint64{}, leases: map[string]*hold{}, fail: map[string]error{}}
}

func (s *store) setFail(op string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[op] = err
}

func (s *store) Hold(ctx context.Context, name, holder string) (context.Context, func(context.Context) error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail["hold"]; err != nil {
		return nil, nil, err
	}
	if h := s.leases[name]; h != nil {
		return nil, nil, fmt.Errorf("lease %s: %w", name, feature.ErrLeaseHeld)
	}
	leaseCtx, lose := context.WithCancelCause(ctx)
	h := &hold{holder: holder, lose: lose}
	s.leases[name] = h
	return leaseCtx, func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		lose(nil)
		if s.leases[name] == h {
			delete(s.leases, name)
		}
		return nil
	}, nil
}

// steal takes the lease away from its holder.
func (s *store) steal(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases[name].lose(fmt.Errorf("lease %s: %w", name, feature.ErrLeaseLost))
	delete(s.leases, name)
}

func (s *store) held() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.leases) }

func (s *store) NextRun(context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail["next"]; err != nil {
		return 0, err
	}
	s.next++
	return s.next, nil
}

func (s *store) Start(_ context.Context, r Run) error { return s.put("start", r) }

func (s *store) Finish(ctx context.Context, r Run) error {
	if ctx.Err() != nil {
		return ctx.Err() // the end of a run must be written with a context of its own
	}
	return s.put("finish", r)
}

func (s *store) put(op string, r Run) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail[op]; err != nil {
		return err
	}
	s.log = append(s.log, fmt.Sprintf("%s %s#%d attempt %d %s", op, r.Job, r.Number, r.Attempts, r.Status))
	for i := range s.runs {
		if s.runs[i].Number == r.Number {
			if op == "start" && s.runs[i].Finished != nil {
				return feature.ErrConflict
			}
			s.runs[i] = r
			return nil
		}
	}
	s.runs = append(s.runs, r)
	return nil
}

func (s *store) List(_ context.Context, job string, limit int) ([]Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Run
	for _, r := range slices.Backward(s.runs) {
		if r.Job == job && len(out) < limit {
			out = append(out, r)
		}
	}
	return out, s.fail["list"]
}

func (s *store) LastDue(_ context.Context, job string) (last time.Time, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail["last"]; err != nil {
		return time.Time{}, false, err
	}
	for due := range s.claims[job] {
		if !ok || due.After(last) {
			last, ok = due, true
		}
	}
	return last, ok, nil
}

func (s *store) ClaimDue(_ context.Context, job string, due time.Time, run uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail["claim"]; err != nil {
		return err
	}
	if s.claims[job] == nil {
		s.claims[job] = map[time.Time]uint64{}
	}
	due = due.UTC()
	if by, ok := s.claims[job][due]; ok && by != run {
		return fmt.Errorf("due %v: %w", due, feature.ErrConflict)
	}
	s.claims[job][due] = run
	return nil
}

// history is what happened per due time: "15:05 done" in the order of the run numbers.
func (s *store) history() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.runs {
		due := "by hand"
		if r.Due != nil {
			due = r.Due.Format("02 15:04")
		}
		out = append(out, due+" "+r.Status)
	}
	return out
}

var epoch = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

var errFlaky = errors.New("the store hiccuped")

func testCtx(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func newTestRunner(t testing.TB, s *store, c clock.Clock) *Runner {
	t.Helper()
	r, err := NewRunner(RunnerConfig{Leases: s, Ledger: s, Clock: c, Random: func() float64 { return 1 }, Backoff: 10 * time.Second, MaxBackoff: 25 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}
