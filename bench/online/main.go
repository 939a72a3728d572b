// Command online measures how fast the online tier writes and reads, beside the same work
// done by bare commands of the Redis client: plain SETs, and a hand-written set-if-newer
// script, one EVALSHA per key.
//
//	go run ./bench/online [-entities 100000] [-rounds 5] [-addr host:port | -cluster a,b,c]
//
// Without -addr it starts a redis-server of its own on loopback and stops it again. The rounds
// of all rows are interleaved, so that a busy machine hurts all of them alike; a row shows
// the median, the slowest and the fastest round, the ratio to its bare counterpart, and the
// processor time that an entity costs the client and the server: one core of a server can
// do no more than a million divided by that, whatever else runs on the machine. Last comes
// the memory of a single server per float32 feature.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/bench/internal/lab"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/online"
)

func main() {
	var o options
	flag.IntVar(&o.entities, "entities", 100_000, "entities per round")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds per row")
	flag.IntVar(&o.features, "features", 20, "float64 features per entity")
	flag.IntVar(&o.workers, "workers", 4, "callers at the same time")
	flag.IntVar(&o.batch, "batch", 2000, "records per Put")
	flag.StringVar(&o.addr, "addr", "", "use this server; IT IS FLUSHED")
	flag.StringVar(&o.cluster, "cluster", "", "use this cluster (addresses of some nodes, with commas); IT IS FLUSHED")
	flag.StringVar(&o.layout, "layout", online.LayoutBlob, "blob or hash")
	flag.IntVar(&o.memoryFeatures, "memory-features", 50, "float32 features per entity where memory is measured (one server only; 0 leaves it out)")
	flag.BoolVar(&o.embedded, "embedded", false, "measure the embedded server")
	flag.Parse()
	lab.Main("online", func(ctx context.Context, out io.Writer) error { return run(ctx, o, out) })
}

type options struct {
	entities, rounds, features, workers, batch, memoryFeatures int
	addr, cluster, layout                                      string
	embedded                                                   bool
}

// row is one kind of work; a round returns how many entities it moved.
type row struct {
	name   string
	bare   string // the row to compare with; "" for none
	cond   string // and the one that keeps the same promise of order
	round  func(ctx context.Context) (int, error)
	before func(ctx context.Context) error // not measured
	rates  []float64
	allocs []float64
	client []float64 // µs of processor time per entity
	server []float64
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.addr == "" && o.cluster == "" && !o.embedded {
		server, err := lab.Redis(ctx)
		if err != nil {
			return err
		}
		defer server.Stop()
		o.addr = server.Addr
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	if err := errors.Join(b.measureAll(ctx, out), b.close()); err != nil {
		return err
	}
	if o.addr == "" || o.memoryFeatures == 0 {
		return nil
	}
	return memory(ctx, o, out)
}

func (b *bench) measureAll(ctx context.Context, out io.Writer) error {
	rows := b.rows()
	for range b.o.rounds {
		for _, r := range rows {
			if err := b.measure(ctx, r); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	return report(out, b.o, rows)
}

func (b *bench) measure(ctx context.Context, r *row) error {
	if r.before != nil {
		if err := r.before(ctx); err != nil {
			return err
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	server, err := b.serverTime(ctx)
	if err != nil {
		return err
	}
	client := lab.CPU()
	start := clock.System.Now()
	n, err := r.round(ctx)
	took := clock.System.Now().Sub(start)
	if err != nil {
		return err
	}
	client = lab.CPU() - client
	runtime.ReadMemStats(&after)
	serverAfter, err := b.serverTime(ctx)
	if err != nil {
		return err
	}
	r.rates = append(r.rates, float64(n)/took.Seconds())
	r.allocs = append(r.allocs, float64(after.Mallocs-before.Mallocs)/float64(n))
	r.client = append(r.client, client.Seconds()*1e6/float64(n))
	r.server = append(r.server, (serverAfter-server)*1e6/float64(n))
	return nil
}

// serverTime is the processor time of all masters in seconds; 0 for the embedded server.
func (b *bench) serverTime(ctx context.Context) (float64, error) {
	var mu sync.Mutex
	sum := 0.0
	add := func(ctx context.Context, node *redis.Client) error {
		text, err := node.Info(ctx, "cpu").Result()
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if name == "used_cpu_sys" || name == "used_cpu_user" {
				seconds, err := strconv.ParseFloat(value, 64)
				if err != nil {
					return err
				}
				sum += seconds
			}
		}
		return nil
	}
	var err error
	switch bare := b.bare.(type) {
	case *redis.ClusterClient:
		err = bare.ForEachMaster(ctx, add)
	case *redis.Client:
		err = add(ctx, bare)
	}
	return sum, err
}

func report(out io.Writer, o options, rows []*row) error {
	where := o.addr + o.cluster
	if o.embedded {
		where = "embedded"
	}
	fmt.Fprintf(out, "%s, layout %s, %d entities of %d float64, %d callers, batches of %d, %d rounds, %d CPUs\n",
		where, o.layout, o.entities, o.features, o.workers, o.batch, o.rounds, runtime.NumCPU())
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "work\tentities/s median\tslowest\tfastest\tof bare\tof conditional\tclient µs\tserver µs\tallocs/entity\t")
	medians := map[string]float64{}
	for _, r := range rows {
		slices.Sort(r.rates)
		slices.Sort(r.allocs)
		slices.Sort(r.client)
		slices.Sort(r.server)
		medians[r.name] = r.rates[len(r.rates)/2]
	}
	for _, r := range rows {
		ratio, cond := "", ""
		if r.bare != "" {
			ratio = fmt.Sprintf("%.2f", medians[r.name]/medians[r.bare])
		}
		if r.cond != "" {
			cond = fmt.Sprintf("%.2f", medians[r.name]/medians[r.cond])
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\t%s\t%s\t%.2f\t%.2f\t%.1f\t\n", r.name, medians[r.name], r.rates[0], r.rates[len(r.rates)-1], ratio, cond,
			r.client[len(r.client)/2], r.server[len(r.server)/2], r.allocs[len(r.allocs)/2])
	}
	return w.Flush()
}

type bench struct {
	o     options
	store *online.Store
	bare  redis.UniversalClient // nil for the embedded server
	recs  []feature.Record      // first versions
	newer []feature.Record
}

func newBench(ctx context.Context, o options) (*bench, error) {
	view := benchView("bench", o.features, feature.Float64)
	cfg := online.Config{Project: "bench", Layout: o.layout, Views: []*feature.View{view}, Embedded: o.embedded}
	b := &bench{o: o}
	switch {
	case o.cluster != "":
		cfg.Addrs, cfg.Cluster = strings.Split(o.cluster, ","), true
		b.bare = redis.NewClusterClient(&redis.ClusterOptions{Addrs: cfg.Addrs})
	case o.addr != "":
		cfg.Addrs = []string{o.addr}
		b.bare = redis.NewClient(&redis.Options{Addr: o.addr, PoolSize: 2 * o.workers, PipelinePoolSize: 2 * o.workers})
	}
	var err error
	if b.store, err = online.Open(ctx, cfg); err != nil {
		return nil, err
	}
	if b.bare != nil {
		if err := conditional.Load(ctx, b.bare).Err(); err != nil {
			return nil, fmt.Errorf("load the bare script: %w", err)
		}
	}
	values := make([]feature.Value, o.features)
	for event, to := range map[feature.Micros]*[]feature.Record{firstEvent: &b.recs, firstEvent + 60_000_000: &b.newer} {
		*to, err = records(view, o.entities, event, func(entity int) []feature.Value {
			for f := range values {
				values[f] = feature.Float64Value(float64(entity*f) / 7)
			}
			return values
		})
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

const firstEvent = feature.Micros(1_700_000_000_000_000)

func benchView(name string, features int, t feature.Type) *feature.View {
	view := &feature.View{Name: name, Version: 1, JoinKeys: []feature.JoinKey{{Name: "id", Type: feature.Int64}}}
	for i := range features {
		view.Features = append(view.Features, feature.Feature{Field: feature.Field{Name: "f" + strconv.Itoa(i), Type: t}})
	}
	return view
}

// records makes a record per entity; what values returns is used before its next call.
func records(view *feature.View, n int, event feature.Micros, values func(entity int) []feature.Value) ([]feature.Record, error) {
	recs := make([]feature.Record, 0, n)
	for i := range n {
		key, err := feature.NewKey(feature.KeyPart{Name: "id", Value: strconv.Itoa(i)})
		if err != nil {
			return nil, err
		}
		features, err := feature.AppendFeatures(nil, view.Fields(), values(i))
		if err != nil {
			return nil, err
		}
		v := feature.Version{Event: event, Created: feature.NoTime, Run: 1}
		rec, err := feature.NewRecord(view, key, feature.AppendPayload(nil, feature.Header{Fingerprint: view.Fingerprint(), Version: v}, features))
		if err != nil {
			return nil, err
		}
		rec.Online = feature.MicrosOf(clock.System.Now().Add(time.Hour))
		recs = append(recs, rec)
	}
	return recs, nil
}

func (b *bench) close() error {
	if b.bare != nil {
		if err := b.bare.Close(); err != nil {
			return err
		}
	}
	return b.store.Close()
}

func (b *bench) rows() []*row {
	fill := func(ctx context.Context) error {
		_, err := b.put(ctx, b.recs, feature.Written, feature.Unchanged)
		return err
	}
	empty := b.store.FlushAll
	refill := func(ctx context.Context) error {
		if err := empty(ctx); err != nil {
			return err
		}
		return fill(ctx)
	}
	put := func(recs []feature.Record, want ...feature.Outcome) func(context.Context) (int, error) {
		return func(ctx context.Context) (int, error) { return b.put(ctx, recs, want...) }
	}
	older := func(ctx context.Context) error {
		_, err := b.put(ctx, b.newer, feature.Written, feature.Unchanged)
		return err
	}
	rows := []*row{
		{name: "put, empty tier", bare: "bare SET, empty", cond: "bare conditional, empty", before: empty, round: put(b.recs, feature.Written)},
		{name: "put, all newer", bare: "bare SET, full", cond: "bare conditional, all newer", before: refill, round: put(b.newer, feature.Written)},
		{name: "put, all the same", bare: "bare SET, full", cond: "bare conditional, all the same", before: refill, round: put(b.recs, feature.Unchanged)},
		{name: "put, all older", bare: "bare SET, full", cond: "bare conditional, all older", before: older, round: put(b.recs, feature.Older)},
		{name: "get of 100", bare: "bare MGET of 100", before: refill, round: b.get},
	}
	if b.bare == nil || b.o.layout != online.LayoutBlob {
		for _, r := range rows {
			r.bare, r.cond = "", ""
		}
		return rows
	}
	rows = append(rows,
		&row{name: "bare SET, empty", before: empty, round: b.bareSet},
		&row{name: "bare SET, full", before: refill, round: b.bareSet},
		&row{name: "bare MGET of 100", before: refill, round: b.bareGet},
		&row{name: "bare conditional, empty", before: empty, round: b.bareConditional(b.recs, 1)},
		&row{name: "bare conditional, all newer", before: refill, round: b.bareConditional(b.newer, 1)},
		&row{name: "bare conditional, all the same", before: refill, round: b.bareConditional(b.recs, 2)},
		&row{name: "bare conditional, all older", before: older, round: b.bareConditional(b.recs, 0)})
	if b.o.cluster != "" {
		rows[4].bare, rows[7].name = "bare GET of 100", "bare GET of 100"
	}
	return rows
}

// spread runs fn over parts of [0, n) in o.workers goroutines and returns n.
func (b *bench) spread(n, part int, fn func(from, to int) error) (int, error) {
	parts := make(chan int)
	errs := make([]error, b.o.workers)
	var group sync.WaitGroup
	for w := range b.o.workers {
		group.Go(func() {
			for from := range parts {
				if errs[w] == nil {
					errs[w] = fn(from, min(from+part, n))
				}
			}
		})
	}
	for from := 0; from < n; from += part {
		parts <- from
	}
	close(parts)
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (b *bench) put(ctx context.Context, recs []feature.Record, want ...feature.Outcome) (int, error) {
	return b.spread(len(recs), b.o.batch, func(from, to int) error {
		results, err := b.store.Put(ctx, recs[from:to])
		if err != nil {
			return err
		}
		for _, r := range results {
			if !slices.Contains(want, r.Outcome) {
				return fmt.Errorf("outcome %v, want %v (%v)", r.Outcome, want, r.Err)
			}
		}
		return nil
	})
}

func (b *bench) get(ctx context.Context) (int, error) {
	return b.spread(len(b.recs), 100, func(from, to int) error {
		refs := make([]feature.Ref, to-from)
		for i := range refs {
			refs[i] = b.recs[from+i].Ref
		}
		results, err := b.store.Get(ctx, refs)
		if err != nil {
			return err
		}
		for _, r := range results {
			if r.Err != nil || r.Payload == nil {
				return fmt.Errorf("a value is missing: %v", r.Err)
			}
		}
		return nil
	})
}

func (b *bench) bareSet(ctx context.Context) (int, error) {
	return b.spread(len(b.recs), 500, func(from, to int) error {
		pipe := b.bare.Pipeline()
		for i := from; i < to; i++ {
			pipe.Set(ctx, b.store.RedisKey(b.recs[i].Ref), b.recs[i].Payload, time.Hour)
		}
		_, err := pipe.Exec(ctx)
		return err
	})
}

func (b *bench) bareGet(ctx context.Context) (int, error) {
	return b.spread(len(b.recs), 100, func(from, to int) error {
		keys := make([]string, to-from)
		for i := range keys {
			keys[i] = b.store.RedisKey(b.recs[from+i].Ref)
		}
		if b.o.cluster == "" {
			_, err := b.bare.MGet(ctx, keys...).Result()
			return err
		}
		pipe := b.bare.Pipeline()
		for _, k := range keys {
			pipe.Get(ctx, k)
		}
		_, err := pipe.Exec(ctx)
		return err
	})
}
