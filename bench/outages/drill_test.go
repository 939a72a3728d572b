package outages

import (
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/faults"
	"github.com/hearthstore/hearth/internal/testservers"
	"github.com/hearthstore/hearth/online"
	"github.com/hearthstore/hearth/reader"
)

// One Redis: slow, killed and back empty; DynamoDB throttling; both gone; everything back.
// Seen red with Response.Unreachable left empty, with unknown values served as absent, with
// the limiter letting everything through, and with serve-stale values not marked.
func TestDrillRedis(t *testing.T) {
	redis := testservers.Redis(t, testservers.RedisOptions{})
	proxy := faults.NewProxy(t, redis.Addr())
	w := newWorld(t, online.Config{Addrs: []string{proxy.Addr()}}, nil)
	set := func(f faults.Fault) {
		t.Helper()
		if err := proxy.Set(f); err != nil {
			t.Fatal(err)
		}
	}
	fromOnline := func(n *counts) bool { return n.online.Load() > 0 }
	fromBacking := func(n *counts) bool { return n.backing.Load() > 0 }
	lastKnown := func(n *counts) bool { return n.stale.Load() > 0 }
	labelled := func(n *counts) bool { return n.stale.Load()+n.defaults.Load() > 0 }

	w.drive("healthy", fromOnline)
	set(faults.Fault{Latency: 50 * time.Millisecond})
	w.drive("Redis 50 ms late", fromBacking)
	set(faults.Fault{})
	w.drive("healthy again", fromOnline)
	redis.Kill()
	w.drive("Redis killed", fromBacking)
	w.dynamo(faults.Throttled)
	w.drive("throttled table", lastKnown)
	w.dynamo(faults.Reset)
	w.drive("both gone", labelled)
	w.dynamo(faults.None)
	w.drive("DynamoDB back", fromBacking)
	redis.Restart() // empty: what was read is written up again
	w.drive("everything back", fromOnline)
	w.finish("outage-redis.svg", "One Redis over DynamoDB: what a model's reads see")
}

// A cluster of three: one master frozen, and thawed. Its keys come from the table, those of
// the others from Redis all the while, and one probe finds it again. Seen red with a breaker
// that never probes.
func TestDrillFrozenShard(t *testing.T) {
	cluster := testservers.RedisCluster(t, testservers.ClusterOptions{})
	w := newWorld(t, online.Config{Addrs: cluster.Addrs(), Cluster: true}, func(c *reader.Config) {
		if *draw == "" { // a busy machine must not look like three frozen shards
			c.OnlineTimeout = 4 * time.Second
		}
	})
	fromOnline := func(n *counts) bool { return n.online.Load() > 0 }
	both := func(n *counts) bool { return n.online.Load() > 0 && n.backing.Load() > 0 }

	w.drive("healthy", fromOnline)
	frozen := cluster.Nodes[1]
	frozen.Pause()
	defer frozen.Resume()
	w.drive("one shard of three frozen", both)
	if s := w.reader.Stats().Online; s.Breaker != reader.BreakerClosed {
		t.Errorf("one frozen shard: the tier is %s", s.Breaker)
	}
	frozen.Resume()
	w.drive("thawed", func(n *counts) bool {
		for _, node := range w.reader.Stats().Online.Nodes {
			if node.Breaker != reader.BreakerClosed {
				return false
			}
		}
		return n.online.Load() > 0
	})
	w.finish("outage-shard.svg", "One shard of a Redis Cluster frozen (SIGSTOP)")
}

var keyPattern = regexp.MustCompile(`"e":\{"S":"([^"]*)"\}`)

// keysOf are the entity keys of a BatchGetItem.
func keysOf(body []byte) []string {
	var keys []string
	for _, m := range keyPattern.FindAllSubmatch(body, -1) {
		keys = append(keys, string(m[1]))
	}
	return keys
}

// 10,000 goroutines ask for 100 keys of a Redis that has just come back empty: DynamoDB is
// asked once for each key. Seen red with fetcher.known always saying no.
func TestColdStampede(t *testing.T) {
	redis := testservers.Redis(t, testservers.RedisOptions{})
	w := newWorld(t, online.Config{Addrs: []string{redis.Addr()}, PoolSize: 64}, func(c *reader.Config) {
		c.OnlineTimeout, c.BackingTimeout = time.Minute, time.Minute
		c.Cache.TTL, c.Cache.NegativeTTL = time.Hour, time.Hour
	})
	redis.Restart()
	const keys, readers = 100, 10_000
	var wg sync.WaitGroup
	start := make(chan struct{})
	for g := range readers {
		wg.Go(func() {
			<-start
			id := g % keys
			resp, err := w.reader.Get(t.Context(), reader.Request{Service: "all", Entities: []map[string]string{{"id": strconv.Itoa(id)}, {"id": strconv.Itoa((id + 7) % keys)}}})
			if err != nil {
				t.Error(err)
				return
			}
			if it := resp.Row(0).At(3); it.Status != feature.Present || it.Value.Float() != value(id, 3) {
				t.Errorf("id %d: %v %s; unreachable %+v", id, it.Value, it.Status, resp.Unreachable)
			}
		})
	}
	close(start)
	wg.Wait()
	if len(w.asked) != keys {
		t.Errorf("%d keys were read from DynamoDB, want %d", len(w.asked), keys)
	}
	for key, n := range w.asked {
		if n != 1 {
			t.Errorf("%s was read %d times from DynamoDB", key, n)
		}
	}
}
