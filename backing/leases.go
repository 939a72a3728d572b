package backing

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

const kindLease = "lease"

// LeaseConfig configures [NewLeases].
type LeaseConfig struct {
	// State is where leases live. Required.
	State StateStore
	// Clock defaults to the machine's.
	Clock clock.Clock
	// TTL is how long a lease lasts without being renewed. Defaults to 30 s. Holders and
	// contenders may use different ones: the holder's counts, and is stored with the lease.
	TTL time.Duration
	// Skew is how long after its end, by the contender's clock, a lease counts as dead without
	// being watched. It has to be more than the clocks of two machines can differ.
	// Defaults to 2 min.
	Skew time.Duration
	// Dead, if set, may say that a holder is certainly gone (for example a process of this
	// machine that does not exist any more), so that its lease is taken over at once. It must
	// return false when in doubt. Defaults to never.
	Dead func(holder string) bool
}

// Leases lets one run at a time do a piece of work, across machines.
//
// # Safety
//
// A holder believes in its lease for TTL after the moment at which it sent its last
// successful renewal, by its own clock. A contender never compares that clock with its own
// closely. It takes a lease over only if
//
//   - the lease was released, or its holder is certainly Dead; or
//   - it saw the lease's revision unchanged for the holder's whole TTL, by its own clock: the
//     last renewal was sent before the contender first saw it, so the holder's TTL is over
//     too, whatever the two clocks show, as long as they run at about the same rate; or
//   - the end of the lease is more than Skew ago by its own clock, which spares a command
//     that runs once the watching.
//
// A lease that has not ended is refused at once. One that has ended, but not by Skew, is
// watched for up to TTL. So is one that ends further ahead than its whole TTL, which only
// clocks that differ can bring about.
//
// A lease cannot stop a holder that was suspended in the middle of a write. That is what
// the fencing number is for: it grows with every change of hands, and run numbers grow
// with it, so what a stale run writes loses against what its successor wrote.
type Leases struct {
	cfg LeaseConfig

	mu   sync.Mutex
	seen map[string]sighting // by lease name: what Acquire saw last
}

type sighting struct {
	revision int64
	since    time.Time
}

// leaseRecord is the stored form.
type leaseRecord struct {
	Holder string        `json:"holder"` // "" when released
	Fence  uint64        `json:"fence"`
	Until  time.Time     `json:"until"` // by the holder's clock
	TTL    time.Duration `json:"ttl_ns"`
}

// NewLeases makes leases over a state store.
func NewLeases(cfg LeaseConfig) *Leases {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.TTL <= 0 {
		cfg.TTL = 30 * time.Second
	}
	if cfg.Skew <= 0 {
		cfg.Skew = 2 * time.Minute
	}
	return &Leases{cfg: cfg, seen: map[string]sighting{}}
}

// LeaseHeldError says who holds a lease. It matches feature.ErrLeaseHeld.
type LeaseHeldError struct {
	Name   string
	Holder string
	Until  time.Time // when it ends unless renewed, by the holder's clock
}

func (e *LeaseHeldError) Error() string {
	return fmt.Sprintf("lease %q is held by %s until %s: another run is doing this work; if that run is dead, wait until then and try again",
		e.Name, e.Holder, e.Until.UTC().Format(time.RFC3339))
}

// Is makes errors.Is(err, feature.ErrLeaseHeld) true.
func (e *LeaseHeldError) Is(target error) bool { return target == feature.ErrLeaseHeld }

// Lease is one held lease. Its methods may be called concurrently.
type Lease struct {
	leases *Leases
	name   string
	holder string
	fence  uint64

	mu       sync.Mutex
	revision int64
	expires  time.Time // by our clock: when we stop believing in it
	lost     bool
}

// Fence is the fencing number: larger than that of every earlier lease of this name.
func (l *Lease) Fence() uint64 { return l.fence }

// Names lists the leases whose names begin with prefix and that somebody took once, whether
// they are held now or not.
func (ls *Leases) Names(ctx context.Context, prefix string) ([]string, error) {
	items, err := ls.cfg.State.ListState(ctx, kindLease, ListOptions{Prefix: prefix})
	if err != nil {
		return nil, fmt.Errorf("list leases %s*: %w", prefix, err)
	}
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = item.Name
	}
	return names, nil
}

// Acquire takes the named lease for holder (a text that tells runs apart, such as
// host:pid:run). It returns a *LeaseHeldError if another run holds it. It may watch a lease
// that looks dead for up to the TTL of its holder before it decides; see [Leases].
func (ls *Leases) Acquire(ctx context.Context, name, holder string) (*Lease, error) {
	if holder == "" {
		return nil, fmt.Errorf("acquire lease %q: %w: empty holder", name, feature.ErrInvalid)
	}
	for {
		start := ls.cfg.Clock.Now()
		var rec leaseRecord
		revision, err := LoadJSON(ctx, ls.cfg.State, kindLease, name, &rec)
		if err != nil {
			return nil, fmt.Errorf("acquire lease %q: %w", name, err)
		}
		free, wait := ls.judge(name, revision, rec)
		if !free {
			held := &LeaseHeldError{Name: name, Holder: rec.Holder, Until: rec.Until}
			if wait <= 0 {
				return nil, held
			}
			changed, err := ls.watch(ctx, name, revision, wait)
			if err != nil {
				return nil, fmt.Errorf("acquire lease %q: %w", name, err)
			}
			if changed {
				return nil, held // a renewal or a faster contender: somebody is alive
			}
			start = ls.cfg.Clock.Now()
		}
		next := leaseRecord{Holder: holder, Fence: rec.Fence + 1, Until: start.Add(ls.cfg.TTL).UTC(), TTL: ls.cfg.TTL}
		revision, err = SaveJSON(ctx, ls.cfg.State, kindLease, name, revision, next)
		if errors.Is(err, feature.ErrConflict) {
			continue // somebody was faster: look again
		}
		if err != nil {
			return nil, fmt.Errorf("acquire lease %q: %w", name, err)
		}
		return &Lease{leases: ls, name: name, holder: holder, fence: next.Fence, revision: revision, expires: start.Add(ls.cfg.TTL)}, nil
	}
}

// judge says whether a lease may be taken now, and if not, how long it has to be watched
// before it may be; 0 means that it is alive and not worth watching.
func (ls *Leases) judge(name string, revision int64, rec leaseRecord) (free bool, wait time.Duration) {
	now := ls.cfg.Clock.Now()
	ls.mu.Lock()
	first, ok := ls.seen[name]
	if !ok || first.revision != revision {
		first = sighting{revision: revision, since: now}
		ls.seen[name] = first
	}
	ls.mu.Unlock()

	ttl := rec.TTL
	if ttl <= 0 {
		ttl = ls.cfg.TTL
	}
	watched := now.Sub(first.since)
	left := rec.Until.Sub(now)
	switch {
	case revision == 0, rec.Holder == "":
		return true, 0
	case ls.cfg.Dead != nil && ls.cfg.Dead(rec.Holder):
		return true, 0
	case watched >= ttl:
		return true, 0
	case left < -ls.cfg.Skew:
		return true, 0
	case left > ttl, left <= 0: // clocks differ, or it ended just now
		return false, ttl - watched
	}
	return false, 0
}

// watch reports whether the lease changes within d.
func (ls *Leases) watch(ctx context.Context, name string, revision int64, d time.Duration) (changed bool, err error) {
	end := ls.cfg.Clock.Now().Add(d)
	for {
		left := end.Sub(ls.cfg.Clock.Now())
		if left <= 0 {
			return false, nil
		}
		// A holder renews every third of its TTL: looking twice as often sees it soon.
		if err := ls.cfg.Clock.Sleep(ctx, min(left, max(d/6, time.Millisecond))); err != nil {
			return false, err
		}
		var rec leaseRecord
		now, err := LoadJSON(ctx, ls.cfg.State, kindLease, name, &rec)
		if err != nil {
			return false, err
		}
		if now != revision {
			return true, nil
		}
	}
}

// Renew prolongs the lease by its TTL from now. An error matching feature.ErrLeaseLost means
// that the work must stop; any other error means that the store did not answer and the lease
// is good until its end: try again.
func (l *Lease) Renew(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost {
		return l.lostError("it went to another run")
	}
	now := l.leases.cfg.Clock.Now()
	if !now.Before(l.expires) {
		// A contender may have begun to take it over; renewing now would race with it.
		l.lost = true
		return l.lostError("it was not renewed in time")
	}
	ttl := l.leases.cfg.TTL
	rec := leaseRecord{Holder: l.holder, Fence: l.fence, Until: now.Add(ttl).UTC(), TTL: ttl}
	revision, err := SaveJSON(ctx, l.leases.cfg.State, kindLease, l.name, l.revision, rec)
	if errors.Is(err, feature.ErrConflict) {
		// An earlier renewal that seemed to fail may have got through: then it is still ours.
		r, ok, readErr := l.ours(ctx)
		switch {
		case readErr != nil:
			return fmt.Errorf("renew lease %q: %w", l.name, readErr)
		case !ok:
			l.lost = true
			return l.lostError("it went to another run")
		}
		l.revision = r
		revision, err = SaveJSON(ctx, l.leases.cfg.State, kindLease, l.name, r, rec)
	}
	if err != nil {
		return fmt.Errorf("renew lease %q: %w", l.name, err)
	}
	l.revision, l.expires = revision, now.Add(ttl)
	return nil
}

// ours re-reads the lease and reports whether it is still this holder's, and its revision.
func (l *Lease) ours(ctx context.Context) (revision int64, ok bool, err error) {
	var rec leaseRecord
	revision, err = LoadJSON(ctx, l.leases.cfg.State, kindLease, l.name, &rec)
	return revision, err == nil && revision != 0 && rec.Holder == l.holder && rec.Fence == l.fence, err
}

// Release gives the lease back, so that the next run need not wait. It is an error matching
// feature.ErrLeaseLost if the lease went to another run meanwhile.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost {
		return l.lostError("it went to another run")
	}
	for range 3 {
		// The item stays: its fence must keep growing.
		rec := leaseRecord{Fence: l.fence, Until: l.leases.cfg.Clock.Now().UTC(), TTL: l.leases.cfg.TTL}
		_, err := SaveJSON(ctx, l.leases.cfg.State, kindLease, l.name, l.revision, rec)
		if err == nil {
			l.lost = true
			return nil
		}
		if !errors.Is(err, feature.ErrConflict) {
			return fmt.Errorf("release lease %q: %w; it ends by itself after %s", l.name, err, l.leases.cfg.TTL)
		}
		r, ok, readErr := l.ours(ctx)
		if readErr != nil {
			return fmt.Errorf("release lease %q: %w; it ends by itself after %s", l.name, readErr, l.leases.cfg.TTL)
		}
		if !ok {
			break
		}
		l.revision = r // a renewal got through whose answer we did not see
	}
	l.lost = true
	return l.lostError("it went to another run")
}

func (l *Lease) lostError(why string) error {
	return fmt.Errorf("%w: lease %q of %s: %s", feature.ErrLeaseLost, l.name, l.holder, why)
}

// remaining is how long the holder may still believe in its lease.
func (l *Lease) remaining() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires.Sub(l.leases.cfg.Clock.Now())
}

// Holding is a lease that is renewed in the background; see [Leases.Hold].
type Holding struct {
	*Lease
	stop func()
	done chan struct{}
}

// Hold acquires the lease and renews it every third of its TTL until release is called or
// the parent context ends. When the lease is lost, or could not be renewed until its end,
// leaseCtx is cancelled with a cause that matches feature.ErrLeaseLost: the work must run
// under leaseCtx and stop. release stops the renewals and gives the lease back; it must be
// called, once, and its context should outlive the work's.
func (ls *Leases) Hold(ctx context.Context, name, holder string) (leaseCtx context.Context, release func(context.Context) error, err error) {
	leaseCtx, h, err := ls.HoldLease(ctx, name, holder)
	if err != nil {
		return nil, nil, err
	}
	return leaseCtx, h.Release, nil
}

// HoldLease is Hold for callers that need the fencing number.
func (ls *Leases) HoldLease(ctx context.Context, name, holder string) (context.Context, *Holding, error) {
	lease, err := ls.Acquire(ctx, name, holder)
	if err != nil {
		return nil, nil, err
	}
	leaseCtx, cancel := context.WithCancelCause(ctx)
	h := &Holding{Lease: lease, stop: func() { cancel(context.Canceled) }, done: make(chan struct{})}
	go func() {
		defer close(h.done)
		if err := lease.keep(leaseCtx); err != nil {
			cancel(err)
		}
	}()
	return leaseCtx, h, nil
}

// Release stops the renewals and gives the lease back.
func (h *Holding) Release(ctx context.Context) error {
	h.stop()
	<-h.done
	return h.Lease.Release(ctx)
}

// keep renews until ctx ends (nil) or the lease is lost (an error matching ErrLeaseLost).
func (l *Lease) keep(ctx context.Context) error {
	clk, ttl := l.leases.cfg.Clock, l.leases.cfg.TTL
	pause := ttl / 3
	for {
		if clk.Sleep(ctx, pause) != nil {
			return nil //nolint:nilerr // the end of ctx is the end of the keeping, no failure
		}
		err := l.renewWithin(ctx, l.remaining())
		switch {
		case err == nil:
			pause = ttl / 3
		case ctx.Err() != nil:
			return nil //nolint:nilerr // as above
		case errors.Is(err, feature.ErrLeaseLost):
			return err
		default:
			// The store did not answer: try again soon, while the lease is good.
			pause = min(ttl/12, max(l.remaining(), 0))
		}
	}
}

// renewWithin renews, but gives up when d has passed by the injected clock: a store that
// hangs must not keep the work going beyond the lease.
func (l *Lease) renewWithin(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return l.Renew(ctx) // says that it is lost, without asking the store
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- l.Renew(ctx) }()
	select {
	case err := <-result:
		return err
	case <-l.leases.cfg.Clock.After(d):
		cancel()
		if err := <-result; err == nil || errors.Is(err, feature.ErrLeaseLost) {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lost = true // the work was told so: a late release must not say otherwise
		return l.lostError("the store did not answer before it ended")
	}
}
