package rewarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/pace"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// workPage is what a worker holds of the table. keep is apart from the page's records: the
// store reuses the memory of each, so that two of them must never share one.
type workPage struct {
	feature.ScanPage
	keep []feature.Record
}

// pass is one walk over the segments of an attempt. It ends with errLost when the online
// tier turns out to be lost meanwhile.
type pass struct {
	r       *Rewarmer
	req     Request
	views   viewSet
	viewIDs []feature.ViewID
	attempt attempt
	from    int // first segment of this run
	cps     []*checkpoint
	puts    []int64 // values put per segment in this pass; each is its worker's alone
	target  coldTarget
	cold    func(feature.Ref) bool // nil: fill every shard

	scanner   *scanner
	writes    *pace.Bucket
	window    *pace.Window // puts in flight
	batch     int          // records per put
	workers   int
	pages     sync.Pool
	witnesses int // kept per segment
	throttled atomic.Int64
	acked     stopwatch
	room      *room // for so many keys; nil for no bound
	live      int64 // values to bring, as planned; set with room
	known     *keyHashes
	source    attempt // what brought values that the table may have erased since; none if empty
	before    Counts  // of the checkpoints that the pass began with

	mu      sync.Mutex // guards what follows, and the contents of cps
	rep     *Report
	total   int64 // items expected, for progress
	done    int64
	checked time.Time

	song canarySet // see sing
}

func (r *Rewarmer) newPass(ctx context.Context, req Request, rep *Report, views viewSet, table Table, target coldTarget, discard string) (*pass, error) {
	var (
		a   attempt
		cps []*checkpoint
	)
	for {
		found, joined, reason, err := r.openAttempt(ctx, req, views, table, target, rep.Flushes, discard)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			r.cfg.Logger.Info("a stored rewarm attempt is not continued", "reason", reason)
		}
		a = found
		from, to := 0, a.Segments-1
		if req.Range {
			from, to = req.SegmentFrom, req.SegmentTo
		}
		rep.Segments, rep.SegmentFrom, rep.SegmentTo = a.Segments, from, to
		if cps, err = r.loadCheckpoints(ctx, a, from, to); err != nil {
			return nil, err
		}
		if req.Restart && req.Range && rep.Flushes == 0 {
			for i, cp := range cps {
				cps[i] = &checkpoint{Attempt: a.ID, Segment: cp.Segment, revision: cp.revision}
			}
		}
		if !joined {
			break
		}
		err = r.stillThere(ctx, views, cps)
		if err == nil {
			break
		}
		if !errors.Is(err, errLost) {
			return nil, err
		}
		discard = a.ID
	}

	cfg := &r.cfg
	puts, batch, workers := cfg.PutsInFlight, cfg.BatchSize, cfg.Workers
	writes := pace.NewBucket(cfg.Clock, req.MaxWriteRate, 0)
	if req.MaxSlowdown > 0 {
		puts, batch, workers = min(puts, gentlePuts), min(batch, gentleBatch), min(workers, gentleWorkers)
		begin := gentleBegin
		if req.MaxWriteRate > 0 {
			begin = min(begin, req.MaxWriteRate)
		}
		writes = pace.NewBucket(cfg.Clock, begin, float64(batch))
	}
	p := &pass{
		r: r, req: req, views: views, viewIDs: views.ids(), attempt: a, from: rep.SegmentFrom, cps: cps,
		puts: make([]int64, len(cps)), target: target, rep: rep, checked: cfg.Clock.Now(),
		scanner:   r.newScanner(req.MaxReadRate, workers),
		writes:    writes,
		window:    pace.NewWindow(pace.WindowConfig{Clock: cfg.Clock, Max: puts, Target: cfg.PutTarget}),
		batch:     batch,
		workers:   workers,
		pages:     sync.Pool{New: func() any { return new(workPage) }},
		witnesses: witnessesPer(a.Segments),
	}
	if err := p.mustSweep(ctx); err != nil {
		return nil, err
	}
	if !target.all {
		err := p.remember(ctx)
		if errors.Is(err, errLost) { // another machine has begun a new attempt: join that one
			return r.newPass(ctx, req, rep, views, table, target, "")
		}
		if err != nil {
			return nil, err
		}
	}
	for _, cp := range cps {
		p.before.add(cp.Counts)
	}
	if p.before.Scanned > 0 || slices.ContainsFunc(cps, func(cp *checkpoint) bool { return cp.Done }) {
		rep.ResumedFrom, rep.ResumedItems = &a.Run, p.before.Scanned
	} else {
		rep.ResumedFrom, rep.ResumedItems = nil, 0
	}
	p.done = p.before.Scanned
	p.total = table.Items * int64(len(cps)) / int64(a.Segments)
	return p, nil
}

// stillThere asks the witnesses of checkpoints. Values that were put without a witness
// that can still speak (all have expired) count as lost.
func (r *Rewarmer) stillThere(ctx context.Context, views viewSet, cps []*checkpoint) error {
	var ws []witness
	songs := map[canarySet]bool{}
	now := feature.MicrosOf(r.cfg.Clock.Now())
	for _, cp := range cps {
		songs[cp.Canaries] = true
		ws = append(ws, cp.Witnesses...)
		mute := !slices.ContainsFunc(cp.Witnesses, func(w witness) bool { return w.Expiry == feature.NoTime || w.Expiry.Sub(now) > minute })
		if cp.Counts.Written+cp.Counts.AlreadyNewer > 0 && mute {
			return errLost
		}
	}
	for song := range songs {
		if err := r.silent(ctx, views.any(), song); err != nil {
			return err
		}
	}
	return r.lost(ctx, ws)
}

func (p *pass) run(ctx context.Context) error {
	if p.attempt.Finished != 0 { // asked again, by the name of the attempt
		p.rep.Status, p.rep.SegmentsDone, p.rep.Warm = StatusDone, len(p.cps), p.attempt.Warm
		return p.prove(ctx)
	}
	reads, err := p.gently(ctx)
	if err != nil {
		return err
	}
	p.sing(ctx)
	stop := reads.start(ctx)
	err = p.hot(ctx)
	if err != nil && !errors.Is(err, errNoRoom) {
		stop()
		return err
	}
	if err == nil {
		err = p.segments(ctx)
	}
	p.rep.LiveReads = stop()
	p.mu.Lock()
	p.rep.Throttled += p.throttled.Load() + p.scanner.throttled.Load()
	p.rep.SlowDowns += p.window.Cuts()
	p.mu.Unlock()
	if errors.Is(err, errLost) || ctx.Err() != nil {
		if err == nil {
			err = ctx.Err()
		}
		return err
	}
	return p.finish(ctx, err)
}

// segments works on all segments of the range, workers at a time. One that fails for its
// own reason lets the others go on; a tier that is gone stops them all.
func (p *pass) segments(ctx context.Context) error {
	work := make(chan *checkpoint)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		for _, cp := range p.cps {
			select {
			case <-gctx.Done():
				return nil
			case work <- cp:
			}
		}
		return nil
	})
	var (
		mu   sync.Mutex
		errs []error
	)
	for range min(p.workers, len(p.cps)) {
		g.Go(func() error {
			for cp := range work {
				err := p.segment(gctx, cp)
				if err == nil {
					continue
				}
				if errors.Is(err, errLost) || gctx.Err() != nil {
					return err
				}
				mu.Lock()
				errs = append(errs, err)
				many := len(errs)
				mu.Unlock()
				if systemic(err) || many >= 5 {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	if errors.Is(err, errLost) || ctx.Err() != nil {
		return err
	}
	if len(errs) > 0 {
		return errs[0]
	}
	return err
}

// systemic tells errors that every other segment would meet as well.
func systemic(err error) bool {
	for _, s := range []error{feature.ErrUnreachable, feature.ErrDenied, feature.ErrNotApplied, feature.ErrConflict, feature.ErrThrottled, feature.ErrFull, errEvicting, errNoRoom} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// change applies a change to the stored attempt, which other machines change as well.
// errLost means that there is another one by now.
func (p *pass) change(ctx context.Context, to func(*attempt)) error {
	for {
		next := p.attempt
		to(&next)
		err := p.r.saveAttempt(ctx, &next)
		if err == nil {
			p.attempt = next
		}
		if !errors.Is(err, feature.ErrConflict) {
			return err
		}
		stored, err := p.r.loadAttempt(ctx)
		if err != nil {
			return err
		}
		if stored.ID != p.attempt.ID {
			return errLost
		}
		p.attempt = stored
	}
}

// remember learns which refs are in cold parts of the tier, and keeps it in the attempt.
func (p *pass) remember(ctx context.Context) error {
	for {
		known := p.attempt.ColdState
		cold, state, err := p.r.cfg.Online.ColdFilter(ctx, known)
		if err != nil {
			return fmt.Errorf("rewarm: which keys are in cold shards: %w", err)
		}
		p.cold = cold
		if bytes.Equal(state, known) {
			return nil
		}
		if err := p.change(ctx, func(a *attempt) {
			if bytes.Equal(a.ColdState, known) { // else another machine added to it: look again
				a.ColdState = state
			}
		}); err != nil {
			return err
		}
	}
}

// commit makes next the checkpoint and adds what happened to the report.
func (p *pass) commit(cp *checkpoint, next checkpoint, delta Counts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*cp = next
	p.rep.add(delta)
	p.done += delta.Scanned
	p.r.cfg.Progress.Report(telemetry.Progress{Stage: "rewarm", Unit: "items", Done: p.done, Total: max(p.total, p.done)})
}

// checkNow looks, every CheckEvery, whether the online tier still has what was put and
// whether another machine has begun a new attempt for the same reason.
func (p *pass) checkNow(ctx context.Context) error {
	now := p.r.cfg.Clock.Now()
	p.mu.Lock()
	if now.Sub(p.checked) < p.r.cfg.CheckEvery {
		p.mu.Unlock()
		return nil
	}
	p.checked = now
	var ws []witness
	for _, cp := range p.cps {
		ws = append(ws, cp.Witnesses...)
	}
	p.mu.Unlock()
	stored, err := p.r.loadAttempt(ctx)
	if err != nil {
		return err
	}
	if stored.ID != p.attempt.ID {
		return errLost
	}
	return p.lost(ctx, ws)
}
