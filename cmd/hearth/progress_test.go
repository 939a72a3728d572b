package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

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
