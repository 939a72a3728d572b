// Command http measures what a client of hearth serve waits for, and how many requests a
// second it gets: 1 and 100 entities × 50 features, every value from redis-server, beside
// the bare pipelined GETs of the same keys in process, and Feast's feature server over the
// same redis-server where Python has Feast.
//
//	go run ./bench/http [-features 50] [-requests 2000] [-rounds 3] [-clients 8] [-feast PYTHON]
//
// The server runs in this process and the clients too: they share its cores, as the
// clients of Feast's do. The rounds of all rows are interleaved. -feast "" leaves Feast
// out; its default is the environment that `make deps` makes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/hearthstore/hearth/bench/internal/lab"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/testservers"
)

type options struct {
	features, requests, rounds, clients int
	feast                               string
}

func main() {
	o := options{}
	python, err := testservers.FeastPython()
	if err != nil {
		python = ""
	}
	flag.IntVar(&o.features, "features", 50, "float64 features per entity")
	flag.IntVar(&o.requests, "requests", 2000, "requests per row and round (a tenth of them for 100 entities; Feast: again a tenth)")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds")
	flag.IntVar(&o.clients, "clients", 8, "clients at once, for the requests per second")
	flag.StringVar(&o.feast, "feast", python, "Python interpreter with feast[redis]")
	flag.Parse()
	lab.Main("http", func(ctx context.Context, out io.Writer) error { return run(ctx, o, out) })
}

// row is one way to get the same values.
type row struct {
	name  string
	n     int                         // requests per round
	one   func(context.Context) error // safe for concurrent use
	times []time.Duration
	rates []float64 // requests a second with all clients, per round
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	server, err := lab.Redis(ctx)
	if err != nil {
		return err
	}
	defer server.Stop()
	h, err := newHearth(ctx, o, server.Addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	sizes := map[int][]*row{}
	for _, entities := range []int{1, entityCount} {
		sizes[entities] = h.rows(entities)
	}
	if o.feast != "" {
		f, err := startFeast(ctx, o, server.Addr)
		if err != nil {
			return fmt.Errorf("feast: %w; -feast \"\" leaves it out", err)
		}
		defer f.stop()
		for _, entities := range []int{1, entityCount} {
			sizes[entities] = append(sizes[entities], f.row(entities))
		}
	}
	for range o.rounds {
		for _, entities := range []int{1, entityCount} {
			for _, r := range sizes[entities] {
				if err := r.measure(ctx, o.clients); err != nil {
					return fmt.Errorf("%d entities: %s: %w", entities, r.name, err)
				}
			}
		}
	}
	return show(out, o, sizes)
}

// measure makes the round's requests one after the other, and then by all clients at once.
func (r *row) measure(ctx context.Context, clients int) error {
	for range 10 { // warm-up
		if err := r.one(ctx); err != nil {
			return err
		}
	}
	for range r.n {
		begin := clock.System.Now()
		if err := r.one(ctx); err != nil {
			return err
		}
		r.times = append(r.times, clock.System.Now().Sub(begin))
	}
	var wg sync.WaitGroup
	errs := make([]error, clients)
	begin := clock.System.Now()
	each := max(1, r.n/clients)
	for c := range clients {
		wg.Go(func() {
			for range each {
				if errs[c] = r.one(ctx); errs[c] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	r.rates = append(r.rates, float64(each*clients)/clock.System.Now().Sub(begin).Seconds())
	return errors.Join(errs...)
}

func show(out io.Writer, o options, sizes map[int][]*row) error {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if _, err := fmt.Fprintf(tw, "read\tp50 ms\tp99 ms\tp99 / bare\trequests/s (%d clients)\tof bare\t\n", o.clients); err != nil {
		return err
	}
	for _, entities := range []int{1, entityCount} {
		var bare *row
		for _, r := range sizes[entities] {
			slices.Sort(r.times)
			slices.Sort(r.rates)
			if bare == nil {
				bare = r
			}
			p99, rate := quantile(r, 99), r.rates[len(r.rates)/2]
			if _, err := fmt.Fprintf(tw, "%d x %d %s\t%.3f\t%.3f\t%.1f\t%.0f\t%.2f\t\n", entities, o.features, r.name,
				quantile(r, 50), p99, p99/quantile(bare, 99), rate, rate/bare.rates[len(bare.rates)/2]); err != nil {
				return err
			}
		}
	}
	return tw.Flush()
}

func quantile(r *row, percent int) float64 {
	return float64(r.times[len(r.times)*percent/100]) / float64(time.Millisecond)
}
