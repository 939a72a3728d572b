package reader_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
)

// truth is what a key was at one version.
type truth struct {
	rec     feature.Record
	rate    float64
	null    bool
	deleted bool
	since   time.Time // when the backing tier got it
}

// served is what a reader gets: the default for a null.
func (h truth) served() float64 {
	if h.null {
		return -1
	}
	return h.rate
}

// model is the obvious reference: everything ever stored, and what each tier may say now.
type model struct {
	t       *rapid.T
	ctx     context.Context
	clock   *clock.Fake
	project *feature.Project
	online  *tier
	backing *tier
	reader  *reader.Reader
	history map[int][]truth // newest last

	onlineOut, backingOut bool
	bad                   map[string]map[int]string // tier -> driver -> how its bytes or answers are wrong
	run                   uint64
	// said is when a tier last gave the reader the value of this event time.
	said map[int]map[feature.Micros]time.Time
}

const (
	modelKeys = 4
	cacheTTL  = 5 * time.Second
	absentTTL = time.Second
	staleFor  = 20 * time.Second
)

// I10, against a model: tiers fail, lose and damage values in random
// order, and every answer is the newest value of a tier that could be reached, or says
// what it is; every event time is a stored one, with its own value. Seen red with: online
// errors taken as absence and cached (NOT_FOUND for a live key); the cell's entry taken
// from the neighbouring row; a foreign schema decoded; a failed backing read answered as
// NOT_FOUND; the cache kept beyond its TTL.
func TestAnswersAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{t: rt, ctx: t.Context(), clock: clock.NewFake(start), project: testProject(t), history: map[int][]truth{}, said: map[int]map[feature.Micros]time.Time{}, bad: map[string]map[int]string{"online": {}, "backing": {}}}
		m.online, m.backing = newTier("online", m.clock), newTier("backing", m.clock)
		m.arm(m.online, &m.onlineOut)
		m.arm(m.backing, &m.backingOut)
		r, err := reader.New(reader.Config{
			Project: m.project, Online: m.online, Backing: m.backing, Clock: m.clock,
			Cache:         reader.CacheConfig{TTL: cacheTTL, NegativeTTL: absentTTL, ServeStale: staleFor},
			OnlineTimeout: time.Minute, BackingTimeout: time.Minute, MaxBackingRPS: 1_000_000,
			Breaker: reader.BreakerConfig{Failures: 1_000_000}, // breakers have tests of their own
			Repair:  reader.RepairConfig{Disabled: true},       // and so have repairs
		})
		if err != nil {
			rt.Fatal(err)
		}
		m.reader = r
		defer func() {
			if err := r.Close(); err != nil {
				rt.Error(err)
			}
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"materialize": m.materialize,
			"copy":        m.copyUp,
			"lose":        m.lose,
			"outage":      m.outage,
			"damage":      m.damage,
			"wait":        m.wait,
			"read":        m.read,
			"":            func(*rapid.T) {},
		})
	})
}

func (m *model) arm(f *tier, out *bool) {
	f.faults(func(ctx context.Context, refs []feature.Ref) error {
		if *out {
			return refused(ctx, refs)
		}
		return nil
	}, func(ref feature.Ref, r feature.GetResult) feature.GetResult {
		var id int
		if _, err := fmt.Sscanf(string(ref.Key), "driver_id=%d", &id); err != nil {
			m.t.Fatal(err)
		}
		how := m.bad[f.name][id]
		if how == "silent" {
			return feature.GetResult{Err: fmt.Errorf("%w: no answer for this key", feature.ErrUnreachable)}
		}
		if r.Payload == nil {
			return r
		}
		b := append([]byte(nil), r.Payload...)
		switch how {
		case "cut":
			b = b[:len(b)-1]
		case "format":
			b[0] = 0x7f
		case "schema":
			b[3] ^= 0xff
		default:
			return r
		}
		return feature.GetResult{Payload: b}
	})
}

// materialize stores a new version in the backing tier, and mostly in the online tier.
func (m *model) materialize(t *rapid.T) {
	id := rapid.IntRange(0, modelKeys-1).Draw(t, "driver")
	m.run++
	tr := truth{
		rate: rapid.Float64Range(0, 1).Draw(t, "rate"), null: rapid.IntRange(0, 3).Draw(t, "null") == 0,
		deleted: rapid.IntRange(0, 3).Draw(t, "deleted") == 0, since: m.clock.Now(),
	}
	at := m.clock.Now().Add(-time.Duration(rapid.IntRange(0, 7200).Draw(t, "age")) * time.Second)
	v := &m.project.Views[0]
	rate := feature.Float64Value(tr.rate)
	if tr.null {
		rate = feature.Null
	}
	if tr.deleted {
		tr.rec = tombstone(m.t, v, driverKey(id), at, m.run)
	} else {
		tr.rec = record(m.t, v, driverKey(id), at, m.run, rate, feature.IntValue(int64(id)), feature.StringValue("bonn"))
	}
	if h := m.history[id]; len(h) > 0 && h[len(h)-1].rec.Version.Compare(tr.rec.Version) > 0 {
		return // the stores would refuse it
	}
	m.history[id] = append(m.history[id], tr)
	m.backing.set(tr.rec)
	if rapid.IntRange(0, 2).Draw(t, "online") > 0 {
		m.online.set(tr.rec)
	}
}

func (m *model) copyUp(t *rapid.T) {
	id := rapid.IntRange(0, modelKeys-1).Draw(t, "driver")
	if rec, ok := m.backing.get(driverRef(id)); ok {
		m.online.set(rec)
	}
}

func (m *model) lose(*rapid.T) { m.online.wipe() }

func (m *model) outage(t *rapid.T) {
	m.onlineOut = rapid.Bool().Draw(t, "online out")
	m.backingOut = rapid.Bool().Draw(t, "backing out")
}

func (m *model) damage(t *rapid.T) {
	where := rapid.SampledFrom([]string{"online", "backing"}).Draw(t, "tier")
	id := rapid.IntRange(0, modelKeys-1).Draw(t, "driver")
	m.bad[where][id] = rapid.SampledFrom([]string{"", "", "cut", "format", "schema", "silent"}).Draw(t, "how")
}

func (m *model) wait(t *rapid.T) {
	m.clock.Advance(time.Duration(rapid.IntRange(0, 8000).Draw(t, "ms")) * time.Millisecond)
}

func (m *model) read(t *rapid.T) {
	ids := rapid.SliceOfN(rapid.IntRange(0, modelKeys-1), 1, 6).Draw(t, "drivers")
	skip := rapid.Bool().Draw(t, "skip cache")
	resp, err := m.reader.Get(m.ctx, reader.Request{Service: "drivers", Entities: drivers(ids...), SkipCache: skip})
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		m.judge(t, resp, resp.Row(i), id, skip)
	}
}

func (m *model) judge(t *rapid.T, resp *reader.Response, row reader.Vector, id int, skip bool) {
	it := row.At(0)
	now := m.clock.Now()
	if it.Tier == feature.TierOnline || it.Tier == feature.TierBacking {
		if m.said[id] == nil {
			m.said[id] = map[feature.Micros]time.Time{}
		}
		m.said[id][it.EventTime] = now
	}
	hist := m.history[id]
	on, onHas := m.online.get(driverRef(id))
	onHas = onHas && (on.Online == feature.NoTime || on.Online > feature.MicrosOf(now))
	onSays := !m.onlineOut && onHas && m.bad["online"][id] == ""
	backSays := !m.backingOut && m.bad["backing"][id] != "silent"
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("driver %d, %+v: %s", id, it, fmt.Sprintf(format, args...))
	}

	if it.EventTime != feature.NoTime {
		var behind *truth
		for i := range hist {
			if hist[i].rec.Version.Event == it.EventTime && !hist[i].deleted && it.Value.Float() == hist[i].served() {
				behind = &hist[i]
			}
		}
		if behind == nil {
			fail("no stored version has this time and value")
		}
		if it.Age != feature.MicrosOf(now).Sub(it.EventTime) {
			fail("age is not now - event time")
		}
		tooOld := it.Age > time.Hour
		switch {
		case tooOld != (it.Status == feature.OutsideMaxAge):
			fail("wrong verdict on its age")
		case !tooOld && behind.null != (it.Status == feature.NullValue):
			fail("wrong verdict on null")
		}
	}
	switch it.Tier {
	case feature.TierOnline:
		if !onSays || on.Version.Event != it.EventTime {
			fail("the online tier does not say this now")
		}
	case feature.TierBacking:
		back, ok := m.backing.get(driverRef(id))
		if !ok || !backSays || back.Version.Event != it.EventTime {
			fail("the backing tier does not say this now")
		}
		if onSays {
			fail("the online tier had an answer")
		}
	case feature.TierCache:
		// A tier said it at most a TTL ago. What is stale, or is kept because the online tier
		// lags behind it, may be older, within its window.
		life := cacheTTL
		if it.Stale || onSays && on.Version.Event < it.EventTime {
			life += staleFor
		}
		if age := now.Sub(m.said[id][it.EventTime]); age > life {
			fail("cached for %s", age)
		}
		if skip && onSays && on.Version.Event > it.EventTime {
			fail("an older value than the online tier's, though it was asked")
		}
		if it.Stale && (len(resp.Unreachable) == 0 && m.bad["backing"][id] == "" && m.bad["online"][id] == "") {
			fail("stale while all tiers answer")
		}
	case feature.TierDefault:
		if it.Value.Float() != -1 {
			fail("not the default")
		}
	}
	switch it.Status {
	case feature.NotFound:
		if !m.wasAbsent(id, now) {
			fail("the key was there all the time")
		}
	case feature.Unknown:
		damaged := m.bad["backing"][id] != "" || m.bad["online"][id] != ""
		if backSays && !damaged {
			fail("the backing tier could be asked")
		}
		if onSays {
			fail("the online tier could be asked")
		}
	}
}

// wasAbsent reports whether the key was absent or deleted at some moment that a cache may
// still remember.
func (m *model) wasAbsent(id int, now time.Time) bool {
	hist := m.history[id]
	if len(hist) == 0 || now.Sub(hist[0].since) <= absentTTL {
		return true
	}
	on, ok := m.online.get(driverRef(id))
	if ok && on.Tombstone() { // a lagging online tier says so with authority
		return true
	}
	for i, h := range hist {
		over := i+1 < len(hist) && now.Sub(hist[i+1].since) > cacheTTL+staleFor
		if h.deleted && !over {
			return true
		}
	}
	return false
}
