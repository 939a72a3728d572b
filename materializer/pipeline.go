package materializer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/pace"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// batch is what travels through the pipeline. A pipeline has a fixed number of them, which
// bounds its memory whatever the source's size: when all are on their way, the source
// waits for one to come back.
type batch struct {
	recs  []feature.Record // for the backing tier
	arena []byte           // holds their payloads
	keep  []feature.Record // what the backing tier holds, for the online tier
	refs  []feature.Ref    // scratch of the heal mode
	asked time.Time        // when the backing tier was first asked about it
}

func (b *batch) reset() { b.recs, b.arena, b.keep = b.recs[:0], b.arena[:0], b.keep[:0] }

// mode is what the first stage of a pipeline does with a batch.
type mode int

const (
	modePut   mode = iota // store it in the backing tier
	modePrune             // the same, counted as pruned
	modeHeal              // look up what the backing tier holds instead
)

// pipeline moves the rows of one view: source -> first stage (backing tier) -> second stage
// (online tier). One goroutine feeds it.
type pipeline struct {
	m      *Materializer
	mode   mode
	view   *feature.View
	run    uint64
	now    feature.Micros // the run's clock time
	finger uint64
	erased func(feature.Key) (feature.Micros, bool)
	passed *passed // nil unless there are several chunks; guarded by mu
	gate   *gate
	sample *sample
	reject *rejects

	parent context.Context
	ctx    context.Context // ends when the view is given up
	cancel context.CancelCauseFunc

	current   *batch
	free      chan *batch
	toBacking chan *batch
	toOnline  chan *batch
	first     sync.WaitGroup
	second    sync.WaitGroup

	mu     sync.Mutex // guards what follows
	report *ViewReport
	streak int // batches in a row that failed whole
	done   int64
}

// startPipeline starts one for records of the run number.
func (w *work) startPipeline(ctx context.Context, what mode, number uint64) *pipeline {
	m, r, v := w.m, w.run, w.view
	batches := m.cfg.BackingWorkers + m.cfg.OnlineWorkers + 2
	p := &pipeline{
		m: m, mode: what, view: v, run: number, now: r.now, finger: v.Fingerprint(), erased: r.erased, gate: r.gate, sample: r.sample, reject: w.rejects,
		passed: w.passed, done: w.sent,
		parent: ctx, report: w.report,
		free: make(chan *batch, batches), toBacking: make(chan *batch, batches), toOnline: make(chan *batch, batches),
	}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	for range batches {
		p.free <- &batch{}
	}
	for range m.cfg.BackingWorkers {
		p.first.Go(func() {
			for b := range p.toBacking {
				p.acknowledge(b)
				p.toOnline <- b
			}
		})
	}
	for range m.cfg.OnlineWorkers {
		p.second.Go(func() {
			for b := range p.toOnline {
				p.send(b)
				b.reset()
				p.free <- b
			}
		})
	}
	return p
}

// add takes rows over; it waits while the pipeline is full, and fails when the view has
// been given up or the context has ended.
func (p *pipeline) add(rows []feature.Row) error {
	for i := range rows {
		if err := p.wait(); err != nil {
			return err
		}
		if err := p.encode(p.current, &rows[i]); err != nil {
			return err
		}
		p.pass()
	}
	return nil
}

// addStored takes over a record that the backing tier holds already, for the online tier.
func (p *pipeline) addStored(rec feature.Record) error {
	if err := p.wait(); err != nil {
		return err
	}
	b := p.current
	start := len(b.arena)
	b.arena = append(b.arena, rec.Payload...)
	rec.Key, rec.Payload = feature.Key(strings.Clone(string(rec.Key))), b.arena[start:len(b.arena):len(b.arena)]
	b.keep = append(b.keep, rec)
	p.pass()
	return nil
}

// wait makes sure that there is a batch to fill.
func (p *pipeline) wait() error {
	if p.current != nil {
		return nil
	}
	select {
	case b := <-p.free:
		if p.ctx.Err() == nil { // select chooses at random when both are ready
			p.current = b
			return nil
		}
		p.free <- b
	case <-p.ctx.Done():
	}
	return context.Cause(p.ctx)
}

// pass sends the batch on when it is full. It never blocks: the channel has room for all.
func (p *pipeline) pass() {
	if len(p.current.recs)+len(p.current.keep) >= p.m.cfg.BatchSize {
		p.toBacking <- p.current
		p.current = nil
	}
}

// close sends the last batch, waits until everything is through, and returns why the view
// was given up, if it was.
func (p *pipeline) close() error {
	if p.current != nil {
		p.toBacking <- p.current
		p.current = nil
	}
	close(p.toBacking)
	p.first.Wait()
	close(p.toOnline)
	p.second.Wait()
	var err error
	if p.ctx.Err() != nil {
		err = context.Cause(p.ctx)
	}
	p.cancel(nil)
	return err
}

// encode turns a row into a record of b. A row that cannot become one is rejected.
func (p *pipeline) encode(b *batch, row *feature.Row) error {
	if row.Key == "" || row.Event == feature.NoTime {
		p.reject.reject(row.Key, "null key or time", "the row has no entity key or no event time")
		return nil
	}
	if p.mode == modePut && guarded(p.erased, row) {
		p.mu.Lock()
		p.report.Backing.Erased++
		p.mu.Unlock()
		return nil
	}
	if p.mode == modePut && p.passed != nil && p.beaten(row) {
		return nil
	}
	key := feature.Key(strings.Clone(string(row.Key))) // rows are valid only until emit returns
	if p.mode == modeHeal {
		b.recs = append(b.recs, feature.Record{Ref: feature.Ref{View: p.view.ID(), Key: key}})
		return nil
	}
	start := len(b.arena)
	h := feature.Header{Fingerprint: p.finger, Version: feature.Version{Event: row.Event, Created: row.Created, Run: p.run}, Tombstone: row.Deleted}
	features := row.Features
	if row.Deleted {
		features = nil
	}
	b.arena = feature.AppendPayload(b.arena, h, features)
	rec, err := p.m.record(p.view, key, b.arena[start:len(b.arena):len(b.arena)], p.now)
	if err != nil {
		return err
	}
	if rec.Retain != feature.NoTime && rec.Retain <= p.now {
		// The backing tier would delete it at once, and the next run would write it again.
		p.mu.Lock()
		p.report.Backing.Expired++
		p.mu.Unlock()
		b.arena = b.arena[:start]
		return nil
	}
	b.recs = append(b.recs, rec)
	return nil
}

// beaten counts a row that an earlier chunk has beaten.
func (p *pipeline) beaten(row *feature.Row) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.passed.beats(row.Key, row.Event, row.Created) {
		return false
	}
	p.report.Backing.Older++
	return true
}

// record makes the record of a payload. A deletion is kept for a while even where values
// are short-lived.
func (m *Materializer) record(v *feature.View, key feature.Key, payload []byte, now feature.Micros) (feature.Record, error) {
	rec, err := feature.NewRecord(v, key, payload)
	if err != nil {
		return rec, err
	}
	if rec.Retain != feature.NoTime && rec.Tombstone() {
		rec.Retain = max(rec.Retain, now.Add(m.cfg.TombstoneRetain))
	}
	return rec, nil
}

// acknowledge fills b.keep with what the backing tier holds of b.recs.
func (p *pipeline) acknowledge(b *batch) {
	n := int64(len(b.recs))
	b.asked = p.m.clock.Now()
	if p.ctx.Err() != nil {
		if p.parent.Err() == nil { // the view was given up: what was not tried is not stored
			p.mu.Lock()
			p.report.Backing.Failed += n
			p.mu.Unlock()
		}
		return
	}
	if p.mode == modeHeal {
		p.lookUp(b)
	} else {
		p.store(b)
	}
	p.mu.Lock()
	p.done += n
	p.m.cfg.Progress.Report(telemetry.Progress{Stage: stage(p.view), Unit: "rows", Done: p.done})
	p.mu.Unlock()
}

// store puts a batch into the backing tier. It tries again as long as tries get anywhere;
// a rest that does not move in Config.Attempts tries has failed.
func (p *pipeline) store(b *batch) {
	pending, attempt := b.recs, 0
	var last error
	for len(pending) > 0 {
		results, err := p.m.cfg.Backing.Put(p.ctx, pending)
		if err == nil && len(results) != len(pending) {
			err = fmt.Errorf("backing tier returned %d results for %d records", len(results), len(pending))
			results = nil
		}
		before := len(pending)
		if len(results) == len(pending) {
			pending, last = p.judge(b, pending, results, last)
		}
		if err != nil {
			last = err
		}
		switch {
		case p.ctx.Err() != nil:
			return // interrupted or given up: the next run finds out what was stored
		case len(pending) == 0:
		case permanent(last):
			p.failed(pending, last)
			p.giveUp(last)
			return
		case len(pending) < before:
			attempt = 0
		default:
			if attempt++; attempt >= p.m.cfg.Attempts {
				p.failed(pending, last)
				p.struck(len(pending) == len(b.recs), last)
				return
			}
		}
		if len(pending) > 0 {
			if err := p.m.clock.Sleep(p.ctx, pace.Backoff(attempt, 200*time.Millisecond, 10*time.Second)); err != nil {
				return
			}
		}
	}
	p.struck(false, nil)
}

// judge counts the results, keeps for the online tier what is stored, and returns the
// records that are worth another try with the last reason.
func (p *pipeline) judge(b *batch, pending []feature.Record, results []feature.PutResult, last error) ([]feature.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	again := pending[:0]
	for i := range results {
		rec, res := pending[i], results[i]
		switch res.Outcome {
		case feature.Written, feature.Unchanged, feature.Older:
			p.passed.add(rec.Key, rec.Version.Event, rec.Version.Created)
		}
		switch res.Outcome {
		case feature.Written:
			p.report.Backing.Written++
			if p.mode == modePrune {
				p.report.Pruned++
			}
			p.report.Newest = max(p.report.Newest, rec.Version.Event)
			b.keep = append(b.keep, rec)
		case feature.Unchanged:
			p.report.Backing.Unchanged++
			p.report.Newest = max(p.report.Newest, rec.Version.Event)
			// The online tier must not be ahead of the table: it gets the stored version.
			rec.Version = res.Stored
			feature.SetVersion(rec.Payload, res.Stored)
			b.keep = append(b.keep, rec)
		case feature.Older:
			p.report.Backing.Older++
		case feature.Expired:
			p.report.Backing.Expired++
		default:
			if errors.Is(res.Err, feature.ErrInvalid) {
				p.reject.reject(rec.Key, "refused by the backing tier", res.Err.Error())
				continue
			}
			if res.Err != nil && (last == nil || !permanent(last)) {
				last = res.Err
			}
			again = append(again, rec)
		}
	}
	return again, last
}

func (p *pipeline) failed(recs []feature.Record, err error) {
	if err == nil {
		err = feature.ErrUnreachable
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Backing.Failed += int64(len(recs))
	p.failure("backing", recs, err)
}

// failure lists the first keys that failed. The caller holds p.mu.
func (p *pipeline) failure(tier string, recs []feature.Record, err error) {
	for i := range recs {
		p.report.cause(tier, recs[i].Key, err)
		if len(p.report.Failures) >= listMax {
			return
		}
		p.report.Failures = append(p.report.Failures, KeyFailure{Key: recs[i].Key, Tier: tier, Error: err.Error()})
	}
}

// struck counts batches that failed whole; too many in a row end the view.
func (p *pipeline) struck(whole bool, err error) {
	p.mu.Lock()
	if !whole {
		p.streak = 0
	} else {
		p.streak++
	}
	out := p.streak >= p.m.cfg.MaxFailedBatches
	p.mu.Unlock()
	if out {
		p.giveUp(fmt.Errorf("%d batches in a row failed: %w", p.m.cfg.MaxFailedBatches, err))
	}
}

func (p *pipeline) giveUp(err error) {
	p.cancel(fmt.Errorf("view %s: backing tier: %w; what was acknowledged is stored, the file set stays as it was: run again when the cause is gone", p.view.ID(), err))
}

// lookUp replaces the batch by what the backing tier holds under its keys.
func (p *pipeline) lookUp(b *batch) {
	b.refs = b.refs[:0]
	for i := range b.recs {
		b.refs = append(b.refs, b.recs[i].Ref)
	}
	results, err := p.m.cfg.Backing.Get(p.ctx, b.refs)
	if p.parent.Err() != nil {
		return
	}
	if err != nil || len(results) != len(b.refs) {
		if err == nil {
			err = fmt.Errorf("backing tier returned %d results for %d keys", len(results), len(b.refs))
		}
		p.behind(b.recs, "backing", err, false)
		if permanent(err) {
			p.giveUp(err)
		}
		return
	}
	for i, res := range results {
		if res.Err == nil && res.Payload == nil {
			continue // never stored, or gone: nothing to send
		}
		var rec feature.Record
		err := res.Err
		if err == nil {
			rec, err = p.m.record(p.view, b.refs[i].Key, res.Payload, p.now)
		}
		if err != nil {
			p.behind(b.recs[i:i+1], "backing", err, false)
			continue
		}
		b.keep = append(b.keep, rec)
	}
}
