package reader

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

// No second ever sees more calls than the cap, whatever the pattern of demand, and demand
// that goes on gets nearly all of it. Seen red with the rate not lowered by the burst.
func TestLimiterKeepsEverySecond(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 1000).Draw(t, "limit")
		l := newLimiter(limit)
		now := epoch
		var taken []time.Time
		for range rapid.IntRange(100, 3000).Draw(t, "tries") {
			now = now.Add(time.Duration(rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 5_000_000), rapid.IntRange(0, 2_000_000_000)).Draw(t, "gap")))
			if l.take(now) == 0 {
				taken = append(taken, now)
			}
		}
		for i := range taken {
			if i+limit < len(taken) && taken[i+limit].Sub(taken[i]) < time.Second {
				t.Fatalf("%d calls within %s, the cap is %d", limit+1, taken[i+limit].Sub(taken[i]), limit)
			}
		}
	})
	l, n := newLimiter(500), 0
	for now := epoch; now.Before(epoch.Add(10 * time.Second)); {
		if wait := l.take(now); wait > 0 {
			now = now.Add(wait)
		} else {
			n++
		}
	}
	if n < 4400 {
		t.Errorf("%d calls in 10 s of steady demand, the cap allows 5000", n)
	}
}
