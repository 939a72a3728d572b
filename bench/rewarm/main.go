// Command rewarm measures how fast a lost online tier comes back.
//
//	go run ./bench/rewarm [-items 237000] [-rounds 5] [-curve docs/hot-first.svg]
//
// Canned DynamoDB pages are replayed by a second process, decoded, and put into
// redis-servers on loopback that are started and stopped here. Beside the whole path it
// measures its two halves alone: the scan that throws its pages away, and pipelines of
// plain SET, which promise nothing. Rounds are interleaved; medians are shown. -shards adds
// clusters of more masters. -live lets another process read single keys meanwhile and shows
// what it feels, beside what it feels alone. -table-rate and -shard-rate make the table or
// each Redis the limit, as they are outside of one machine. -curve draws the hot-first
// picture instead.
package main

import (
	"context"
	"flag"
	"io"
	"strings"
	"time"

	"github.com/hearthstore/hearth/bench/internal/lab"
)

type options struct {
	items, segments, rounds, workers, puts, batch int
	replay, live                                  bool
	reader, shards                                string
	paced                                         float64
	slowdown, shardRate, tableRate                float64
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
	flag.BoolVar(&o.live, "live", false, "also read single keys meanwhile, from another process, and show the latency")
	flag.Float64Var(&o.paced, "paced", 50_000, "with -live: also rewarm with this --max-write-rate")
	flag.Float64Var(&o.slowdown, "slowdown", 2, "with -live: also rewarm with this --max-slowdown")
	flag.StringVar(&o.shards, "shards", "1", "numbers of Redis masters, with commas; more than one is a cluster")
	flag.Float64Var(&o.shardRate, "shard-rate", 0, "items a second that a Redis takes, so that it is the limit: a stand-in in front of each holds the rest up (give a -target that allows for it)")
	flag.Float64Var(&o.tableRate, "table-rate", 0, "items a second that the table gives, so that it is the limit")
	flag.StringVar(&o.reader, "reader", "", "be the live reader of these addresses (used by the program itself)")
	flag.BoolVar(&o.replay, "replay", false, "be the replay server (used by the program itself)")
	flag.StringVar(&o.row, "row", "", "only the rows whose whole name this regular expression matches (default: all)")
	flag.StringVar(&o.profile, "profile", "", "write a CPU profile of the rounds into this file; of hot keys, of the hot phase alone")
	flag.StringVar(&o.curve, "curve", "", "draw the hot-first curve into this SVG file and measure nothing else")
	flag.IntVar(&o.requests, "requests", 2_000_000, "with -curve: requests that the reader sees")
	flag.IntVar(&o.entries, "entries", 0, "with -curve: entries of the sketch (default: what readers use)")
	flag.IntVar(&o.sample, "sample", 0, "with -curve: record one request in so many (default: what readers use)")
	flag.Parse()
	lab.Main("rewarm", func(ctx context.Context, out io.Writer) error { return run(ctx, o, out) })
}

func run(ctx context.Context, o options, out io.Writer) error {
	switch {
	case o.replay:
		return serve(ctx, o)
	case o.reader != "":
		return readLive(ctx, strings.Split(o.reader, ","), o.items, out)
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
