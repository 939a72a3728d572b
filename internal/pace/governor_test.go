package pace

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hearthstore/hearth/internal/clock"
)

// Whatever makes observations bad, and from whatever rate on, the rate settles where the
// wanted share of them is.
// Seen red with: growth of twice as much; no cut; the bounds not kept.
func TestGovernorFindsTheRate(t *testing.T) {
	t.Parallel()
	const share = 0.005
	for _, capacity := range []float64{3_000, 40_000, 700_000} { // the rate at which all are bad
		rng := rand.New(rand.NewPCG(uint64(capacity), 1))
		b := NewBucket(clock.NewFake(time.Unix(0, 0)), 5_000, 100)
		g := NewGovernor(GovernorConfig{Bucket: b, Share: share, Min: 10, Max: 1e6})
		bad, mean := 0, 0.0
		const settle, watch = 20_000, 200_000
		for i := range settle + watch {
			load := b.Rate() / capacity
			isBad := rng.Float64() < load*load*load // little at first, then steep
			g.Saw(isBad)
			if i >= settle {
				mean += b.Rate() / watch
				if isBad {
					bad++
				}
			}
		}
		if got := float64(bad) / watch; got < 0.8*share || got > 1.2*share {
			t.Errorf("capacity %v: %.4f of the observations were bad, want %v", capacity, got, share)
		}
		// A cube root of 0.005 is 0.17.
		if mean < 0.13*capacity || mean > 0.2*capacity {
			t.Errorf("capacity %v: the rate was %.0f in the mean", capacity, mean)
		}
		if all, counted := g.Seen(); all != settle+watch || counted < int64(bad) {
			t.Errorf("it counted %d and %d", all, counted)
		}
	}
	b := NewBucket(clock.NewFake(time.Unix(0, 0)), 500, 100)
	g := NewGovernor(GovernorConfig{Bucket: b, Share: share, Min: 300, Max: 600})
	for range 10_000 {
		g.Saw(false)
	}
	if b.Rate() != 600 {
		t.Errorf("at most %v, want 600", b.Rate())
	}
	for range 100 {
		g.Saw(true)
	}
	if b.Rate() != 300 {
		t.Errorf("at least %v, want 300", b.Rate())
	}
}

// A bucket whose rate changes keeps each rate for as long as it is set.
// Seen red with: the time before the change paid at the new rate.
func TestBucketChangesItsRate(t *testing.T) {
	t.Parallel()
	c := running(t)
	b := NewBucket(c, 100, 1)
	b.Spend(201) // one is there: 200 in debt
	if err := c.Sleep(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	b.SetRate(1000)
	began := c.Now()
	if err := b.Wait(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	if took := c.Now().Sub(began).Seconds(); took < 1.09 || took > 1.3 {
		t.Errorf("a debt of 100 and 1000 more at 1000/s took %.3f s, want 1.1", took)
	}
}
