package sim_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sim"
	"github.com/hearthstore/hearth/materializer"
	"github.com/hearthstore/hearth/reader"
	"github.com/hearthstore/hearth/rewarm"
)

// How many schedules a plain and a short test run try. CI and `make soak` try more by
// HEARTH_SIM_SCHEDULES; HEARTH_SIM_SEED replays one with its trace.
const (
	defaultSchedules = 10_000
	shortSchedules   = 3_000
)

// TestTwoStores runs the real materializer, push, rewarm and read repair over both tiers in
// seeded interleavings with crashes, lost answers, throttles, partitions, flushes,
// evictions, deletions and expiries, and checks I4, I5 and I12 at every change of a tier,
// and I7, I8 and convergence at the end. docs/CONSISTENCY.md lists the broken variants with
// which it was seen red.
func TestTwoStores(t *testing.T) {
	if text := os.Getenv("HEARTH_SIM_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			var lines []string
			err := simulate(seed, t, func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) })
			t.Logf("seed %d:\n%s", seed, strings.Join(lines, "\n"))
			if err != nil {
				t.Error(err)
			}
		})
		return
	}
	n := uint64(defaultSchedules)
	if testing.Short() {
		n = shortSchedules
	}
	if text := os.Getenv("HEARTH_SIM_SCHEDULES"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	const lanes = 4
	var ran atomic.Uint64
	t.Cleanup(func() { t.Logf("%d schedules", ran.Load()) })
	for lane := range uint64(lanes) {
		t.Run(strconv.FormatUint(lane, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for seed := lane + 1; seed <= n; seed += lanes {
					if err := simulate(seed, t, func(string, ...any) {}); err != nil {
						t.Fatalf("seed %d: %v\nreplay with HEARTH_SIM_SEED=%d go test ./internal/sim -run TestTwoStores -v", seed, err, seed)
					}
					ran.Add(1)
				}
			})
		})
	}
}

var epoch = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)

const keys = 3

// universe is one schedule.
type universe struct {
	t       *testing.T
	rng     *rand.Rand
	view    *feature.View
	project *feature.Project
	broken  mutant
	clock   *sim.Clock
	source  *sim.Source
	backing *sim.Backing
	online  *sim.Online
	state   *memState
	docs    map[string]document
	check   *checker
	trace   func(string, ...any)

	run    uint64
	chunk  int64 // rows that a run takes before it records their files
	files  int64
	offset time.Duration // how far the clock has moved within a phase
	mu     sync.Mutex
	newest map[feature.Key][2]feature.Micros // newest times that files offered or pushes stored; guarded by mu
}

func simulate(seed uint64, t *testing.T, trace func(string, ...any)) error {
	return simulateBroken(mutant{}, seed, t, trace)
}

func simulateBroken(m mutant, seed uint64, t *testing.T, trace func(string, ...any)) error {
	u := newUniverse(seed, t, trace)
	u.broken = m
	u.online.Compare, u.backing.Force = m.compare, m.force
	for range 1 + u.rng.IntN(2) {
		u.writeFiles()
		s := u.scheduler()
		for id := range 2 + u.rng.IntN(3) {
			u.launch(s, id)
		}
		if err := s.run(); err != nil {
			return err
		}
		if err := u.check.first(); err != nil {
			return err
		}
		u.between()
	}
	return u.settle()
}

func newUniverse(seed uint64, t *testing.T, trace func(string, ...any)) *universe {
	rng := rand.New(rand.NewPCG(seed, 1))
	u := &universe{t: t, rng: rng, clock: sim.NewClock(epoch), source: sim.NewSource(), backing: sim.NewBacking(), docs: map[string]document{},
		trace: trace, newest: map[feature.Key][2]feature.Micros{}}
	u.view = &feature.View{Name: "v", Version: 1, Entities: []string{"e"}, JoinKeys: []feature.JoinKey{{Name: "id", Type: feature.Int64}},
		Features: []feature.Feature{{Field: feature.Field{Name: "n", Type: feature.Int64}}}}
	switch rng.IntN(8) { // else neither ends
	case 0, 1:
		u.view.TTL = 5 * time.Hour
	case 2:
		u.view.TTL, u.view.Retain = 3*time.Hour, 5*time.Hour
	case 3:
		u.view.TTL, u.view.Retain = 5*time.Hour, 4*time.Hour
	case 4:
		u.view.Retain = 4 * time.Hour
	}
	u.chunk = rng.Int64N(4) + 1
	if rng.IntN(2) == 0 {
		u.view.Source.CreatedTimestampColumn = "created"
	}
	u.project = &feature.Project{Name: "p", Views: []feature.View{*u.view}}
	u.view = &u.project.Views[0]
	u.online = sim.NewOnline(u.clock)
	u.state = sim.NewState[materializer.Slot, materializer.Progress, materializer.FileSet](func(p materializer.Progress) uint64 { return p.LastRun })
	u.check = newChecker(u.view)
	u.backing.Observe, u.online.Observe = u.check.sawBacking, u.check.sawOnline
	return u
}

func (u *universe) scheduler() *scheduler {
	u.offset = 0
	return &scheduler{rng: u.rng, clock: u.clock, faults: u.rng.IntN(5), trace: u.trace, env: u.happen}
}

// happen is one thing that befalls the world between two steps. The clock moves less than
// the age bounds of the workers: beyond them they stop on their own, which their own tests
// show.
func (u *universe) happen() {
	switch u.rng.IntN(6) {
	case 0:
		u.trace("--- the online tier is flushed")
		u.online.Flush()
	case 1, 2:
		ref := feature.Ref{View: u.view.ID(), Key: keyOf(u.rng.IntN(keys))}
		u.trace("--- %s is evicted", ref)
		u.online.Evict(ref)
	case 3, 4:
		if u.offset < 40*time.Minute {
			u.trace("--- 10 minutes pass")
			u.clock.Advance(10 * time.Minute)
			u.offset += 10 * time.Minute
		}
	case 5:
		u.backing.Expire(feature.MicrosOf(u.clock.Now()))
	}
}

// between is what happens while nothing runs.
func (u *universe) between() {
	switch u.rng.IntN(4) {
	case 0:
		u.online.Flush()
		u.trace("--- the online tier is flushed between the phases")
	case 1:
		u.clock.Advance(2 * time.Hour)
		u.backing.Expire(feature.MicrosOf(u.clock.Now()))
		u.trace("--- 2 hours pass between the phases")
	}
}

func keyOf(i int) feature.Key { return feature.Key("id=" + strconv.Itoa(i)) }

// randomRow has one of few times, so that runs tie, correct each other and come late.
func (u *universe) randomRow() feature.Row {
	r := feature.Row{Key: keyOf(u.rng.IntN(keys)), Event: feature.MicrosOf(epoch.Add(time.Duration(u.rng.IntN(4)-4) * time.Hour)), Created: feature.NoTime}
	if u.rng.IntN(3) == 0 {
		r.Created = r.Event.Add(time.Duration(u.rng.IntN(2)) * time.Minute)
	}
	if u.rng.IntN(6) == 0 {
		r.Deleted = true
	} else {
		f, err := feature.AppendFeatures(nil, u.view.Fields(), []feature.Value{feature.IntValue(u.rng.Int64N(3))})
		if err != nil {
			u.t.Fatal(err)
		}
		r.Features = f
	}
	return r
}

func (u *universe) offer(r feature.Row) {
	best, ok := u.newest[r.Key]
	if !ok || r.Event > best[0] || r.Event == best[0] && r.Created > best[1] {
		u.newest[r.Key] = [2]feature.Micros{r.Event, r.Created}
	}
}

func (u *universe) writeFiles() {
	for range 1 + u.rng.IntN(2) {
		rows := make([]feature.Row, 1+u.rng.IntN(3))
		for i := range rows {
			rows[i] = u.randomRow()
			u.offer(rows[i])
		}
		u.files++
		path := "f" + strconv.FormatInt(u.files, 10)
		u.source.Write(path, u.files, rows...)
		u.trace("--- file %s: %d rows", path, len(rows))
	}
}

func (u *universe) materializer(a *actor) *materializer.Materializer {
	cfg := materializer.Config{Source: u.source, Backing: u.backing, Online: u.online, State: u.state, Clock: u.clock,
		BatchSize: 2, BackingWorkers: 1, OnlineWorkers: 1, Attempts: 2, MaxFailedBatches: 1, ChunkBytes: u.chunk, PassedKeys: 2}
	cfg.Reserve = func(_ context.Context, n int) (uint64, error) {
		if a != nil {
			if err := a.gate("reserve run numbers", false).err(); err != nil {
				return 0, err
			}
		}
		first := u.run + 1
		u.run += uint64(n)
		return first, nil
	}
	if a != nil {
		cfg.Source, cfg.Backing, cfg.Online = gatedSource{u.source, a}, u.gatedBacking(a), u.gatedOnline(a)
		cfg.State, cfg.Clock = gatedState{u.state, a}, actorClock{u.clock, a}
	}
	m, err := materializer.New(cfg)
	if err != nil {
		u.t.Fatal(err)
	}
	return m
}

func (u *universe) request(run uint64) materializer.Request {
	return materializer.Request{Run: run, Views: []*feature.View{u.view}, Start: feature.NoTime, End: feature.NoTime}
}

// launch starts an actor. What it does is decided before it starts: the seed alone counts.
func (u *universe) launch(s *scheduler, id int) {
	u.run++
	run := u.run
	switch n := u.rng.IntN(11); {
	case n == 10:
		ref := feature.Ref{View: u.view.ID(), Key: keyOf(u.rng.IntN(keys))}
		s.start(id, fmt.Sprintf("forget %d", run), func(a *actor) {
			at := feature.MicrosOf(u.clock.Now())
			if _, err := u.materializer(a).Forget(u.t.Context(), materializer.ForgetRequest{Run: run, Refs: []feature.Ref{ref}}); err == nil {
				u.check.forgot(ref, at)
			}
		})
	case n < 4:
		req := u.request(run)
		req.Full = u.rng.IntN(4) == 0
		s.start(id, fmt.Sprintf("materialize %d", run), func(a *actor) {
			_, _ = u.materializer(a).Run(u.t.Context(), req)
		})
	case n < 6:
		rows := make([]feature.Row, 1+u.rng.IntN(2))
		for i := range rows {
			rows[i] = u.randomRow()
		}
		s.start(id, fmt.Sprintf("push %d", run), func(a *actor) {
			r, _ := u.materializer(a).Push(u.t.Context(), materializer.PushRequest{Run: run, View: u.view, Rows: rows})
			u.pushed(rows, r)
		})
	case n < 8:
		req := rewarm.Request{Run: run, Segments: 1 + u.rng.IntN(2), Restart: u.rng.IntN(2) == 0, IfCold: u.rng.IntN(3) == 0}
		s.start(id, fmt.Sprintf("rewarm %d", run), func(a *actor) {
			_, _ = u.rewarmer(a).Run(u.t.Context(), req)
		})
	default:
		key := u.rng.IntN(keys)
		s.start(id, fmt.Sprintf("read %d", run), func(a *actor) { u.read(a, key) })
	}
}

// pushed notes what a push said it stored: from then on it must not be lost.
func (u *universe) pushed(rows []feature.Row, r *materializer.PushReport) {
	if r == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, res := range r.Results {
		switch res.Backing {
		case "written", "unchanged", "older":
			u.offer(rows[i])
		}
	}
}

func (u *universe) rewarmer(a *actor) *rewarm.Rewarmer {
	r, err := rewarm.New(rewarm.Config{Backing: u.rewarmBacking(a), Online: u.rewarmOnline(a), State: documents{a, u.docs},
		Views: []*feature.View{u.view}, Workers: 1, PutsInFlight: 1, BatchSize: 2, Attempts: 2, Canaries: 1, Clock: actorClock{u.clock, a}})
	if err != nil {
		u.t.Fatal(err)
	}
	return r
}

// read asks the real reader, whose repair writes up what only the backing tier had.
func (u *universe) read(a *actor, key int) {
	r, err := reader.New(reader.Config{Project: u.project, Online: u.repairOnline(a), Backing: gatedBacking{u.backing, a}, Clock: actorClock{u.clock, a},
		Cache: reader.CacheConfig{MaxEntries: -1, NegativeEntries: -1}, OnlineTimeout: time.Hour, BackingTimeout: time.Hour, Repair: reader.RepairConfig{Timeout: time.Hour, Queue: 4}})
	if err != nil {
		u.t.Error(err)
		return
	}
	_, _ = r.Get(u.t.Context(), reader.Request{Features: []string{"v:n"}, Entities: []map[string]string{{"id": strconv.Itoa(key)}}})
	_ = r.Close()
}

// TestReplay: one seed is one schedule, call by call, or a failing seed could not be
// replayed.
func TestReplay(t *testing.T) {
	record := func(t *testing.T, seed uint64) string {
		var b strings.Builder
		if err := simulate(seed, t, func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(300) {
			if first, second := record(t, seed), record(t, seed); first != second {
				a, b := strings.Split(first, "\n"), strings.Split(second, "\n")
				i := 0
				for i < min(len(a), len(b)) && a[i] == b[i] {
					i++
				}
				t.Fatalf("seed %d gave two schedules, which part after line %d:\n%s\n\n%s", seed, i, strings.Join(a[max(0, i-5):min(len(a), i+3)], "\n"), strings.Join(b[max(0, i-5):min(len(b), i+3)], "\n"))
			}
		}
	})
}
