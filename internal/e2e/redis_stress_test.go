package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/internal/faults"
	"github.com/hearthstore/hearth/internal/testservers"
)

// trouble is one way in which Redis refuses or is away.
type trouble struct {
	name   string
	start  func(t *testing.T) *patient
	says   string // a part of what the report must say
	repair bool   // heal with verify --repair and no source, else with the next run
}

// patient is a Redis that can be broken and healed, and how a repository reaches it.
type patient struct {
	online   string // the online line of hearth.yaml
	env      []string
	breaks   func(a *accounts)
	heal     func(a *accounts)
	contents func() map[string][]byte
}

// single is a patient of one server.
func single(t *testing.T, s *testservers.RedisServer, addr, more string, o redis.Options) *patient {
	t.Helper()
	o.Addr = s.Addr()
	c := redis.NewClient(&o)
	t.Cleanup(func() { _ = c.Close() })
	return &patient{online: fmt.Sprintf("{redis: {addrs: [%q]%s}}", addr, more),
		contents: func() map[string][]byte { return cached(t, c, "accounts:account@1:{") }}
}

func do(t *testing.T, s *testservers.RedisServer, args ...string) func(*accounts) {
	return func(*accounts) {
		t.Helper()
		if _, err := s.Do(args...); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
}

func set(t *testing.T, p *faults.Proxy, f faults.Fault) func(*accounts) {
	return func(*accounts) {
		t.Helper()
		if err := p.Set(f); err != nil {
			t.Fatal(err)
		}
	}
}

var troubles = []trouble{
	{name: "full", says: "redis is full", start: func(t *testing.T) *patient {
		s := testservers.Redis(t, testservers.RedisOptions{})
		p := single(t, s, s.Addr(), "", redis.Options{})
		p.breaks, p.heal = do(t, s, "CONFIG", "SET", "maxmemory", "1"), do(t, s, "CONFIG", "SET", "maxmemory", "0")
		return p
	}},
	{name: "demoted", says: "read-only replica", repair: true, start: func(t *testing.T) *patient {
		s := testservers.Redis(t, testservers.RedisOptions{})
		p := single(t, s, s.Addr(), "", redis.Options{})
		p.breaks, p.heal = do(t, s, "REPLICAOF", "127.0.0.1", "1"), do(t, s, "REPLICAOF", "NO", "ONE")
		return p
	}},
	{name: "down", says: "unreachable", start: func(t *testing.T) *patient {
		s := testservers.Redis(t, testservers.RedisOptions{})
		proxy := faults.NewProxy(t, s.Addr())
		p := single(t, s, proxy.Addr(), "", redis.Options{})
		p.breaks, p.heal = set(t, proxy, faults.Fault{Refuse: true}), set(t, proxy, faults.Fault{})
		return p
	}},
	{name: "resets in the middle of answers", says: "unreachable", repair: true, start: func(t *testing.T) *patient {
		s := testservers.Redis(t, testservers.RedisOptions{})
		proxy := faults.NewProxy(t, s.Addr())
		p := single(t, s, proxy.Addr(), "", redis.Options{})
		p.breaks, p.heal = set(t, proxy, faults.Fault{CutAfter: 40}), set(t, proxy, faults.Fault{})
		return p
	}},
	{name: "the password changed", says: "access denied", start: func(t *testing.T) *patient {
		s := testservers.Redis(t, testservers.RedisOptions{Password: "old-secret"})
		p := single(t, s, s.Addr(), ", password_env: STRESS_PASSWORD", redis.Options{Password: "old-secret"})
		p.env = []string{"STRESS_PASSWORD=old-secret"}
		p.breaks = do(t, s, "CONFIG", "SET", "requirepass", "new-secret")
		p.heal = func(a *accounts) { a.r.env = append(a.r.env, "STRESS_PASSWORD=new-secret") }
		return p
	}},
	{name: "TLS of an unknown authority", says: "online.redis.tls", repair: true, start: func(t *testing.T) *patient {
		s := testservers.Redis(t, testservers.RedisOptions{TLS: true})
		ca := fmt.Sprintf(", tls: {ca_file: %q}", s.Certs().CAFile)
		p := single(t, s, s.Addr(), ca, redis.Options{TLSConfig: s.TLSConfig()})
		swap := func(from, to string) func(*accounts) {
			return func(a *accounts) { a.r.edit(func(text string) string { return strings.Replace(text, from, to, 1) }) }
		}
		p.breaks, p.heal = swap(ca, ", tls: {}"), swap(", tls: {}", ca)
		return p
	}},
	{name: "a shard down", says: "unreachable", repair: true, start: func(t *testing.T) *patient {
		cluster := testservers.RedisCluster(t, testservers.ClusterOptions{})
		var addrs []string
		for _, n := range cluster.Nodes {
			addrs = append(addrs, fmt.Sprintf("%q", n.Addr()))
		}
		c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs()})
		t.Cleanup(func() { _ = c.Close() })
		return &patient{online: fmt.Sprintf("{redis: {addrs: [%s], cluster: true}}", strings.Join(addrs, ", ")),
			breaks: func(*accounts) { cluster.Nodes[1].Kill() },
			heal:   func(*accounts) { cluster.Nodes[1].Restart(); cluster.WaitReady() }, // empty
			contents: func() map[string][]byte {
				held := map[string][]byte{}
				for _, n := range cluster.Nodes {
					one := redis.NewClient(&redis.Options{Addr: n.Addr()})
					for k, v := range cached(t, one, "accounts:account@1:{") {
						held[k] = v
					}
					_ = one.Close()
				}
				return held
			}}
	}},
}

// TestRedisUnderStress: whatever is wrong with Redis, a run stores everything in the table, ends
// partial with how far Redis is behind, and the next run or verify --repair heals it: the
// next run without a conditional write, the repair without the source. It guards
// against failures that count as through, and files that are behind and forgotten.
func TestRedisUnderStress(t *testing.T) {
	t.Parallel()
	seed := faults.Seed(t)
	for _, tr := range troubles {
		t.Run(tr.name, func(t *testing.T) {
			p := tr.start(t)
			a := newAccounts(t, rand.New(rand.NewPCG(seed, 3)), 400, p.online, "{sqlite: {path: .hearth/backing.db}}")
			a.r.env = append(a.r.env, p.env...)
			a.write(300)
			a.r.must(0, nil, "materialize")
			a.check("Redis", p.contents(), false)

			p.breaks(a)
			a.write(200)
			var m materializeDoc
			a.r.must(3, &m, "materialize")
			v := m.Views[0]
			if m.Status != "partial" || v.Backing.Failed != 0 || v.Backing.Written == 0 || v.Online.Behind == 0 || v.Online.Behind > v.Backing.Written {
				t.Errorf("with Redis in trouble: %+v", m)
			}
			if tr.name != "a shard down" && v.Online.Behind != v.Backing.Written {
				t.Errorf("%d values are stored, %d are behind", v.Backing.Written, v.Online.Behind)
			}
			if text := a.r.run("materialize").stderr; !strings.Contains(text, tr.says) || strings.Contains(text, "secret") {
				t.Errorf("the report does not say %q (or a secret):\n%s", tr.says, text)
			}
			var status struct {
				Views []struct {
					Behind int64 `json:"online_behind"`
				} `json:"views"`
			}
			a.r.must(a.r.run("status").code, &status, "status")
			if len(status.Views) != 1 || status.Views[0].Behind == 0 {
				t.Errorf("status does not say that Redis is behind: %+v", status)
			}

			p.heal(a)
			if tr.repair {
				a.hideSource()
				a.r.must(0, nil, "verify", "--repair")
			} else {
				a.r.must(0, &m, "materialize")
				if v := m.Views[0]; m.Status != "done" || v.Backing.Written+v.Backing.Unchanged+v.Backing.Older != 0 {
					t.Errorf("the healing run: %+v", m)
				}
			}
			a.check("Redis", p.contents(), false)
			a.r.must(0, &status, "status")
			if status.Views[0].Behind != 0 {
				t.Errorf("status after healing: %+v", status)
			}
		})
	}
}

// hideSource takes the source away: what comes now does not need it.
func (a *accounts) hideSource() {
	a.t.Helper()
	if err := os.Rename(filepath.Join(a.r.dir, "data"), filepath.Join(a.r.dir, "away")); err != nil {
		a.t.Fatal(err)
	}
}

// TestScriptsLost: NOSCRIPT after a restart or a SCRIPT FLUSH is no trouble at all.
func TestScriptsLost(t *testing.T) {
	t.Parallel()
	s := testservers.Redis(t, testservers.RedisOptions{AOF: true})
	p := single(t, s, s.Addr(), "", redis.Options{})
	a := newAccounts(t, rand.New(rand.NewPCG(faults.Seed(t), 4)), 200, p.online, "{sqlite: {path: .hearth/backing.db}}")
	a.write(200)
	a.r.must(0, nil, "materialize")
	s.Kill()
	s.Restart()
	a.write(200)
	a.r.must(0, nil, "materialize")
	do(t, s, "SCRIPT", "FLUSH")(a)
	a.write(200)
	a.r.must(0, nil, "materialize")
	a.check("Redis", p.contents(), false)
}
