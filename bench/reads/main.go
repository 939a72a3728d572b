// Command reads measures how fast the reader answers: from its in-process cache and from
// a loopback Redis, beside the same keys fetched by one bare pipeline of GETs and decoded.
//
//	go run ./bench/reads [-entities 100] [-features 50] [-reads 2000] [-rounds 5] [-addr host:port]
//
// Without -addr it starts a redis-server of its own on loopback and stops it again. The
// rounds of all rows are interleaved, so that a busy machine hurts all of them alike.
// Every read ends with the model's input filled: a []float32 per entity.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/online"
	"github.com/hearthstore/hearth/reader"
)

type options struct {
	entities, features, reads, rounds int
	addr                              string
}

func main() {
	var o options
	flag.IntVar(&o.entities, "entities", 100, "entities of the large read")
	flag.IntVar(&o.features, "features", 50, "float64 features per entity")
	flag.IntVar(&o.reads, "reads", 2000, "reads per row and round")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds")
	flag.StringVar(&o.addr, "addr", "", "use this server; keys of the project bench_reads are written")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench reads:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.addr == "" {
		stop, addr, serr := startRedis(ctx)
		if serr != nil {
			return serr
		}
		defer stop()
		o.addr = addr
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	return b.measure(ctx, out)
}

// startRedis runs a redis-server without persistence on a free loopback port.
func startRedis(ctx context.Context) (stop func(), addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	addr = l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	if err := l.Close(); err != nil {
		return nil, "", err
	}
	cmd := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start redis-server: %w; install it or give -addr", err)
	}
	stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = c.Close() }()
	for range 100 {
		if c.Ping(ctx).Err() == nil {
			return stop, addr, nil
		}
		if err := clock.System.Sleep(ctx, 50*time.Millisecond); err != nil {
			break
		}
	}
	stop()
	return nil, "", errors.New("redis-server did not start")
}

type bench struct {
	o             options
	project       *feature.Project
	store         *online.Store
	bare          *redis.Client
	cached, plain *reader.Reader // with and without the in-process cache
	keys          []string
	entities      []map[string]string
	dst           []float32
	values        []feature.Value
	fields        []feature.Field
}

func newBench(ctx context.Context, o options) (*bench, error) {
	v := feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "id", Type: feature.Int64}}}
	for i := range o.features {
		v.Features = append(v.Features, feature.Feature{Field: feature.Field{Name: "f" + strconv.Itoa(i), Type: feature.Float64}})
	}
	ref := feature.FeatureRef{View: v.ID(), Feature: "*"}
	b := &bench{o: o, dst: make([]float32, o.features), fields: v.Fields(),
		project: &feature.Project{Name: "bench_reads", Views: []feature.View{v}, Services: []feature.Service{{Name: "all", Features: []feature.FeatureRef{ref}}}}}
	var err error
	if b.store, err = online.Open(ctx, online.Config{Project: b.project.Name, Addrs: []string{o.addr}, ReadDeadline: 3 * time.Second}); err != nil {
		return nil, err
	}
	b.bare = redis.NewClient(&redis.Options{Addr: o.addr})
	var recs []feature.Record
	for id := range o.entities {
		values := make([]feature.Value, o.features)
		for i := range values {
			values[i] = feature.Float64Value(float64(id) + float64(i)/7)
		}
		body, err := feature.AppendFeatures(nil, b.fields, values)
		if err != nil {
			return nil, err
		}
		h := feature.Header{Fingerprint: v.Fingerprint(), Version: feature.Version{Event: feature.MicrosOf(clock.System.Now()), Created: feature.NoTime, Run: 1}}
		key := feature.Key("id=" + strconv.Itoa(id))
		rec, err := feature.NewRecord(&b.project.Views[0], key, feature.AppendPayload(nil, h, body))
		if err != nil {
			return nil, err
		}
		recs = append(recs, rec)
		b.keys = append(b.keys, b.project.Name+":"+v.ID().String()+":{"+string(key)+"}")
		b.entities = append(b.entities, map[string]string{"id": strconv.Itoa(id)})
	}
	got, err := b.store.Put(ctx, recs)
	if err != nil {
		return nil, err
	}
	for _, g := range got {
		if g.Err != nil {
			return nil, g.Err
		}
	}
	cfg := reader.Config{Project: b.project, Online: b.store, OnlineTimeout: 3 * time.Second}
	cfg.Cache.TTL = time.Hour
	if b.cached, err = reader.New(cfg); err != nil {
		return nil, err
	}
	cfg.Cache.MaxEntries, cfg.Cache.NegativeEntries = -1, -1
	b.plain, err = reader.New(cfg)
	return b, err
}

func (b *bench) close() error {
	return errors.Join(b.cached.Close(), b.plain.Close(), b.store.Close(), b.bare.Close())
}

// read is one read through a reader.
func (b *bench) read(ctx context.Context, r *reader.Reader, n int, skip bool, tier feature.Tier) error {
	resp, err := r.Get(ctx, reader.Request{Service: "all", Entities: b.entities[:n], SkipCache: skip})
	if err != nil {
		return err
	}
	for i := range resp.Len() {
		if missing := resp.Row(i).Fill(b.dst); missing > 0 {
			return fmt.Errorf("%d features are missing; unreachable: %+v", missing, resp.Unreachable)
		}
	}
	if got := resp.Row(n - 1).At(0).Tier; got != tier {
		return fmt.Errorf("answered from %s, not %s", got, tier)
	}
	return nil
}

// bareRead is the same without any of the reader's promises.
func (b *bench) bareRead(ctx context.Context, n int) error {
	pipe := b.bare.Pipeline()
	cmds := make([]*redis.StringCmd, n)
	for i := range n {
		cmds[i] = pipe.Get(ctx, b.keys[i])
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	for _, c := range cmds {
		payload, err := c.Bytes()
		if err != nil {
			return err
		}
		_, body, err := feature.ParsePayload(payload)
		if err != nil {
			return err
		}
		if b.values, err = feature.DecodeFeatures(body, b.fields, b.values); err != nil {
			return err
		}
		for i, v := range b.values {
			b.dst[i] = v.Float32()
		}
	}
	return nil
}

type row struct {
	name  string
	one   func(context.Context) error
	times []time.Duration
	alloc uint64
}

func (b *bench) measure(ctx context.Context, out io.Writer) error {
	var rows []*row
	for _, n := range []int{1, b.o.entities} {
		size := fmt.Sprintf("%d x %d", n, b.o.features)
		rows = append(rows,
			&row{name: size + " in-process cache", one: func(ctx context.Context) error { return b.read(ctx, b.cached, n, false, feature.TierCache) }},
			&row{name: size + " redis, no cache", one: func(ctx context.Context) error { return b.read(ctx, b.plain, n, false, feature.TierOnline) }},
			&row{name: size + " redis, cache filled", one: func(ctx context.Context) error { return b.read(ctx, b.cached, n, true, feature.TierOnline) }},
			&row{name: size + " bare pipeline of GETs", one: func(ctx context.Context) error { return b.bareRead(ctx, n) }},
		)
	}
	if _, err := b.cached.Get(ctx, reader.Request{Service: "all", Entities: b.entities}); err != nil {
		return err
	}
	for range b.o.rounds {
		for _, r := range rows {
			for range 50 { // warm-up
				if err := r.one(ctx); err != nil {
					return fmt.Errorf("%s: %w", r.name, err)
				}
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range b.o.reads {
				begin := clock.System.Now()
				if err := r.one(ctx); err != nil {
					return fmt.Errorf("%s: %w", r.name, err)
				}
				r.times = append(r.times, clock.System.Now().Sub(begin))
			}
			runtime.ReadMemStats(&after)
			r.alloc += after.Mallocs - before.Mallocs
		}
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if _, err := fmt.Fprintln(tw, "read\tp50 µs\tp99 µs\treads/s\tallocs\t"); err != nil {
		return err
	}
	for _, r := range rows {
		slices.Sort(r.times)
		var sum time.Duration
		for _, t := range r.times {
			sum += t
		}
		n := len(r.times)
		if _, err := fmt.Fprintf(tw, "%s\t%.1f\t%.1f\t%.0f\t%d\t\n", r.name, micros(r.times[n/2]), micros(r.times[n*99/100]),
			float64(n)/sum.Seconds(), r.alloc/uint64(n)); err != nil {
			return err
		}
	}
	return tw.Flush()
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
