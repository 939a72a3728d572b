package online

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/breaker"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/testservers"
)

// A frozen node of a cluster costs a few reads their patience and then none: its breaker
// answers for its keys at once, the other nodes' values come all the while, and one probe
// finds the node again after it thawed. Seen red with guarded calling f without asking the
// breaker, and with a verdict that is always Healthy.
func TestFrozenNodeIsLeftAlone(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, 0)
	c := clock.NewFake(time.Now())
	s := mustOpen(t, Config{
		Project: project(t), Addrs: cluster.Addrs(), Cluster: true, Clock: c,
		NodeBreaker: breaker.Config{Failures: 2, Pause: time.Minute, MaxPause: time.Minute},
	})
	recs := versioned(t, 60, 1)
	put(t, s, recs...)
	get := func(patience time.Duration) (lost map[string]error, found int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		results, err := s.Get(ctx, refs(recs))
		if err != nil {
			t.Fatal(err)
		}
		lost = map[string]error{}
		for i, r := range results {
			switch {
			case r.Payload != nil:
				found++
			case errors.Is(r.Err, feature.ErrUnreachable):
				lost[s.owner(t, recs[i].Ref)] = r.Err
			default:
				t.Fatalf("%s: %v", recs[i].Ref, r.Err)
			}
		}
		return lost, found
	}
	if lost, found := get(time.Minute); len(lost) != 0 || found != 60 {
		t.Fatalf("all nodes up: %d found, lost %v", found, lost)
	}
	frozen := cluster.Nodes[0]
	frozen.Pause()
	defer frozen.Resume()
	for read := range 4 {
		lost, found := get(4 * time.Second)
		if len(lost) != 1 || lost[frozen.Addr()] == nil || found == 0 {
			t.Fatalf("read %d: %d found, lost %v", read, found, lost)
		}
		if open := errors.Is(lost[frozen.Addr()], breaker.ErrOpen); open != (read >= 2) {
			t.Fatalf("read %d: %v", read, lost)
		}
	}
	wantNodes := func(state string) {
		t.Helper()
		for _, n := range s.Nodes() {
			want := breaker.Closed
			if n.Addr == frozen.Addr() {
				want = state
			}
			if n.Breaker != want {
				t.Errorf("node %s is %s, want %s", n.Addr, n.Breaker, want)
			}
		}
	}
	wantNodes(breaker.Open)
	frozen.Resume()
	if lost, _ := get(time.Minute); !errors.Is(lost[frozen.Addr()], breaker.ErrOpen) {
		t.Errorf("asked before its pause was over: %v", lost)
	}
	c.Advance(time.Minute)
	wantNodes(breaker.HalfOpen)
	if lost, found := get(time.Minute); len(lost) != 0 || found != 60 {
		t.Errorf("after the probe: %d found, lost %v", found, lost)
	}
	wantNodes(breaker.Closed)
}

// A single server has no breaker of its own, and a node that had no time is not judged.
func TestImpatienceIsNotAFault(t *testing.T) {
	t.Parallel()
	if nodes := mustOpen(t, Config{Project: project(t), Embedded: true}).Nodes(); nodes != nil {
		t.Errorf("a single server isolates: %+v", nodes)
	}
	s := mustOpen(t, Config{
		Project: project(t), Addrs: []string{testservers.FreeAddr(t)}, Cluster: true,
		NodeBreaker: breaker.Config{Failures: 1}, Patience: time.Hour,
	})
	if s.Nodes() == nil {
		t.Error("a cluster that nobody has read from does not isolate")
	}
	hurried := func(ctx context.Context, sh share, _ []feature.Ref, _ []string, results []feature.GetResult) {
		<-ctx.Done()
		fail(results, s.fault(sh.addr, ctx.Err()))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	results := make([]feature.GetResult, 1)
	s.guarded(ctx, hurried, share{addr: "a:1", index: []int{0}}, nil, nil, results)
	if nodes := s.Nodes(); len(nodes) != 1 || nodes[0].Breaker != breaker.Closed {
		t.Errorf("judged by its silence of a millisecond: %+v", nodes)
	}
	s.cfg.Patience = time.Nanosecond
	s.guarded(ctx, hurried, share{addr: "a:1", index: []int{0}}, nil, nil, results)
	if nodes := s.Nodes(); nodes[0].Breaker != breaker.Open {
		t.Errorf("its silence does not count: %+v", nodes)
	}
}
