package online

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/hearthstore/hearth/internal/clock"
)

// The embedded server has no time of its own: expiry happens when someone moves it. Each
// move walks all keys, so the pause between moves grows with the time that one takes. A
// value may therefore outlive its expiry by a moment; a reader judges age by event time.
const (
	minTick   = 250 * time.Millisecond
	tickShare = 50 // at most 1/50 of the time is spent on moving
)

type embedded struct {
	server *miniredis.Miniredis
	addr   string
	stop   context.CancelFunc
	done   chan struct{}
	once   sync.Once
}

func startEmbedded(ctx context.Context, clk clock.Clock) (*embedded, error) {
	server := miniredis.NewMiniRedis()
	last := clk.Now()
	server.SetTime(last)
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("start embedded redis on a loopback port: %w", err)
	}
	// The server lives until Close, not until the context of Open ends.
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	e := &embedded{server: server, addr: server.Addr(), stop: stop, done: make(chan struct{})}
	go e.tick(run, clk, last)
	return e, nil
}

// tick moves the server's time along with the clock. The expiries are kept relative to
// the last move: a value that arrives between the two calls lives a moment longer, never
// shorter.
func (e *embedded) tick(ctx context.Context, clk clock.Clock, last time.Time) {
	defer close(e.done)
	pause := minTick
	for clk.Sleep(ctx, pause) == nil {
		now := clk.Now()
		elapsed := now.Sub(last)
		if elapsed <= 0 { // the clock stepped back: wait until it is where it was
			continue
		}
		e.server.FastForward(elapsed)
		e.server.SetTime(now)
		last = now
		pause = max(minTick, tickShare*clk.Now().Sub(now))
	}
}

func (e *embedded) close() {
	e.once.Do(func() {
		e.stop()
		<-e.done
		e.server.Close()
	})
}
