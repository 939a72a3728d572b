package main

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// Work that has no terminal says how far it is after firstLine, then every lineEvery.
const (
	firstLine = 2 * time.Second
	lineEvery = 10 * time.Second
)

// screen is a terminal with at most one progress bar on its last line. What is written
// through it first takes the bar away, so that bars and text never share a line; the next
// report of progress draws it again.
type screen struct {
	to io.Writer

	mu      sync.Mutex
	bar     *progressbar.ProgressBar
	name    string // of the bar's stage
	counts  bool   // the bar shows counts and a rate: they are known
	shown   bool   // the bar may be on the line
	midLine bool   // text stands on the line, and goes on: no place for a bar
}

// screenOf is the terminal behind w; nil when it is none.
func screenOf(w io.Writer) *screen {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return &screen{to: w}
}

// through returns w, cleared of the bar before each write. Without a screen it is w.
func (s *screen) through(w io.Writer) io.Writer {
	if s == nil {
		return w
	}
	return &cleared{s, w}
}

type cleared struct {
	screen *screen
	to     io.Writer
}

func (c *cleared) Write(p []byte) (int, error) {
	c.screen.mu.Lock()
	defer c.screen.mu.Unlock()
	c.screen.clear()
	if len(p) > 0 {
		c.screen.midLine = p[len(p)-1] != '\n'
	}
	return c.to.Write(p)
}

func (s *screen) clear() {
	if s.shown {
		_ = s.bar.Clear()
		s.shown = false
	}
}

// show draws the bar of a stage.
func (s *screen) show(p telemetry.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.midLine {
		return
	}
	if counts := p.Done > 0; s.bar == nil || s.name != p.Stage || counts && !s.counts {
		s.clear()
		s.counts = counts
		total := p.Total
		if total == 0 {
			total = -1
		}
		s.name = p.Stage
		options := []progressbar.Option{
			progressbar.OptionSetWriter(s.to), progressbar.OptionSetDescription(p.Stage),
			progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(),
			progressbar.OptionThrottle(100 * time.Millisecond),
			// Without a total a bar would draw itself from a goroutine of its own, for ever.
			progressbar.OptionSetSpinnerChangeInterval(0),
		}
		switch {
		case counts && p.Unit == "bytes":
			options = append(options, progressbar.OptionShowBytes(true), progressbar.OptionShowTotalBytes(true))
		case counts:
			options = append(options, progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(p.Unit))
		}
		s.bar = progressbar.NewOptions64(total, options...)
	}
	s.shown = true
	if p.Total > 0 {
		s.bar.ChangeMax64(p.Total)
	}
	_ = s.bar.Set64(p.Done)
}

// newProgress shows progress on stderr: a bar with rate and time left on a terminal, else
// a plain line now and then. Where the log is JSON it is a record of it.
func newProgress(e *env, stage string, c clock.Clock) telemetry.ProgressFunc {
	switch {
	case e.cli.LogFormat == "json":
		return nowAndThen(stage, c, func(s standing) { s.log(e.log) })
	case e.screen == nil:
		return nowAndThen(stage, c, func(s standing) { s.line(e.err) })
	}
	return e.screen.show
}

// standing is how far a stage is.
type standing struct {
	telemetry.Progress
	since time.Duration // the stage began
	rate  float64       // units per second
	left  time.Duration // 0 when it is not known
}

// nowAndThen tells how far a stage is: after firstLine, then every lineEvery.
func nowAndThen(stage string, c clock.Clock, tell func(standing)) telemetry.ProgressFunc {
	start, current := c.Now(), ""
	next := start.Add(firstLine)
	return func(p telemetry.Progress) {
		now := c.Now()
		if p.Stage != current { // the rate is that of the stage
			start, current = now, p.Stage
		}
		if now.Before(next) {
			return
		}
		next = now.Add(lineEvery)
		s := standing{Progress: p, since: now.Sub(start)}
		s.Stage = cmp.Or(p.Stage, stage)
		s.rate = float64(p.Done) / max(s.since.Seconds(), 0.001)
		if p.Total > 0 && s.rate > 0 {
			s.left = time.Duration(float64(p.Total-p.Done) / s.rate * float64(time.Second)).Round(time.Second)
		}
		tell(s)
	}
}

func (s standing) line(to io.Writer) {
	switch {
	case s.Done == 0: // not known yet, or never
		fmt.Fprintf(to, "%s: for %s\n", s.Stage, s.since.Round(time.Second))
	case s.Total > 0 && s.Unit == "bytes":
		fmt.Fprintf(to, "%s: %.1f of %.1f MB, %.1f MB/s, %s left\n", s.Stage, float64(s.Done)/1e6, float64(s.Total)/1e6, s.rate/1e6, s.left)
	case s.Total > 0:
		fmt.Fprintf(to, "%s: %d of %d %s, %.0f/s, %s left\n", s.Stage, s.Done, s.Total, s.Unit, s.rate, s.left)
	default:
		fmt.Fprintf(to, "%s: %d %s, %.0f/s\n", s.Stage, s.Done, s.Unit, s.rate)
	}
}

func (s standing) log(to *slog.Logger) {
	to.Info("progress", "stage", s.Stage, "done", s.Done, "total", s.Total, "unit", s.Unit, "per_second", math.Round(s.rate), "seconds_left", s.left.Seconds())
}
