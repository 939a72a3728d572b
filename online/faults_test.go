package online

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/testservers"
)

func versioned(t testing.TB, n int, event feature.Micros) []feature.Record {
	t.Helper()
	recs := make([]feature.Record, n)
	for i := range recs {
		recs[i] = record(t, key(i), feature.Version{Event: event, Run: 1}, int64(i))
	}
	return recs
}

func refs(recs []feature.Record) []feature.Ref {
	out := make([]feature.Ref, len(recs))
	for i := range recs {
		out[i] = recs[i].Ref
	}
	return out
}

// fails checks that every record failed for the wanted reason, on a named node.
func fails(t *testing.T, results []feature.PutResult, want error) {
	t.Helper()
	for i, r := range results {
		var node *NodeError
		if r.Outcome != feature.Failed || !errors.Is(r.Err, want) || !errors.As(r.Err, &node) || node.Addr == "" {
			t.Fatalf("record %d: %v, %v; want failed, %v", i, r.Outcome, r.Err, want)
		}
	}
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	srv := startServer(t, testservers.RedisOptions{Password: "right-secret"})
	for _, password := range []string{"", "wrong-secret"} {
		s := mustOpen(t, Config{Project: "p", Addrs: []string{srv.Addr()}, Password: password, WriteRetries: -1})
		recs := versioned(t, 3, 1)
		results := put(t, s, recs...)
		fails(t, results, feature.ErrDenied)
		for _, r := range get(t, s, key(0), key(1)) {
			if !errors.Is(r.Err, feature.ErrDenied) || r.Payload != nil {
				t.Fatalf("get: %v", r.Err)
			}
			if strings.Contains(r.Err.Error(), "secret") {
				t.Fatalf("the error tells a password: %v", r.Err)
			}
		}
		if err := s.Ping(t.Context()); !errors.Is(err, feature.ErrDenied) {
			t.Fatalf("ping: %v", err)
		}
		if w, err := s.Warmth(t.Context()); err != nil || w.Reachable || w.Cold || !errors.Is(w.Shards[0].Err, feature.ErrDenied) {
			t.Fatalf("a tier that denies is neither reachable nor cold: %+v, %v", w, err)
		}
	}
}

// TestTLSAndACL: a user with only the rights that docs list, over TLS.
func TestTLSAndACL(t *testing.T) {
	t.Parallel()
	srv := startServer(t, testservers.RedisOptions{TLS: true, Username: "admin", Password: "adm1n"})
	rights := "+ping +hello +auth +select +get +mget +set +del +exists +eval +evalsha +scan +dbsize +info +hget +hset +hgetall +hlen +hkeys +hdel +persist +pexpireat"
	if _, err := srv.Do(append([]string{"ACL", "SETUSER", "app", "on", ">s3cret", "~p:*", "-@all"}, strings.Fields(rights)...)...); err != nil {
		t.Fatal(err)
	}
	for _, layout := range []string{LayoutBlob, LayoutHash} {
		cfg := Config{
			Project: "p", Addrs: []string{srv.Addr()}, Username: "app", Password: "s3cret", TLS: srv.TLSConfig(), Layout: layout,
			Views: []*feature.View{testView},
		}
		s := mustOpen(t, cfg)
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		one, two := versioned(t, 2, 1), versioned(t, 2, 2)
		put(t, s, one...)
		for _, r := range put(t, s, two...) {
			if r.Outcome != feature.Written {
				t.Fatal(r.Outcome, r.Err)
			}
		}
		wantStored(t, s, two[1])
		if err := s.MarkWarm(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Info(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Scan(t.Context(), testView.ID(), func([]feature.Ref) error { return nil }); err != nil {
			t.Fatal(err)
		}
		// What the user may not do is denied, and keys of others are not its own.
		if err := s.FlushAll(t.Context()); !errors.Is(err, feature.ErrDenied) {
			t.Fatalf("flush: %v", err)
		}
		cfg.Project = "q"
		foreign := mustOpen(t, cfg)
		fails(t, put(t, foreign, versioned(t, 2, 1)...), feature.ErrDenied)
		for _, r := range get(t, foreign, key(0)) {
			if !errors.Is(r.Err, feature.ErrDenied) {
				t.Fatalf("get of another project: %v", r.Err)
			}
		}
	}
	writesWithoutMGet(t, srv)
	unknown := mustOpen(t, Config{Project: "p", Addrs: []string{srv.Addr()}, TLS: &tls.Config{RootCAs: x509.NewCertPool()}, WriteRetries: -1})
	fails(t, put(t, unknown, versioned(t, 1, 1)...), feature.ErrUnreachable)
	if err := unknown.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "online.redis.tls") {
		t.Fatalf("unknown authority: %v", err)
	}
}

// writesWithoutMGet: a user who may not MGET writes key by key, and nothing goes backwards.
// Seen red without the script's GET of each key.
func writesWithoutMGet(t *testing.T, srv *testservers.RedisServer) {
	t.Helper()
	s := mustOpen(t, Config{Project: "p", Addrs: []string{srv.Addr()}, Username: "app", Password: "s3cret", TLS: srv.TLSConfig()})
	right := func(mget string) {
		t.Helper()
		if _, err := srv.Do("ACL", "SETUSER", "app", mget); err != nil {
			t.Fatal(err)
		}
	}
	old, recs := versioned(t, 6, 4), versioned(t, 6, 5)
	put(t, s, old[:5]...) // the sixth is new
	right("-mget")
	for i, r := range append(put(t, s, recs...), put(t, s, recs...)...) {
		if want := [...]feature.Outcome{feature.Written, feature.Unchanged}[i/6]; r.Outcome != want {
			t.Fatalf("record %d: %v, %v, want %v", i, r.Outcome, r.Err, want)
		}
	}
	for i, r := range put(t, s, old...) {
		if r.Outcome != feature.Older {
			t.Fatalf("older record %d: %v, %v", i, r.Outcome, r.Err)
		}
	}
	right("+mget")
	for _, r := range recs {
		wantStored(t, s, r)
	}
}

// TestFull: a Redis at maxmemory that evicts nothing refuses; what it took stays, and with
// memory again the same call finishes.
func TestFull(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{LayoutBlob, LayoutHash} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t, testservers.RedisOptions{MaxMemory: "3mb"})
			s := mustOpen(t, Config{Project: "p", Addrs: []string{srv.Addr()}, Layout: layout, Views: []*feature.View{testView}, Writers: 1})
			recs := make([]feature.Record, 4000)
			values := make([]feature.Value, len(testView.Features))
			values[4] = feature.StringValue(strings.Repeat("x", 1000))
			for i := range recs {
				recs[i] = valuesRecord(t, key(i), feature.Version{Event: 1, Run: 1}, values)
			}
			results := put(t, s, recs...)
			failed := 0
			for i, r := range results {
				switch r.Outcome {
				case feature.Written:
					if i%50 == 0 {
						wantStored(t, s, recs[i])
					}
				case feature.Failed:
					if failed++; !errors.Is(r.Err, ErrFull) {
						t.Fatal(r.Err)
					}
				default:
					t.Fatal(r.Outcome)
				}
			}
			if failed == 0 || failed == len(recs) {
				t.Fatalf("%d of %d failed, want some", failed, len(recs))
			}
			// A refused update leaves the old value whole. (The limit is put below what is used: a
			// pipeline's own buffers count as used, and what they took is free again by now.)
			if err := plainClient(t, srv).ConfigSet(t.Context(), "maxmemory", "1mb").Err(); err != nil {
				t.Fatal(err)
			}
			values[4] = feature.StringValue(strings.Repeat("y", 5000))
			newer := valuesRecord(t, key(0), feature.Version{Event: 2, Run: 1}, values)
			fails(t, put(t, s, newer), ErrFull)
			wantStored(t, s, recs[0])
			if err := plainClient(t, srv).ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
				t.Fatal(err)
			}
			for i, r := range put(t, s, recs...) {
				if r.Outcome != feature.Written && r.Outcome != feature.Unchanged {
					t.Fatalf("record %d after the cure: %v %v", i, r.Outcome, r.Err)
				}
			}
		})
	}
}

func TestReplica(t *testing.T) {
	t.Parallel()
	master := startServer(t, testservers.RedisOptions{})
	_, port, _ := strings.Cut(master.Addr(), ":")
	replica := startServer(t, testservers.RedisOptions{Args: []string{"--replicaof", "127.0.0.1", port, "--repl-diskless-sync-delay", "0"}})
	c := plainClient(t, replica)
	waitFor(t, "the replica to follow its master", func() bool {
		text, err := c.Info(context.Background(), "replication").Result()
		return err == nil && strings.Contains(text, "master_link_status:up")
	})
	s := mustOpen(t, Config{Project: "p", Addrs: []string{replica.Addr()}, WriteRetries: 1})
	fails(t, put(t, s, versioned(t, 3, 1)...), ErrReadOnly)
	if err := s.MarkWarm(t.Context(), 1); !errors.Is(err, ErrReadOnly) {
		t.Fatal(err)
	}
	// It is promoted: the same store works.
	if err := c.ReplicaOf(t.Context(), "no", "one").Err(); err != nil {
		t.Fatal(err)
	}
	recs := versioned(t, 3, 1)
	for _, r := range put(t, s, recs...) {
		if r.Outcome != feature.Written {
			t.Fatal(r.Outcome, r.Err)
		}
	}
	wantStored(t, s, recs[2])
}

func TestServerGoneAndBack(t *testing.T) {
	t.Parallel()
	srv := startServer(t, testservers.RedisOptions{})
	s := mustOpen(t, Config{Project: "p", Addrs: []string{srv.Addr()}, WriteRetries: 1, WriteTimeout: time.Second})
	old, recs := versioned(t, 600, 1), versioned(t, 600, 2)
	put(t, s, old...)
	srv.Kill()
	results, err := s.Put(t.Context(), recs)
	if err != nil {
		t.Fatal(err)
	}
	fails(t, results, feature.ErrUnreachable)
	// An older duplicate of a record that failed is not superseded by it: it failed too.
	fails(t, put(t, s, old[0], recs[0], old[0]), feature.ErrUnreachable)
	for _, r := range get(t, s, key(0), key(1)) {
		if !errors.Is(r.Err, feature.ErrUnreachable) {
			t.Fatalf("get: %v", r.Err)
		}
	}
	if w, err := s.Warmth(t.Context()); err != nil || w.Reachable || w.Cold {
		t.Fatalf("a tier that is gone is not cold: %+v %v", w, err)
	}
	srv.Restart() // empty, and without the script
	put(t, s, old...)
	for i, r := range put(t, s, recs...) {
		if r.Outcome != feature.Written {
			t.Fatalf("record %d: %v %v", i, r.Outcome, r.Err)
		}
	}
	wantStored(t, s, recs[599])
	// Frozen: the read ends by its deadline, not by the socket's defaults of seconds.
	srv.Pause()
	defer srv.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	got, err := s.Get(ctx, refs(recs[:100]))
	if took := time.Since(start); err != nil || took > 20*time.Second {
		t.Fatalf("a frozen server held a read of 200 ms for %v (%v)", took, err)
	}
	for _, r := range got {
		if !errors.Is(r.Err, feature.ErrUnreachable) {
			t.Fatal(r.Err)
		}
	}
}

// TestPartOfACluster: with one of three nodes frozen or dead, the answers of the others
// stand, within the deadline, and the failed ones name the node. Seen red with the whole
// read sent as one cluster pipeline and a deadline that ends during its retry.
func TestPartOfACluster(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"frozen", "killed"} {
		for _, layout := range []string{LayoutBlob, LayoutHash} {
			t.Run(how+"/"+layout, func(t *testing.T) {
				nodes := startCluster(t, 0)
				s := mustOpen(t, Config{
					Project: "p", Addrs: nodes.Addrs(), Cluster: true, WriteTimeout: time.Second,
					WriteRetries: 1, Layout: layout, Views: []*feature.View{testView},
				})
				old, recs := versioned(t, 300, 1), versioned(t, 300, 2)
				put(t, s, old...)
				if _, err := s.Get(t.Context(), refs(old)); err != nil {
					t.Fatal(err)
				}
				lost := nodes.Nodes[1]
				onLost := 0
				for _, rec := range recs {
					if s.owner(t, rec.Ref) == lost.Addr() {
						onLost++
					}
				}
				if how == "frozen" {
					lost.Pause()
					defer lost.Resume()
				} else {
					lost.Kill()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				start := time.Now()
				got, err := s.Get(ctx, refs(recs))
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > 20*time.Second {
					t.Fatalf("took %v", took)
				}
				failed := 0
				for i, r := range got {
					if s.owner(t, recs[i].Ref) == lost.Addr() {
						var node *NodeError
						if failed++; !errors.Is(r.Err, feature.ErrUnreachable) || !errors.As(r.Err, &node) || node.Addr != lost.Addr() {
							t.Fatalf("ref %d of the lost node: %v", i, r.Err)
						}
					} else if r.Err != nil || r.Payload == nil {
						t.Fatalf("ref %d of a healthy node: %v", i, r.Err)
					}
				}
				if failed == 0 || failed != onLost {
					t.Fatalf("%d failed, %d live on the lost node", failed, onLost)
				}
				for i, r := range put(t, s, recs...) {
					lives := s.owner(t, recs[i].Ref) != lost.Addr()
					if lives != (r.Outcome == feature.Written) || !lives && !errors.Is(r.Err, feature.ErrUnreachable) {
						t.Fatalf("record %d (lives: %v): %v %v", i, lives, r.Outcome, r.Err)
					}
				}
				w, err := s.Warmth(t.Context())
				if err != nil || w.Reachable {
					t.Fatalf("warmth: %+v %v", w, err)
				}
			})
		}
	}
}

// owner is the address of the node that serves a ref.
func (s *Store) owner(t testing.TB, ref feature.Ref) string {
	t.Helper()
	node, err := s.write.cluster.MasterForKey(t.Context(), s.RedisKey(ref))
	if err != nil {
		t.Fatal(err)
	}
	return node.Options().Addr
}

// TestCredentialsChange: the provider is asked for each new connection, so a changed
// password heals without a restart.
func TestCredentialsChange(t *testing.T) {
	t.Parallel()
	srv := startServer(t, testservers.RedisOptions{Password: "one"})
	var password atomic.Value
	password.Store("one")
	s := mustOpen(t, Config{
		Project: "p", Addrs: []string{srv.Addr()}, WriteRetries: -1,
		Credentials: func(context.Context) (string, string, error) { return "default", password.Load().(string), nil },
	})
	put(t, s, versioned(t, 5, 1)...)
	// The password changes and the server drops its clients.
	admin := redis.NewClient(&redis.Options{Addr: srv.Addr(), Password: "one"})
	defer func() { _ = admin.Close() }()
	if err := admin.ConfigSet(t.Context(), "requirepass", "two").Err(); err != nil {
		t.Fatal(err)
	}
	if err := admin.Do(t.Context(), "client", "kill", "type", "normal", "skipme", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the old password to be refused", func() bool {
		results, err := s.Put(t.Context(), versioned(t, 5, 2))
		return err == nil && errors.Is(results[0].Err, feature.ErrDenied)
	})
	password.Store("two")
	for _, r := range put(t, s, versioned(t, 5, 2)...) {
		if r.Outcome != feature.Written {
			t.Fatal(r.Outcome, r.Err)
		}
	}
	// A provider that fails is said.
	broken := mustOpen(t, Config{
		Project: "p", Addrs: []string{srv.Addr()}, WriteRetries: -1,
		Credentials: func(context.Context) (string, string, error) { return "", "", errors.New("no token") },
	})
	if err := broken.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "no token") {
		t.Fatal(err)
	}
}

func TestWrongTopology(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, 0)
	s := mustOpen(t, Config{Project: "p", Addrs: nodes.Addrs()[:1]})
	recs := versioned(t, 50, 1)
	results := put(t, s, recs...)
	moved := 0
	for _, r := range results {
		if errors.Is(r.Err, ErrTopology) && strings.Contains(r.Err.Error(), "cluster: true") {
			moved++
		} else if r.Outcome != feature.Written {
			t.Fatal(r.Outcome, r.Err)
		}
	}
	if moved == 0 {
		t.Fatal("no record was refused")
	}
	for _, r := range get(t, s, key(0), key(1), key(2)) {
		if !errors.Is(r.Err, ErrTopology) {
			t.Fatalf("get: %v", r.Err)
		}
	}
	single := startServer(t, testservers.RedisOptions{})
	s = mustOpen(t, Config{Project: "p", Addrs: []string{single.Addr()}, Cluster: true})
	for _, r := range put(t, s, recs...) {
		if !errors.Is(r.Err, ErrTopology) {
			t.Fatal(r.Outcome, r.Err)
		}
	}
}

// TestErrorsTellNoValues (I15): an unknown command is reported by Redis with its
// arguments, which are values here. Seen red without the cut in classifyReply.
func TestErrorsTellNoValues(t *testing.T) {
	t.Parallel()
	srv := startServer(t, testservers.RedisOptions{Args: []string{"--rename-command", "SET", "", "--rename-command", "EVALSHA", "", "--rename-command", "MGET", ""}})
	s := mustOpen(t, Config{Project: "p", Addrs: []string{srv.Addr()}, WriteRetries: -1})
	values := make([]feature.Value, len(testView.Features))
	values[4] = feature.StringValue("confidential")
	rec := valuesRecord(t, key(1), feature.Version{Event: 1, Run: 1}, values)
	for range 2 {
		for _, r := range put(t, s, rec, versioned(t, 1, 1)[0]) {
			if r.Outcome != feature.Failed || strings.Contains(r.Err.Error(), "confidential") || strings.Contains(r.Err.Error(), "args") {
				t.Fatalf("%v: %v", r.Outcome, r.Err)
			}
		}
		s.existing.Store(1024) // the script first
	}
	if r := get(t, s, key(1))[0]; r.Err == nil || strings.Contains(r.Err.Error(), "args") {
		t.Fatal(r.Err)
	}
}

// TestHurry: a caller's deadline is kept, and a caller without one waits for a server that
// is slow for a moment, whatever the configuration says about readers in a hurry. Seen red
// with sockets that wait for Config.ReadDeadline as it is.
func TestHurry(t *testing.T) {
	t.Parallel()
	srv := startServer(t, testservers.RedisOptions{})
	s := mustOpen(t, Config{Project: "p", Addrs: []string{srv.Addr()}, ReadDeadline: 20 * time.Millisecond})
	recs := versioned(t, 3, 1)
	put(t, s, recs...)
	pause := func(ms string) {
		t.Helper()
		if _, err := srv.Do("CLIENT", "PAUSE", ms, "ALL"); err != nil {
			t.Fatal(err)
		}
	}
	pause("300")
	wantStored(t, s, recs[0])
	pause("60000")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	got, err := s.Get(ctx, refs(recs))
	if took := time.Since(start); err != nil || took > 20*time.Second {
		t.Fatalf("20 ms took %v (%v)", took, err)
	}
	for _, r := range got {
		if !errors.Is(r.Err, feature.ErrUnreachable) {
			t.Fatal(r.Err)
		}
	}
}
