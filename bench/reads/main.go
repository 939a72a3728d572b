// Command reads measures how fast the reader answers: from its in-process cache and from
// a loopback Redis, beside the same keys fetched by one bare pipeline of GETs and decoded.
//
//	go run ./bench/reads [-entities 100] [-features 50] [-reads 2000] [-rounds 5] [-masters 3] [-addr host:port]
//
// It starts a redis-server and a cluster of its own on loopback and stops them again; with
// -addr it uses that server and no cluster. The rounds of all rows are interleaved, so that
// a busy machine hurts all of them alike; the ratio is that of the median to the bare
// pipeline's of the same size and server. The bare pipeline only fetches: "decoded" decodes
// the values as well. Every read of the reader ends with the model's input filled: a
// []float32 per entity.
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
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/bench/internal/lab"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/online"
	"github.com/hearthstore/hearth/reader"
)

type options struct {
	entities, features, reads, rounds, masters int
	addr                                       string
}

func main() {
	var o options
	flag.IntVar(&o.entities, "entities", 100, "entities of the large read")
	flag.IntVar(&o.features, "features", 50, "float64 features per entity")
	flag.IntVar(&o.reads, "reads", 2000, "reads per row and round")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds")
	flag.IntVar(&o.masters, "masters", 3, "masters of the cluster; 0: no cluster")
	flag.StringVar(&o.addr, "addr", "", "use this server; keys of the project bench_reads are written")
	flag.Parse()
	lab.Main("reads", func(ctx context.Context, out io.Writer) error { return run(ctx, o, out) })
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	var servers []*server
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.close())
		}
	}()
	if o.addr != "" {
		s, serr := newServer(ctx, o, "redis", []string{o.addr}, false)
		if serr != nil {
			return serr
		}
		return measure(ctx, o, []*server{s}, out)
	}
	one, err := lab.Redis(ctx)
	if err != nil {
		return err
	}
	defer one.Stop()
	s, err := newServer(ctx, o, "redis", []string{one.Addr}, false)
	if err != nil {
		return err
	}
	servers = append(servers, s)
	if o.masters > 0 {
		nodes, err := lab.Cluster(ctx, o.masters)
		if err != nil {
			return err
		}
		var addrs []string
		for _, n := range nodes {
			defer n.Stop()
			addrs = append(addrs, n.Addr)
		}
		s, err := newServer(ctx, o, fmt.Sprintf("cluster of %d", o.masters), addrs, true)
		if err != nil {
			return err
		}
		servers = append(servers, s)
	}
	return measure(ctx, o, servers, out)
}

// server is one kind of Redis with the readers and the bare client over it.
type server struct {
	name          string
	o             options
	store         *online.Store
	bare          redis.UniversalClient
	cached, plain *reader.Reader // with and without the in-process cache
	keys          []string
	entities      []map[string]string
	dst           []float32
	values        []feature.Value
	fields        []feature.Field
}

func newServer(ctx context.Context, o options, name string, addrs []string, cluster bool) (*server, error) {
	v := feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "id", Type: feature.Int64}}}
	for i := range o.features {
		v.Features = append(v.Features, feature.Feature{Field: feature.Field{Name: "f" + strconv.Itoa(i), Type: feature.Float64}})
	}
	ref := feature.FeatureRef{View: v.ID(), Feature: "*"}
	project := &feature.Project{Name: "bench_reads", Views: []feature.View{v}, Services: []feature.Service{{Name: "all", Features: []feature.FeatureRef{ref}}}}
	b := &server{name: name, o: o, dst: make([]float32, o.features), fields: v.Fields()}
	var err error
	if b.store, err = online.Open(ctx, online.Config{Project: project.Name, Addrs: addrs, Cluster: cluster, ReadDeadline: 3 * time.Second}); err != nil {
		return nil, err
	}
	if cluster {
		b.bare = redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	} else {
		b.bare = redis.NewClient(&redis.Options{Addr: addrs[0]})
	}
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
		rec, err := feature.NewRecord(&project.Views[0], key, feature.AppendPayload(nil, h, body))
		if err != nil {
			return nil, err
		}
		recs = append(recs, rec)
		b.keys = append(b.keys, b.store.RedisKey(rec.Ref))
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
	cfg := reader.Config{Project: project, Online: b.store, OnlineTimeout: 3 * time.Second}
	cfg.Cache.TTL = time.Hour
	if b.cached, err = reader.New(cfg); err != nil {
		return nil, err
	}
	cfg.Cache.MaxEntries, cfg.Cache.NegativeEntries = -1, -1
	b.plain, err = reader.New(cfg)
	return b, err
}

func (b *server) close() error {
	return errors.Join(b.cached.Close(), b.plain.Close(), b.store.Close(), b.bare.Close())
}

// read is one read through a reader.
func (b *server) read(ctx context.Context, r *reader.Reader, n int, skip bool, tier feature.Tier) error {
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

// bareRead fetches the same keys without any of the reader's promises, and decodes them if
// asked to.
func (b *server) bareRead(ctx context.Context, n int, decode bool) error {
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
		if !decode {
			continue
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
	bare  *row // what the median is compared with
	n     int  // entities
	times []time.Duration
	alloc uint64
}

func rowsOf(o options, servers []*server) []*row {
	var rows []*row
	for _, n := range []int{1, o.entities} {
		size := fmt.Sprintf("%d x %d ", n, o.features)
		for i, b := range servers {
			if i == 0 {
				rows = append(rows, &row{name: size + "in-process cache", n: n, one: func(ctx context.Context) error { return b.read(ctx, b.cached, n, false, feature.TierCache) }})
			}
			bare := &row{name: size + b.name + ": bare pipeline of GETs", n: n, one: func(ctx context.Context) error { return b.bareRead(ctx, n, false) }}
			bare.bare = bare
			rows = append(rows, bare,
				&row{name: size + b.name + ": bare pipeline, decoded", n: n, bare: bare, one: func(ctx context.Context) error { return b.bareRead(ctx, n, true) }},
				&row{name: size + b.name + ": reader without cache", n: n, bare: bare, one: func(ctx context.Context) error { return b.read(ctx, b.plain, n, false, feature.TierOnline) }},
				&row{name: size + b.name + ": reader fills its cache", n: n, bare: bare, one: func(ctx context.Context) error { return b.read(ctx, b.cached, n, true, feature.TierOnline) }})
		}
	}
	return rows
}

func measure(ctx context.Context, o options, servers []*server, out io.Writer) error {
	rows := rowsOf(o, servers)
	for _, b := range servers {
		if _, err := b.cached.Get(ctx, reader.Request{Service: "all", Entities: b.entities}); err != nil {
			return err
		}
	}
	for range o.rounds {
		for _, r := range rows {
			if err := r.round(ctx, o.reads); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if _, err := fmt.Fprintln(tw, "read\tp50 µs\tp99 µs\tx bare\tentities/s\tallocs/read"); err != nil {
		return err
	}
	for _, r := range rows {
		var sum time.Duration
		for _, t := range r.times {
			sum += t
		}
		ratio := "-"
		if r.bare != nil {
			ratio = fmt.Sprintf("%.2f", micros(r.quantile(50))/micros(r.bare.quantile(50)))
		}
		reads := len(r.times)
		if _, err := fmt.Fprintf(tw, "%s\t%.1f\t%.1f\t%s\t%.0f\t%d\n", r.name, micros(r.quantile(50)), micros(r.quantile(99)), ratio,
			float64(reads*r.n)/sum.Seconds(), r.alloc/uint64(reads)); err != nil {
			return err
		}
	}
	return tw.Flush()
}

func (r *row) round(ctx context.Context, reads int) error {
	for range 50 { // warm-up
		if err := r.one(ctx); err != nil {
			return err
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range reads {
		begin := clock.System.Now()
		if err := r.one(ctx); err != nil {
			return err
		}
		r.times = append(r.times, clock.System.Now().Sub(begin))
	}
	runtime.ReadMemStats(&after)
	r.alloc += after.Mallocs - before.Mallocs
	return nil
}

func (r *row) quantile(percent int) time.Duration {
	slices.Sort(r.times)
	return r.times[len(r.times)*percent/100]
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
