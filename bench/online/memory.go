package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/bench/internal/lab"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/online"
)

// memory fills the empty server with entities of float32 features, and prints what its
// used_memory grew by: keys, payloads, expiries and hash tables, all included.
func memory(ctx context.Context, o options, out io.Writer) error {
	return errors.Join(memoryOf(ctx, o, out, true), memoryOf(ctx, o, out, false))
}

func memoryOf(ctx context.Context, o options, out io.Writer, expires bool) (err error) {
	view := benchView("memory", o.memoryFeatures, feature.Float32)
	store, err := online.Open(ctx, online.Config{Project: "bench", Layout: o.layout, Views: []*feature.View{view}, Addrs: []string{o.addr}})
	if err != nil {
		return err
	}
	b := &bench{o: o, store: store}
	server := redis.NewClient(&redis.Options{Addr: o.addr, PoolSize: 1})
	defer func() { err = errors.Join(err, server.Close()) }()
	open := true
	defer func() {
		if open {
			err = errors.Join(err, store.Close())
		}
	}()
	values := make([]feature.Value, o.memoryFeatures)
	recs, err := records(view, o.entities, firstEvent, func(entity int) []feature.Value {
		for f := range values {
			values[f] = feature.Float32Value(float32(math.Sqrt(float64(entity*o.memoryFeatures + f))))
		}
		return values
	})
	if err != nil {
		return err
	}
	with := "an expiry"
	if !expires {
		with = "no expiry"
		for i := range recs {
			recs[i].Online = feature.NoTime
		}
	}
	if err := store.FlushAll(ctx); err != nil {
		return err
	}
	before, err := lab.Info(ctx, server, "memory", "used_memory")
	if err != nil {
		return err
	}
	if _, err := b.put(ctx, recs, feature.Written); err != nil {
		return err
	}
	open = false
	if err := store.Close(); err != nil {
		return err
	}
	if err := alone(ctx, server); err != nil {
		return err
	}
	after, err := lab.Info(ctx, server, "memory", "used_memory")
	if err != nil {
		return err
	}
	perEntity := float64(after-before) / float64(o.entities)
	_, err = fmt.Fprintf(out, "memory of %d entities of %d float32: %.0f bytes per entity (a payload of %d, a key of %d, %s, and what Redis adds), %.2f per feature\n",
		o.entities, o.memoryFeatures, perEntity, len(recs[0].Payload), len(store.RedisKey(recs[len(recs)-1].Ref)), with, perEntity/float64(o.memoryFeatures))
	return err
}

// alone waits until the server has dropped the other connections: their buffers, megabytes
// after large pipelines, count as used memory.
func alone(ctx context.Context, server *redis.Client) error {
	var failed error
	err := lab.Await(ctx, func() bool {
		var n int64
		n, failed = lab.Info(ctx, server, "clients", "connected_clients")
		return failed != nil || n <= 1
	})
	if failed == nil && err != nil {
		err = fmt.Errorf("the server has other clients, its memory says nothing: %w", err)
	}
	return errors.Join(failed, err)
}
