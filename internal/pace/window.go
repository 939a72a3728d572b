package pace

import (
	"context"
	"sync"
	"time"

	"github.com/hearthstore/hearth/internal/clock"
)

// WindowConfig says how a [Window] behaves.
type WindowConfig struct {
	// Clock measures and pauses. Defaults to the machine's.
	Clock clock.Clock
	// Max is the most calls in flight. Defaults to 4.
	Max int
	// Target is the time that one call may take before the other side counts as loaded.
	// Defaults to 0: time is no signal, only the caller's own verdict is.
	Target time.Duration
	// MaxPause bounds the pause between two calls when even one call at a time is too
	// much. Defaults to 5s.
	MaxPause time.Duration
}

const (
	minWindow = 1.0 / 64
	shrink    = 0.7 // of the window, on one sign of load
)

// Window lets a number of calls run at a time and adapts that number: one call more per
// round of calls while all is well (additive increase), three tenths fewer at a sign of
// load, once per round (multiplicative decrease). Below one call at a time it pauses
// between calls. So bulk work takes what is free and gives way to live traffic.
//
// It is safe for concurrent use.
type Window struct {
	cfg WindowConfig

	mu       sync.Mutex
	size     float64
	inflight int
	resume   time.Time // with size < 1: no call before this
	cut      time.Time // when size was last cut
	freed    chan struct{}
	cuts     int64
}

// NewWindow returns a window that begins with one call at a time and grows.
func NewWindow(cfg WindowConfig) *Window {
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Max <= 0 {
		cfg.Max = 4
	}
	if cfg.MaxPause <= 0 {
		cfg.MaxPause = 5 * time.Second
	}
	return &Window{cfg: cfg, size: 1, freed: make(chan struct{})}
}

// Do waits for room, runs call and learns from it: how long it took, and whether it says
// that the other side is loaded (throttled, timed out). It returns ctx's error when ctx
// ends before there is room, and nil otherwise: call keeps its own error.
func (w *Window) Do(ctx context.Context, call func() (loaded bool)) error {
	began, err := w.acquire(ctx)
	if err != nil {
		return err
	}
	loaded := true
	defer func() { w.release(began, loaded) }()
	loaded = call()
	return nil
}

// Size is the present number of calls at a time; below 1 there are pauses.
func (w *Window) Size() float64 { w.mu.Lock(); defer w.mu.Unlock(); return w.size }

// Cuts is how often the window gave way.
func (w *Window) Cuts() int64 { w.mu.Lock(); defer w.mu.Unlock(); return w.cuts }

func (w *Window) acquire(ctx context.Context) (time.Time, error) {
	for {
		if err := ctx.Err(); err != nil {
			return time.Time{}, err
		}
		w.mu.Lock()
		now := w.cfg.Clock.Now()
		pause := w.resume.Sub(now)
		if w.inflight < max(1, int(w.size)) && pause <= 0 {
			w.inflight++
			w.mu.Unlock()
			return now, nil
		}
		full, freed := w.inflight >= max(1, int(w.size)), w.freed
		w.mu.Unlock()
		if full {
			select {
			case <-ctx.Done():
			case <-freed:
			}
			continue
		}
		if err := w.cfg.Clock.Sleep(ctx, pause); err != nil {
			return time.Time{}, err
		}
	}
}

func (w *Window) release(began time.Time, loaded bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.cfg.Clock.Now()
	took := now.Sub(began)
	switch {
	case loaded || w.cfg.Target > 0 && took > w.cfg.Target:
		// Calls that were already in flight when the window was cut say nothing new.
		if !began.Before(w.cut) {
			w.size = max(w.size*shrink, minWindow)
			w.cut = now
			w.cuts++
		}
	case w.size < 1:
		w.size = min(w.size*1.25, 1)
	default:
		w.size = min(w.size+1/w.size, float64(w.cfg.Max))
	}
	if w.size < 1 {
		pause := time.Duration(float64(max(took, time.Millisecond)) * (1/w.size - 1))
		w.resume = now.Add(min(pause, w.cfg.MaxPause))
	} else {
		w.resume = time.Time{}
	}
	w.inflight--
	close(w.freed)
	w.freed = make(chan struct{})
}
