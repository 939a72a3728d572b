package reader

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/breaker"
	"github.com/hearthstore/hearth/internal/clock"
)

// batchSize is how many keys one call of the backing tier asks for: what DynamoDB takes.
const batchSize = 100

// fetcher reads single keys from the backing tier for many requests at once. A key that
// is already asked for is not asked for again: the request joins the flight. Keys wait in
// one queue for a call; a call takes up to batchSize of them, so under the rate cap
// requests share calls instead of losing them.
//
// A flight belongs to no request: the request that began it may give up and the others
// still get the answer, and each flight carries its own error to everyone who waits.
//
// A key that the source refused for the moment (throttled, unprocessed, a connection that
// broke) goes back into the queue after a pause, as long as someone waits for it: repeated
// calls count against the cap like the first ones.
type fetcher struct {
	// ask is one call of the source.
	ask func(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error)
	// repeats says that ask sends one request and leaves it to the fetcher to repeat it.
	repeats  bool
	clock    clock.Clock
	breaker  *breaker.Breaker
	limit    limiter
	timeout  time.Duration
	inFlight int // most calls at once
	waiting  int // most keys queued
	// known looks for an answer that landed while its request was still asking the tier
	// before: the flight that it would have joined is gone by then.
	known func(ref feature.Ref, s *schema) (e *entry, ok bool)
	// landed is told every answer, before the requests are. It checks, caches and repairs.
	landed func(ctx context.Context, f *flight, got feature.GetResult, m mend)
	// called is told about every call.
	called func(keys, failed int, took time.Duration, err error)

	closing chan struct{}
	work    sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	flights map[feature.Ref]*flight
	queue   []*flight
	resting int // flights that wait to be asked for again
	running int
	armed   bool // a goroutine waits to pump the queue again
}

// flight is one key on its way.
type flight struct {
	ref     feature.Ref
	schema  *schema
	era     uint32          // of the view when the flight began
	ctx     context.Context // of the request that began it, without its end
	mend    mend
	queued  bool
	tries   int   // calls that were refused
	refusal error // why the last of them was
	waiting int   // requests that still wait
	to      []passenger

	entry *entry // set by landed
	err   error
}

// mend says what the requests of a flight found in the online tier. It grows with the lock
// held, while others join.
type mend struct {
	missing bool // absent or damaged: the answer is to be written up
	damaged bool
}

// passenger is one key of one waiting request.
type passenger struct {
	w *wait
	i int
}

// wait is one request's stay at the fetcher.
type wait struct {
	lookups []lookup
	left    int
	done    chan struct{}
	gone    bool
}

// settled takes one of the request's keys off the account without a flight.
func (w *wait) settled(l *lookup, err error) {
	l.err, l.done = err, true
	w.left--
}

// The reasons that come from the reader itself.
var (
	errCapped  = fmt.Errorf("%w: the cap on backing reads is used up", feature.ErrThrottled)
	errTimeout = fmt.Errorf("%w: no answer in time", feature.ErrUnreachable)
	errShort   = fmt.Errorf("%w: it answered for another number of keys", feature.ErrUnreachable)
	errSchema  = fmt.Errorf("%w: written under another schema of the view", feature.ErrUnknownFormat)
	errAbsent  = errors.New("absent") // inside the fetcher only: the tier said that it has nothing
)

// fetch resolves every lookup that is not done, or gives it the reason why not. fresh keeps
// it from looking at what is known already.
func (f *fetcher) fetch(ctx context.Context, lookups []lookup, open int, fresh bool) {
	w := &wait{lookups: lookups, left: open, done: make(chan struct{})}
	f.mu.Lock()
	detached := context.WithoutCancel(ctx)
	refused := f.closed || f.breaker.Refusing()
	for i := range lookups {
		l := &lookups[i]
		if l.done {
			continue
		}
		fl := f.flights[l.ref]
		if fl == nil {
			if !fresh {
				if e, ok := f.known(l.ref, l.schema); ok {
					l.entry, l.tier = e, feature.TierCache
					w.settled(l, nil)
					continue
				}
			}
			switch {
			case refused:
				w.settled(l, breaker.ErrOpen)
				continue
			case len(f.queue)+f.resting >= f.waiting:
				w.settled(l, errCapped)
				continue
			}
			fl = &flight{ref: l.ref, schema: l.schema, era: l.era, ctx: detached, queued: true}
			f.flights[l.ref] = fl
			f.queue = append(f.queue, fl)
		} else {
			l.shared = true
		}
		fl.mend.missing, fl.mend.damaged = fl.mend.missing || l.repair, fl.mend.damaged || l.damaged
		fl.waiting++
		fl.to = append(fl.to, passenger{w, i})
	}
	if w.left == 0 {
		f.mu.Unlock()
		return
	}
	f.pump()
	f.mu.Unlock()

	var timeout <-chan time.Time
	if f.timeout > 0 {
		timeout = f.clock.After(f.timeout)
	}
	select {
	case <-w.done:
		return
	case <-ctx.Done():
	case <-timeout:
	}
	f.leave(w)
}

// leave takes a request off its flights. What has landed stays; the rest is told why.
func (f *fetcher) leave(w *wait) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.left == 0 {
		return
	}
	w.gone = true
	for i := range w.lookups {
		l := &w.lookups[i]
		if l.done {
			continue
		}
		l.done, l.err = true, errTimeout
		if fl := f.flights[l.ref]; fl != nil {
			fl.waiting--
			switch {
			case fl.refusal != nil:
				l.err = fl.refusal
			case fl.queued:
				l.err = errCapped
			}
		}
	}
}

// pump starts the calls that may start now. Call with mu held.
func (f *fetcher) pump() {
	for len(f.queue) > 0 && f.running < f.inFlight {
		if f.skipDeserted(); len(f.queue) == 0 {
			return
		}
		p, ok := f.breaker.Allow()
		if !ok {
			f.refuse(f.queue, breaker.ErrOpen)
			f.queue = nil
			return
		}
		if pause := f.limit.take(f.clock.Now()); pause > 0 {
			f.breaker.Done(p, breaker.Neutral)
			f.arm(pause)
			return
		}
		batch := f.board()
		f.running++
		f.work.Add(1)
		go f.call(p, batch)
	}
}

// skipDeserted forgets the keys at the front of the queue that nobody waits for any more:
// they would cost a call for nothing. Call with mu held.
func (f *fetcher) skipDeserted() {
	for len(f.queue) > 0 && f.queue[0].waiting == 0 {
		delete(f.flights, f.queue[0].ref)
		f.queue[0] = nil
		f.queue = f.queue[1:]
	}
	if len(f.queue) == 0 {
		f.queue = nil
	}
}

// board takes the keys of the next call off the queue. Call with mu held.
func (f *fetcher) board() []*flight {
	batch := make([]*flight, 0, min(batchSize, len(f.queue)))
	for f.skipDeserted(); len(f.queue) > 0 && len(batch) < batchSize; f.skipDeserted() {
		fl := f.queue[0]
		fl.queued = false
		batch = append(batch, fl)
		f.queue[0] = nil
		f.queue = f.queue[1:]
	}
	return batch
}

// later calls what with mu held, after a pause or when the fetcher closes.
func (f *fetcher) later(pause time.Duration, what func()) {
	f.work.Add(1)
	wake := f.clock.After(pause)
	go func() {
		defer f.work.Done()
		select {
		case <-wake:
		case <-f.closing:
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		what()
	}()
}

// arm pumps again after a pause. One waiting goroutine is enough.
func (f *fetcher) arm(pause time.Duration) {
	if f.armed || f.closed {
		return
	}
	f.armed = true
	f.later(pause, func() {
		f.armed = false
		if !f.closed {
			f.pump()
		}
	})
}

// call asks the backing tier once.
func (f *fetcher) call(p breaker.Permit, batch []*flight) {
	defer f.work.Done()
	refs := make([]feature.Ref, len(batch))
	for i, fl := range batch {
		refs[i] = fl.ref
	}
	ctx := batch[0].ctx
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	start := f.clock.Now()
	got, err := explained(f.ask(ctx, refs))(len(refs))
	v, failed := breaker.Healthy, len(refs)
	if got != nil {
		failed, err = failures(got)
	}
	if failed == len(refs) {
		v = breaker.Sick
	}
	f.breaker.Done(p, v)
	f.called(len(refs), failed, f.clock.Now().Sub(start), err)
	mends := make([]mend, len(batch))
	f.mu.Lock()
	for i, fl := range batch {
		mends[i] = fl.mend
	}
	f.mu.Unlock()
	var again []*flight
	landed := batch[:0]
	for i, fl := range batch {
		why := err // the whole call failed
		if got != nil {
			why = got[i].Err
		}
		switch {
		case why == nil:
			f.landed(ctx, fl, got[i], mends[i])
		case f.repeats && repeatable(why):
			fl.tries++
			fl.err = why
			again = append(again, fl)
			continue
		default:
			fl.err = why
		}
		landed = append(landed, fl)
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
	f.land(landed)
	f.rest(again)
	f.pump()
}

// repeatable reports whether asking again may help.
func repeatable(err error) bool {
	return errors.Is(err, feature.ErrThrottled) || errors.Is(err, feature.ErrUnreachable)
}

// The pauses before a key is asked for again: a random part of a bound that doubles.
const (
	firstRest = 10 * time.Millisecond
	maxRest   = time.Second
)

// rest puts refused flights back into the queue after a pause. Call with mu held.
func (f *fetcher) rest(flights []*flight) {
	if len(flights) == 0 {
		return
	}
	if f.closed {
		f.refuse(flights, ErrClosed)
		return
	}
	tries := 0
	for _, fl := range flights {
		fl.refusal, fl.err = fl.err, nil
		tries = max(tries, fl.tries)
	}
	pause := time.Millisecond + rand.N(min(maxRest, firstRest<<min(tries-1, 10)))
	f.resting += len(flights)
	f.later(pause, func() {
		f.resting -= len(flights)
		if f.closed {
			f.refuse(flights, ErrClosed)
			return
		}
		for _, fl := range flights {
			if fl.waiting == 0 {
				delete(f.flights, fl.ref)
				continue
			}
			fl.queued = true
			f.queue = append(f.queue, fl)
		}
		f.pump()
	})
}

// explained reads what a tier returned so that nothing without an answer can pass for
// absent: the results are nil when the call as a whole failed, and otherwise each result
// without a payload in a call that ended with an error carries that error.
func explained(got []feature.GetResult, err error) func(want int) ([]feature.GetResult, error) {
	return func(want int) ([]feature.GetResult, error) {
		if len(got) != want {
			if err == nil {
				err = errShort
			}
			return nil, err
		}
		if err != nil {
			for i := range got {
				if got[i].Payload == nil && got[i].Err == nil {
					got[i].Err = err
				}
			}
		}
		return got, nil
	}
}

func failures(got []feature.GetResult) (n int, first error) {
	for _, g := range got {
		if g.Err != nil {
			if n++; first == nil {
				first = g.Err
			}
		}
	}
	return n, first
}

// refuse ends flights that never left. Call with mu held.
func (f *fetcher) refuse(flights []*flight, err error) {
	for _, fl := range flights {
		if fl.err = err; fl.refusal != nil {
			fl.err = fl.refusal
		}
	}
	f.land(flights)
}

// land gives every waiting request its answers. Call with mu held.
func (f *fetcher) land(flights []*flight) {
	for _, fl := range flights {
		delete(f.flights, fl.ref)
		for _, to := range fl.to {
			w := to.w
			if w.gone {
				continue
			}
			l := &w.lookups[to.i]
			l.settle(fl)
			if w.left--; w.left == 0 {
				close(w.done)
			}
		}
		fl.to = nil
	}
}

// close ends what waits and waits for the calls under way, which their timeout bounds.
func (f *fetcher) close() {
	f.mu.Lock()
	if !f.closed {
		f.closed = true
		close(f.closing)
		f.refuse(f.queue, ErrClosed)
		f.queue = nil
	}
	f.mu.Unlock()
	f.work.Wait()
}
