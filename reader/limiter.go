package reader

import (
	"time"

	"golang.org/x/time/rate"
)

// limiter spaces calls so that no second sees more than perSecond of them. A token bucket
// of size b and rate r lets b+r-1 calls start in one second, so the rate is lowered by
// what the bucket may add: a tenth, which absorbs the burst of an outage's first moment.
type limiter struct{ bucket *rate.Limiter }

func newLimiter(perSecond int) limiter {
	burst := max(1, perSecond/10)
	return limiter{rate.NewLimiter(rate.Limit(perSecond-burst+1), burst)}
}

// take takes one call, or says how long to wait before asking again.
func (l limiter) take(now time.Time) (wait time.Duration) {
	r := l.bucket.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}
