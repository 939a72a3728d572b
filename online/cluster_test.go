package online

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/testservers"
)

// TestResharding moves a thousand slots between masters while values are written and read:
// MOVED and ASK end in right answers, no result fails, and no version goes backwards. Seen
// red without follow.
func TestResharding(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{LayoutBlob, LayoutHash} {
		t.Run(layout, func(t *testing.T) {
			nodes := startCluster(t, 0)
			s := mustOpen(t, Config{
				Project: "p", Addrs: nodes.Addrs(), Cluster: true, Layout: layout, Views: []*feature.View{testView},
			})
			const n = 400
			base := versioned(t, n, 1)
			put(t, s, base...)
			var acked atomic.Int64
			acked.Store(1)
			stop := make(chan struct{})
			var group sync.WaitGroup
			group.Go(func() { // the writer
				for event := feature.Micros(2); ; event++ {
					batch := slices.Clone(base)
					for i := range batch {
						batch[i].Version.Event = event
						batch[i].Payload = slices.Clone(batch[i].Payload)
						feature.SetVersion(batch[i].Payload, batch[i].Version)
					}
					results, err := s.Put(t.Context(), batch)
					if err != nil {
						t.Error(err)
						return
					}
					for i, r := range results {
						if r.Outcome != feature.Written {
							t.Errorf("put %d of event %d: %v %v", i, event, r.Outcome, r.Err)
							return
						}
					}
					acked.Store(int64(event))
					select {
					case <-stop:
						return
					default:
					}
				}
			})
			group.Go(func() { // the reader
				want := refs(base)
				for {
					atLeast := feature.Micros(acked.Load())
					got, err := s.Get(t.Context(), want)
					if err != nil {
						t.Error(err)
						return
					}
					for i, r := range got {
						h, _, err := feature.ParsePayload(r.Payload)
						if r.Err != nil || err != nil || h.Version.Event < atLeast {
							t.Errorf("get %d: %v %v, event %d, want at least %d", i, r.Err, err, h.Version.Event, atLeast)
							return
						}
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
			out, err := reshard(t, nodes.Nodes[0], nodes.Nodes[2], 1000)
			close(stop)
			group.Wait()
			if err != nil {
				t.Fatalf("reshard: %v\n%s", err, out)
			}
			t.Logf("%d rounds of puts during the resharding", acked.Load())
		})
	}
}

// reshard moves slots and their keys while the cluster works.
func reshard(t testing.TB, from, to *testservers.RedisServer, slots int) ([]byte, error) {
	t.Helper()
	id := func(srv *testservers.RedisServer) string {
		id, err := srv.Do("CLUSTER", "MYID")
		if err != nil {
			t.Error(err)
		}
		return fmt.Sprint(id)
	}
	return exec.Command("redis-cli", "--cluster", "reshard", from.Addr(), "--cluster-from", id(from), "--cluster-to", id(to),
		"--cluster-slots", strconv.Itoa(slots), "--cluster-yes").CombinedOutput()
}

// TestMovedWhileFrozen: one node hangs and slots have moved between the others since the
// client last looked. The moved keys are answered all the same: the hanging node does not
// use up the deadline. Seen red without reserve.
func TestMovedWhileFrozen(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 0)
	s := mustOpen(t, Config{Project: "p", Addrs: nodes.Addrs(), Cluster: true})
	recs := versioned(t, 400, 1)
	put(t, s, recs...)
	if _, err := s.Get(t.Context(), refs(recs)); err != nil { // the client knows the topology
		t.Fatal(err)
	}
	before := make([]string, len(recs))
	for i, rec := range recs {
		before[i] = s.owner(t, rec.Ref)
	}
	if out, err := reshard(t, nodes.Nodes[0], nodes.Nodes[2], 2000); err != nil {
		t.Fatalf("reshard: %v\n%s", err, out)
	}
	frozen := nodes.Nodes[1]
	frozen.Pause()
	defer frozen.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, err := s.Get(ctx, refs(recs))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		if hangs := before[i] == frozen.Addr(); hangs != (r.Err != nil) {
			t.Fatalf("ref %d (its node hangs: %v): %v", i, hangs, r.Err)
		}
	}
}

// TestFailover kills a master that has a replica: its writes and reads fail as unreachable
// until the replica is promoted, then the same store works again without help, also
// against a master that never saw the script, and the tier is not called cold.
func TestFailover(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 1)
	s := mustOpen(t, Config{Project: "p", Addrs: nodes.Addrs(), Cluster: true, WriteTimeout: 500 * time.Millisecond, WriteRetries: 1})
	const n = 300
	old, recs := versioned(t, n, 1), versioned(t, n, 2)
	put(t, s, old...)
	put(t, s, old...)
	if err := s.MarkWarm(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes.Nodes[:3] { // all that was acknowledged has reached the replica
		if _, err := node.Do("WAIT", "1", "25000"); err != nil {
			t.Fatal(err)
		}
	}
	lost := nodes.Nodes[0].Addr()
	nodes.Nodes[0].Kill()
	for i, r := range put(t, s, recs...) {
		if r.Outcome == feature.Failed && !errors.Is(r.Err, feature.ErrUnreachable) {
			t.Fatalf("record %d: %v", i, r.Err)
		}
	}
	waitFor(t, "the failover to heal writes", func() bool {
		results, err := s.Put(t.Context(), recs)
		return err == nil && !slices.ContainsFunc(results, func(r feature.PutResult) bool {
			return r.Outcome != feature.Written && r.Outcome != feature.Unchanged
		})
	})
	waitFor(t, "the failover to heal reads", func() bool {
		got, err := s.Get(t.Context(), refs(recs))
		return err == nil && !slices.ContainsFunc(got, func(r feature.GetResult) bool { return r.Err != nil || r.Payload == nil })
	})
	for _, rec := range recs {
		wantStored(t, s, rec)
	}
	waitFor(t, "warmth to see the new master", func() bool {
		w, err := s.Warmth(t.Context())
		return err == nil && w.Reachable && len(w.Shards) == 3 && !slices.ContainsFunc(w.Shards, func(sh ShardWarmth) bool { return sh.Addr == lost })
	})
	if w, err := s.Warmth(t.Context()); err != nil || w.Cold || w.MarkerRun != 5 {
		t.Fatalf("after a failover: %+v %v", w, err)
	}
}

// TestSlots compares the slot function with the server's, and looks at where the markers
// fall. Seen red with another start value.
func TestSlots(t *testing.T) {
	t.Parallel()
	srv := testservers.SharedCluster(t)
	c := redis.NewClient(&redis.Options{Addr: srv[0]})
	defer func() { _ = c.Close() }()
	for _, key := range []string{"a", "p:v@1:{id=1}", "p:v@1:{a=1&b=%7B2}", "{}x", "{a", "a}b{c}d", "", "x{{y}}"} {
		want, err := c.ClusterKeySlot(context.Background(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		if got := slotOf(key); int64(got) != want {
			t.Errorf("slot of %q is %d, the server says %d", key, got, want)
		}
	}
	s := &Store{cfg: Config{Project: "p"}}
	for i, key := range s.markerKeys() {
		if slot := slotOf(key); slot/(slots/markers) != i {
			t.Fatalf("marker %d lies in slot %d", i, slot)
		}
	}
}
