package reader_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/breaker"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
)

// attempter is a backing tier that is asked once per call, as DynamoDB is.
type attempter struct{ *tier }

func (a attempter) Attempt(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	return a.tier.Get(ctx, refs)
}

// DynamoDB throttles: refused keys are asked for again while someone waits, every request
// counts against the cap, and when it recovers the values come without a spike. Seen red
// with the fetcher landing refused keys at once (70 of 200 values came), and with requests
// that repeat keys sent past the limiter.
func TestThrottlingStaysUnderCap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 20
		b := newBundle(t, func(c *reader.Config) {
			c.Clock, c.MaxBackingRPS, c.BackingTimeout = clock.System, limit, 2*time.Second
			c.Backing = attempter{c.Backing.(*tier)}
			c.Cache.MaxEntries, c.Cache.NegativeEntries = -1, -1
			c.Breaker = reader.BreakerConfig{Failures: 1000}
		})
		b.online.clock, b.backing.clock = clock.System, clock.System
		b.online.faults(refused, nil)
		now := time.Now()
		for id := range 400 {
			b.backing.set(stats(t, b.project, id, now, 1, float64(id)))
		}
		// A request gets the keys of one length in three, and every fourth request none at all.
		var mu sync.Mutex
		calls := 0
		throttling := true
		b.backing.faults(func(context.Context, []feature.Ref) error {
			mu.Lock()
			defer mu.Unlock()
			if calls++; throttling && calls%4 == 0 {
				return fmt.Errorf("%w: too fast", feature.ErrThrottled)
			}
			return nil
		}, func(ref feature.Ref, r feature.GetResult) feature.GetResult {
			mu.Lock()
			defer mu.Unlock()
			if len(ref.Key)%3 != calls%3 && throttling {
				return feature.GetResult{Err: feature.ErrThrottled}
			}
			return r
		})
		read := func(from, to int) (present int) {
			var wg sync.WaitGroup
			var got sync.Map
			for id := from; id < to; id++ {
				wg.Go(func() { got.Store(id, b.get(id).Row(0).At(0)) })
			}
			wg.Wait()
			got.Range(func(id, v any) bool {
				switch it := v.(reader.Item); it.Status {
				case feature.Present:
					if present++; it.Value.Float() != float64(id.(int)) {
						t.Errorf("driver %v: %v", id, it.Value)
					}
				case feature.Unknown:
				default:
					t.Errorf("driver %v is %s", id, it.Status)
				}
				return true
			})
			return present
		}
		if n := read(0, 200); n != 200 {
			t.Errorf("%d of 200 values came while most keys of each request were refused", n)
		}
		if again := b.backing.readCounts(); len(again) != 200 {
			t.Errorf("%d keys asked for", len(again))
		}
		checkRate(t, b.backing.callLog(), limit)
		// Nothing is taken any more: every answer says so, and the cap holds.
		b.backing.faults(nil, func(feature.Ref, feature.GetResult) feature.GetResult {
			return feature.GetResult{Err: feature.ErrThrottled}
		})
		resp := b.get(300)
		if it := resp.Row(0).At(0); it.Status != feature.Unknown {
			t.Errorf("throttled for good: %s", it.Status)
		}
		if o := resp.Unreachable; len(o) != 2 || o[1].Reason != reader.ReasonThrottled {
			t.Errorf("unreachable: %+v", o)
		}
		before := len(b.backing.callLog())
		if err := clock.System.Sleep(t.Context(), 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if after := len(b.backing.callLog()); after > before+1 {
			t.Errorf("%d requests for a key that nobody waits for", after-before)
		}
		b.backing.faults(nil, nil)
		if n := read(200, 400); n != 200 {
			t.Errorf("%d of 200 values came after the recovery", n)
		}
		checkRate(t, b.backing.callLog(), limit)
	})
}

// A request whose online miss came late finds what another request's lookup has brought
// meanwhile: values and absences. Seen red with fetcher.known always saying no (two reads
// per key).
func TestLateJoinerFindsWhatLanded(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *reader.Config) { c.Repair.Disabled = true }) // else the late reader may find it online
	b.backing.set(stats(t, b.project, 1, start, 1, 0.5))
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.online.faults(func(context.Context, []feature.Ref) error {
		first := false
		once.Do(func() { first = true })
		if first {
			close(held)
			<-release
		}
		return nil
	}, nil)
	late := make(chan *reader.Response)
	go func() { late <- b.get(1, 2) }()
	<-held
	b.get(1, 2) // reads both and is done
	close(release)
	resp := <-late
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierCache, start)
	want(t, resp.Row(1), "stats:rate", feature.Float64Value(-1), feature.NotFound, feature.TierDefault, time.Time{})
	for ref, n := range b.backing.readCounts() {
		if n != 1 {
			t.Errorf("%s read %d times from the backing tier", ref, n)
		}
	}
}

// isolating is an online tier of several servers that leaves the failing ones alone itself.
type isolating struct {
	*tier
	nodes []reader.NodeStats
}

func (i isolating) Nodes() []reader.NodeStats { return i.nodes }

// One dead server of several: however many reads in a row want its keys alone, the others'
// keys still come from the online tier. Seen red with the tier's breaker counting those
// reads.
func TestOneDeadNodeDoesNotStopTheTier(t *testing.T) {
	t.Parallel()
	nodes := []reader.NodeStats{{Addr: "a:1", Breaker: reader.BreakerOpen}, {Addr: "b:1", Breaker: reader.BreakerClosed}}
	b := newBundle(t, func(c *reader.Config) {
		c.Online = isolating{c.Online.(*tier), nodes}
		c.Cache.MaxEntries, c.Cache.NegativeEntries = -1, -1
	})
	dead, alive := stats(t, b.project, 1, start, 1, 0.1), stats(t, b.project, 2, start, 1, 0.2)
	b.backing.set(dead, alive)
	b.online.set(dead, alive)
	b.online.faults(nil, func(ref feature.Ref, r feature.GetResult) feature.GetResult {
		if ref == driverRef(1) {
			return feature.GetResult{Err: breaker.ErrOpen}
		}
		return r
	})
	for range 20 {
		resp := b.get(1)
		want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.1), feature.Present, feature.TierBacking, start)
		wantUnreachable(t, resp, feature.TierOnline)
		if r := resp.Unreachable[0].Reason; r != reader.ReasonBreakerOpen {
			t.Fatalf("reason %q", r)
		}
	}
	want(t, b.get(2).Row(0), "stats:rate", feature.Float64Value(0.2), feature.Present, feature.TierOnline, start)
	if s := b.reader.Stats().Online; s.Breaker != reader.BreakerClosed || len(s.Nodes) != 2 {
		t.Errorf("online: %+v", s)
	}
	nodes[1].Breaker = reader.BreakerOpen
	if s := b.reader.Stats().Online; s.Breaker != reader.BreakerOpen {
		t.Errorf("with all its servers out the tier is %s", s.Breaker)
	}
}

// A caller who brings too little time says nothing about the tier's health.
func TestHurriedCallersDoNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t, func(c *reader.Config) { c.Clock, c.OnlineTimeout = clock.System, 100*time.Millisecond })
		b.online.faults(hang, nil)
		read := func(patience time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := b.reader.Get(ctx, reader.Request{Service: "drivers", Entities: drivers(1), SkipCache: true}); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			read(2 * time.Millisecond)
		}
		if s := b.reader.Stats().Online.Breaker; s != reader.BreakerClosed {
			t.Errorf("callers with 2 ms: %s", s)
		}
		for range 10 {
			read(time.Second)
		}
		if s := b.reader.Stats().Online.Breaker; s != reader.BreakerOpen {
			t.Errorf("callers with a second: %s", s)
		}
	})
}
