package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
)

// batchSize is DynamoDB's limit of statements per BatchExecuteStatement.
const batchSize = 25

// maxTurns bounds how often a record goes from one statement to the other because others
// insert and delete its key meanwhile, before it is written with PutItem.
const maxTurns = 3

// Put implements backing.Store.
//
// Records go in PartiQL batches of 25, because a conditional PutItem each costs ten times
// the CPU. There is no conditional upsert in PartiQL, so a batch begins with what its view
// most often needs, INSERT or UPDATE, and what that does not settle goes on with the
// other. Either statement refuses atomically, so the version of a key never decreases,
// whatever other writers do in between. A statement whose answer was lost is sent again
// and then finds its own version: Unchanged.
func (s *Store) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	results := make([]feature.PutResult, len(recs))
	write, losers := backing.Newest(recs, results)
	p := &putCall{store: s, results: results, lastProgress: s.clock.Now()}
	err := p.run(ctx, newOps(recs, write))
	if err != nil && ctx.Err() == nil {
		return nil, err
	}
	for i, w := range losers {
		results[i] = backing.LoserResult(&recs[i], &recs[w], results[w])
	}
	return results, err
}

func newOps(recs []feature.Record, write []int) []*putOp {
	ops := make([]*putOp, len(write))
	slab := make([]putOp, len(write))
	views := map[feature.ViewID]string{}
	for n, i := range write {
		rec := &recs[i]
		view, ok := views[rec.View]
		if !ok {
			view = rec.View.String()
			views[rec.View] = view
		}
		slab[n] = putOp{index: i, rec: rec, view: view, hash: feature.ContentHash(rec.Payload)}
		ops[n] = &slab[n]
	}
	return ops
}

// putOp is one record on its way.
type putOp struct {
	index  int
	rec    *feature.Record
	view   string
	hash   uint64
	update bool // the statement to send next: UPDATE, else INSERT
	turns  int
	single bool // write with PutItem
}

// putCall is the state of one Put.
type putCall struct {
	store   *Store
	results []feature.PutResult

	mu           sync.Mutex
	next         []*putOp // ops for the next round
	answered     bool
	throttled    bool
	failed       error // the last reason for which ops were sent again
	fatal        error // nothing can work: no table, no rights, no network
	lastProgress time.Time
}

// run sends the ops in rounds. What a round leaves unsettled is packed into full batches
// again for the next one.
func (p *putCall) run(ctx context.Context, ops []*putOp) error {
	s := p.store
	for stalled := 0; len(ops) > 0; {
		p.next, p.throttled = nil, false
		before := len(ops)
		p.round(ctx, ops)
		ops = p.next
		if len(ops) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			err := s.wrap("put", s.cfg.Table, context.Cause(ctx))
			if p.failed != nil && errors.Is(p.failed, feature.ErrThrottled) {
				err = errors.Join(err, p.failed)
			}
			p.fail(ops, err)
			return err
		}
		if p.fatal != nil {
			p.fail(ops, p.fatal)
			if !p.answered {
				return p.fatal
			}
			return nil
		}
		if len(ops) < before || !p.throttled {
			stalled = 0
		}
		if !p.throttled {
			continue
		}
		if p.stuck() {
			p.fail(ops, p.failed)
			if !p.answered && !errors.Is(p.failed, feature.ErrThrottled) {
				return p.failed
			}
			return nil
		}
		if err := s.pause(ctx, stalled); err != nil {
			continue // the next round sees that ctx has ended
		}
		stalled++
	}
	return nil
}

// round sends every op once. The store's window decides how many batches are in flight, over
// all calls: it gives way when DynamoDB throttles, and grows again when it does not.
func (p *putCall) round(ctx context.Context, ops []*putOp) {
	s := p.store
	send := func(batch []*putOp) {
		if p.stuck() {
			p.again(batch, nil) // do not go on trying
			return
		}
		asked := s.clock.Now()
		err := s.write.Wait(ctx, writeUnits(batch))
		p.excuse(s.clock.Now().Sub(asked))
		if err == nil {
			err = s.window.Do(ctx, func() (throttled bool) { return p.send(ctx, batch) })
		}
		if err != nil {
			p.again(batch, err)
		}
	}
	batches := make(chan []*putOp)
	var wg sync.WaitGroup
	for range min(s.cfg.Batches, (len(ops)+batchSize-1)/batchSize) {
		wg.Go(func() {
			for batch := range batches {
				send(batch)
			}
		})
	}
	for batch := range slices.Chunk(ops, batchSize) {
		batches <- batch
	}
	close(batches)
	wg.Wait()
}

// excuse does not count time against RetryFor that MaxWriteUnits took.
func (p *putCall) excuse(waited time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.store.clock.Now(); p.lastProgress.Add(waited).Before(now) {
		p.lastProgress = p.lastProgress.Add(waited)
	} else {
		p.lastProgress = now
	}
}

// stuck reports whether it is useless to send more: for good, or because nothing has got
// through for RetryFor.
func (p *putCall) stuck() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fatal != nil || p.failed != nil && p.store.clock.Now().Sub(p.lastProgress) >= p.store.cfg.RetryFor
}

// got notes that DynamoDB answered, and with progress.
func (p *putCall) got() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered, p.lastProgress = true, p.store.clock.Now()
}

// again puts ops into the next round because of err.
func (p *putCall) again(ops []*putOp, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = append(p.next, ops...)
	p.throttled = true
	if err != nil {
		p.failed = err
	}
}

func (p *putCall) fail(ops []*putOp, err error) {
	for _, op := range ops {
		p.results[op.index] = feature.PutResult{Err: fmt.Errorf("put %s: %w", op.rec.Ref, err)}
	}
}

func (p *putCall) done(op *putOp, r feature.PutResult) { p.results[op.index] = r }

// send writes one batch, by PartiQL or one by one, and says whether it was throttled.
func (p *putCall) send(ctx context.Context, batch []*putOp) (throttled bool) {
	s := p.store
	single := !s.forms.partiQL()
	// Split before anything is sent: sending changes the ops, for the next round.
	var together, alone []*putOp
	for _, op := range batch {
		if single || op.single || op.turns > maxTurns {
			alone = append(alone, op)
		} else {
			together = append(together, op)
		}
	}
	if len(together) > 0 {
		throttled = p.sendBatch(ctx, together)
	}
	var (
		singles atomic.Int64
		wg      sync.WaitGroup
	)
	for _, op := range alone {
		wg.Go(func() {
			if p.sendOne(ctx, op) {
				singles.Add(1)
			}
		})
	}
	wg.Wait()
	return throttled || singles.Load() > 0
}

func (p *putCall) sendBatch(ctx context.Context, batch []*putOp) bool {
	s := p.store
	form := s.forms.update()
	updateFirst := s.order.updateFirst(batch[0].view)
	for _, op := range batch {
		if op.turns == 0 {
			op.update = updateFirst
		}
	}
	out, err := s.client.BatchExecuteStatement(ctx, &ddb.BatchExecuteStatementInput{Statements: s.statements(batch, form)})
	if err != nil {
		p.batchError(batch, form, err)
		return isThrottle(err)
	}
	var (
		turned    []*putOp // to the other statement, or another form of it
		throttled []*putOp
		present   int // of the firsts
		firsts    int // ops that were sent for the first time: what the next batch may expect
		reason    error
	)
	for i, op := range batch {
		if i >= len(out.Responses) {
			throttled, reason = append(throttled, op), fmt.Errorf("%w: DynamoDB answered %d of %d statements", feature.ErrUnreachable, len(out.Responses), len(batch))
			continue
		}
		e := out.Responses[i].Error
		first := op.turns == 0
		v := s.verdict(op, e)
		switch v {
		case verdictWritten:
			p.done(op, feature.PutResult{Outcome: feature.Written, Stored: op.rec.Version})
		case verdictRefused:
			p.refused(op, e.Item)
		case verdictPresent:
			op.update, op.turns = true, op.turns+1
			turned = append(turned, op)
		case verdictAbsent:
			// After an INSERT that found the key: it has been deleted since, or this endpoint does
			// not return the item that refused an UPDATE (dynoxide 1.2.1). PutItem settles it.
			op.single = op.turns > 0
			op.update, op.turns = false, op.turns+1
			turned = append(turned, op)
		case verdictThrottled:
			s.stats.throttles.Add(1)
			throttled, reason = append(throttled, op), s.wrapStatement(e)
		case verdictSyntax:
			// Another dialect of UPDATE, or none that this endpoint understands.
			s.forms.reject(form, s.log)
			turned = append(turned, op)
		default:
			op.single = true // PutItem says in full what is wrong with it
			turned = append(turned, op)
		}
		if first && v.tellsPresence() {
			firsts++
			if v == verdictRefused || v == verdictPresent || v == verdictWritten && op.update {
				present++
			}
		}
	}
	s.order.note(batch[0].view, present, firsts)
	if firsts > 0 || len(turned)+len(throttled) < len(batch) {
		p.got() // else nothing: a missing table is answered per statement, too
	}
	if len(turned) > 0 {
		p.mu.Lock()
		p.next = append(p.next, turned...)
		p.mu.Unlock()
	}
	if len(throttled) > 0 {
		p.again(throttled, reason)
	}
	// A few refused statements are one hot partition, which their own backoff cools.
	return len(throttled)*4 > len(batch)
}

// batchError handles a batch that failed as a whole.
func (p *putCall) batchError(batch []*putOp, form updateForm, err error) {
	s := p.store
	wrapped := s.wrap("put", s.cfg.Table, err)
	switch {
	case isThrottle(err):
		s.stats.throttles.Add(1)
		p.again(batch, wrapped)
	case errors.Is(wrapped, feature.ErrDenied) && code(err) == "AccessDeniedException":
		s.forms.deny(s.log, message(err))
		p.requeue(batch)
	case isTransient(err):
		p.again(batch, wrapped)
	case errors.Is(wrapped, feature.ErrNotApplied), errors.Is(wrapped, feature.ErrDenied), errors.Is(wrapped, context.Canceled):
		p.mu.Lock()
		p.fatal = wrapped
		p.next = append(p.next, batch...)
		p.mu.Unlock()
	case form != formNone && anyUpdate(batch) && syntaxMessage(message(err)):
		s.forms.reject(form, s.log)
		p.requeue(batch)
	default:
		// One bad statement can spoil a request: PutItem finds it, and saves the others.
		for _, op := range batch {
			op.single = true
		}
		p.requeue(batch)
	}
}

func anyUpdate(batch []*putOp) bool {
	return slices.ContainsFunc(batch, func(op *putOp) bool { return op.update })
}

func (p *putCall) requeue(ops []*putOp) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = append(p.next, ops...)
}

// sendOne writes one record with PutItem and the whole condition.
func (p *putCall) sendOne(ctx context.Context, op *putOp) (throttled bool) {
	s := p.store
	s.stats.putItems.Add(1)
	_, err := s.client.PutItem(ctx, s.putItem(op))
	var failed *types.ConditionalCheckFailedException
	if err == nil || errors.As(err, &failed) {
		p.got()
	}
	switch wrapped := s.wrap("put", s.cfg.Table, err); {
	case err == nil:
		p.done(op, feature.PutResult{Outcome: feature.Written, Stored: op.rec.Version})
	case failed != nil:
		p.refused(op, failed.Item)
	case isThrottle(err), isTransient(err):
		if isThrottle(err) {
			s.stats.throttles.Add(1)
		}
		p.again([]*putOp{op}, wrapped)
		return isThrottle(err)
	case errors.Is(wrapped, feature.ErrNotApplied), errors.Is(wrapped, feature.ErrDenied), wrongKey(err):
		// No record can be put into this table: that is no fault of this one.
		p.mu.Lock()
		p.fatal = wrapped
		p.next = append(p.next, op)
		p.mu.Unlock()
	default:
		p.done(op, feature.PutResult{Err: fmt.Errorf("put %s: %w", op.rec.Ref, wrapped)})
	}
	return false
}

// refused settles an op by the item that was in its way.
func (p *putCall) refused(op *putOp, item map[string]types.AttributeValue) {
	stored, hash, err := storedVersion(item)
	if err != nil {
		p.done(op, feature.PutResult{Err: fmt.Errorf("put %s: %w", op.rec.Ref, err)})
		return
	}
	outcome, again := backing.Judge(stored, hash, op.rec.Version, op.hash)
	if again {
		// The condition and the item that came with the refusal disagree: not ours to repair.
		p.done(op, feature.PutResult{Err: fmt.Errorf("put %s: %w: DynamoDB refused it against version %s", op.rec.Ref, feature.ErrConflict, stored)})
		return
	}
	p.done(op, feature.PutResult{Outcome: outcome, Stored: stored})
}
