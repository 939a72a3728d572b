package main

import (
	"context"

	"github.com/hearthstore/hearth/backing/dynamodb"
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

// states keeps checkpoints in memory.
type states struct {
	rewarm.Volatile
	saved func(value []byte) // each one, if not nil
}

// Save replaces a document.
func (s *states) Save(ctx context.Context, name string, value []byte, revision int64) (int64, error) {
	next, err := s.Volatile.Save(ctx, name, value, revision)
	if err == nil && s.saved != nil {
		s.saved(value)
	}
	return next, err
}
