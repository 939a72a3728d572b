package pace

import (
	"math/rand/v2"
	"time"
)

// Backoff is the pause before try n (0: after the first failure): base doubled n times, at
// most limit, of which a random half is waited, so that many workers do not return at
// once.
func Backoff(n int, base, limit time.Duration) time.Duration {
	d := limit
	if n < 30 {
		if e := base << n; e > 0 && e < limit {
			d = e
		}
	}
	return d/2 + rand.N(d/2+1)
}
