package main

import (
	"context"
	"sync"

	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/online"
	"github.com/hearthstore/hearth/rewarm"
)

type tableOf struct {
	*dynamodb.Store
	items int64
}

// Table is what the replayed table would say.
func (t tableOf) Table(context.Context) (rewarm.Table, error) {
	return rewarm.Table{Name: "bench", Items: t.items, Bytes: t.items * 271}, nil
}

type onlineOf struct{ *online.Store }

// Warmth converts.
func (o onlineOf) Warmth(ctx context.Context) (rewarm.Warmth, error) {
	w, err := o.Store.Warmth(ctx)
	out := rewarm.Warmth{Reachable: w.Reachable, Cold: w.Cold, MarkerRun: w.MarkerRun}
	for _, s := range w.Shards {
		out.Shards = append(out.Shards, rewarm.ShardWarmth(s))
	}
	return out, err
}

// Info converts.
func (o onlineOf) Info(ctx context.Context) (rewarm.Info, error) {
	i, err := o.Store.Info(ctx)
	return rewarm.Info(i), err
}

// states keeps checkpoints in memory, encoded as they would be stored.
type states struct {
	saved func(value []byte) // each one, if not nil

	mu   sync.Mutex
	next int64
	docs map[string]document
}

type document struct {
	value    []byte
	revision int64
}

// Load returns a document.
func (s *states) Load(_ context.Context, name string) ([]byte, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.docs[name]
	if !ok {
		return nil, 0, feature.ErrNotFound
	}
	return d.value, d.revision, nil
}

// Save replaces a document.
func (s *states) Save(_ context.Context, name string, value []byte, revision int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.docs[name].revision != revision {
		return 0, feature.ErrConflict
	}
	if s.saved != nil {
		s.saved(value)
	}
	s.next++
	s.docs[name] = document{value, s.next}
	return s.next, nil
}

// Delete removes a document.
func (s *states) Delete(_ context.Context, name string, _ int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.docs, name)
	return nil
}
