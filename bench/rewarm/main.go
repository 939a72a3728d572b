// Command rewarm measures how fast a lost online tier comes back.
//
//	go run ./bench/rewarm [-items 237000] [-rounds 5] [-curve docs/hot-first.svg]
//
// Canned DynamoDB pages are replayed by a second process, decoded, and put into a
// redis-server on loopback that is started and stopped here. Beside the whole path it
// measures its two halves alone: the scan that throws its pages away, and pipelines of
// plain SET, which promise nothing. Rounds are interleaved; medians are shown. -live reads
// single keys meanwhile and shows what live traffic feels. -curve draws the hot-first
// picture instead.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime/pprof"
	"slices"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/telemetry"
	"github.com/hearthstore/hearth/online"
	"github.com/hearthstore/hearth/rewarm"
)

type options struct {
	items, segments, rounds, workers, puts, batch int
	replay, live                                  bool
	target                                        time.Duration
	curve, profile, row                           string
	requests, entries, sample                     int // of the curve
}

func main() {
	var o options
	flag.IntVar(&o.items, "items", 237_000, "items per round")
	flag.IntVar(&o.segments, "segments", 8, "segments of the scan")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds per row")
	flag.IntVar(&o.workers, "workers", 8, "segments read at a time")
	flag.IntVar(&o.puts, "puts", 3, "batches on their way to Redis at a time")
	flag.DurationVar(&o.target, "target", 10*time.Millisecond, "how long a batch may take before the rewarm gives way")
	flag.IntVar(&o.batch, "batch", 300, "records per batch")
	flag.BoolVar(&o.live, "live", false, "also read single keys meanwhile and show their latency")
	flag.BoolVar(&o.replay, "replay", false, "be the replay server (used by the program itself)")
	flag.StringVar(&o.row, "row", "rewarm", "with -profile: the row")
	flag.StringVar(&o.profile, "profile", "", "write a CPU profile of the rounds of one row into this file; the other rows are left out")
	flag.StringVar(&o.curve, "curve", "", "draw the hot-first curve into this SVG file and measure nothing else")
	flag.IntVar(&o.requests, "requests", 24_000_000, "with -curve: requests that the reader sees")
	flag.IntVar(&o.entries, "entries", 0, "with -curve: entries of the sketch (default: what readers use)")
	flag.IntVar(&o.sample, "sample", 0, "with -curve: record one request in so many (default: what readers use)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench rewarm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	switch {
	case o.replay:
		return serve(ctx, o.items, o.segments)
	case o.curve != "":
		return drawCurve(o, out)
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	return b.all(ctx, out)
}

type bench struct {
	o       options
	table   *dynamodb.Store
	online  *online.Store
	bare    *redis.Client
	records []feature.Record // for the rows that do not scan
	stops   []func()
	part    time.Duration // what a row measured of itself; 0 for all of it
	partCPU time.Duration
	slowed  int64 // times that rewarms gave way
}

func newBench(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{o: o}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	replay, stop, err := startReplay(ctx, o.items, o.segments)
	if err != nil {
		return b, err
	}
	b.stops = append(b.stops, stop)
	server, stop, err := startRedis(ctx)
	if err != nil {
		return b, err
	}
	b.stops = append(b.stops, stop)
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
	b.online, err = online.Open(ctx, online.Config{Project: "bench", Addrs: []string{server}})
	if err != nil {
		return b, err
	}
	b.stops = append(b.stops, func() { _ = b.online.Close() })
	b.bare = redis.NewClient(&redis.Options{Addr: server, PoolSize: 16})
	b.stops = append(b.stops, func() { _ = b.bare.Close() })
	for deadline := clock.System.Now().Add(10 * time.Second); ; {
		if err := b.bare.Ping(ctx).Err(); err == nil {
			break
		} else if clock.System.Now().After(deadline) {
			return b, fmt.Errorf("redis-server does not answer: %w", err)
		}
		if err := clock.System.Sleep(ctx, 20*time.Millisecond); err != nil {
			return b, err
		}
	}
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

func startRedis(ctx context.Context) (addr string, stop func(), err error) {
	port, err := freePort()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "hearth-bench-rewarm-")
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", dir, "--appendonly", "no")
	if err := cmd.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return "", nil, fmt.Errorf("start redis-server (install it first): %w", err)
	}
	return "127.0.0.1:" + port, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}, nil
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

type row struct {
	name  string
	work  func(ctx context.Context) error
	rates []float64
	cpu   []float64
	live  []time.Duration
}

func (b *bench) all(ctx context.Context, out io.Writer) error {
	rows := []*row{
		{name: "scan alone", work: func(ctx context.Context) error {
			return b.scan(ctx, func(*feature.ScanPage) error { return nil }, b.o.workers)
		}},
		{name: "plain SET pipelines alone", work: b.plain},
		{name: "online.Put alone", work: b.puts},
		{name: "rewarm", work: b.rewarm},
		{name: "rewarm, hot keys", work: b.hot},
	}
	if b.o.profile != "" {
		rows = slices.DeleteFunc(rows, func(r *row) bool { return r.name != b.o.row })
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
	fmt.Fprintf(out, "%d items of %d bytes payload, %d segments, %d workers, %d puts in flight, batches of %d, %d rounds, replay server and redis-server on the same machine\n",
		b.o.items, payloadSize, b.o.segments, b.o.workers, b.o.puts, b.o.batch, b.o.rounds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "work\titems/s median\tslowest\tfastest\tclient CPU µs/item\t")
	if b.o.live {
		fmt.Fprint(w, "live GET p50\tp99\tp99.9\t")
	}
	fmt.Fprintln(w)
	for _, r := range rows {
		slices.Sort(r.rates)
		slices.Sort(r.cpu)
		slices.Sort(r.live)
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f\t%.2f\t", r.name, r.rates[len(r.rates)/2], r.rates[0], r.rates[len(r.rates)-1], r.cpu[len(r.cpu)/2])
		if n := len(r.live); n > 0 {
			fmt.Fprintf(w, "%s\t%s\t%s\t", round(r.live[n/2]), round(r.live[n*99/100]), round(r.live[n*999/1000]))
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "the rewarms gave way to a slow Redis %d times\n", b.slowed)
	return err
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

func (b *bench) measure(ctx context.Context, r *row) error {
	if err := b.bare.FlushAll(ctx).Err(); err != nil {
		return err
	}
	var (
		live []time.Duration
		wg   sync.WaitGroup
		err  error
	)
	lctx, stop := context.WithCancel(ctx)
	defer stop()
	if b.o.live {
		wg.Go(func() { live = b.readLive(lctx) })
	}
	cpu, began := cpuTime(), clock.System.Now()
	err = r.work(ctx)
	took, used := clock.System.Now().Sub(began), cpuTime()-cpu
	if b.part > 0 { // the work measured a part of itself
		took, used, b.part = b.part, b.partCPU, 0
	}
	stop()
	wg.Wait()
	if err != nil {
		return err
	}
	r.rates = append(r.rates, float64(b.o.items)/took.Seconds())
	r.cpu = append(r.cpu, float64(used.Microseconds())/float64(b.o.items))
	r.live = append(r.live, live...)
	return nil
}

// readLive is one reader that asks for a key every millisecond, on a connection of its own.
func (b *bench) readLive(ctx context.Context) []time.Duration {
	client := redis.NewClient(&redis.Options{Addr: b.bare.Options().Addr, PoolSize: 1})
	defer func() { _ = client.Close() }()
	var took []time.Duration
	for i := 0; ctx.Err() == nil; i++ {
		began := clock.System.Now()
		err := client.Get(ctx, b.online.RedisKey(b.records[i*7919%len(b.records)].Ref)).Err()
		if err == nil || errors.Is(err, redis.Nil) {
			took = append(took, clock.System.Now().Sub(began))
		}
		if clock.System.Sleep(ctx, time.Millisecond) != nil {
			break
		}
	}
	return took
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// plain is what a tool would do that knows nothing of versions: SET, in pipelines.
func (b *bench) plain(ctx context.Context) error {
	return b.each(ctx, func(ctx context.Context, recs []feature.Record) error {
		pipe := b.bare.Pipeline()
		for i := range recs {
			pipe.Set(ctx, b.online.RedisKey(recs[i].Ref), recs[i].Payload, 0)
		}
		_, err := pipe.Exec(ctx)
		return err
	})
}

func (b *bench) puts(ctx context.Context) error {
	return b.each(ctx, func(ctx context.Context, recs []feature.Record) error {
		results, err := b.online.Put(ctx, recs)
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
func (b *bench) hot(ctx context.Context) error {
	refs := make(hotRefs, len(b.records))
	for i, n := range rand.New(rand.NewPCG(1, 1)).Perm(len(refs)) {
		refs[i] = b.records[n].Ref
	}
	cpu := cpuTime()
	var used time.Duration
	rep, err := b.run(ctx, refs, func(p telemetry.Progress) {
		if used == 0 { // the first page of the scan is through
			used = cpuTime() - cpu
		}
	})
	if err != nil {
		return err
	}
	if rep.HotWritten != int64(b.o.items) {
		return fmt.Errorf("status %s, %d of the hot keys written: %v", rep.Status, rep.HotWritten, rep.Problems)
	}
	b.part, b.partCPU = time.Duration(rep.HotSeconds*float64(time.Second)), used
	return nil
}

type hotRefs []feature.Ref

// HotKeys returns them.
func (h hotRefs) HotKeys(context.Context) ([]feature.Ref, error) { return h, nil }

func (b *bench) rewarm(ctx context.Context) error {
	rep, err := b.run(ctx, nil, nil)
	if err == nil && rep.Written != int64(b.o.items) {
		err = fmt.Errorf("status %s, %d written: %v", rep.Status, rep.Written, rep.Problems)
	}
	return err
}

func (b *bench) run(ctx context.Context, hot hotRefs, progress telemetry.ProgressFunc) (*rewarm.Report, error) {
	cfg := rewarm.Config{
		Backing: tableOf{b.table, int64(b.o.items)}, Online: onlineOf{b.online}, State: &states{docs: map[string]document{}},
		Views: []*feature.View{benchView()}, Workers: b.o.workers, PutsInFlight: b.o.puts, BatchSize: b.o.batch, PutTarget: b.o.target, Progress: progress,
	}
	if hot != nil {
		cfg.Hot = hot
	}
	r, err := rewarm.New(cfg)
	if err != nil {
		return nil, err
	}
	rep, err := r.Run(ctx, rewarm.Request{Run: 1, IfCold: true, Segments: b.o.segments})
	if err == nil && rep.Status != rewarm.StatusDone {
		err = fmt.Errorf("status %s: %v", rep.Status, rep.Problems)
	}
	if err == nil {
		b.slowed += rep.SlowDowns
	}
	return rep, err
}

type tableOf struct {
	*dynamodb.Store
	items int64
}

// Table is what the replayed table would say.
func (t tableOf) Table(context.Context) (rewarm.Table, error) {
	return rewarm.Table{Name: "bench", Items: t.items, Bytes: t.items * 271}, nil
}

type onlineOf struct{ *online.Store }

// Warmth converts.
func (o onlineOf) Warmth(ctx context.Context) (rewarm.Warmth, error) {
	w, err := o.Store.Warmth(ctx)
	out := rewarm.Warmth{Reachable: w.Reachable, Cold: w.Cold, MarkerRun: w.MarkerRun}
	for _, s := range w.Shards {
		out.Shards = append(out.Shards, rewarm.ShardWarmth(s))
	}
	return out, err
}

// Info converts.
func (o onlineOf) Info(ctx context.Context) (rewarm.Info, error) {
	i, err := o.Store.Info(ctx)
	return rewarm.Info(i), err
}

// states keeps checkpoints in memory, encoded as they would be stored.
type states struct {
	mu   sync.Mutex
	next int64
	docs map[string]document
}

type document struct {
	value    []byte
	revision int64
}

// Load returns a document.
func (s *states) Load(_ context.Context, name string) ([]byte, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.docs[name]
	if !ok {
		return nil, 0, feature.ErrNotFound
	}
	return d.value, d.revision, nil
}

// Save replaces a document.
func (s *states) Save(_ context.Context, name string, value []byte, revision int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.docs[name].revision != revision {
		return 0, feature.ErrConflict
	}
	s.next++
	s.docs[name] = document{value, s.next}
	return s.next, nil
}

// Delete removes a document.
func (s *states) Delete(_ context.Context, name string, _ int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.docs, name)
	return nil
}
