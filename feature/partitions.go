package feature

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TimePartitions says how the names of a source's folders give the time of the rows below
// them, in UTC: "day=%Y-%m-%d", "year=%Y/month=%m/day=%d", "dt=%Y%m%d/hour=%H". It is a
// promise about the event time, by which files are left out unread. "" promises nothing.
type TimePartitions string

// partitionUnits are what a name may hold, from the coarsest on, each with its digits.
var partitionUnits = []struct {
	directive string
	digits    int
}{{"%Y", 4}, {"%m", 2}, {"%d", 2}, {"%H", 2}}

// Validate reports what is wrong with the pattern.
func (p TimePartitions) Validate() error {
	if p == "" {
		return nil
	}
	for _, part := range p.parts() {
		if name, _, ok := strings.Cut(part, "="); !ok || name == "" {
			return fmt.Errorf("%w: %q names no folder: write name=pattern, for example day=%%Y-%%m-%%d", ErrInvalid, part)
		}
	}
	rest, finer := string(p), ""
	for i := len(partitionUnits) - 1; i >= 0; i-- {
		d := partitionUnits[i].directive
		switch n := strings.Count(string(p), d); {
		case n > 1:
			return fmt.Errorf("%w: %s stands more than once in %q", ErrInvalid, d, string(p))
		case n == 0 && (finer != "" || i == 0):
			return fmt.Errorf("%w: %q has no %s, without which its folders do not say a time", ErrInvalid, string(p), d)
		case n == 1:
			finer = d
		}
		rest = strings.ReplaceAll(rest, d, "")
	}
	if i := strings.IndexByte(rest, '%'); i >= 0 {
		return fmt.Errorf("%w: %q holds %q; known are %%Y, %%m, %%d and %%H", ErrInvalid, string(p), rest[i:min(i+2, len(rest))])
	}
	return nil
}

func (p TimePartitions) parts() []string { return strings.Split(strings.Trim(string(p), "/"), "/") }

// Period is the time that the folders of a file promise for its rows, both ends inclusive; ok
// is false when they say none.
func (p TimePartitions) Period(path string) (first, last Micros, ok bool) {
	if p == "" {
		return 0, 0, false
	}
	folders := strings.Split(path, "/")
	folders = folders[:len(folders)-1]
	fields := map[string]int{"%Y": 1, "%m": 1, "%d": 1, "%H": 0}
	finest := 0
	for _, part := range p.parts() {
		name, pattern, _ := strings.Cut(part, "=")
		i := slices.IndexFunc(folders, func(f string) bool { return strings.HasPrefix(f, name+"=") })
		if i < 0 || !scan(pattern, folders[i][len(name)+1:], fields) {
			return 0, 0, false
		}
		for u, unit := range partitionUnits {
			if strings.Contains(pattern, unit.directive) {
				finest = max(finest, u)
			}
		}
	}
	from := time.Date(fields["%Y"], time.Month(fields["%m"]), fields["%d"], fields["%H"], 0, 0, 0, time.UTC)
	if from.Month() != time.Month(fields["%m"]) || from.Day() != fields["%d"] || from.Hour() != fields["%H"] { // 30 February
		return 0, 0, false
	}
	end := []time.Time{from.AddDate(1, 0, 0), from.AddDate(0, 1, 0), from.AddDate(0, 0, 1), from.Add(time.Hour)}[finest]
	return MicrosOf(from), MicrosOf(end) - 1, true
}

// scan reads the numbers of a folder's value by a pattern.
func scan(pattern, value string, fields map[string]int) bool {
	for pattern != "" {
		u := slices.IndexFunc(partitionUnits, func(u struct {
			directive string
			digits    int
		}) bool {
			return strings.HasPrefix(pattern, u.directive)
		})
		if u < 0 {
			if value == "" || value[0] != pattern[0] {
				return false
			}
			pattern, value = pattern[1:], value[1:]
			continue
		}
		unit := partitionUnits[u]
		n := 0 // "month=1" as well as "month=01"
		for n < len(value) && n < unit.digits && value[n] >= '0' && value[n] <= '9' {
			n++
		}
		number, err := strconv.Atoi(value[:n])
		if err != nil {
			return false
		}
		fields[unit.directive] = number
		pattern, value = pattern[len(unit.directive):], value[n:]
	}
	return value == ""
}
