package rewarm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// ErrDoesNotFit marks a rewarm that was not begun because the online tier has not the
// memory for it. Request.Force begins all the same.
var ErrDoesNotFit = errors.New("does not fit the memory of the online tier")

// Plan says what a rewarm would take. All figures are estimates: the table's own, and a
// sample of a few hundred records for how large they are and how many still live.
type Plan struct {
	Table   string `json:"table"`
	Items   int64  `json:"items"`   // in the table, or in the range of segments
	Bytes   int64  `json:"bytes"`   //
	Live    int64  `json:"live"`    // of these, to be put
	Sampled int64  `json:"sampled"` // records that were looked at
	Exact   bool   `json:"exact"`   // the sample was the whole table

	Segments    int `json:"segments"`
	SegmentFrom int `json:"segment_from"`
	SegmentTo   int `json:"segment_to"`

	ReadUnits float64  `json:"read_units"` // of the scan and of the hot keys
	Dollars   *float64 `json:"dollars"`    // null when the price of the region is not known
	Region    string   `json:"region,omitempty"`

	// HotKeys is how many keys are read singly before the scan, and HotReadUnits what that
	// costs: half a unit for each 4 KB of an item.
	HotKeys      int64   `json:"hot_keys,omitempty"`
	HotReadUnits float64 `json:"hot_read_units,omitempty"`

	RedisNeeded int64 `json:"redis_needed"` // additional bytes
	RedisUsed   int64 `json:"redis_used"`
	RedisMax    int64 `json:"redis_max"` // 0: no limit is set
	Fits        bool  `json:"fits"`

	Seconds float64 `json:"seconds"`
	// Objective is the recovery time objective in seconds, and WithinObjective whether the
	// plan keeps it; null without one.
	Objective       float64  `json:"objective_seconds,omitempty"`
	WithinObjective *bool    `json:"within_objective,omitempty"`
	Notes           []string `json:"notes,omitempty"`

	perKey int64 // memory of one key in the online tier
}

const (
	sampleSegments = 8
	sampleRecords  = 250 // wanted per sampled segment
	smallTable     = 16  // segments of which all may be sampled

	// What a plan assumes when no rate is given: the read units that a new on-demand table
	// gives at once, and what one Redis takes beside live traffic.
	assumedReadRate  = 12_000
	assumedWriteRate = 200_000

	// redisOverhead is what a master takes beside the values: markers, canaries, scripts and
	// the buffers of connections.
	redisOverhead = 256 << 10

	scanUnitBytes = 8 << 10 // per read unit, eventually consistent
	getUnitBytes  = 4 << 10 // per half a read unit, eventually consistent
)

// sample is what a look at a few pages found.
type sample struct {
	seen, live int64
	liveRedis  int64 // estimated memory of the live ones
	tableBytes int64 // estimated item size of all seen
	ended      bool  // every segment was read to its end
}

func (r *Rewarmer) plan(ctx context.Context, req Request, views viewSet, table Table, warmth Warmth, target coldTarget) (*Plan, error) {
	pl := &Plan{Table: table.Name, Region: r.cfg.Region, Segments: req.Segments, SegmentFrom: 0, Fits: true}
	if pl.Segments == 0 {
		pl.Segments = segmentsFor(table)
	}
	pl.SegmentTo = pl.Segments - 1
	if req.Range {
		pl.SegmentFrom, pl.SegmentTo = req.SegmentFrom, req.SegmentTo
	}
	s, err := r.sample(ctx, views, table)
	if err != nil {
		return nil, err
	}
	share := float64(pl.SegmentTo-pl.SegmentFrom+1) / float64(pl.Segments)
	pl.Sampled = s.seen
	pl.Items, pl.Bytes = int64(float64(table.Items)*share), int64(float64(table.Bytes)*share)
	switch {
	case s.ended:
		pl.Items, pl.Exact = int64(float64(s.seen)*share), true
		if table.Bytes == 0 || table.Items != s.seen {
			pl.Bytes = int64(float64(s.tableBytes) * share)
		}
	case table.Items == 0:
		pl.Items, pl.Bytes = int64(float64(s.seen)*share), int64(float64(s.tableBytes)*share)
		pl.Notes = append(pl.Notes, "the table does not know its size yet (DynamoDB refreshes it every six hours): the figures are what the sample saw, the least that there is")
	}
	liveShare, perKey := 1.0, int64(0)
	if s.seen > 0 {
		liveShare = float64(s.live) / float64(s.seen)
	}
	if s.live > 0 {
		perKey = s.liveRedis / s.live
	}
	coldShare := 1.0
	if !target.all {
		coldShare = float64(len(target.addrs)) / float64(len(warmth.Shards))
		pl.Notes = append(pl.Notes, fmt.Sprintf("only %d of %d shards are cold: the whole table is read, a part is put", len(target.addrs), len(warmth.Shards)))
	}
	pl.Live = int64(float64(pl.Items) * liveShare * coldShare)

	if r.cfg.Source == "" { // reading anything else costs no read units
		pl.ReadUnits = float64((pl.Bytes + scanUnitBytes - 1) / scanUnitBytes)
	}
	if err := r.planHot(ctx, req, views, s, coldShare, pl); err != nil {
		return nil, err
	}
	if p, ok := r.price(); ok {
		dollars := pl.ReadUnits / 1e6 * p
		pl.Dollars = &dollars
	}

	info, err := r.cfg.Online.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("rewarm: ask the online tier for its memory: %w", err)
	}
	pl.RedisUsed, pl.RedisMax = info.UsedMemory, info.MaxMemory
	// Keys that are there already take no more memory. Other projects' keys count with
	// them, so that this leans towards letting a run begin; Put then says "full".
	there := existing(info, warmth, target)
	if r.life > 0 { // a drill's keys are none of the live ones
		there = 0
	}
	pl.perKey = perKey
	if more := pl.Live - there; more > 0 {
		pl.RedisNeeded = more*perKey + redisOverhead*int64(max(info.Masters, 1))
	}
	pl.Fits = pl.RedisMax == 0 || pl.RedisUsed+pl.RedisNeeded <= pl.RedisMax

	reads, writes := req.MaxReadRate, req.MaxWriteRate
	if reads == 0 {
		reads = assumedReadRate
	}
	if writes == 0 {
		writes = assumedWriteRate * float64(max(info.Masters, 1))
	}
	pl.Seconds = max(pl.ReadUnits/reads, float64(pl.Live+pl.HotKeys)/writes)
	if r.cfg.Objective > 0 {
		within := pl.Seconds <= r.cfg.Objective.Seconds()
		pl.Objective, pl.WithinObjective = r.cfg.Objective.Seconds(), &within
	}
	return pl, nil
}

// planHot adds what the hot-first phase reads.
func (r *Rewarmer) planHot(ctx context.Context, req Request, views viewSet, s sample, coldShare float64, pl *Plan) error {
	refs, err := r.hotRefs(ctx, req, views)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pl.Notes = append(pl.Notes, "hot keys are not known, and not planned: "+err.Error())
		return nil
	}
	pl.HotKeys = int64(float64(len(refs)) * coldShare)
	if _, paid := r.cfg.Backing.(Fetcher); !paid || s.seen == 0 {
		return nil
	}
	each := float64((s.tableBytes/s.seen+getUnitBytes-1)/getUnitBytes) / 2
	pl.HotReadUnits = float64(pl.HotKeys) * each
	pl.ReadUnits += pl.HotReadUnits
	return nil
}

func existing(info Info, w Warmth, target coldTarget) int64 {
	if target.all {
		return info.Keys
	}
	var n int64
	for _, s := range w.Shards {
		if slices.Contains(target.addrs, s.Addr) {
			n += s.Keys
		}
	}
	return n
}

// sample looks at a few segments of a very fine division of the table. Keys are spread over
// segments by hash, so that a whole small segment is like the rest, whatever order the
// store reads it in.
func (r *Rewarmer) sample(ctx context.Context, views viewSet, table Table) (sample, error) {
	s := sample{ended: true}
	now := feature.MicrosOf(r.cfg.Clock.Now())
	n := int(min(max(table.Items/sampleRecords, sampleSegments), 1_000_000))
	order := make([]int, 0, n)
	for i := range sampleSegments {
		order = append(order, i*n/sampleSegments)
	}
	if n <= smallTable { // so small, or of unknown size, that all may be looked at
		for segment := range n {
			if !slices.Contains(order[:sampleSegments], segment) {
				order = append(order, segment)
			}
		}
	} else {
		s.ended = false
	}
	var page feature.ScanPage
	for i, segment := range order {
		if i >= sampleSegments && !s.ended {
			break
		}
		req := feature.ScanRequest{Segment: segment, Segments: n, Limit: 2 * sampleRecords, Views: views.ids()}
		err := r.patiently(ctx, func() error { return r.cfg.Backing.Scan(ctx, req, &page) })
		if err != nil {
			return s, fmt.Errorf("rewarm: sample the backing tier: %w", err)
		}
		s.ended = s.ended && page.Next == nil
		for j := range page.Records {
			rec := &page.Records[j]
			s.seen++
			s.tableBytes += tableSize(rec)
			v := views.byID[rec.View]
			if v == nil || rec.Tombstone() {
				continue
			}
			if made, err := feature.NewRecord(v, rec.Key, rec.Payload); err == nil && !over(made, now) {
				s.live++
				s.liveRedis += r.redisSize(&made)
			}
		}
	}
	return s, nil
}

// mustFit refuses a pass whose values the online tier cannot hold, or bounds it to what it
// can when the hottest part is asked for.
func (r *Rewarmer) mustFit(ctx context.Context, p *pass, table Table, warmth Warmth) error {
	info, err := r.cfg.Online.Info(ctx)
	if err != nil {
		return fmt.Errorf("rewarm: ask the online tier for its memory: %w", err)
	}
	if info.MaxMemory == 0 {
		return nil
	}
	req := p.req
	req.Range, req.NoHot = false, true // the ranges of all machines must fit together, whatever comes first
	pl, err := r.plan(ctx, req, p.views, table, warmth, p.target)
	if err != nil || pl.Fits {
		return err
	}
	if req.Hottest && pl.perKey > 0 {
		// Some room stays for what live traffic writes.
		p.room = &room{keys: max(int64(hottestFill*float64(pl.RedisMax))-pl.RedisUsed, 0) / pl.perKey}
		p.live = pl.Live
		return nil
	}
	return fmt.Errorf("rewarm: %w: it needs about %s more, Redis uses %s of %s; nothing was done. Give it more memory, rewarm fewer views, take the hottest part, or force it",
		ErrDoesNotFit, size(pl.RedisNeeded), size(pl.RedisUsed), size(pl.RedisMax))
}

// tableSize is what DynamoDB counts for an item: names and values.
func tableSize(rec *feature.Record) int64 {
	return int64(len(rec.Key)+len(rec.View.Name)+2+len(rec.Payload)+feature.VersionSize+8) + 5
}

// redisSize estimates the memory of one string value: key, value, object, the entries of
// the key and expiry tables and their share of buckets, each rounded up to a size class of
// the allocator.
func (r *Rewarmer) redisSize(rec *feature.Record) int64 {
	key := len(r.cfg.Project) + len(rec.View.String()) + len(rec.Key) + 4
	total := sizeClass(key+sdsHeader(key)) + sizeClass(len(rec.Payload)+sdsHeader(len(rec.Payload))) + 16 + 24 + 12
	if rec.Online != feature.NoTime {
		total += 24 + 12
	}
	return int64(total)
}

func sdsHeader(n int) int {
	switch {
	case n < 32:
		return 2
	case n < 256:
		return 4
	case n < 1<<16:
		return 6
	}
	return 10
}

// sizeClass is what jemalloc takes for n bytes: steps of 8 up to 64 as Redis builds it
// (16 from there), then four classes per doubling.
func sizeClass(n int) int {
	switch {
	case n <= 16:
		return (n + 7) &^ 7
	case n <= 128:
		return (n + 15) &^ 15
	}
	step := 1 << (bits.Len(uint(n-1)) - 3)
	return (n + step - 1) &^ (step - 1)
}

func (pl *Plan) write(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "  %s\t"+format+"\n", append([]any{name}, args...)...)
	}
	row("table", "%s: %s items, %s", pl.Table, count(pl.Items), size(pl.Bytes))
	row("to put", "%s (from a sample of %s)", count(pl.Live), count(pl.Sampled))
	if pl.HotKeys > 0 {
		row("hot first", "%s keys, %s read units", count(pl.HotKeys), count(int64(pl.HotReadUnits)))
	}
	row("segments", "%d-%d of %d", pl.SegmentFrom, pl.SegmentTo, pl.Segments)
	if pl.Dollars != nil {
		row("read units", "%s, about $%.2f on demand in %s", count(int64(pl.ReadUnits)), *pl.Dollars, pl.Region)
	} else {
		row("read units", "%s", count(int64(pl.ReadUnits)))
	}
	limit := "no limit is set"
	if pl.RedisMax > 0 {
		limit = "of " + size(pl.RedisMax)
	}
	fits := ""
	if !pl.Fits {
		fits = ": DOES NOT FIT"
	}
	row("Redis memory", "%s more, %s used %s%s", size(pl.RedisNeeded), size(pl.RedisUsed), limit, fits)
	objective := ""
	if pl.WithinObjective != nil {
		objective = ", within the objective of "
		if !*pl.WithinObjective {
			objective = ", LONGER than the objective of "
		}
		objective += time.Duration(pl.Objective * float64(time.Second)).String()
	}
	row("time", "about %s%s", time.Duration(pl.Seconds*float64(time.Second)).Round(time.Second), objective)
	_ = t.Flush() // into memory
	for _, n := range pl.Notes {
		fmt.Fprintf(w, "  note: %s\n", n)
	}
}
