package rewarm

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// oneThread is the time that calls take of a server that does one after another, as Redis
// does: so much for each value put, and a little for a read.
type oneThread struct {
	mu   sync.Mutex
	rng  *rand.Rand
	busy time.Time
	item time.Duration
}

func (s *oneThread) take(d time.Duration) {
	s.mu.Lock()
	now := clock.System.Now()
	if s.busy.Before(now) {
		s.busy = now
	}
	s.busy = s.busy.Add(d)
	wait := s.busy.Sub(now) + 400*time.Microsecond + time.Duration(s.rng.IntN(200))*time.Microsecond // the way there and back
	s.mu.Unlock()
	_ = clock.System.Sleep(context.Background(), wait)
}

// live reads every millisecond, on a connection of its own, until it is stopped, and says
// what the 99th of a hundred reads took.
func (s *oneThread) live() (stop func() time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan time.Duration)
	go func() {
		var took []time.Duration
		for clock.System.Sleep(ctx, time.Millisecond) == nil {
			began := clock.System.Now()
			s.take(time.Microsecond)
			took = append(took, clock.System.Now().Sub(began))
		}
		slices.Sort(took)
		result <- took[len(took)*99/100]
	}()
	return func() time.Duration { cancel(); return <-result }
}

// A run that may slow live reads down twice does so at most, on servers that are fast and
// slow, and one that may not be gentle does far more: so the test would notice.
// Seen red with: what the reads show not looked at; batches of one size at any rate.
func TestLiveReadsKeepTheirP99(t *testing.T) {
	t.Parallel()
	for _, item := range []time.Duration{4 * time.Microsecond, 14 * time.Microsecond, 40 * time.Microsecond} { // a usual put takes 1.2 ms to 12 ms
		synctest.Test(t, func(t *testing.T) {
			server := &oneThread{rng: rand.New(rand.NewPCG(uint64(item), 1)), item: item}
			w := &world{t: t, views: testViews(), table: newTable(), online: newCache(clock.System, 1), state: newMemory()}
			w.table.limit = 2000
			w.table.unit = 0
			w.fill(10_000)
			reading := server.live()
			_ = clock.System.Sleep(t.Context(), 2*time.Second)
			before := reading()

			w.online.onPut = func(_ int, recs []feature.Record) error { server.take(time.Duration(len(recs)) * item); return nil }
			w.online.onGet = func() { server.take(time.Microsecond) }
			during := func(req Request) (time.Duration, *Report) {
				w.online.flush()
				reading := server.live()
				r, err := New(Config{Backing: w.table, Online: w.online, State: newMemory(), Views: w.views, Clock: clock.System, Canaries: 16, Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				rep, err := r.Run(t.Context(), req)
				p99 := reading()
				if err != nil || rep.Status != StatusDone || rep.Written != 20_000 {
					t.Errorf("%s: %d written, %v", rep.Status, rep.Written, err)
				}
				return p99, rep
			}
			usual, _ := during(Request{Run: 1, IfCold: true})
			gentle, rep := during(Request{Run: 2, IfCold: true, MaxSlowdown: 2})
			l := rep.LiveReads
			if l == nil || l.Reads == 0 {
				t.Fatalf("%s an item: no live reads in %+v", item, rep)
			}
			t.Logf("%s an item: p99 %s before, %s during a usual run, %s during a gentle one of %.0f items/s: %s", item, before, usual, gentle, rep.ItemsPerSecond, l)
			// On the slowest, Config.PutTarget lets a usual run put next to nothing.
			if usual <= 2*before && item < 40*time.Microsecond {
				t.Errorf("%s an item: a usual run is gentle enough (p99 %s, %s before): this test shows nothing", item, usual, before)
			}
			if gentle > 2*before {
				t.Errorf("%s an item: p99 %s, %s before: more than twice", item, gentle, before)
			}
			if !strings.Contains(l.String(), "took longer than") || l.Limit < 1.9*l.BeforeP99 || l.Slower*50 > l.Reads {
				t.Errorf("%s an item: %+v", item, l)
			}
		})
	}
}
