package offline

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
)

//go:embed report.html
var reportHTML string

var report = template.Must(template.New("report").Funcs(template.FuncMap{
	"percent": percent, "age": age, "number": number,
	"date": func(t Timestamp) string {
		if t.String() == "-" {
			return "-"
		}
		return t.Time().Format("2006-01-02")
	},
	"stamp": func(t time.Time) string { return t.Format("2006-01-02 15:04 UTC") },
	"total": total,
	"short": func(s string) string { return s[:min(16, len(s))] },
	"width": func(share float64) string { return fmt.Sprintf("%.2f%%", 100*min(max(share, 0), 1)) },
}).Parse(reportHTML))

// WriteHTML writes a self-contained page about the training set: how much matched, what
// is null, how old the features were, when the labels were, and the leakage audit. It
// loads nothing from anywhere and holds no feature values.
func (m *Manifest) WriteHTML(w io.Writer) error {
	page := struct {
		*Manifest
		Timeline chart
		Ages     []chart
		Ties     int64
	}{Manifest: m}
	bars := make([]bar, len(m.Spine.Timeline))
	for i, b := range m.Spine.Timeline {
		bars[i] = bar{b.Count, b.From.Time().Format("2006-01-02 15:04") + " to " + b.To.Time().Format("2006-01-02 15:04")}
	}
	page.Timeline = draw(spread(m.Spine.Timeline, bars), 180)
	for _, v := range m.Views {
		bars := make([]bar, len(v.Ages))
		for i, b := range v.Ages {
			bars[i] = bar{b.Count, age(b.From) + " to " + age(b.To)}
		}
		page.Ages = append(page.Ages, draw(bars, 120))
		page.Ties += v.Ties
	}
	if err := report.Execute(w, page); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

type bar struct {
	count int64
	label string
}

// spread puts the bins of a timeline, of which empty ones are absent, at their places.
func spread(bins []TimelineBin, bars []bar) []bar {
	if len(bins) == 0 {
		return nil
	}
	width := int64(bins[0].To.Micros - bins[0].From.Micros)
	out := make([]bar, int64(bins[len(bins)-1].From.Micros-bins[0].From.Micros)/width+1)
	for i, b := range bins {
		out[int64(b.From.Micros-bins[0].From.Micros)/width] = bars[i]
	}
	return out
}

// chart is a bar chart in units of its own view box.
type chart struct {
	Width, Height int
	Bars          []rect
	Highest       int64
	First, Last   string
}

type rect struct {
	X, Y, W, H float64
	Title      string
}

const chartWidth = 960

func draw(bars []bar, height int) chart {
	c := chart{Width: chartWidth, Height: height}
	for _, b := range bars {
		c.Highest = max(c.Highest, b.count)
	}
	step := float64(chartWidth) / float64(max(len(bars), 1))
	gap := min(2, step/5)
	for i, b := range bars {
		if b.count == 0 {
			continue
		}
		h := max(float64(height)*float64(b.count)/float64(c.Highest), 1)
		c.Bars = append(c.Bars, rect{float64(i)*step + gap/2, float64(height) - h, step - gap, h, number(b.count) + " rows, " + b.label})
	}
	if len(bars) > 0 {
		c.First, _, _ = strings.Cut(bars[0].label, " to ")
		_, c.Last, _ = strings.Cut(bars[len(bars)-1].label, " to ")
	}
	return c
}

// total sums up many input files.
func total(files []InputFile) string {
	var bytes int64
	skipped := 0
	for _, f := range files {
		bytes += f.Size
		if f.Skipped {
			skipped++
		}
	}
	text := number(int64(len(files))) + " files · " + number(bytes) + " bytes"
	if skipped > 0 {
		text += fmt.Sprintf(" · %d not read", skipped)
	}
	return text
}

// number shows an integer with thousands apart.
func number(n int64) string {
	text := fmt.Sprint(n)
	var b strings.Builder
	for i, c := range text {
		if i > 0 && c != '-' && (len(text)-i)%3 == 0 && text[i-1] != '-' {
			b.WriteString("\u2009")
		}
		b.WriteRune(c)
	}
	return b.String()
}
