package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/online"
)

// memory fills the empty server with entities of float32 features, and prints what its
// used_memory grew by: keys, payloads, expiries and hash tables, all included.
func memory(ctx context.Context, o options, out io.Writer) (err error) {
	view := benchView("memory", o.memoryFeatures, feature.Float32)
	store, err := online.Open(ctx, online.Config{Project: "bench", Layout: o.layout, Views: []*feature.View{view}, Addrs: []string{o.addr}})
	if err != nil {
		return err
	}
	b := &bench{o: o, store: store, bare: redis.NewClient(&redis.Options{Addr: o.addr})}
	defer func() {
		if e := b.close(); err == nil {
			err = e
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
	if err := store.FlushAll(ctx); err != nil {
		return err
	}
	before, err := usedMemory(ctx, b.bare)
	if err != nil {
		return err
	}
	if _, err := b.put(ctx, recs, feature.Written); err != nil {
		return err
	}
	after, err := usedMemory(ctx, b.bare)
	if err != nil {
		return err
	}
	perEntity := float64(after-before) / float64(o.entities)
	_, err = fmt.Fprintf(out, "memory of %d entities of %d float32: %.0f bytes per entity, %.2f per feature\n", o.entities, o.memoryFeatures, perEntity, perEntity/float64(o.memoryFeatures))
	return err
}

func usedMemory(ctx context.Context, c redis.UniversalClient) (int64, error) {
	text, err := c.Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("INFO memory says no used_memory")
}
