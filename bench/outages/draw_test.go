package outages

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bucket is a step of the drawing.
type bucket struct {
	requests int
	took     []time.Duration
	shares   [5]int // cache, online, backing, last known, defaults
}

var shareNames = [5]string{"cache", "Redis", "DynamoDB", "last known (marked)", "default (UNKNOWN)"}
var shareColors = [5]string{"#9db4d8", "#c2410c", "#1a7f37", "#d4a72c", "#6e7781"}

const step = 250 * time.Millisecond

// drawTo draws requests a second, p99 and the shares of the tiers over the phases.
func (w *world) drawTo(file, title string) {
	w.t.Helper()
	close(w.samples)
	var buckets []bucket
	for s := range w.samples {
		at := int(s.at / step)
		for len(buckets) <= at {
			buckets = append(buckets, bucket{})
		}
		b := &buckets[at]
		b.requests++
		b.took = append(b.took, s.took)
		for i, n := range [5]int{s.cache, s.online, s.backing, s.stale, s.defaults} {
			b.shares[i] += n
		}
	}
	first := int(w.bands[0].at / step)
	calls := make([]int, len(buckets))
	for _, c := range w.calls {
		if at := int(c.Sub(w.begin) / step); at >= 0 && at < len(calls) {
			calls[at]++
		}
	}
	const width, panel, left, top, gap = 760, 110, 64, 56, 34
	x := func(i int) float64 { return left + float64(i-first)*width/float64(len(buckets)-first) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", left+width+20, top+3*(panel+gap)+40)
	b.WriteString(`<rect width="100%" height="100%" fill="#fff"/>` + "\n")
	fmt.Fprintf(&b, `<text x="%d" y="18" font-size="14" fill="#222">%s</text>`+"\n", left, title)
	for i, band := range w.bands {
		from, to := x(int(band.at/step)), x(len(buckets))
		if i+1 < len(w.bands) {
			to = x(int(w.bands[i+1].at / step))
		}
		fill := "#fff"
		if i%2 == 1 {
			fill = "#f3f1ec"
		}
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`, from, top-18, to-from, 3*(panel+gap), fill)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" font-size="9" fill="#444">%s</text>`+"\n", from+3, top-7, band.name)
	}
	line := func(n int, name, color string, most float64, value func(i int) float64) {
		base := float64(top + n*(panel+gap) + panel)
		var points strings.Builder
		for i := first; i < len(buckets); i++ {
			fmt.Fprintf(&points, "%.1f,%.1f ", x(i), base-panel*min(1, value(i)/most))
		}
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>`+"\n", color, strings.TrimSpace(points.String()))
		fmt.Fprintf(&b, `<text x="%d" y="%.0f" text-anchor="end" fill="#444">%.0f</text><text x="%d" y="%.0f" text-anchor="end" fill="#444">0</text>`, left-6, base-panel+10, most, left-6, base)
		fmt.Fprintf(&b, `<text x="%d" y="%.0f" fill="%s">%s</text>`+"\n", left+4, base+14, color, name)
	}
	perSecond := float64(time.Second / step)
	peak, slowest := 1.0, 1.0
	p99 := func(i int) float64 {
		took := buckets[i].took
		if len(took) == 0 {
			return 0
		}
		slices.Sort(took)
		return float64(took[len(took)*99/100]) / float64(time.Millisecond)
	}
	for i := first; i < len(buckets); i++ {
		peak, slowest = max(peak, perSecond*float64(buckets[i].requests)), max(slowest, p99(i))
	}
	line(0, "requests answered per second (errors: 0)", "#1f4e9c", peak*1.1, func(i int) float64 { return perSecond * float64(buckets[i].requests) })
	line(0, "", "#1a7f37", peak*1.1, func(i int) float64 { return perSecond * float64(calls[i]) })
	fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#1a7f37">calls of DynamoDB per second (cap %d)</text>`+"\n", left+300, top+panel+14, rateCap)
	line(1, "p99 of a request, ms", "#8a2be2", slowest*1.1, p99)
	base := float64(top + 2*(panel+gap) + panel)
	for i := first; i < len(buckets); i++ {
		total := 0
		for _, n := range buckets[i].shares {
			total += n
		}
		y := base
		for k, n := range buckets[i].shares {
			if total == 0 || n == 0 {
				continue
			}
			h := float64(panel) * float64(n) / float64(total)
			y -= h
			fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.2f" height="%.1f" fill="%s"/>`, x(i), y, x(i+1)-x(i)+0.3, h, shareColors[k])
		}
	}
	b.WriteString("\n")
	for k, name := range shareNames {
		fmt.Fprintf(&b, `<rect x="%d" y="%.0f" width="10" height="10" fill="%s"/><text x="%d" y="%.0f" fill="#222">%s</text>`+"\n", left+4+k*145, base+8, shareColors[k], left+18+k*145, base+17, name)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%.0f" text-anchor="end" fill="#444">100 %%</text>`, left-6, base-panel+10)
	fmt.Fprintf(&b, `<text x="%d" y="%.0f" fill="#666">%d clients, %d entities of %d features a request, phases of %s; where the values came from</text>`+"\n</svg>\n", left, base+38, clients, batch, features, *phase)
	if err := os.WriteFile(filepath.Join(*draw, file), []byte(b.String()), 0o644); err != nil {
		w.t.Fatal(err)
	}
}
