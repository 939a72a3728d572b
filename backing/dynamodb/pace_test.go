package dynamodb_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/testservers"
)

// drive advances the clock for a call that waits on it, and returns how long the call took
// by that clock.
func drive(t *testing.T, clk *clock.Fake, call func() error) time.Duration {
	t.Helper()
	began, done := clk.Now(), make(chan error, 1)
	go func() { done <- call() }()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		waiting := clk.WaitForWaiters(ctx, 1) == nil
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return clk.Now().Sub(began)
		default:
			if waiting {
				clk.Advance(100 * time.Millisecond)
			}
		}
	}
}

// MaxWriteUnits and MaxReadUnits hold. Seen red with the bucket left out of either.
func TestMaxUnits(t *testing.T) {
	clk := clock.NewFake(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC))
	cfg := config(testservers.Dynoxide(t, testservers.DynamoDBOptions{}).Endpoint())
	applied(t, cfg)
	cfg.Clock, cfg.MaxWriteUnits, cfg.MaxReadUnits = clk, 100, 1
	s := open(t, cfg)
	recs, _ := records(1000, 1, 1)
	if took := drive(t, clk, func() error { _, err := s.Put(t.Context(), recs); return err }); took < 8*time.Second {
		t.Errorf("1,000 units at 100 a second took %s", took)
	}
	var units float64
	took := drive(t, clk, func() error {
		for range 6 { // each page costs more than a second's worth
			var page feature.ScanPage
			if err := s.Scan(t.Context(), feature.ScanRequest{Segments: 1}, &page); err != nil {
				return err
			}
			units += page.ReadUnits
		}
		return nil
	})
	if units < 6 || took < time.Duration(units*5/6*0.8)*time.Second {
		t.Errorf("%g units at 1 a second took %s", units, took)
	}
}

// A server that does not answer costs a reader its deadline and no more.
func TestHangingServer(t *testing.T) {
	server := testservers.Dynoxide(t, testservers.DynamoDBOptions{})
	s := applied(t, config(server.Endpoint()))
	recs, refs := records(3, 1, 1)
	mustPut(t, s, recs)
	server.Pause()
	defer server.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { _, err := s.Get(ctx, refs); done <- err }()
	select {
	case err := <-done:
		if !errors.Is(err, feature.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("get: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the deadline had no effect")
	}
}
