package backing

import (
	"context"
	"fmt"

	"github.com/hearthstore/hearth/feature"
)

const (
	kindCounter = "counter"
	runCounter  = "run"
)

type counter struct {
	Last uint64 `json:"last"`
}

// NextRun returns the next run number of the project. Numbers only grow and no two calls
// get the same one, on any machine; a crash may leave a gap.
func NextRun(ctx context.Context, s StateStore) (uint64, error) { return ReserveRuns(ctx, s, 1) }

// ReserveRuns is n calls of NextRun at once, with no other number between theirs. It returns
// the first of them.
func ReserveRuns(ctx context.Context, s StateStore, n int) (first uint64, err error) {
	if n < 1 {
		return 0, fmt.Errorf("reserve %d run numbers: %w: at least 1", n, feature.ErrInvalid)
	}
	c, err := UpdateJSON(ctx, s, kindCounter, runCounter, func() counter { return counter{} }, func(c *counter) error {
		c.Last += uint64(n)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return c.Last - uint64(n) + 1, nil
}
