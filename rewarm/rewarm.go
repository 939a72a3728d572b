package rewarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// Config is what a [Rewarmer] works with.
type Config struct {
	// Backing and Online are the tiers. Required.
	Backing Backing
	Online  Online
	// State keeps checkpoints. Required.
	State State
	// Views are all declared view versions: records of others are skipped. Required.
	Views []*feature.View
	// Hot knows the hot keys. Defaults to nil: no hot-first phase.
	Hot HotKeys
	// Region is the AWS region of the table, for the price in a plan. Defaults to "": the
	// plan states no price unless ReadUnitPrice is set.
	Region string
	// ReadUnitPrice is dollars per million read units. Defaults to 0: the built-in list
	// price of Region.
	ReadUnitPrice float64
	// Source names where Backing reads from, when it is not the table itself (an export).
	// An attempt is never resumed from another source. Defaults to "".
	Source string
	// Workers is how many segments are read at a time; each holds one page in memory.
	// Defaults to 8.
	Workers int
	// PutsInFlight is the most batches that are on their way to the online tier at a time.
	// Defaults to 3: enough to keep one Redis busy, few enough that a live read never
	// stands behind a long queue.
	PutsInFlight int
	// BatchSize is the number of records per put. Defaults to 300.
	BatchSize int
	// PutTarget is how long a batch may take before the run gives way to live traffic.
	// Defaults to 10ms.
	PutTarget time.Duration
	// Attempts is how often a call is tried that fails for another reason than its rate.
	// Defaults to 6.
	Attempts int
	// StallTimeout ends the run when nothing gets through to a tier for so long, for
	// whatever reason. Defaults to 10m.
	StallTimeout time.Duration
	// MaxPageAge is how old a page may be when it is put; an older one (the machine was
	// suspended) is read again. It must stay below the life of the online tier's deletion
	// markers, which guard a deleted key against stale pages. Defaults to 15m.
	MaxPageAge time.Duration
	// ResumeWithin is how old an attempt may be and still be resumed. Defaults to 24h.
	ResumeWithin time.Duration
	// CheckEvery is how often a run looks whether the online tier was lost meanwhile.
	// Defaults to 10s.
	CheckEvery time.Duration
	// RecheckDelay is the pause before a difference is looked at again by Verify; it
	// doubles per look. Defaults to 200ms.
	RecheckDelay time.Duration
	// Canaries is how many keys that no entity has mark the online tier during a run, to
	// notice its loss. Defaults to 256: enough that every shard of a usual cluster has some.
	Canaries int
	// Objective is how long bringing back a cold tier may take; a plan compares with it.
	// Defaults to 0: no objective.
	Objective time.Duration
	// Project is the prefix of the online keys; only the memory estimate uses it. Defaults
	// to "".
	Project string
	// Progress receives reports. Defaults to none.
	Progress telemetry.ProgressFunc
	// Clock defaults to the machine's.
	Clock clock.Clock
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

const (
	minute        = time.Minute
	maxFlushes    = 3   // losses of the online tier in one run before it gives up
	maxFailedKeys = 100 // per segment and per report
	stateAttempt  = "attempt"
)

// Rewarmer copies the backing tier to the online tier, and compares them. It is safe for
// concurrent use, but two runs at a time over the same segments stop each other: hold a
// lease.
type Rewarmer struct {
	cfg   Config
	views map[feature.ViewID]*feature.View
	life  time.Duration // longest life online of what is put; 0 for no bound (see Drill)
}

// New checks the configuration and fills the defaults.
func New(cfg Config) (*Rewarmer, error) {
	switch {
	case cfg.Backing == nil || cfg.Online == nil || cfg.State == nil:
		return nil, fmt.Errorf("rewarm: %w: Backing, Online and State are required", feature.ErrInvalid)
	case len(cfg.Views) == 0:
		return nil, fmt.Errorf("rewarm: %w: no feature views are declared", feature.ErrInvalid)
	}
	def := func(p *time.Duration, d time.Duration) {
		if *p <= 0 {
			*p = d
		}
	}
	num := func(p *int, n int) {
		if *p <= 0 {
			*p = n
		}
	}
	num(&cfg.Workers, 8)
	num(&cfg.PutsInFlight, 3)
	num(&cfg.BatchSize, 300)
	num(&cfg.Attempts, 6)
	num(&cfg.Canaries, 256)
	def(&cfg.PutTarget, 10*time.Millisecond)
	def(&cfg.StallTimeout, 10*time.Minute)
	def(&cfg.MaxPageAge, 15*time.Minute)
	def(&cfg.ResumeWithin, 24*time.Hour)
	def(&cfg.CheckEvery, 10*time.Second)
	def(&cfg.RecheckDelay, 200*time.Millisecond)
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Rewarmer{cfg: cfg, views: make(map[feature.ViewID]*feature.View, len(cfg.Views))}
	for _, v := range cfg.Views {
		r.views[v.ID()] = v
	}
	return r, nil
}

// Request is one rewarm.
type Request struct {
	// Run is the number of the run in the ledger.
	Run uint64
	// IfCold does nothing when the online tier is warm, and fills only cold shards when
	// some are. Without it every value is put again, add-or-newer.
	IfCold bool
	// Views bounds the rewarm to some view versions; such a run never marks the tier warm.
	// Defaults to all.
	Views []feature.ViewID
	// Segments is how many parts the table is scanned in. Defaults to 0: by its size. Runs
	// on several machines must give the same number.
	Segments int
	// Range says that SegmentFrom and SegmentTo are given: the run does only these segments
	// of Segments, both inclusive. The run that completes the last segment of all marks the
	// tier warm. Defaults to false: all segments.
	Range                  bool
	SegmentFrom, SegmentTo int
	// Attempt names the work that machines share (an execution of a state machine). Runs of
	// one name work on one attempt, also when one is asked again for a range that is through:
	// it then does nothing. Another name begins anew. Defaults to "": go on with whatever is
	// unfinished.
	Attempt string
	// MaxReadRate is the most read units per second; 0 for no bound.
	MaxReadRate float64
	// MaxWriteRate is the most items per second; 0 for no bound.
	MaxWriteRate float64
	// MaxSlowdown keeps the p99 of reads of the online tier within so many times what it is
	// before the run: the run reads it itself, before and meanwhile, and puts as many items per
	// second (1000 at least) as these reads allow, in small batches. It has to be above 1.
	// Defaults to 0: only the puts' own time is looked at (Config.PutTarget), which is
	// faster.
	MaxSlowdown float64
	// Restart ignores a checkpoint. By default an attempt with the same parameters is
	// continued, unless the online tier was lost since. With Range only the segments of the
	// range begin anew.
	Restart bool
	// Verify compares a share of the keys of Views at the end (1: all); 0 for none. It does not
	// go with Range.
	Verify float64
	// PlanOnly reports what a run would take and moves nothing.
	PlanOnly bool
	// Force starts although the plan says that the online tier's memory does not suffice.
	Force bool
	// Hottest takes as much as the online tier's memory holds when not everything fits: the
	// hot keys, hottest first, then whatever else the scan brings. Such a run ends partial.
	Hottest bool
	// NoHot leaves the hot-first phase out.
	NoHot bool
}

// Run rewarms. The report is never nil when the run began, whatever the error. An error
// means that the run failed or was interrupted; Status says partial when something was
// done and something is missing, with a nil error.
//
// An unreachable tier gives an error that matches feature.ErrUnreachable; what was put
// until then stays, and the checkpoint is kept.
func (r *Rewarmer) Run(ctx context.Context, req Request) (*Report, error) {
	began := r.cfg.Clock.Now()
	rep := &Report{Run: req.Run, Attempt: req.Attempt, Status: StatusFailed}
	err := r.run(ctx, req, rep)
	rep.Seconds = r.cfg.Clock.Now().Sub(began).Seconds()
	if rep.Seconds > 0 {
		rep.ItemsPerSecond = float64(rep.Scanned) / rep.Seconds
	}
	if err != nil && ctx.Err() != nil {
		rep.Status = StatusInterrupted
		err = fmt.Errorf("rewarm interrupted after %d items; the checkpoint is kept, run it again to continue: %w", rep.Scanned, context.Cause(ctx))
	}
	if err != nil {
		rep.Problems = append(rep.Problems, err.Error())
	}
	return rep, err
}

func (r *Rewarmer) run(ctx context.Context, req Request, rep *Report) error {
	views, err := r.check(req)
	if err != nil {
		return fmt.Errorf("rewarm: %w", err)
	}
	warmth, err := r.warmth(ctx)
	if err != nil {
		return err
	}
	target := targetOf(warmth, req.IfCold)
	rep.Cold, rep.ColdShards = warmth.Cold, target.named
	if req.IfCold && !warmth.Cold && !req.PlanOnly {
		if down := unreachableShards(warmth); len(down) > 0 {
			return fmt.Errorf("rewarm: shards %v of the online tier do not answer, the others are warm: %w", down, feature.ErrUnreachable)
		}
		rep.Status, rep.Reason = StatusNothing, ReasonWarm
		return nil
	}
	table, err := r.cfg.Backing.Table(ctx)
	if err != nil {
		return fmt.Errorf("rewarm: describe the backing tier: %w", err)
	}
	if req.PlanOnly {
		rep.Plan, err = r.plan(ctx, req, views, table, warmth, target)
		if err != nil {
			return err
		}
		rep.Segments, rep.Status = rep.Plan.Segments, StatusPlanned
		rep.SegmentFrom, rep.SegmentTo = rep.Plan.SegmentFrom, rep.Plan.SegmentTo
		return nil
	}
	return r.passes(ctx, req, rep, views, table, warmth, target)
}

// passes runs until a pass is not cut short by the loss of the online tier.
func (r *Rewarmer) passes(ctx context.Context, req Request, rep *Report, views viewSet, table Table, warmth Warmth, target coldTarget) error {
	discard := ""
	if req.Restart && !req.Range {
		discard = discardAny
	}
	for {
		p, err := r.newPass(ctx, req, rep, views, table, target, discard)
		if err != nil {
			return err
		}
		if req.Hottest || rep.ResumedFrom == nil && rep.Flushes == 0 && !req.Force {
			if err := r.mustFit(ctx, p, table, warmth); err != nil {
				return err
			}
		}
		err = p.run(ctx)
		if !errors.Is(err, errLost) {
			return err
		}
		if rep.Flushes++; rep.Flushes > maxFlushes {
			rep.Status = StatusPartial
			rep.Problems = append(rep.Problems, fmt.Sprintf("the online tier was lost %d times during the run; gave up. Find out who flushes or restarts it, then run again", rep.Flushes))
			return nil
		}
		rep.Status, rep.SegmentsLeft, rep.FailedKeys = StatusFailed, 0, nil // of the pass that is void
		r.cfg.Logger.Warn("the online tier was lost during the rewarm: starting over", "run", req.Run, "losses", rep.Flushes)
		if warmth, err = r.warmth(ctx); err != nil {
			return err
		}
		target = targetOf(warmth, req.IfCold)
		// Another machine may have begun a new attempt already: join that one.
		discard = p.attempt.ID
	}
}

func (r *Rewarmer) warmth(ctx context.Context) (Warmth, error) {
	w, err := r.cfg.Online.Warmth(ctx)
	if err != nil {
		return w, fmt.Errorf("rewarm: look at the online tier: %w", err)
	}
	if !w.Reachable && !slices.ContainsFunc(w.Shards, func(s ShardWarmth) bool { return s.Reachable }) {
		return w, fmt.Errorf("rewarm: the online tier does not answer; nothing was done: %w", feature.ErrUnreachable)
	}
	return w, nil
}

// check validates a request and resolves its views.
func (r *Rewarmer) check(req Request) (viewSet, error) {
	var ps feature.Problems
	add := func(message, remedy string) { ps = append(ps, feature.Problem{Message: message, Remedy: remedy}) }
	views := viewSet{byID: r.views}
	if len(req.Views) > 0 {
		views.byID, views.subset = make(map[feature.ViewID]*feature.View), true
		for _, id := range req.Views {
			if v := r.views[id]; v != nil {
				views.byID[id] = v
			} else {
				add(fmt.Sprintf("unknown feature view %q", id), "declared are: "+r.viewNames())
			}
		}
		if len(views.byID) == len(r.views) {
			views.subset = false
		}
	}
	if req.Segments < 0 || req.Segments > 1_000_000 {
		add(fmt.Sprintf("%d segments", req.Segments), "give 1 to 1,000,000, or none to choose by the table's size")
	}
	if req.Range {
		if req.Segments == 0 {
			add("a segment range without the number of segments", "give the same --segments on every machine")
		} else if req.SegmentFrom < 0 || req.SegmentTo < req.SegmentFrom || req.SegmentTo >= req.Segments {
			add(fmt.Sprintf("segment range %d-%d of %d segments", req.SegmentFrom, req.SegmentTo, req.Segments), fmt.Sprintf("segments are 0 to %d", req.Segments-1))
		}
	}
	if req.Verify > 0 && req.Range {
		add("a verification of a segment range", "verify when the last range is through: hearth verify")
	}
	if req.MaxReadRate < 0 || req.MaxWriteRate < 0 {
		add("a negative rate", "give a rate above 0, or none for no bound")
	}
	if req.MaxSlowdown != 0 && !(req.MaxSlowdown > 1) {
		add(fmt.Sprintf("live reads that may take %v times as long", req.MaxSlowdown), "give more than 1, for example 2")
	}
	if !(req.Verify >= 0 && req.Verify <= 1) {
		add(fmt.Sprintf("a share of %v of the keys to verify", req.Verify), "give 0 to 1")
	}
	return views, ps.Err()
}

func (r *Rewarmer) viewNames() string {
	names := make([]string, 0, len(r.views))
	for id := range r.views {
		names = append(names, id.String())
	}
	slices.Sort(names)
	return fmt.Sprint(names)
}

// viewSet is what a request asks for.
type viewSet struct {
	byID   map[feature.ViewID]*feature.View
	subset bool // not all declared views
}

// ids are the views to scan for; nil for all, so that the others are seen and counted.
func (s viewSet) ids() []feature.ViewID {
	if !s.subset {
		return nil
	}
	ids := make([]feature.ViewID, 0, len(s.byID))
	for id := range s.byID {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b feature.ViewID) int {
		if a.Name != b.Name {
			if a.Name < b.Name {
				return -1
			}
			return 1
		}
		return a.Version - b.Version
	})
	return ids
}

// coldTarget says which shards a run fills.
type coldTarget struct {
	all   bool     // every shard: no filter
	addrs []string // else these, sorted
	named []string // the cold shards, for the report

	instances []string // the servers of all shards
}

func targetOf(w Warmth, ifCold bool) coldTarget {
	t := coldTarget{all: true}
	warm := 0
	for _, s := range w.Shards {
		if s.Cold {
			t.named = append(t.named, s.Addr)
		} else {
			warm++
		}
	}
	slices.Sort(t.named)
	t.instances = instancesOf(w)
	if ifCold && len(t.named) > 0 && warm > 0 {
		t.all, t.addrs = false, t.named
	}
	return t
}

func instancesOf(w Warmth) []string {
	var ids []string
	for _, s := range w.Shards {
		if s.Instance != "" {
			ids = append(ids, s.Instance)
		}
	}
	slices.Sort(ids)
	return ids
}

func unreachableShards(w Warmth) []string {
	var down []string
	for _, s := range w.Shards {
		if !s.Reachable {
			down = append(down, s.Addr)
		}
	}
	return down
}
