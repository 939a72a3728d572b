package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
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
	before, err := usedMemory(ctx, server)
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
	after, err := usedMemory(ctx, server)
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
	for range 100 {
		n, err := info(ctx, server, "clients", "connected_clients")
		if err != nil || n <= 1 {
			return err
		}
		if err := clock.System.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("the server has other clients: its memory says nothing")
}

func usedMemory(ctx context.Context, server *redis.Client) (int64, error) {
	return info(ctx, server, "memory", "used_memory")
}

func info(ctx context.Context, server *redis.Client, section, name string) (int64, error) {
	text, err := server.Info(ctx, section).Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("INFO %s says no %s", section, name)
}
