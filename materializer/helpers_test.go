package materializer_test

import (
	"context"
	"slices"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sim"
)

// countingSource tells how many rows each emit was given.
type countingSource struct {
	*sim.Source
	emitted func(n int)
}

func (s *countingSource) Latest(ctx context.Context, req feature.LatestRequest, emit func([]feature.Row) error) (feature.LatestStats, error) {
	return s.Source.Latest(ctx, req, func(rows []feature.Row) error {
		s.emitted(len(rows))
		return emit(rows)
	})
}

// afterPut calls after between the answer of a put and its caller.
type afterPut struct {
	*sim.Backing
	after func()
}

func (b *afterPut) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	results, err := b.Backing.Put(ctx, recs)
	b.after()
	return results, err
}

// refusing is a backing tier that is too busy for one key.
type refusing struct {
	*sim.Backing
	key feature.Key
}

func (b *refusing) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	at := slices.IndexFunc(recs, func(r feature.Record) bool { return r.Key == b.key })
	if at < 0 {
		return b.Backing.Put(ctx, recs)
	}
	others := slices.Delete(slices.Clone(recs), at, at+1)
	results, err := b.Backing.Put(ctx, others)
	return slices.Insert(results, at, feature.PutResult{Err: feature.ErrThrottled}), err
}
