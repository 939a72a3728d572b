package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// lineEvery is how often work that has no terminal says how far it is.
const lineEvery = 10 * time.Second

// newProgress shows progress on stderr: a bar with rate and time left on a terminal, else
// a plain line now and then.
func newProgress(e *env, stage string) telemetry.ProgressFunc {
	f, ok := e.err.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return progressLines(e, stage)
	}
	var (
		bar  *progressbar.ProgressBar
		name string
	)
	return func(p telemetry.Progress) {
		if bar == nil || name != p.Stage {
			if bar != nil {
				_ = bar.Finish()
			}
			total := p.Total
			if total == 0 {
				total = -1
			}
			name = p.Stage
			bar = progressbar.NewOptions64(total,
				progressbar.OptionSetWriter(e.err), progressbar.OptionSetDescription(p.Stage),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(p.Unit),
				progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(),
				progressbar.OptionThrottle(100*time.Millisecond))
		}
		if p.Total > 0 {
			bar.ChangeMax64(p.Total)
		}
		_ = bar.Set64(p.Done)
	}
}

func progressLines(e *env, stage string) telemetry.ProgressFunc {
	start := clock.System.Now()
	last, current := start, ""
	return func(p telemetry.Progress) {
		now := clock.System.Now()
		if p.Stage != current { // the rate is that of the stage
			start, current = now, p.Stage
		}
		if now.Sub(last) < lineEvery {
			return
		}
		last = now
		rate := float64(p.Done) / max(now.Sub(start).Seconds(), 0.001)
		if p.Stage == "" {
			p.Stage = stage
		}
		if p.Total > 0 && rate > 0 {
			left := time.Duration(float64(p.Total-p.Done) / rate * float64(time.Second)).Round(time.Second)
			fmt.Fprintf(e.err, "%s: %d of %d %s, %.0f/s, %s left\n", p.Stage, p.Done, p.Total, p.Unit, rate, left)
			return
		}
		fmt.Fprintf(e.err, "%s: %d %s, %.0f/s\n", p.Stage, p.Done, p.Unit, rate)
	}
}
