package app

import (
	"errors"
	"strconv"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

// The parts of a table cover each segment once, however many there are, and differ by one
// segment at most. Seen red with: (a+1)*segments/b without the -1.
func TestSegmentRange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ segments, parts int }{{64, 4}, {64, 7}, {10, 10}, {1000, 999}, {8, 1}} {
		next, least, most := 0, c.segments, 0
		for i := range c.parts {
			from, to, err := segmentRange(partName(i, c.parts), c.segments)
			if err != nil || from != next || to < from {
				t.Fatalf("part %d of %d of %d segments: %d-%d, %v; want it to begin at %d", i, c.parts, c.segments, from, to, err, next)
			}
			next, least, most = to+1, min(least, to-from+1), max(most, to-from+1)
		}
		if next != c.segments || most-least > 1 {
			t.Errorf("%d parts of %d segments end at %d; they have %d to %d segments", c.parts, c.segments, next, least, most)
		}
	}
	if from, to, err := segmentRange("16-31", 64); err != nil || from != 16 || to != 31 {
		t.Errorf("16-31: %d-%d, %v", from, to, err)
	}
	for _, bad := range []string{"", "1", "a-b", "4/4", "-1/4", "1/0", "1-", "0-1-2", "1/2/3"} {
		if _, _, err := segmentRange(bad, 8); !errors.Is(err, feature.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func partName(i, n int) string { return strconv.Itoa(i) + "/" + strconv.Itoa(n) }
