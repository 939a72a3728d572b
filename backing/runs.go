package backing

import (
	"context"
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
func NextRun(ctx context.Context, s StateStore) (uint64, error) {
	c, err := UpdateJSON(ctx, s, kindCounter, runCounter, func() counter { return counter{} }, func(c *counter) error {
		c.Last++
		return nil
	})
	if err != nil {
		return 0, err
	}
	return c.Last, nil
}
