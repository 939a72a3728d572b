package reader_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
)

// Redis refuses connections: the values come from the backing tier and say so. Seen red
// when fromOnline returned on a failed call as if all keys were absent
// and resolved.
func TestOnlineDownReadsBacking(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.backing.set(stats(t, b.project, 1, start, 1, 0.5))
	b.online.faults(refused, nil)
	resp := b.get(1, 2)
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierBacking, start)
	// By I5 the online tier holds nothing that the backing tier does not: absent there is absent.
	want(t, resp.Row(1), "stats:rate", feature.Float64Value(-1), feature.NotFound, feature.TierDefault, time.Time{})
	wantUnreachable(t, resp, feature.TierOnline)
}

// Both tiers are out: defaults, labelled UNKNOWN, never NOT_FOUND, and nothing of it is
// remembered as an absence. Seen red with the unknown flag of finish dropped.
func TestBothDownIsUnknown(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.backing.set(stats(t, b.project, 1, start, 1, 0.5))
	b.online.faults(refused, nil)
	b.backing.faults(refused, nil)
	resp := b.get(1, 2)
	for i := range 2 {
		want(t, resp.Row(i), "stats:rate", feature.Float64Value(-1), feature.Unknown, feature.TierDefault, time.Time{})
		want(t, resp.Row(i), "stats:trips", feature.Null, feature.Unknown, feature.TierDefault, time.Time{})
	}
	wantUnreachable(t, resp, feature.TierOnline, feature.TierBacking)
	if n := resp.Unknown(); n != 6 {
		t.Errorf("Unknown() = %d, want 6", n)
	}
	b.backing.faults(nil, nil)
	want(t, b.get(1).Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierBacking, start)
}

// A key that the backing tier did not get to (unprocessed, throttled) is unknown, and its
// neighbours in the same call are not. Seen red with GetResult.Err ignored
// in the fetcher.
func TestUnprocessedIsNotAbsent(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.backing.set(stats(t, b.project, 1, start, 1, 0.1), stats(t, b.project, 2, start, 1, 0.2))
	b.backing.faults(nil, func(ref feature.Ref, r feature.GetResult) feature.GetResult {
		if ref == driverRef(2) || ref == driverRef(3) {
			return feature.GetResult{Err: feature.ErrThrottled}
		}
		return r
	})
	resp := b.get(1, 2, 3, 4)
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.1), feature.Present, feature.TierBacking, start)
	want(t, resp.Row(1), "stats:rate", feature.Float64Value(-1), feature.Unknown, feature.TierDefault, time.Time{})
	want(t, resp.Row(2), "stats:rate", feature.Float64Value(-1), feature.Unknown, feature.TierDefault, time.Time{})
	want(t, resp.Row(3), "stats:rate", feature.Float64Value(-1), feature.NotFound, feature.TierDefault, time.Time{})
	wantUnreachable(t, resp, feature.TierBacking)
	if got := resp.Unreachable[0].Reason; got != reader.ReasonThrottled {
		t.Errorf("reason %q, want %q", got, reader.ReasonThrottled)
	}
	b.backing.faults(nil, nil)
	want(t, b.get(2).Row(0), "stats:rate", feature.Float64Value(0.2), feature.Present, feature.TierBacking, start)
}

// shortTier answers for another number of keys, or ends early with an error beside zero
// results: neither may pass for "absent".
type shortTier struct {
	reader.Backing
	cut int
	err error
}

func (s shortTier) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	got, err := s.Backing.Get(ctx, refs)
	if err == nil {
		got, err = got[:len(got)-s.cut], s.err
	}
	return got, err
}

// Seen red with explained() returning its input.
func TestShortAnswersAreNotAbsent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cut  int
		err  error
		row0 feature.Status
	}{{1, nil, feature.Unknown}, {2, nil, feature.Unknown}, {0, context.DeadlineExceeded, feature.Present}} {
		b := newBundle(t, func(cfg *reader.Config) { cfg.Backing = shortTier{cfg.Backing, c.cut, c.err} })
		b.backing.set(stats(t, b.project, 1, start, 1, 0.1))
		resp := b.get(1, 2)
		for i, status := range []feature.Status{c.row0, feature.Unknown} {
			if it := resp.Row(i).At(0); it.Status != status {
				t.Errorf("cut %d, error %v: row %d is %s, want %s", c.cut, c.err, i, it.Status, status)
			}
		}
		wantUnreachable(t, resp, feature.TierBacking)
	}
}

// Two overlapping reads, one source call fails: every missing key is explained in both
// answers, whichever request began the failing call. Seen red with the
// error of a joined flight dropped in settle.
func TestOverlappingReadsKeepErrors(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.online.faults(refused, nil)
	for id := range 4 {
		b.backing.set(stats(t, b.project, id, start, 1, float64(id)))
	}
	var mu sync.Mutex
	arrived := make(chan struct{}, 2)
	release := make(chan struct{})
	n := 0
	b.backing.faults(func(context.Context, []feature.Ref) error {
		mu.Lock()
		n++
		first := n == 1
		mu.Unlock()
		arrived <- struct{}{}
		<-release
		if first {
			return fmt.Errorf("%w: reset by peer", feature.ErrUnreachable)
		}
		return nil
	}, nil)
	responses := make([]*reader.Response, 2)
	var wg sync.WaitGroup
	wg.Go(func() { responses[0] = b.get(0, 1) }) // its call fails
	<-arrived
	wg.Go(func() { responses[1] = b.get(1, 2, 3) }) // joins 1, asks for 2 and 3
	<-arrived
	close(release)
	wg.Wait()
	want(t, responses[0].Row(0), "stats:rate", feature.Float64Value(-1), feature.Unknown, feature.TierDefault, time.Time{})
	want(t, responses[0].Row(1), "stats:rate", feature.Float64Value(-1), feature.Unknown, feature.TierDefault, time.Time{})
	want(t, responses[1].Row(0), "stats:rate", feature.Float64Value(-1), feature.Unknown, feature.TierDefault, time.Time{})
	want(t, responses[1].Row(1), "stats:rate", feature.Float64Value(2), feature.Present, feature.TierBacking, start)
	want(t, responses[1].Row(2), "stats:rate", feature.Float64Value(3), feature.Present, feature.TierBacking, start)
	wantUnreachable(t, responses[1], feature.TierOnline, feature.TierBacking)
	if got := b.backing.readCounts()[driverRef(1)]; got != 1 {
		t.Errorf("the shared key was read %d times, want 1", got)
	}
}

// The request that began a flight gives up; the one that joined still gets the value.
// Seen red with the flight's context taken from the request with its cancellation.
func TestCancelledLeaderDoesNotFailFollowers(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.online.faults(refused, nil)
	b.backing.set(stats(t, b.project, 1, start, 1, 0.5))
	arrived, release := make(chan struct{}), make(chan struct{})
	b.backing.faults(func(ctx context.Context, _ []feature.Ref) error {
		close(arrived)
		<-release
		return ctx.Err()
	}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	leader := make(chan error, 1)
	go func() {
		_, err := b.reader.Get(ctx, reader.Request{Service: "drivers", Entities: drivers(1)})
		leader <- err
	}()
	<-arrived
	followed := make(chan *reader.Response, 1)
	go func() { followed <- b.get(1) }()
	if err := b.clock.WaitForWaiters(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-leader; !errors.Is(err, context.Canceled) {
		t.Errorf("leader: got %v, want context.Canceled", err)
	}
	close(release)
	want(t, (<-followed).Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierBacking, start)
}

// Cancelling during throttling returns at once with the context's error, and no call
// follows.
func TestCancelDuringThrottling(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *reader.Config) { c.MaxBackingRPS = 1 })
	b.online.faults(refused, nil)
	b.get(1) // uses the second's only call
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := b.reader.Get(ctx, reader.Request{Service: "drivers", Entities: drivers(2)})
		done <- err
	}()
	if err := b.clock.WaitForWaiters(t.Context(), 3); err != nil { // two fetches and the cap
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	b.clock.Advance(2 * time.Second)
	if err := b.reader.Close(); err != nil {
		t.Fatal(err)
	}
	if n := b.backing.callCount(); n != 1 {
		t.Errorf("%d calls, want 1: nobody waits for the second", n)
	}
}

// A passed deadline is not an error: what could not be asked is labelled.
func TestDeadlineGivesLabelledAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t, func(c *reader.Config) { c.Clock = clock.System })
		b.online.set(stats(t, b.project, 1, start, 1, 0.5))
		b.backing.faults(hang, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		resp, err := b.reader.Get(ctx, reader.Request{Service: "drivers", Entities: drivers(1, 2)})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 50*time.Millisecond {
			t.Errorf("took %s, want the caller's 50ms", took)
		}
		if it := resp.Row(0).At(0); it.Status != feature.Present || it.Tier != feature.TierOnline {
			t.Errorf("row 0: %+v", it)
		}
		if it := resp.Row(1).At(0); it.Status != feature.Unknown {
			t.Errorf("row 1: %+v", it)
		}
		wantUnreachable(t, resp, feature.TierBacking)
		if got := resp.Unreachable[0].Reason; got != reader.ReasonTimeout {
			t.Errorf("reason %q", got)
		}
	})
}

// The deadlines reach the servers: the online tier gets its own, at most half of what the
// caller has left; the backing tier gets its own. Seen red with the
// caller's context passed on as it is.
func TestDeadlinesReachTheTiers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t, func(c *reader.Config) {
			c.Clock, c.OnlineTimeout, c.BackingTimeout = clock.System, 20*time.Millisecond, 100*time.Millisecond
		})
		b.online.faults(hang, nil)
		begin := time.Now()
		b.get(1)
		if got := b.online.callLog()[0].deadline.Sub(begin); got != 20*time.Millisecond {
			t.Errorf("online deadline %s, want 20ms", got)
		}
		if got := b.backing.callLog()[0].deadline.Sub(begin); got != 120*time.Millisecond {
			t.Errorf("backing deadline %s after the start, want 20ms of waiting + 100ms", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		begin = time.Now()
		if _, err := b.reader.Get(ctx, reader.Request{Service: "drivers", Entities: drivers(2)}); err != nil {
			t.Fatal(err)
		}
		if got := b.online.callLog()[1].deadline.Sub(begin); got != 5*time.Millisecond {
			t.Errorf("online deadline %s, want half of the caller's 10ms", got)
		}
	})
}
