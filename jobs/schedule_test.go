package jobs

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/robfig/cron/v3"
	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

func mustSchedule(t testing.TB, spec, zone string) Schedule {
	t.Helper()
	s, err := ParseSchedule(spec, zone)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestNextAcrossClockChanges. In New York the clocks jump from 02:00 to 03:00 on
// 2026-03-08 and go back from 02:00 to 01:00 on 2026-11-01; in São Paulo they jumped from
// 00:00 to 01:00 on 2018-11-04; on Lord Howe they move by half an hour. Red with the
// library's own Next (02:30 is lost until the next day, 01:30 runs twice).
func TestNextAcrossClockChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		spec, zone, from string
		want             []string
	}{
		{"30 2 * * *", "America/New_York", "2026-03-07T12:00:00-05:00", []string{"2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"}},
		{"30 1 * * *", "America/New_York", "2026-10-31T12:00:00-04:00", []string{"2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"}},
		{"0,30 2,3 * * *", "America/New_York", "2026-03-08T00:00:00-05:00", []string{"2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00", "2026-03-09T02:00:00-04:00"}},
		{"5 * * * *", "America/New_York", "2026-03-08T00:30:00-05:00", []string{"2026-03-08T01:05:00-05:00", "2026-03-08T03:05:00-04:00", "2026-03-08T04:05:00-04:00"}},
		{"5 * * * *", "America/New_York", "2026-11-01T00:30:00-04:00", []string{"2026-11-01T01:05:00-04:00", "2026-11-01T01:05:00-05:00", "2026-11-01T02:05:00-05:00"}},
		{"0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00-03:00", []string{"2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"}},
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00+10:30", []string{"2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"}},
		{"0 2 * * *", "", "2026-03-07T12:00:00Z", []string{"2026-03-08T02:00:00Z", "2026-03-09T02:00:00Z"}},
		{"CRON_TZ=Europe/Berlin 0 2 * * *", "UTC", "2026-06-01T00:00:00Z", []string{"2026-06-02T00:00:00Z"}},
		{"TZ=Europe/Berlin  0 2 * * *", "UTC", "2026-06-01T00:00:00Z", []string{"2026-06-02T00:00:00Z"}},
		{"@hourly", "UTC", "2026-06-01T00:00:00Z", []string{"2026-06-01T01:00:00Z", "2026-06-01T02:00:00Z"}},
		{"@every 90s", "UTC", "2026-06-01T00:00:01Z", []string{"2026-06-01T00:01:30Z", "2026-06-01T00:03:00Z"}},
		{"@every 5s", "UTC", "2026-06-01T00:00:05Z", []string{"2026-06-01T00:00:10Z"}},
		{"0 0 29 2 *", "UTC", "2026-06-01T00:00:00Z", []string{"2028-02-29T00:00:00Z"}},
		{"*/20 9-10 * * mon-fri", "UTC", "2026-06-05T10:30:00Z", []string{"2026-06-05T10:40:00Z", "2026-06-08T09:00:00Z"}},
	} {
		s := mustSchedule(t, c.spec, c.zone)
		now := at(t, c.from)
		for _, want := range c.want {
			got := s.Next(now)
			if !got.Equal(at(t, want)) {
				t.Errorf("%q %s: after %v comes %v, want %s", c.spec, c.zone, now, got, want)
			}
			now = got
		}
	}
}

func TestParseScheduleRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{
		{"", "UTC"}, {"   ", "UTC"}, {"* * * *", "UTC"}, {"* * * * * *", "UTC"}, {"60 * * * *", "UTC"}, {"0 0 31 2 *", "UTC"}, {"0 0 30 feb *", "UTC"},
		{"CRON_TZ=UTC", "UTC"}, {"CRON_TZ=", "UTC"}, {"TZ=Mars/Olympus 0 0 * * *", "UTC"}, {"0 0 * * *", "Mars/Olympus"}, {"0 0 * * *", "Local"},
		{"@every 10ms", "UTC"}, {"@every -5s", "UTC"}, {"@every", "UTC"}, {"@every x", "UTC"}, {"@never", "UTC"}, {"a b c d e", "UTC"}, {"*/0 * * * *", "UTC"},
	} {
		s, err := ParseSchedule(c[0], c[1])
		if !errors.Is(err, feature.ErrInvalid) || !s.IsZero() {
			t.Errorf("ParseSchedule(%q, %q) = %v, %v", c[0], c[1], s, err)
		}
	}
}

// slowNext finds the next due time by looking at every minute: due is a minute whose wall
// clock matches and is shown for the first time, and the instant of a jump over a wall
// clock that matches. Jobs of every hour are due at every minute that matches.
func slowNext(spec *cron.SpecSchedule, hourly bool, zone *time.Location, from time.Time) time.Time {
	matches := func(wall time.Time) bool { return spec.Next(wall.Add(-time.Second)).Equal(wall) }
	for t := from.Truncate(time.Minute).Add(time.Minute); t.Before(from.AddDate(0, 0, 4)); t = t.Add(time.Minute) {
		wall, before := wallClock(t.In(zone)), wallClock(t.Add(-time.Minute).In(zone))
		if hourly {
			if matches(wall) {
				return t
			}
			continue
		}
		if matches(wall) {
			shown := false
			for back := time.Minute; back <= 3*time.Hour; back += time.Minute {
				shown = shown || wallClock(t.Add(-back).In(zone)).Equal(wall)
			}
			if !shown {
				return t
			}
		}
		for skipped := before.Add(time.Minute); skipped.Before(wall); skipped = skipped.Add(time.Minute) {
			if matches(skipped) {
				return t
			}
		}
	}
	return time.Time{}
}

// TestNextAgainstEveryMinute compares Next with a search of every minute, around clock
// changes of several zones. Red when instant() does not look for the first occurrence,
// and when nextHourly jumps over a change.
func TestNextAgainstEveryMinute(t *testing.T) {
	t.Parallel()
	changes := []struct {
		zone, near string
	}{
		{"America/New_York", "2026-03-08T07:00:00Z"}, {"America/New_York", "2026-11-01T06:00:00Z"},
		{"Australia/Lord_Howe", "2026-04-04T15:00:00Z"}, {"Australia/Lord_Howe", "2026-10-03T15:30:00Z"},
		{"America/Sao_Paulo", "2018-11-04T03:00:00Z"}, {"Asia/Kolkata", "2026-03-01T00:00:00Z"},
		{"Pacific/Apia", "2011-12-30T10:00:00Z"}, // a whole day was skipped
		{"Europe/London", "2026-10-25T01:00:00Z"},
	}
	rapid.Check(t, func(t *rapid.T) {
		change := rapid.SampledFrom(changes).Draw(t, "change")
		minute := rapid.SampledFrom([]string{"0", "5", "30", "*/20", "59", "10-12"}).Draw(t, "minute")
		hour := rapid.SampledFrom([]string{"*", "0", "1", "2", "3", "*/2", "1-3", "0-23", "23"}).Draw(t, "hour")
		weekday := rapid.SampledFrom([]string{"*", "*", "*", "sun", "mon-sat"}).Draw(t, "weekday")
		line := fmt.Sprintf("%s %s * * %s", minute, hour, weekday)
		s, err := ParseSchedule(line, change.zone)
		if err != nil {
			t.Fatal(err)
		}
		near, err := time.Parse(time.RFC3339, change.near)
		if err != nil {
			t.Fatal(err)
		}
		from := near.Add(time.Duration(rapid.IntRange(-36*3600, 12*3600).Draw(t, "offset")) * time.Second)
		for range 2 {
			want, got := slowNext(s.spec, s.hourly, s.zone, from), s.Next(from)
			if want.IsZero() {
				return
			}
			if !got.Equal(want) {
				t.Fatalf("%q in %s: after %s comes %s, want %s", line, change.zone, from.In(s.zone), got, want.In(s.zone))
			}
			from = got
		}
	})
}

// TestLast: the newest due time of an interval is the last one that Next would give.
func TestLast(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SampledFrom([]string{"* * * * *", "*/7 * * * *", "5 3 * * *", "@every 90s", "0 0 1 * *", "30 2 * * sun"}).Draw(t, "line")
		s, err := ParseSchedule(line, "America/New_York")
		if err != nil {
			t.Fatal(err)
		}
		after := time.Date(2026, 10, 30, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 4*86400).Draw(t, "after")) * time.Second)
		until := after.Add(time.Duration(rapid.IntRange(-100, 3*86400).Draw(t, "length")) * time.Second)
		var want time.Time
		for due := s.Next(after); !due.After(until); due = s.Next(due) {
			want = due
		}
		got, ok := s.Last(after, until)
		if ok == want.IsZero() || ok && !got.Equal(want) {
			t.Fatalf("%q: last in (%s, %s] is %s (%v), want %s", line, after, until, got, ok, want)
		}
	})
}

func FuzzParseSchedule(f *testing.F) {
	for _, line := range []string{"5 * * * *", "@every 1m", "CRON_TZ=UTC", "TZ=UTC 0 0 * * *", "0 0 31 2 *", "*/99999999999 * * * *", "? ? ? ? ?"} {
		f.Add(line)
	}
	from := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, line string) {
		s, err := ParseSchedule(line, "")
		if err != nil {
			if !errors.Is(err, feature.ErrInvalid) {
				t.Fatalf("error does not match ErrInvalid: %v", err)
			}
			return
		}
		if next := s.Next(from); !next.After(from) {
			t.Fatalf("%q: after %s comes %s", line, from, next)
		}
		if s.String() != strings.TrimSpace(line) {
			t.Fatalf("%q prints as %q", line, s.String())
		}
	})
}
