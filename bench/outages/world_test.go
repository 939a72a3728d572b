// Package outages plays the outages that a reader is made for, over real servers: Redis
// killed, slow, one shard of a cluster frozen, DynamoDB throttling, both gone, everything
// back. Each drill is asserted as a test, and drawn:
//
//	go test ./bench/outages -run Drill -draw "$PWD/docs" -phase 6s
//
// writes outage-*.svg into docs: requests per second, p99 and the shares of the tiers over
// time. Without -draw a phase is a few hundred requests long.
package outages

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/faults"
	"github.com/hearthstore/hearth/internal/testservers"
	"github.com/hearthstore/hearth/online"
	"github.com/hearthstore/hearth/reader"
)

var (
	draw  = flag.String("draw", "", "folder to draw the drills into")
	phase = flag.Duration("phase", 6*time.Second, "with -draw: how long a phase is")
)

func TestMain(m *testing.M) { flag.Parse(); goleak.VerifyTestMain(testservers.Wrap(m)) }

const (
	entities = 2000
	features = 10
	clients  = 8
	batch    = 10 // entities of a request
	rateCap  = 40 // calls of DynamoDB a second
	inFlight = 8
)

// world is a reader over real servers, every request of which to DynamoDB is noted.
type world struct {
	t       *testing.T
	reader  *reader.Reader
	online  *online.Store
	backing *dynamodb.Store
	table   *faults.DynamoDBTransport

	mu    sync.Mutex
	kind  faults.Kind // what every read of the table meets
	calls []time.Time // when each was sent
	asked map[string]int

	begin   time.Time
	samples chan sample
	bands   []band
}

// sample is one answered request.
type sample struct {
	at, took                                time.Duration
	cache, online, backing, stale, defaults int
}

// band is one phase in the drawing.
type band struct {
	name string
	at   time.Duration
}

func newWorld(t *testing.T, oc online.Config, change func(*reader.Config)) *world {
	t.Helper()
	w := &world{t: t, kind: faults.None, asked: map[string]int{}, begin: time.Now(), samples: make(chan sample, 1<<20)}
	view := feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "id", Type: feature.Int64}}}
	for i := range features {
		view.Features = append(view.Features, feature.Feature{Field: feature.Field{Name: "f" + strconv.Itoa(i), Type: feature.Float64}, Default: feature.Float64Value(-1)})
	}
	ref, err := feature.ParseFeatureRef("v:*")
	if err != nil {
		t.Fatal(err)
	}
	project := &feature.Project{Name: "drill", Views: []feature.View{view}, Services: []feature.Service{{Name: "all", Features: []feature.FeatureRef{ref}}}}

	oc.Project = project.Name
	if w.online, err = online.Open(t.Context(), oc); err != nil {
		t.Fatal(err)
	}
	inner := &http.Transport{MaxIdleConnsPerHost: 64}
	w.table = faults.NewDynamoDBTransport(inner, faults.Seed(t), faults.DynamoDBFaults{Decide: w.note})
	endpoint := testservers.Dynoxide(t, testservers.DynamoDBOptions{}).Endpoint()
	if w.backing, err = dynamodb.Open(t.Context(), dynamodb.Config{Table: "drill", Endpoint: endpoint, HTTPClient: w.table}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.backing.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	recs := make([]feature.Record, entities)
	for id := range recs {
		values := make([]feature.Value, features)
		for i := range values {
			values[i] = feature.Float64Value(value(id, i))
		}
		body, err := feature.AppendFeatures(nil, view.Fields(), values)
		if err != nil {
			t.Fatal(err)
		}
		h := feature.Header{Fingerprint: view.Fingerprint(), Version: feature.Version{Event: feature.MicrosOf(w.begin), Created: feature.NoTime, Run: 1}}
		if recs[id], err = feature.NewRecord(&project.Views[0], feature.Key(fmt.Sprintf("id=%d", id)), feature.AppendPayload(nil, h, body)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tier := range []interface {
		Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error)
	}{w.backing, w.online} {
		results, err := tier.Put(t.Context(), recs)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Outcome != feature.Written {
				t.Fatal(r.Outcome, r.Err)
			}
		}
	}
	cfg := reader.Config{
		Project: project, Online: w.online, Backing: w.backing, MaxBackingRPS: rateCap, MaxBackingInFlight: inFlight,
		BackingTimeout: 300 * time.Millisecond,
		Cache:          reader.CacheConfig{TTL: time.Second, ServeStale: 5 * time.Second},
		Breaker:        reader.BreakerConfig{MaxPause: 2 * time.Second},
	}
	if change != nil {
		change(&cfg)
	}
	if w.reader, err = reader.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.reader.Close(), w.online.Close(), w.backing.Close()); err != nil {
			t.Error(err)
		}
		inner.CloseIdleConnections()
	})
	return w
}

// value is what every tier holds for a feature: an answer of anything else is wrong.
func value(id, i int) float64 { return float64(id) + float64(i)/16 }

// note runs for every request to DynamoDB.
func (w *world) note(c faults.Call) faults.Kind {
	if c.Operation != "BatchGetItem" {
		return faults.None
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, time.Now())
	for _, key := range keysOf(c.Body) {
		w.asked[key]++
	}
	return w.kind
}

func (w *world) dynamo(k faults.Kind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kind = k
}

// counts are the answers of one phase, by what they said.
type counts struct{ cache, online, backing, stale, defaults, requests atomic.Int64 }

// drive loads the reader until the phase is over: for its time when drawing, and else for
// at least 200 requests and until the phase has shown what it is about. Every answer is
// checked: no error, no value that was not written, nothing that is not labelled.
func (w *world) drive(name string, shown func(*counts) bool) {
	w.t.Helper()
	w.bands = append(w.bands, band{name, time.Since(w.begin)})
	ctx, cancel := context.WithTimeout(w.t.Context(), 90*time.Second)
	defer cancel()
	if *draw != "" {
		ctx, cancel = context.WithTimeout(w.t.Context(), *phase)
		defer cancel()
	}
	var n counts
	var done atomic.Bool
	var wg sync.WaitGroup
	for c := range clients {
		rng := rand.New(rand.NewPCG(uint64(c), uint64(len(w.bands))))
		wg.Go(func() {
			pace := time.NewTicker(20 * time.Millisecond)
			defer pace.Stop()
			for !done.Load() && ctx.Err() == nil && !w.t.Failed() {
				w.request(rng, &n)
				if *draw == "" && n.requests.Load() >= 200 && shown(&n) {
					done.Store(true)
				}
				select {
				case <-pace.C:
				case <-ctx.Done():
				}
			}
		})
	}
	wg.Wait()
	w.t.Logf("%-24s %5d requests; values from cache %d, online %d, backing %d, last known %d, defaults %d", name, n.requests.Load(), n.cache.Load(), n.online.Load(), n.backing.Load(), n.stale.Load(), n.defaults.Load())
	if !shown(&n) {
		w.t.Errorf("%s: the phase never showed what it is about; online %+v, backing %+v", name, w.reader.Stats().Online, w.reader.Stats().Backing)
	}
}

func (w *world) request(rng *rand.Rand, n *counts) {
	ids := make([]int, batch)
	rows := make([]map[string]string, batch)
	for i := range ids {
		ids[i] = rng.IntN(entities)
		rows[i] = map[string]string{"id": strconv.Itoa(ids[i])}
	}
	begin := time.Now()
	resp, err := w.reader.Get(context.WithoutCancel(w.t.Context()), reader.Request{Service: "all", Entities: rows})
	if err != nil {
		w.t.Errorf("a read failed: %v", err)
		return
	}
	s := sample{at: begin.Sub(w.begin), took: time.Since(begin)}
	for i, id := range ids {
		row := resp.Row(i)
		for f := range row.Len() {
			it := row.At(f)
			switch {
			case it.Status == feature.Unknown && it.Tier == feature.TierDefault && it.Value.Float() == -1 && len(resp.Unreachable) > 0:
				continue // the default, and it says why
			case it.Status != feature.Present || it.Value.Float() != value(id, f):
				w.t.Errorf("id %d: %v %s from %s; unreachable %+v", id, it.Value.Float(), it.Status, it.Tier, resp.Unreachable)
			case it.Stale && (it.Tier != feature.TierCache || len(resp.Unreachable) == 0):
				w.t.Errorf("id %d: last known, from %s with no tier out", id, it.Tier)
			}
		}
		switch it := row.At(0); {
		case it.Stale:
			s.stale++
		case it.Tier == feature.TierCache:
			s.cache++
		case it.Tier == feature.TierOnline:
			s.online++
		case it.Tier == feature.TierBacking:
			s.backing++
		default:
			s.defaults++
		}
	}
	for _, add := range []struct {
		to *atomic.Int64
		n  int
	}{{&n.cache, s.cache}, {&n.online, s.online}, {&n.backing, s.backing}, {&n.stale, s.stale}, {&n.defaults, s.defaults}, {&n.requests, 1}} {
		add.to.Add(int64(add.n))
	}
	w.samples <- s
}

// finish checks the cap and draws.
func (w *world) finish(file, title string) {
	w.t.Helper()
	w.mu.Lock()
	calls := slices.Clone(w.calls)
	w.mu.Unlock()
	if at, n := worstSecond(calls); n > rateCap+inFlight {
		w.t.Errorf("%d requests to DynamoDB in the second from %s: the cap is %d, and %d that were allowed before may be late", n, at.Sub(w.begin), rateCap, inFlight)
	} else {
		w.t.Logf("%d requests to DynamoDB, at most %d in a second (cap %d)", len(calls), n, rateCap)
	}
	if *draw != "" && !w.t.Failed() {
		w.drawTo(file, title)
	}
}

// worstSecond is the second with the most calls.
func worstSecond(calls []time.Time) (at time.Time, most int) {
	slices.SortFunc(calls, time.Time.Compare)
	first := 0
	for i := range calls {
		for calls[i].Sub(calls[first]) >= time.Second {
			first++
		}
		if n := i - first + 1; n > most {
			at, most = calls[first], n
		}
	}
	return at, most
}
