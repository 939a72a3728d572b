package app

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/materializer"
	"github.com/hearthstore/hearth/online"
)

// SizeOptions says what to plan for.
type SizeOptions struct {
	PeakRPS  int           // reads a second of one process at the peak; 0 takes reader.peak_rps
	Latency  time.Duration // how long a read holds a connection at worst; 0 measures it
	Entities int64         // per view, instead of what is stored; 0 takes that
	Growth   float64       // how many times as many entities to plan for; at least 1
	Sample   int           // stored values looked at per view
}

// SizeReport is the document of `hearth size --json`.
type SizeReport struct {
	Views   []ViewSize  `json:"views"`
	Redis   RedisSize   `json:"redis"`
	Pool    PoolReport  `json:"pool"`
	Backing BackingSize `json:"backing"`
	Notes   []string    `json:"notes"` // what the figures do not rest on
}

// ViewSize is the memory of one view in Redis, from a sample of its stored values.
type ViewSize struct {
	View          feature.ViewID `json:"view"`
	Entities      int64          `json:"entities"`
	Sampled       int            `json:"sampled"`
	KeyBytes      float64        `json:"key_bytes"`     // mean
	PayloadBytes  float64        `json:"payload_bytes"` // mean
	BytesPerValue float64        `json:"bytes_per_value"`
	Bytes         int64          `json:"bytes"`
}

// RedisSize is what a Redis for all views needs.
type RedisSize struct {
	Bytes         int64   `json:"bytes"`      // the values, all included, at the planned growth
	MaxMemory     int64   `json:"max_memory"` // what to give it, over all masters
	PerMaster     int64   `json:"max_memory_per_master"`
	Masters       int     `json:"masters"`
	Growth        float64 `json:"growth"`
	UsedMemory    int64   `json:"used_memory"`    // now; 0 when it was not asked
	HasMaxMemory  int64   `json:"has_max_memory"` // now; 0 for none
	MeasuredBytes float64 `json:"measured_bytes_per_value,omitempty"`
}

// PoolReport is how many connections per node one process needs.
type PoolReport struct {
	PeakRPS        int     `json:"peak_rps"`
	LatencySeconds float64 `json:"latency_seconds"`
	LatencyFrom    string  `json:"latency_from"`         // "flag", "measured p99" or "online_timeout"
	Needed         int     `json:"connections"`          // at that latency
	Worst          int     `json:"connections_at_worst"` // if every read takes online_timeout
	Configured     int     `json:"configured"`           // 0: the client's default of 10 per CPU
}

// BackingSize is what the backing tier carries while Redis is away.
type BackingSize struct {
	MaxRPS        int `json:"max_backing_rps"`
	KeysPerSecond int `json:"keys_per_second"` // at best: every request full
	InFlight      int `json:"calls_in_flight"` // if every call takes backing_timeout
}

// headroom is what Redis gets beyond the values: fragmentation, buffers of clients and
// replicas, the copy while it saves.
const headroom = 1.3

// Size computes memory and connections from a sample of what is stored.
func (a *App) Size(ctx context.Context, o SizeOptions) (*SizeReport, error) {
	if o.Growth < 1 || o.Sample < 1 || o.PeakRPS < 0 || o.Latency < 0 || o.Entities < 0 {
		return nil, usage("size: --growth is at least 1, --sample at least 1, the others are not negative")
	}
	on, err := a.onlineTier(ctx)
	if err != nil {
		return nil, err
	}
	back, err := a.backingTier(ctx)
	if err != nil {
		return nil, err
	}
	r := &SizeReport{Views: []ViewSize{}, Notes: []string{}, Redis: RedisSize{Masters: 1, Growth: o.Growth}}
	if err := a.askRedis(ctx, on, r); err != nil {
		return nil, err
	}
	var all []feature.Ref
	for i := range a.cfg.Project.Views {
		v := &a.cfg.Project.Views[i]
		size, refs, err := a.viewSize(ctx, on, back, v, o, r)
		if err != nil {
			return nil, err
		}
		r.Views = append(r.Views, size)
		r.Redis.Bytes += size.Bytes
		all = append(all, refs...)
	}
	r.Redis.MaxMemory = int64(float64(r.Redis.Bytes) * headroom)
	r.Redis.PerMaster = r.Redis.MaxMemory / int64(r.Redis.Masters)
	a.poolSize(ctx, on, all, o, r)
	rc := a.cfg.Reader
	r.Backing = BackingSize{MaxRPS: rc.MaxBackingRPS, KeysPerSecond: 100 * rc.MaxBackingRPS, InFlight: online.PoolSize(float64(rc.MaxBackingRPS), a.configured.backing)}
	return r, nil
}

// askRedis fills in what the online tier says of itself; one that is away is a note.
func (a *App) askRedis(ctx context.Context, on *online.Store, r *SizeReport) error {
	if a.cfg.Online.Redis == nil {
		r.Notes = append(r.Notes, "online is the embedded server: the figures are those of a redis-server with these values")
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	info, err := on.Info(asking)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.Notes = append(r.Notes, "Redis was not asked: "+err.Error())
		return nil
	}
	r.Redis.Masters, r.Redis.UsedMemory, r.Redis.HasMaxMemory = max(1, info.Masters), info.UsedMemory, info.MaxMemory
	return nil
}

// viewSize looks at some values of a view.
func (a *App) viewSize(ctx context.Context, on *online.Store, back backing.Store, v *feature.View, o SizeOptions, r *SizeReport) (ViewSize, []feature.Ref, error) {
	s := ViewSize{View: v.ID(), Entities: o.Entities}
	if s.Entities == 0 {
		p, err := progressState{back}.Load(ctx, materializer.Slot{View: v.ID()})
		if err != nil {
			return s, nil, err
		}
		s.Entities = p.Entities
	}
	var refs []feature.Ref
	var keys, payloads, memory int
	req := feature.ScanRequest{Segments: 1, Views: []feature.ViewID{v.ID()}, Limit: min(o.Sample, 1000)}
	var page feature.ScanPage
	for s.Sampled < o.Sample {
		if err := back.Scan(ctx, req, &page); err != nil {
			return s, nil, fmt.Errorf("sample %s: %w", v.ID(), err)
		}
		for i := range page.Records {
			rec := &page.Records[i]
			if rec.View != v.ID() || rec.Tombstone() || s.Sampled == o.Sample {
				continue
			}
			ref := feature.Ref{View: rec.View, Key: feature.Key(strings.Clone(string(rec.Key)))}
			refs = append(refs, ref)
			key := len(on.RedisKey(ref))
			keys, payloads = keys+key, payloads+len(rec.Payload)
			memory += online.ValueMemory(key, len(rec.Payload), v.TTL > 0 || v.Retain > 0)
			s.Sampled++
		}
		if req.Cursor = page.Next; req.Cursor == nil {
			break
		}
		req.Cursor = slices.Clone(req.Cursor)
	}
	if s.Sampled == 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%s: nothing is stored yet; run hearth materialize, or this figure is missing", v.ID()))
		return s, nil, nil
	}
	n := float64(s.Sampled)
	s.KeyBytes, s.PayloadBytes, s.BytesPerValue = float64(keys)/n, float64(payloads)/n, float64(memory)/n
	if a.cfg.Online.Layout == online.LayoutHash {
		if err := a.hashMemory(ctx, on, refs, &s, r); err != nil {
			return s, nil, err
		}
	}
	s.Bytes = int64(s.BytesPerValue * float64(s.Entities) * o.Growth)
	return s, refs, nil
}

// hashMemory asks Redis itself: the memory of a hash depends on its settings.
func (a *App) hashMemory(ctx context.Context, on *online.Store, refs []feature.Ref, s *ViewSize, r *SizeReport) error {
	const most = 500
	total, found, err := on.MeasureMemory(ctx, refs[:min(most, len(refs))])
	if err == nil && found > 0 {
		s.BytesPerValue = float64(total) / float64(found)
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.BytesPerValue *= 2
	why := "none of its sampled values is in Redis"
	if err != nil {
		why = err.Error()
	}
	r.Notes = append(r.Notes, fmt.Sprintf("%s: layout hash was taken for twice the bytes of layout blob, because %s", s.View, why))
	return nil
}

// The reads that measure the latency: of 10 values each.
const (
	latencyReads = 300
	latencyKeys  = 10
)

func (a *App) poolSize(ctx context.Context, on *online.Store, refs []feature.Ref, o SizeOptions, r *SizeReport) {
	p := &r.Pool
	if p.PeakRPS = o.PeakRPS; p.PeakRPS == 0 {
		p.PeakRPS = a.cfg.Reader.PeakRPS
	}
	held := a.configured.online
	p.LatencyFrom = "online_timeout"
	if o.Latency > 0 {
		held, p.LatencyFrom = o.Latency, "flag"
	} else if measured, ok := a.measureLatency(ctx, on, refs); ok {
		held, p.LatencyFrom = measured, "measured p99"
	}
	p.LatencySeconds = held.Seconds()
	if a.cfg.Online.Redis != nil {
		p.Configured = a.cfg.Online.Redis.PoolSize
	}
	if p.PeakRPS == 0 {
		r.Notes = append(r.Notes, "no connections computed: give --peak-rps, or set reader.peak_rps")
		return
	}
	p.Needed, p.Worst = online.PoolSize(float64(p.PeakRPS), held), online.PoolSize(float64(p.PeakRPS), a.configured.online)
}

// measureLatency times reads of sampled values, one after the other.
func (a *App) measureLatency(ctx context.Context, on *online.Store, refs []feature.Ref) (p99 time.Duration, ok bool) {
	if a.cfg.Online.Redis == nil || len(refs) == 0 {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var took []time.Duration
	for n := range latencyReads + latencyReads/10 {
		batch := make([]feature.Ref, 0, latencyKeys)
		for k := range min(latencyKeys, len(refs)) {
			batch = append(batch, refs[(n*latencyKeys+k)%len(refs)])
		}
		begin := a.clock.Now()
		got, err := on.Get(ctx, batch)
		if err != nil || slices.ContainsFunc(got, func(g feature.GetResult) bool { return g.Err != nil }) {
			return 0, false
		}
		if n >= latencyReads/10 { // the connections are made by then
			took = append(took, a.clock.Now().Sub(begin))
		}
	}
	slices.Sort(took)
	return took[len(took)*99/100], true
}

// WriteTable writes the report for a person.
func (r *SizeReport) WriteTable(w io.Writer) error {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "view\tentities\tsampled\tkey B\tvalue B\tin Redis B\ttotal MiB\t")
	for _, v := range r.Views {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%.0f\t%.0f\t%.0f\t%.1f\t\n", v.View, v.Entities, v.Sampled, v.KeyBytes, v.PayloadBytes, v.BytesPerValue, mebi(v.Bytes))
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	fmt.Fprintf(&b, "\nRedis: %.1f MiB of values at growth %.1f; give it maxmemory %.1f MiB (x %.1f), %.1f MiB on each of %s\n",
		mebi(r.Redis.Bytes), r.Redis.Growth, mebi(r.Redis.MaxMemory), headroom, mebi(r.Redis.PerMaster), count(r.Redis.Masters, "master", "masters"))
	if r.Redis.UsedMemory > 0 {
		fmt.Fprintf(&b, "       now it uses %.1f MiB of %s\n", mebi(r.Redis.UsedMemory), limitText(r.Redis.HasMaxMemory))
	}
	if r.Pool.PeakRPS > 0 {
		fmt.Fprintf(&b, "Connections: %d per node for %d reads a second at %.1f ms (%s); %d if every read took online_timeout. pool_size is %s\n",
			r.Pool.Needed, r.Pool.PeakRPS, 1000*r.Pool.LatencySeconds, r.Pool.LatencyFrom, r.Pool.Worst, poolText(r.Pool.Configured))
	}
	fmt.Fprintf(&b, "Redis away: the table is asked at most %d times a second, for at most %d keys\n", r.Backing.MaxRPS, r.Backing.KeysPerSecond)
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func mebi(n int64) float64 { return float64(n) / (1 << 20) }

func limitText(n int64) string {
	if n == 0 {
		return "no limit"
	}
	return fmt.Sprintf("%.1f MiB", mebi(n))
}

func poolText(n int) string {
	if n == 0 {
		return "not set"
	}
	return fmt.Sprint(n)
}
