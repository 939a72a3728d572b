package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sketch"
)

const curveKeys = 1_000_000

// drawCurve lets one reader with Zipf(1.0) traffic over a million entities keep the sketch
// that readers keep, aged as they age it, brings the keys back in its order and then in the
// order of a scan, and draws which share of the traffic is served after each step, beside
// the best order there is and a scan alone.
func drawCurve(o options, out io.Writer) error {
	weights := make([]float64, curveKeys)
	sum := 0.0
	for i := range weights {
		sum += 1 / float64(i+1)
		weights[i] = sum
	}
	rng := rand.New(rand.NewPCG(7, 1))
	s := sketch.New(sketch.Config{Entries: o.entries, Sample: o.sample})
	view := feature.ViewID{Name: viewName, Version: 1}
	for range o.requests {
		i, _ := slices.BinarySearch(weights, rng.Float64()*sum)
		s.Record(feature.Ref{View: view, Key: feature.Key(entity(i))})
	}
	var order []int
	seen := make([]bool, curveKeys)
	for _, e := range s.Top() {
		var i int
		if _, err := fmt.Sscanf(string(e.Ref.Key), "customer=%d", &i); err != nil {
			return err
		}
		seen[i] = true
		order = append(order, i)
	}
	hotKeys := len(order)
	scan := rng.Perm(curveKeys)
	for _, i := range scan {
		if !seen[i] {
			order = append(order, i)
		}
	}
	best := make([]int, curveKeys)
	for i := range best {
		best[i] = i
	}
	hot, optimum, cold := served(order, sum), served(best, sum), served(scan, sum)
	worst, where := 0.0, 0
	for i := range hot {
		if gap := optimum[i] - hot[i]; gap > worst {
			worst, where = gap, i+1
		}
	}
	fmt.Fprintf(out, "Zipf(1.0) over %d entities, %d requests seen by one reader, sketch of %d entries\n", curveKeys, o.requests, hotKeys)
	for _, n := range []int{1_000, 10_000, 60_000, 120_000, 240_000, 500_000} {
		fmt.Fprintf(out, "after %4.1f %% of the items: hot first %.1f %%, optimum %.1f %%, scan %.1f %% of the traffic is served\n", 100*float64(n)/curveKeys, 100*hot[n-1], 100*optimum[n-1], 100*cold[n-1])
	}
	fmt.Fprintf(out, "worst gap to the optimum %.2f points, after %.1f %% of the items\n", 100*worst, 100*float64(where)/curveKeys)
	return os.WriteFile(o.curve, []byte(svg(hot, optimum, cold, worst)), 0o644)
}

func served(order []int, sum float64) []float64 {
	out := make([]float64, len(order))
	total := 0.0
	for n, i := range order {
		total += 1 / float64(i+1) / sum
		out[n] = total
	}
	return out
}

func svg(hot, optimum, scan []float64, worst float64) string {
	const w, h, left, top = 640, 320, 56, 28
	path := func(ys []float64) string {
		var b strings.Builder
		for step := range 201 {
			n := step * len(ys) / 200
			y := 0.0
			if n > 0 {
				y = ys[n-1]
			}
			fmt.Fprintf(&b, "%.1f,%.1f ", left+float64(step)*w/200, top+h*(1-y))
		}
		return strings.TrimSpace(b.String())
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", w+left+24, h+top+52)
	b.WriteString(`<rect width="100%" height="100%" fill="#fff"/>` + "\n")
	for i := 0; i <= 100; i += 25 {
		y, x := top+h*(100-i)/100, left+w*i/100
		fmt.Fprintf(&b, `<path d="M%d %dh%d" stroke="#ddd"/><text x="%d" y="%d" text-anchor="end" fill="#444">%d %%</text>`+"\n", left, y, w, left-6, y+4, i)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" fill="#444">%d %%</text>`+"\n", x, top+h+18, i)
	}
	for _, line := range []struct {
		color, dash, name string
		ys                []float64
		y                 int
	}{
		{"#999", "5 4", "scan alone", scan, 3}, {"#1a7f37", "2 3", "the best order there is", optimum, 1}, {"#c2410c", "", "hot first", hot, 2},
	} {
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="2" stroke-dasharray="%s" points="%s"/>`+"\n", line.color, line.dash, path(line.ys))
		y := top + h - 90 + 22*line.y
		fmt.Fprintf(&b, `<path d="M%d %dh28" stroke="%s" stroke-width="2" stroke-dasharray="%s"/><text x="%d" y="%d" fill="#222">%s</text>`+"\n", left+w-210, y-4, line.color, line.dash, left+w-174, y, line.name)
	}
	fmt.Fprintf(&b, `<text x="%d" y="18" fill="#222">Share of Zipf(1.0) traffic that is served (worst gap to the optimum %.1f points)</text>`+"\n", left, 100*worst)
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" fill="#222">share of the keys that are back</text>`+"\n</svg>\n", left+w/2, top+h+40)
	return b.String()
}
