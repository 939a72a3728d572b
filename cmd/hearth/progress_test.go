package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// looks is what a terminal shows after the bytes were written to it.
func looks(written string) []string {
	lines, column := [][]rune{nil}, 0
	for _, c := range written {
		last := len(lines) - 1
		switch c {
		case '\r':
			column = 0
		case '\n':
			lines, column = append(lines, nil), 0
		default:
			for len(lines[last]) <= column {
				lines[last] = append(lines[last], ' ')
			}
			lines[last][column] = c
			column++
		}
	}
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = strings.TrimRight(string(l), " ")
	}
	return out
}

// Bars and text never share a line, whatever comes between the pieces of a text, and a bar
// of an earlier stage does not come back: no goroutine goes on drawing it. Red when the
// text is written past the screen, when a bar is drawn in the middle of a line, and with
// the library's own interval of redrawing.
func TestBarsAndTextShareNoLine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var terminal bytes.Buffer
	s := &screen{to: &terminal}
	out := s.through(&terminal)
	s.show(telemetry.Progress{Stage: "a stage of unknown length", Done: 7, Unit: "rows"})
	fmt.Fprintln(out, "first line")
	s.show(telemetry.Progress{Stage: "another", Done: 3, Total: 10, Unit: "rows"})
	for _, piece := range []string{"second", " line", "\n"} {
		fmt.Fprint(out, piece)
		s.show(telemetry.Progress{Stage: "another", Done: 5, Total: 10, Unit: "rows"})
	}
	s.show(telemetry.Progress{Stage: "another", Done: 10, Total: 10, Unit: "rows"})
	fmt.Fprintln(out, "third line")
	if got, want := looks(terminal.String()), []string{"first line", "second line", "third line", ""}; !slices.Equal(got, want) {
		t.Errorf("the terminal shows\n%q\nwant\n%q", got, want)
	}
	if !strings.Contains(terminal.String(), "another") {
		t.Error("no bar was drawn")
	}
	var none *screen
	if plain := none.through(&terminal); plain != io.Writer(&terminal) {
		t.Error("without a terminal writers stay as they are")
	}
}

// Without a terminal there is a line now and then: with a rate and the time left where the
// total is known, in megabytes for downloads, and without a time left where it is not.
// Seen red with the bytes as they are, and with the rate of the whole run.
func TestProgressLines(t *testing.T) {
	var out bytes.Buffer
	fake := clock.NewFake(time.Unix(0, 0))
	report := nowAndThen("build", fake, func(s standing) { s.line(&out) })
	for _, p := range []telemetry.Progress{
		{Stage: "a: open (download)", Unit: "bytes", Total: 80_000_000},
		{Stage: "a: open (download)", Unit: "bytes", Done: 20_000_000, Total: 80_000_000},
		{Stage: "a: winners", Unit: "rows"},
		{Stage: "a: winners", Unit: "rows", Done: 5000},
		{Stage: "a: features", Unit: "rows", Done: 1, Total: 9000},
		{Stage: "a: features", Unit: "rows", Done: 3000, Total: 9000},
		{Stage: "write", Unit: "rows"},
		{Stage: "write", Unit: "rows"},
	} {
		report(p)
		fake.Advance(10 * time.Second)
	}
	want := `a: open (download): 20.0 of 80.0 MB, 2.0 MB/s, 30s left
a: winners: for 0s
a: winners: 5000 rows, 500/s
a: features: 1 of 9000 rows, 1000/s, 9s left
a: features: 3000 of 9000 rows, 300/s, 20s left
write: for 0s
write: for 10s
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// Where the log is JSON, progress is a record of it.
// Seen red with plain lines: TestLogFormat of the end-to-end tests, on a slow machine.
func TestProgressInJSON(t *testing.T) {
	var out bytes.Buffer
	fake := clock.NewFake(time.Unix(0, 0))
	report := newProgress(&env{cli: &cli{LogFormat: "json"}, streams: streams{err: &out}, log: newLogger(&out, "json", "info")}, "build", fake)
	report(telemetry.Progress{Stage: "write", Unit: "rows", Total: 9000})
	fake.Advance(10 * time.Second)
	report(telemetry.Progress{Stage: "write", Unit: "rows", Done: 3000, Total: 9000})
	var got struct {
		Msg, Stage, Unit string
		Done, Total      int64
		PerSecond        float64 `json:"per_second"`
		SecondsLeft      float64 `json:"seconds_left"`
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	if got.Msg != "progress" || got.Stage != "write" || got.Unit != "rows" || got.Done != 3000 || got.Total != 9000 || got.PerSecond != 300 || got.SecondsLeft != 20 {
		t.Errorf("%s", out.String())
	}
}
