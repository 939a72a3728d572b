package sim_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sim"
)

// verdict is what the scheduler lets a step do.
type verdict int

const (
	proceed  verdict = iota
	refuse           // this record is not stored, and the answer says throttled
	vanish           // the call fails, nothing happens
	lose             // it happens, but the answer is lost: the call fails
	kill             // the process dies before the step
	killPast         // the process dies right after the step's effect
)

func (v verdict) String() string {
	return [...]string{"", " REFUSED", " UNREACHABLE", " ANSWER LOST", " KILLED", " KILLED AFTER"}[v]
}

// actor is one process: a materializer run, a push, a rewarm, a reader.
type actor struct {
	s    *scheduler
	id   int
	name string
	dead bool // guarded by s.mu
	done bool // guarded by s.mu
}

// step is a call that waits for its turn.
type step struct {
	a     *actor
	label string
	write bool
	turn  chan verdict
}

// scheduler lets one step of one actor happen at a time, in an order that the seed alone
// decides: it waits until every goroutine is blocked (all calls that can be pending are),
// and then chooses. It runs in a synctest bubble.
type scheduler struct {
	rng    *rand.Rand
	clock  *sim.Clock
	faults int // how many more it may inject
	steps  int
	env    func() // something that happens to the world between two steps
	trace  func(format string, args ...any)

	mu        sync.Mutex
	pending   []*step
	live      int
	abandoned bool
}

// gate waits for the actor's turn.
func (a *actor) gate(label string, write bool) verdict {
	a.s.mu.Lock()
	if a.dead || a.s.abandoned {
		a.s.mu.Unlock()
		return kill
	}
	st := &step{a: a, label: label, write: write, turn: make(chan verdict, 1)}
	a.s.pending = append(a.s.pending, st)
	a.s.mu.Unlock()
	return <-st.turn
}

// err is what a call returns when its one gate did not let it proceed.
func (v verdict) err() error {
	switch v {
	case proceed:
		return nil
	case kill, killPast:
		return sim.ErrKilled
	case refuse:
		return feature.ErrThrottled
	}
	return feature.ErrUnreachable
}

// happens reports whether the step takes effect.
func (v verdict) happens() bool { return v == proceed || v == lose || v == killPast }

func (s *scheduler) start(id int, name string, work func(*actor)) {
	a := &actor{s: s, id: id, name: name}
	s.mu.Lock()
	s.live++
	s.mu.Unlock()
	go func() {
		defer func() {
			s.mu.Lock()
			a.done = true
			s.live--
			s.mu.Unlock()
		}()
		work(a)
	}()
}

// run lets the actors run until all are done.
func (s *scheduler) run() error {
	err := s.turns()
	if err != nil { // let the goroutines end
		s.mu.Lock()
		s.abandoned = true
		for _, st := range s.pending {
			st.turn <- kill
		}
		s.pending = nil
		s.mu.Unlock()
		synctest.Wait()
	}
	return err
}

func (s *scheduler) turns() error {
	for {
		synctest.Wait()
		s.mu.Lock()
		if len(s.pending) == 0 {
			live := s.live
			s.mu.Unlock()
			if live == 0 {
				return nil
			}
			return fmt.Errorf("%d actors are stuck outside of any call", live)
		}
		if s.steps++; s.steps > 5000 {
			s.mu.Unlock()
			return fmt.Errorf("no end after %d steps", s.steps)
		}
		slices.SortStableFunc(s.pending, func(x, y *step) int {
			return cmp.Or(cmp.Compare(x.a.id, y.a.id), cmp.Compare(x.label, y.label))
		})
		i := s.rng.IntN(len(s.pending))
		st := s.pending[i]
		s.pending = slices.Delete(s.pending, i, i+1)
		v := s.judge(st)
		if v == kill || v == killPast {
			st.a.dead = true
			s.bury(st.a)
		}
		s.mu.Unlock()
		s.trace("%-14s %s%s", st.a.name, st.label, v)
		st.turn <- v
		if s.rng.IntN(12) == 0 {
			synctest.Wait() // the step is over before the world changes
			s.env()
		}
	}
}

// bury ends the calls of a dead process that were under way.
func (s *scheduler) bury(a *actor) {
	s.pending = slices.DeleteFunc(s.pending, func(st *step) bool {
		if st.a == a {
			st.turn <- kill
			return true
		}
		return false
	})
}

func (s *scheduler) judge(st *step) verdict {
	if s.faults == 0 || s.rng.IntN(10) != 0 {
		return proceed
	}
	s.faults--
	switch n := s.rng.IntN(8); {
	case n == 0:
		return kill
	case n == 1 && st.write:
		return killPast
	case n <= 3 && st.write:
		return lose
	case n <= 5 && st.write:
		return refuse
	}
	return vanish
}

// actorClock is the world's clock for one actor. A wait is a step; it moves the clock by a
// fixed while, because the jitter of backoffs is not part of the seed.
type actorClock struct {
	*sim.Clock
	a *actor
}

const leastWait = 15 * time.Second

func (c actorClock) Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.a.gate("wait", false) == kill {
		return sim.ErrKilled
	}
	c.Advance(max(d, leastWait))
	return ctx.Err()
}
