package jobs

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/hearthstore/hearth/feature"
)

// Schedule says when a job is due. The zero Schedule is never due.
//
// Its times are the same on every machine: an "@every" schedule is due at whole multiples
// of its interval, not at an interval from when somebody started it. When the clocks of
// its time zone change, a job at fixed hours runs exactly once: a time that the clocks
// skip is due at the instant they jump to, and a time that they repeat is due the first
// time. A job of every hour simply goes on hour by hour.
type Schedule struct {
	text  string
	zone  *time.Location
	every time.Duration      // for @every
	spec  *cron.SpecSchedule // else; its Location is UTC and its times are wall clock
	// hourly says that every hour of the day matches, so nothing is skipped or repeated.
	hourly bool
}

const minEvery = time.Second

// ParseSchedule reads a cron line of five fields (minute, hour, day of month, month, day
// of week), one of @hourly, @daily, @weekly, @monthly, @yearly, or "@every 90s". zone is
// an IANA name; "" is UTC. CRON_TZ=… before the fields wins over it. A line that cannot be
// read, and one that no date ever matches, is an error matching feature.ErrInvalid.
func ParseSchedule(spec, zone string) (Schedule, error) {
	if zone == "" {
		zone = "UTC"
	}
	loc, err := loadZone(zone)
	if err != nil {
		return Schedule{}, err
	}
	line := strings.TrimSpace(spec)
	for _, prefix := range []string{"CRON_TZ=", "TZ="} {
		rest, ok := strings.CutPrefix(line, prefix)
		if !ok {
			continue
		}
		name, fields, _ := strings.Cut(rest, " ")
		if loc, err = loadZone(name); err != nil {
			return Schedule{}, err
		}
		line = strings.TrimSpace(fields)
		break
	}
	if line == "" {
		return Schedule{}, fmt.Errorf("schedule: %w: there is no cron line", feature.ErrInvalid)
	}
	parsed, err := parseCron(line)
	if err != nil {
		return Schedule{}, err
	}
	s := Schedule{text: strings.TrimSpace(spec), zone: loc}
	switch p := parsed.(type) {
	case cron.ConstantDelaySchedule:
		return everySchedule(s, line)
	case *cron.SpecSchedule:
		p.Location = time.UTC
		s.spec = p
		s.hourly = p.Hour&(1<<24-1) == 1<<24-1
	default:
		return Schedule{}, fmt.Errorf("schedule: %w: %q is no kind of schedule that is known here", feature.ErrInvalid, spec)
	}
	// Any date that exists comes round within the five years that the search covers.
	if s.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Schedule{}, fmt.Errorf("schedule: %w: no date ever matches %q", feature.ErrInvalid, spec)
	}
	return s, nil
}

// everySchedule reads the interval itself: the parser rounds it up to seconds.
func everySchedule(s Schedule, line string) (Schedule, error) {
	_, text, _ := strings.Cut(line, " ")
	every, err := time.ParseDuration(strings.TrimSpace(text))
	if err != nil || every < minEvery {
		return Schedule{}, fmt.Errorf("schedule: %w: %q: the interval must be at least %v", feature.ErrInvalid, line, minEvery)
	}
	s.every = every
	return s, nil
}

func loadZone(name string) (*time.Location, error) {
	loc, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return nil, fmt.Errorf("schedule: %w: %q is no time zone; use an IANA name, for example Europe/Berlin", feature.ErrInvalid, name)
	}
	return loc, nil
}

// parseCron guards against the parser's panics on odd lines.
func parseCron(line string) (s cron.Schedule, err error) {
	defer func() {
		if recover() != nil {
			s, err = nil, fmt.Errorf("schedule: %w: %q cannot be read", feature.ErrInvalid, line)
		}
	}()
	s, err = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor).Parse(line)
	if err != nil {
		return nil, fmt.Errorf("schedule: %w: %w", feature.ErrInvalid, err)
	}
	return s, nil
}

// IsZero reports whether the schedule is never due.
func (s Schedule) IsZero() bool { return s.spec == nil && s.every == 0 }

// String is the line that was parsed.
func (s Schedule) String() string { return s.text }

// Next returns the first due time after t, in the schedule's zone; the zero time if there
// is none.
func (s Schedule) Next(t time.Time) time.Time {
	switch {
	case s.every > 0:
		// Truncate counts from a fixed instant, so all machines agree.
		return t.Truncate(s.every).Add(s.every).In(s.zone)
	case s.spec == nil:
		return time.Time{}
	case s.hourly:
		return s.nextHourly(t)
	}
	// Wall clock to instant never goes backwards (see instant), so the first wall clock
	// whose instant lies after t is the answer.
	for wall := s.spec.Next(wallClock(t.In(s.zone))); !wall.IsZero(); wall = s.spec.Next(wall) {
		if at := instant(wall, s.zone); at.After(t) {
			return at
		}
	}
	return time.Time{}
}

// Last returns the latest due time that is after `after` and not after t; ok is false if
// there is none.
func (s Schedule) Last(after, t time.Time) (due time.Time, ok bool) {
	// Look back in growing steps, so that neither a rare nor a frequent schedule makes
	// this walk long.
	for back := time.Minute; ; back *= 4 {
		from := t.Add(-back)
		last := !from.After(after)
		if last {
			from = after
		}
		for next := s.Next(from); !next.IsZero() && !next.After(t); next = s.Next(next) {
			due, ok = next, true
		}
		if ok || last {
			return due, ok
		}
	}
}

// nextHourly steps through real time: the same minutes of each hour, whatever the clocks
// call the hour. Only minutes, days and months can fail to match.
func (s Schedule) nextHourly(t time.Time) time.Time {
	limit := t.AddDate(5, 0, 0)
	for t = t.Truncate(time.Minute).Add(time.Minute).In(s.zone); t.Before(limit); {
		wall := wallClock(t)
		next := s.spec.Next(wall.Add(-time.Second))
		if next.IsZero() {
			return time.Time{}
		}
		if next.Equal(wall) {
			return t
		}
		// Jump, but never over a change of the clocks: there wall clock and real time part.
		jump := t.Add(next.Sub(wall))
		if _, end := t.ZoneBounds(); !end.IsZero() && end.Before(jump) {
			jump = end.In(s.zone)
		}
		t = jump
	}
	return time.Time{}
}

// wallClock writes what the clock on the wall shows at t as if it were UTC.
func wallClock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// instant returns the first instant at which the clock on the wall shows what wall says,
// and the instant of the jump for a time that the clocks jump over. It never decreases as
// wall grows.
func instant(wall time.Time, zone *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), zone)
	start, end := t.ZoneBounds()
	if wallClock(t).Equal(wall) {
		if !start.IsZero() { // the clocks may have shown it already, before they went back
			if first := atOffsetBefore(wall, start); first.Before(start) && wallClock(first.In(zone)).Equal(wall) {
				return first.In(zone)
			}
		}
		return t
	}
	for _, jump := range []time.Time{start, end} {
		if jump.IsZero() {
			continue
		}
		_, after := jump.In(zone).Zone()
		afterwards := wall.Add(-time.Duration(after) * time.Second)
		if !atOffsetBefore(wall, jump).Before(jump) && afterwards.Before(jump) {
			return jump.In(zone)
		}
	}
	return t
}

// atOffsetBefore reads wall with the offset that held just before the change.
func atOffsetBefore(wall, change time.Time) time.Time {
	_, offset := change.Add(-time.Nanosecond).Zone()
	return wall.Add(-time.Duration(offset) * time.Second)
}
