package reader

import (
	"context"
	"sync"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// repairer writes what only the backing tier had up to the online tier, in the background.
// The online tier itself refuses what is older than it holds, and the record carries the
// one expiry that the view gives the value, so a repair neither goes backwards nor makes a
// value outlive its life. The queue is bounded: what does not fit is dropped and counted,
// and the next read of the key offers it again.
type repairer struct {
	online  Online
	out     func() bool // the online tier is out: it is not written to
	clock   clock.Clock
	timeout time.Duration
	count   *repairCount
	failed  func(err error, records int)

	queue   chan repair
	closing chan struct{}
	done    chan struct{}
	once    sync.Once
}

type repair struct {
	ctx     context.Context // of the read, without its end: its values reach the write
	rec     feature.Record  // without a payload: there is nothing to write
	discard bool            // the online tier holds damaged bytes: remove them first
}

func newRepairer(online Online, out func() bool, c clock.Clock, cfg RepairConfig, count *repairCount, failed func(error, int)) *repairer {
	p := &repairer{
		online: online, out: out, clock: c, timeout: cfg.Timeout, count: count, failed: failed,
		queue: make(chan repair, cfg.Queue), closing: make(chan struct{}), done: make(chan struct{}),
	}
	go p.run()
	return p
}

// offer queues a value for repair; it never waits.
func (p *repairer) offer(ctx context.Context, v *feature.View, ref feature.Ref, payload []byte, damaged bool) {
	rec, err := feature.NewRecord(v, ref.Key, payload)
	if err != nil {
		return // the payload was checked before; a record always follows
	}
	if rec.Online != feature.NoTime && rec.Online <= feature.MicrosOf(p.clock.Now()) {
		p.count.expired.Add(1)
		if !damaged {
			return
		}
		rec.Payload = nil
	}
	p.enqueue(repair{context.WithoutCancel(ctx), rec, damaged})
}

// discard queues the removal of damaged bytes that nothing is there to replace.
func (p *repairer) discard(ctx context.Context, ref feature.Ref) {
	p.enqueue(repair{context.WithoutCancel(ctx), feature.Record{Ref: ref}, true})
}

func (p *repairer) enqueue(r repair) {
	if p.out() {
		p.count.dropped.Add(1)
		return
	}
	select {
	case p.queue <- r:
		p.count.queued.Add(1)
	default:
		p.count.dropped.Add(1)
	}
}

func (p *repairer) run() {
	defer close(p.done)
	batch := make([]repair, 0, batchSize)
	for {
		var first repair
		select {
		case first = <-p.queue:
		case <-p.closing:
			p.drain(batch)
			return
		}
		batch = p.collect(append(batch[:0], first))
		p.write(first.ctx, batch)
	}
}

// collect adds what is waiting already, up to a batch.
func (p *repairer) collect(batch []repair) []repair {
	for len(batch) < batchSize {
		select {
		case next := <-p.queue:
			batch = append(batch, next)
		default:
			return batch
		}
	}
	return batch
}

// drain writes what was queued before the close, within one timeout altogether.
func (p *repairer) drain(batch []repair) {
	var ctx context.Context
	for {
		select {
		case next := <-p.queue:
			if ctx == nil {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(next.ctx, p.timeout)
				defer cancel()
			}
			p.write(ctx, p.collect(append(batch[:0], next)))
		default:
			return
		}
	}
}

func (p *repairer) write(ctx context.Context, batch []repair) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	recs := make([]feature.Record, 0, len(batch))
	var damaged []feature.Ref
	for _, r := range batch {
		if r.discard {
			damaged = append(damaged, r.rec.Ref)
		}
		if r.rec.Payload != nil {
			recs = append(recs, r.rec)
		}
	}
	err := p.remove(ctx, damaged)
	if err == nil && len(recs) == 0 {
		return
	}
	var got []feature.PutResult
	if err == nil {
		got, err = p.online.Put(ctx, recs)
	}
	if err == nil && len(got) != len(recs) {
		err = errShort
	}
	if err != nil {
		p.count.failed.Add(uint64(len(batch)))
		p.failed(err, len(batch))
		return
	}
	var first error
	failed := 0
	for _, g := range got {
		switch g.Outcome {
		case feature.Written:
			p.count.written.Add(1)
		case feature.Unchanged, feature.Older:
			p.count.newer.Add(1)
		case feature.Expired:
			p.count.expired.Add(1)
		default:
			p.count.failed.Add(1)
			if failed++; first == nil {
				first = g.Err
			}
		}
	}
	if failed > 0 {
		p.failed(first, failed)
	}
}

// remove takes damaged bytes away, where the tier can: a damaged version may look newer
// than the good one that follows.
func (p *repairer) remove(ctx context.Context, damaged []feature.Ref) error {
	d, ok := p.online.(Discarder)
	if !ok || len(damaged) == 0 {
		return nil
	}
	return d.Discard(ctx, damaged)
}

// close stops the worker after it has written what is queued.
func (p *repairer) close() {
	p.once.Do(func() { close(p.closing) })
	<-p.done
}
