package offline

import "testing"

// A total is passed on for the steps that are one pass over a known number of rows. DuckDB has one
// for others, too, and stands still at two thirds of it while it sorts: a time left that grows.
// Seen red with every total passed on.
func TestProgressKnowsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	for stage, want := range map[string]int64{
		"view 1 of 2, a: labels": 7, "view 1 of 2, a: features": 7, "digest": 7, "write CSV": 7,
		"view 1 of 2, features: winners": 0, "view 2 of 2, a: ties": 0, "view 2 of 2, a: keep": 0, "view 2 of 2, a: query": 0, "write": 0, "audit": 0,
	} {
		if got := honest(stage, 7); got != want {
			t.Errorf("%s: %d of 7, want %d", stage, got, want)
		}
	}
}
