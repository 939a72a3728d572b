package rewarm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

// warm fills both tiers with n entities and returns the refs of the first view.
func warm(t testing.TB, shards, n int) (*world, []feature.Ref) {
	t.Helper()
	w := newWorld(t, shards)
	w.fill(n)
	w.run(Request{Run: 1, IfCold: true})
	refs := make([]feature.Ref, n)
	for i := range refs {
		refs[i] = feature.Ref{View: w.views[0].ID(), Key: key(i)}
	}
	return w, refs
}

func (w *world) verify(req VerifyRequest) *VerifyReport {
	w.t.Helper()
	rep, err := w.rewarmer().Verify(context.Background(), req)
	if err != nil {
		w.t.Fatalf("verify: %v", err)
	}
	return rep
}

// inject makes one difference of each kind.
func inject(t testing.TB, w *world, refs []feature.Ref) {
	t.Helper()
	v := w.views[0]
	w.online.set(refs[0], nil, 0)
	old := value(t, v, refs[1].Key, feature.Version{Event: at(-2 * day), Run: 1}, 1)
	w.online.set(refs[1], old.Payload, feature.NoTime)
	other := value(t, v, refs[2].Key, feature.Version{Event: at(-day), Run: 1}, 99)
	w.online.set(refs[2], other.Payload, feature.NoTime)
	w.table.raw(refs[3], nil)
	ahead := value(t, v, refs[4].Key, feature.Version{Event: at(-time.Hour), Run: 1}, 1)
	w.online.set(refs[4], ahead.Payload, feature.NoTime)
	w.table.put(tombstone(t, v, refs[5].Key, feature.Version{Event: at(-time.Hour), Run: 2})) // still served
	w.online.set(refs[6], []byte("no payload"), feature.NoTime)
	w.table.put(tombstone(t, v, refs[7].Key, feature.Version{Event: at(-2 * time.Hour), Run: 2}))
	w.online.set(refs[7], value(t, v, refs[7].Key, feature.Version{Event: at(-time.Hour), Run: 1}, 1).Payload, feature.NoTime)
}

// Seen red with each arm of look's switch removed in turn.
func TestVerifyFindsEachKind(t *testing.T) {
	t.Parallel()
	w, refs := warm(t, 2, 40)
	if rep := w.verify(VerifyRequest{Fraction: 1}); !rep.OK() || rep.Differences() != 0 || rep.Compared != 80 || rep.UpperBound95 != 0 || rep.Online != 80 {
		t.Fatalf("equal tiers: %+v", rep)
	}
	inject(t, w, refs)
	rep := w.verify(VerifyRequest{Fraction: 1})
	got := map[string]string{}
	for _, d := range rep.Examples {
		got[d.Key] = d.Kind
	}
	for i, want := range []string{Missing, Behind, Different, Extra, Ahead, Behind, Different, Ahead} {
		if k := string(refs[i].Key); got[k] != want {
			t.Errorf("%s: found %q, want %q", k, got[k], want)
		}
	}
	if rep.Missing != 1 || rep.Older != 2 || rep.Different != 2 || rep.Extra != 1 || rep.Ahead != 2 || len(got) != 8 || rep.OK() {
		t.Errorf("counts %+v", rep)
	}
	var text strings.Builder
	if err := rep.WriteTable(&text); err != nil || !strings.Contains(text.String(), "THE TIERS DIFFER") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

// A value that outlives its expiry online, and one that is rightly gone.
func TestVerifyKnowsExpiry(t *testing.T) {
	t.Parallel()
	w, _ := warm(t, 1, 5)
	v := w.views[1]
	stale := value(t, v, key(90), feature.Version{Event: at(-40 * day), Run: 1}, 1)
	gone := value(t, v, key(91), feature.Version{Event: at(-40 * day), Run: 1}, 1)
	w.table.put(stale, gone)
	if rep := w.verify(VerifyRequest{Fraction: 1}); !rep.OK() || rep.Expired != 2 {
		t.Errorf("expired values: %+v", rep)
	}
	w.online.set(stale.Ref, stale.Payload, feature.NoTime)
	if rep := w.verify(VerifyRequest{Fraction: 1}); rep.Extra != 1 {
		t.Errorf("a value without its expiry: %+v", rep)
	}
}

// Seen red with: repair a no-op that says true (the second look finds the difference).
func TestVerifyRepairs(t *testing.T) {
	t.Parallel()
	for _, canDelete := range []bool{false, true} {
		w, refs := warm(t, 1, 20)
		inject(t, w, refs)
		r := w.rewarmer(func(c *Config) {
			if canDelete {
				c.Online = deleting{w.online}
			}
		})
		rep, err := r.Verify(context.Background(), VerifyRequest{Fraction: 1, Repair: true})
		if err != nil {
			t.Fatal(err)
		}
		want, left := int64(4), map[string]bool{string(refs[2].Key): true, string(refs[3].Key): true, string(refs[4].Key): true, string(refs[7].Key): true}
		if canDelete {
			want, left = 6, map[string]bool{string(refs[4].Key): true, string(refs[7].Key): true}
		}
		if rep.Repaired != want || rep.Unrepaired == "" || rep.OK() {
			t.Errorf("delete %v: %+v, want %d repaired", canDelete, rep, want)
		}
		again := w.verify(VerifyRequest{Fraction: 1})
		if again.Differences() != int64(len(left)) {
			t.Errorf("delete %v: after the repair %+v", canDelete, again)
		}
		for _, d := range again.Examples {
			if !left[d.Key] {
				t.Errorf("delete %v: %+v is left", canDelete, d)
			}
		}
	}
}

// Writers run all the time while the tiers are compared: table first, online a moment
// later, as materialize does. None of that is a difference.
// Seen red with: suspects confirmed at the first look; settled comparing with the newest
// version of the table instead of the first; the table read before the online tier in again.
func TestVerifyUnderWriters(t *testing.T) {
	t.Parallel()
	w, refs := warm(t, 2, 60)
	ctx := context.Background()
	var mu sync.Mutex
	n := 0
	var inFlight []feature.Record
	// Each read of either tier is preceded by a few writes; each lands online only some
	// reads later.
	step := func() {
		mu.Lock()
		defer mu.Unlock()
		for i := range 5 {
			n++
			ref := refs[n*7%len(refs)]
			if i < 3 { // so hot that they are never the same in both tiers
				ref = refs[[]int{16, 30, 44}[i]]
			}
			version := feature.Version{Event: at(-time.Hour).Add(time.Duration(n) * time.Millisecond), Run: 3}
			rec := value(t, w.views[0], ref.Key, version, int64(n))
			if n%11 == 0 {
				rec = tombstone(t, w.views[0], ref.Key, version)
			}
			w.table.put(rec)
			inFlight = append(inFlight, rec)
		}
		for len(inFlight) > 24 {
			w.online.mu.Lock()
			w.online.one(inFlight[0])
			w.online.mu.Unlock()
			inFlight = inFlight[1:]
		}
	}
	w.online.onGet = step
	w.table.onPage = func(int, feature.ScanRequest) { step() }
	w.table.onGet = func() error { step(); return nil }
	rep, err := w.rewarmer(func(c *Config) { c.Workers = 1 }).Verify(ctx, VerifyRequest{Fraction: 1})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Rechecked == 0 {
		t.Error("the writers made nothing to look at again: the test tests nothing")
	}
	if !rep.OK() {
		t.Errorf("false differences: %+v", rep)
	}
}

// The table may be read from a replica that lags: ahead is settled as soon as it has what
// was seen online, even if online has moved on.
// Seen red with: settled without its arm for Ahead.
func TestAheadOfALaggingReplica(t *testing.T) {
	t.Parallel()
	version := func(n int) feature.Version { return feature.Version{Event: feature.Micros(n)} }
	s := suspect{kind: Ahead, goalV: version(5)}
	for _, tc := range []struct {
		table, online int
		want          bool
	}{{4, 6, false}, {5, 6, true}, {6, 9, true}} {
		if got := s.settled(reading{kind: Ahead, tableV: version(tc.table), onlineV: version(tc.online)}); got != tc.want {
			t.Errorf("%+v: settled %v", tc, got)
		}
	}
}

// A key that is really behind is found although it is written all the time.
func TestVerifySeesThroughWriters(t *testing.T) {
	t.Parallel()
	w, refs := warm(t, 1, 20)
	n := 0
	w.table.onGet = func() error { // the table moves on, online never does
		n++
		w.table.put(value(t, w.views[0], refs[3].Key, feature.Version{Event: at(-time.Hour).Add(time.Duration(n) * time.Second), Run: 3}, int64(n)))
		return nil
	}
	w.table.put(value(t, w.views[0], refs[3].Key, feature.Version{Event: at(-time.Hour), Run: 3}, 1))
	if rep := w.verify(VerifyRequest{Fraction: 1}); rep.Older != 1 {
		t.Errorf("%+v, want one older", rep)
	}
}

// The table holds bytes that nobody can read: not the online tier's fault, and not fine.
func TestVerifyCountsUnreadable(t *testing.T) {
	t.Parallel()
	w, refs := warm(t, 1, 10)
	w.table.raw(refs[0], []byte{9, 9})
	if rep := w.verify(VerifyRequest{Fraction: 1}); rep.Unreadable != 1 || rep.OK() {
		t.Errorf("%+v", rep)
	}
}

// A comparison reads the table no faster than it is told to, like a rewarm.
// Seen red with: the scanner of a comparison without the rate.
func TestVerifyPacing(t *testing.T) {
	t.Parallel()
	w, _ := warm(t, 1, 100)
	w.table.unit = 128
	began := w.clock.Now()
	rep := w.verify(VerifyRequest{Fraction: 1, MaxReadRate: 256})
	took := w.clock.Now().Sub(began).Seconds() // of the fake clock
	// All but what the first pages took on credit (one per worker) is paid by waiting.
	if least := (rep.ReadUnits - 4*128) / 256; rep.ReadUnits < 8*128 || took < least || took > rep.ReadUnits/256+2 {
		t.Errorf("%.0f units in %.2f s, want about %.2f s", rep.ReadUnits, took, rep.ReadUnits/256)
	}
	if _, err := w.rewarmer().Verify(context.Background(), VerifyRequest{Fraction: 1, MaxReadRate: -1}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("a negative rate: %v", err)
	}
}

func TestVerifyFaults(t *testing.T) {
	t.Parallel()
	w, _ := warm(t, 1, 10)
	w.online.down = fmt.Errorf("x: %w", feature.ErrUnreachable)
	if rep, err := w.rewarmer().Verify(context.Background(), VerifyRequest{Fraction: 1}); !errors.Is(err, feature.ErrUnreachable) || rep.Missing != 0 {
		t.Errorf("online down: %v %+v", err, rep)
	}
	if _, err := w.rewarmer().Verify(context.Background(), VerifyRequest{}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("no fraction: %v", err)
	}
	if _, err := w.rewarmer().Verify(context.Background(), VerifyRequest{Fraction: math.NaN()}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("NaN: %v", err)
	}
	w.online.down = nil
	ctx, stop := context.WithCancel(context.Background())
	w.online.onGet = stop
	if _, err := w.rewarmer().Verify(ctx, VerifyRequest{Fraction: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Both ways of sampling take each key with the chance that was asked for, whatever the
// seed, and never two different keys for one seed.
// Seen red with: refHash without the seed; sampleOf taking the first segments.
func TestSampleIsFair(t *testing.T) {
	t.Parallel()
	w, refs := warm(t, 1, 300)
	const fraction, seeds = 0.2, 60
	for _, mode := range []string{SampleKeys, SampleSegments} {
		hits := map[feature.Key]int{}
		total := 0
		for seed := range uint64(seeds) {
			r := w.rewarmer()
			v := &verifier{r: r, req: VerifyRequest{Fraction: fraction, Seed: seed}, mode: mode, of: 64}
			taken := v.sampleOf()
			for _, ref := range refs {
				if slices.Contains(taken, feature.ShardOf(ref.Key, 64)) && v.takesKey(ref) {
					hits[ref.Key]++
					total++
				}
			}
		}
		if got := float64(total) / (seeds * 300); math.Abs(got-fraction) > 0.03 {
			t.Errorf("%s: %.3f of the keys sampled, want %.2f", mode, got, fraction)
		}
		for _, ref := range refs { // P(X >= 28 or X = 0) for Binomial(60, 0.2) is below 1e-5
			if n := hits[ref.Key]; n == 0 || n > 28 {
				t.Errorf("%s: %s taken %d times of %d", mode, ref.Key, n, seeds)
			}
		}
	}
	a, b := w.verify(VerifyRequest{Fraction: fraction, Seed: 5}), w.verify(VerifyRequest{Fraction: fraction, Seed: 5})
	if a.Compared != b.Compared || a.Compared == 0 || a.Compared == 600 {
		t.Errorf("equal seeds: %d and %d of 600 compared", a.Compared, b.Compared)
	}
	if s := w.verify(VerifyRequest{Fraction: fraction, Seed: 5, Sampling: SampleSegments, Segments: 50}); s.Segments == 50 || s.Compared == 0 || s.UpperBound95 < upperBound95(0, 50) {
		t.Errorf("by segments: %+v", s)
	}
}

// The bound holds: with a true share p it is at least p in 95 of 100 samples. It agrees
// with the binomial sum where that can be had by hand.
// Seen red with: 0.05 replaced by 0.5; k instead of k+1 in the first argument.
func TestUpperBound(t *testing.T) {
	t.Parallel()
	if got, want := upperBound95(0, 1000), 1-math.Pow(0.05, 1.0/1000); math.Abs(got-want) > 1e-12 {
		t.Errorf("0 of 1000: %v, want %v", got, want)
	}
	if upperBound95(5, 5) != 1 || upperBound95(0, 0) != 1 {
		t.Error("no information must give 1")
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 400).Draw(t, "n")
		k := rapid.Int64Range(0, n-1).Draw(t, "k")
		p := upperBound95(k, n)
		// The chance of k or fewer at the bound is 5 %, summed the slow way.
		sum := 0.0
		for i := int64(0); i <= k; i++ {
			lc, _ := math.Lgamma(float64(n + 1))
			a, _ := math.Lgamma(float64(i + 1))
			b, _ := math.Lgamma(float64(n - i + 1))
			sum += math.Exp(lc - a - b + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
		}
		if math.Abs(sum-0.05) > 1e-6 {
			t.Fatalf("%d of %d: bound %v leaves a chance of %v, want 0.05", k, n, p, sum)
		}
	})
	rng := rand.New(rand.NewPCG(1, 2))
	for _, p := range []float64{0.001, 0.01, 0.2} {
		const n, trials = 2000, 1000
		covered := 0
		for range trials {
			k := int64(0)
			for range n {
				if rng.Float64() < p {
					k++
				}
			}
			if upperBound95(k, n) >= p {
				covered++
			}
		}
		if covered < trials*93/100 { // 95 % less three standard deviations
			t.Errorf("p=%v: covered in %d of %d samples", p, covered, trials)
		}
	}
}
