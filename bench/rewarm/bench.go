package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/bench/internal/lab"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/rewarm"
)

type bench struct {
	o       options
	table   *dynamodb.Store
	replay  int // the process
	targets []*target
	records []feature.Record // for the rows that do not scan
	stops   []func()
	part    *usage // what a row measured of itself; nil for all of it
	slowed  int64  // times that rewarms gave way
}

func newBench(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{o: o}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	replay, pid, stop, err := startReplay(ctx, o)
	if err != nil {
		return b, err
	}
	b.replay, b.stops = pid, append(b.stops, stop)
	for _, text := range strings.Split(o.shards, ",") {
		masters, err := strconv.Atoi(text)
		if err != nil || masters < 1 {
			return b, fmt.Errorf("-shards %s: give numbers above 0, with commas", o.shards)
		}
		t, err := startTarget(ctx, masters, o.shardRate)
		if err != nil {
			return b, err
		}
		b.targets, b.stops = append(b.targets, t), append(b.stops, t.close)
	}
	b.table, err = dynamodb.Open(ctx, dynamodb.Config{
		Table: "bench", Region: "us-east-1", Endpoint: "http://" + replay,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "bench", SecretAccessKey: "bench"}, nil
		}),
	})
	if err != nil {
		return b, err
	}
	b.stops = append(b.stops, func() { _ = b.table.Close() })
	err = b.scan(ctx, func(p *feature.ScanPage) error {
		for _, rec := range p.Records {
			rec.Key = feature.Key(string([]byte(rec.Key)))
			rec.Payload = slices.Clone(rec.Payload)
			rec.Online, rec.Retain = feature.NoTime, feature.NoTime
			b.records = append(b.records, rec)
		}
		return nil
	}, 1)
	if err == nil && len(b.records) != o.items {
		err = fmt.Errorf("the replay server gave %d items, want %d", len(b.records), o.items)
	}
	return b, err
}

func (b *bench) close() {
	for _, stop := range slices.Backward(b.stops) {
		stop()
	}
	b.stops = nil
}

// row is one kind of work, with what each round of it showed.
type row struct {
	name   string
	to     *target
	work   func(ctx context.Context, t *target) error
	idle   bool // nothing is moved
	rounds []usage
	live   []time.Duration
}

func (b *bench) rows() []*row {
	first := b.targets[0]
	rows := []*row{{name: "bare scan", to: first, work: func(ctx context.Context, _ *target) error {
		return b.scan(ctx, func(*feature.ScanPage) error { return nil }, b.o.workers)
	}}}
	if b.o.live {
		rows = append(rows, &row{name: "nothing but the reader", to: first, idle: true, work: func(ctx context.Context, _ *target) error {
			return clock.System.Sleep(ctx, 2*time.Second)
		}})
	}
	for _, t := range b.targets {
		rows = append(rows, &row{name: t.name("bare SET pipelines"), to: t, work: b.plain})
		if t == first {
			rows = append(rows, &row{name: "online.Put", to: t, work: b.put})
		}
		rows = append(rows, &row{name: t.name("rewarm"), to: t, work: b.rewarm}, &row{name: t.name("rewarm, hot keys"), to: t, work: b.hot})
	}
	if b.o.live {
		rows = append(rows, &row{name: fmt.Sprintf("rewarm, reads at most %v times slower", b.o.slowdown), to: first, work: func(ctx context.Context, t *target) error {
			return b.written(b.run(ctx, t, rewarm.Request{MaxSlowdown: b.o.slowdown}, nil, nil))
		}})
	}
	if b.o.live && b.o.paced > 0 {
		rows = append(rows, &row{name: fmt.Sprintf("rewarm, %.0f a second", b.o.paced), to: first, work: func(ctx context.Context, t *target) error {
			return b.written(b.run(ctx, t, rewarm.Request{MaxWriteRate: b.o.paced}, nil, nil))
		}})
	}
	return rows
}

func (b *bench) all(ctx context.Context, out io.Writer) error {
	rows := b.rows()
	if b.o.row != "" {
		only, err := regexp.Compile("^(?:" + b.o.row + ")$")
		if err != nil {
			return fmt.Errorf("-row: %w", err)
		}
		rows = slices.DeleteFunc(rows, func(r *row) bool { return !only.MatchString(r.name) })
	}
	if b.o.profile != "" {
		file, err := os.Create(b.o.profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer func() {
			pprof.StopCPUProfile()
			_ = file.Close()
		}()
	}
	for range b.o.rounds {
		for _, r := range rows {
			if err := b.measure(ctx, r); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	fmt.Fprintf(out, "%d items of %d bytes payload, %d segments, %d workers, %d puts in flight, batches of %d, %d rounds, replay server and redis-servers on the same machine\n",
		b.o.items, payloadSize, b.o.segments, b.o.workers, b.o.puts, b.o.batch, b.o.rounds)
	if b.o.tableRate > 0 {
		fmt.Fprintf(out, "the table gives at most %.0f items a second\n", b.o.tableRate)
	}
	if b.o.shardRate > 0 {
		fmt.Fprintf(out, "a shard takes about %.0f items a second\n", b.o.shardRate)
	}
	if err := b.write(out, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "the rewarms gave way to a slow Redis %d times\n", b.slowed)
	return err
}

// write makes the table. CPU is µs per item: of this process, the replay server, and the
// Redis servers. Memory is what the row took at its peak over what the process had before.
func (b *bench) write(out io.Writer, rows []*row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "work\titems/s median\tslowest\tfastest\tclient µs\treplay µs\tredis µs\tpeak MB\t")
	if b.o.live {
		fmt.Fprint(w, "GET p50\tp99\tp99.9\t")
	}
	fmt.Fprintln(w)
	for _, r := range rows {
		of := func(f func(usage) float64) []float64 {
			xs := make([]float64, len(r.rounds))
			for i, u := range r.rounds {
				xs[i] = f(u)
			}
			slices.Sort(xs)
			return xs
		}
		n := float64(b.o.items)
		median := func(f func(usage) float64) float64 { xs := of(f); return xs[len(xs)/2] }
		micros := func(d time.Duration) float64 { return float64(d.Microseconds()) / n }
		if r.idle {
			fmt.Fprintf(w, "%s\t\t\t\t\t\t\t\t", r.name)
		} else {
			rates := of(func(u usage) float64 { return n / u.took.Seconds() })
			fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.0f\t", r.name, rates[len(rates)/2], rates[0], rates[len(rates)-1],
				median(func(u usage) float64 { return micros(u.client) }), median(func(u usage) float64 { return micros(u.replay) }),
				median(func(u usage) float64 { return micros(u.redis) }), median(func(u usage) float64 { return float64(u.peak) / 1024 }))
		}
		if n := len(r.live); n > 0 {
			slices.Sort(r.live)
			fmt.Fprintf(w, "%s\t%s\t%s\t", round(r.live[n/2]), round(r.live[n*99/100]), round(r.live[n*999/1000]))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// usage is what work took: time, CPU of the processes, and memory of this one in kB.
type usage struct {
	took, client, replay, redis time.Duration
	peak                        int64
}

// meter begins to measure; what it returns says what was used until then.
func (b *bench) meter(t *target) func() usage {
	began, client, replay, redis, rss := clock.System.Now(), lab.CPU(), cpuOf(b.replay), cpuOf(t.pids...), memory("VmRSS")
	return func() usage {
		return usage{clock.System.Now().Sub(began), lab.CPU() - client, cpuOf(b.replay) - replay, cpuOf(t.pids...) - redis, memory("VmHWM") - rss}
	}
}

func (b *bench) measure(ctx context.Context, r *row) (err error) {
	if err := r.to.flush(ctx); err != nil {
		return err
	}
	if r.idle { // what a warm Redis answers
		if err := b.plain(ctx, r.to); err != nil {
			return err
		}
	}
	runtime.GC()
	debug.FreeOSMemory()
	resetPeak()
	if b.o.live {
		stop, err := startLive(ctx, r.to, b.o.items)
		if err != nil {
			return err
		}
		defer func() {
			live, stopping := stop()
			r.live = append(r.live, live...)
			if err == nil {
				err = stopping
			}
		}()
	}
	used := b.meter(r.to)
	if err := r.work(ctx, r.to); err != nil {
		return err
	}
	u := used()
	if b.part != nil { // the work measured a part of itself
		b.part.peak = u.peak
		u, b.part = *b.part, nil
	}
	r.rounds = append(r.rounds, u)
	return nil
}

// scan reads everything with some workers.
func (b *bench) scan(ctx context.Context, take func(*feature.ScanPage) error, workers int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for s := range b.o.segments {
		g.Go(func() error {
			var p feature.ScanPage
			req := feature.ScanRequest{Segment: s, Segments: b.o.segments}
			for {
				if err := b.table.Scan(ctx, req, &p); err != nil {
					return err
				}
				if err := take(&p); err != nil {
					return err
				}
				if p.Next == nil {
					return nil
				}
				req.Cursor = slices.Clone(p.Next)
			}
		})
	}
	return g.Wait()
}

// plain is what a tool would do that knows nothing of versions: SET, in pipelines.
func (b *bench) plain(ctx context.Context, t *target) error {
	return b.each(ctx, func(ctx context.Context, recs []feature.Record) error {
		pipe := t.bare.Pipeline()
		for i := range recs {
			pipe.Set(ctx, t.online.RedisKey(recs[i].Ref), recs[i].Payload, 0)
		}
		_, err := pipe.Exec(ctx)
		return err
	})
}

func (b *bench) put(ctx context.Context, t *target) error {
	return b.each(ctx, func(ctx context.Context, recs []feature.Record) error {
		results, err := t.online.Put(ctx, recs)
		for _, r := range results {
			if r.Outcome != feature.Written {
				return fmt.Errorf("a record was %s: %w", r.Outcome, r.Err)
			}
		}
		return err
	})
}

func (b *bench) each(ctx context.Context, do func(context.Context, []feature.Record) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.o.puts)
	for recs := range slices.Chunk(b.records, b.o.batch) {
		g.Go(func() error { return do(ctx, recs) })
	}
	return g.Wait()
}

// hot brings everything back as hot keys, in no order, before a scan finds it there. Only
// the hot phase is measured.
func (b *bench) hot(ctx context.Context, t *target) error {
	refs := make(hotRefs, len(b.records))
	for i, n := range rand.New(rand.NewPCG(1, 1)).Perm(len(refs)) {
		refs[i] = b.records[n].Ref
	}
	runtime.GC()
	used := b.meter(t)
	rep, err := b.run(ctx, t, rewarm.Request{}, refs, func(state []byte) {
		if b.part == nil && bytes.Contains(state, []byte(`"hot_done":true`)) {
			u := used()
			pprof.StopCPUProfile() // what follows is not measured
			b.part = &u
		}
	})
	if err != nil {
		return err
	}
	if rep.HotWritten != int64(b.o.items) {
		return fmt.Errorf("status %s, %d of the hot keys written: %v", rep.Status, rep.HotWritten, rep.Problems)
	}
	b.part.took = time.Duration(rep.HotSeconds * float64(time.Second))
	return nil
}

type hotRefs []feature.Ref

// HotKeys returns them.
func (h hotRefs) HotKeys(context.Context) ([]feature.Ref, error) { return h, nil }

func (b *bench) rewarm(ctx context.Context, t *target) error {
	return b.written(b.run(ctx, t, rewarm.Request{}, nil, nil))
}

func (b *bench) written(rep *rewarm.Report, err error) error {
	if err == nil && rep.Written != int64(b.o.items) {
		err = fmt.Errorf("status %s, %d written: %v", rep.Status, rep.Written, rep.Problems)
	}
	return err
}

func (b *bench) run(ctx context.Context, t *target, req rewarm.Request, hot hotRefs, saved func(state []byte)) (*rewarm.Report, error) {
	cfg := rewarm.Config{
		Backing: tableOf{b.table, int64(b.o.items)}, Online: t.online, State: &states{saved: saved},
		Views: []*feature.View{benchView()}, Workers: b.o.workers, PutsInFlight: b.o.puts, BatchSize: b.o.batch, PutTarget: b.o.target,
	}
	if hot != nil {
		cfg.Hot = hot
	}
	r, err := rewarm.New(cfg)
	if err != nil {
		return nil, err
	}
	req.Run, req.IfCold, req.Segments = 1, true, b.o.segments
	rep, err := r.Run(ctx, req)
	if err == nil && rep.Status != rewarm.StatusDone {
		err = fmt.Errorf("status %s: %v", rep.Status, rep.Problems)
	}
	if err == nil {
		b.slowed += rep.SlowDowns
	}
	return rep, err
}
