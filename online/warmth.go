package online

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
)

// markers is the number of marker keys. Each lies in its own 1/256 of the slots, so that a
// shard with at least that share of contiguous slots has one.
const markers = 256

// markerTags holds the hash tag of each marker: the smallest number whose slot falls in
// the marker's part of the slots.
func markerTags() []string {
	tags := make([]string, markers)
	for n, left := 0, markers; left > 0; n++ {
		tag := strconv.Itoa(n)
		if part := int(crc16(tag)) % slots / (slots / markers); tags[part] == "" {
			tags[part] = tag
			left--
		}
	}
	return tags
}

var markerTag = sync.OnceValue(markerTags)

func (s *Store) markerKeys() []string {
	keys := make([]string, markers)
	for i, tag := range markerTag() {
		keys[i] = s.cfg.Project + ":_warm:{" + tag + "}"
	}
	return keys
}

// MarkWarm says that the tier now holds what run brought: it writes the marker keys, which
// never expire. A marker lost with its shard is what [Store.Warmth] notices. It is
// idempotent; an error leaves some markers unwritten, which at worst causes another rewarm.
func (s *Store) MarkWarm(ctx context.Context, run uint64) error {
	pipe := s.write.universal().Pipeline()
	value := strconv.FormatUint(run, 10)
	for _, key := range s.markerKeys() {
		pipe.Set(ctx, key, value, 0)
	}
	cmds := send(ctx, pipe)
	failed := 0
	var first error
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil {
			if failed++; first == nil {
				first = err
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("mark redis warm after run %d: %d of %d markers not written: %w", run, failed, markers, s.fault("", first))
	}
	return nil
}

// Warmth is what Store.Warmth tells.
type Warmth = feature.Warmth

// ShardWarmth is what it tells of a shard.
type ShardWarmth = feature.ShardWarmth

// Warmth looks at the markers: one round trip per shard. Shards that do not answer are
// reported, not an error; the error is for a tier of which nothing is known, and matches
// feature.ErrUnreachable or feature.ErrDenied. Then Warmth.Reachable is false as well.
func (s *Store) Warmth(ctx context.Context) (Warmth, error) {
	w, err := s.look(ctx)
	if err != nil {
		return Warmth{}, fmt.Errorf("look for warm markers: %w", s.fault("", err))
	}
	w.Reachable = true
	for i := range w.Shards {
		shard := &w.Shards[i]
		shard.Cold = shard.Reachable && (shard.Markers > 0 && 2*shard.Present < shard.Markers || shard.Markers == 0 && shard.Keys == 0)
		w.Reachable = w.Reachable && shard.Reachable
		w.Cold = w.Cold || shard.Cold
	}
	slices.SortFunc(w.Shards, func(a, b ShardWarmth) int { return compare(a.Addr, b.Addr) })
	return w, nil
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (s *Store) look(ctx context.Context) (Warmth, error) {
	keys := s.markerKeys()
	if s.write.cluster == nil {
		shard, run := lookAt(ctx, s, s.write.single, s.addrs(), keys)
		return Warmth{Shards: []ShardWarmth{shard}, MarkerRun: run}, nil
	}
	owned := map[*redis.Client][]string{}
	for _, key := range keys {
		node, err := s.write.cluster.MasterForKey(ctx, key)
		if err != nil {
			return Warmth{}, err
		}
		owned[node] = append(owned[node], key)
	}
	var (
		w  Warmth
		mu sync.Mutex
	)
	err := s.write.cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		shard, run := lookAt(ctx, s, node, node.Options().Addr, owned[node])
		mu.Lock()
		defer mu.Unlock()
		w.Shards = append(w.Shards, shard)
		w.MarkerRun = max(w.MarkerRun, run)
		return nil
	})
	return w, err
}

// lookAt asks one node for its markers and its number of keys. It reads the markers with
// GET: EXISTS would not count as use and leave them to be evicted.
func lookAt(ctx context.Context, s *Store, node *redis.Client, addr string, keys []string) (ShardWarmth, uint64) {
	shard := ShardWarmth{Addr: addr, Markers: len(keys)}
	pipe := node.Pipeline()
	size := pipe.DBSize(ctx)
	var server *redis.StringCmd
	if !s.cfg.Embedded { // it ends with its process
		server = pipe.Info(ctx, "server")
	}
	cmds := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		cmds[i] = pipe.Get(ctx, key)
	}
	send(ctx, pipe)
	var run uint64
	if shard.Keys, shard.Err = size.Result(); shard.Err != nil {
		shard.Err = s.fault(addr, shard.Err)
		return shard, 0
	}
	shard.Reachable = true
	if server != nil { // some services forbid it
		for line := range strings.Lines(server.Val()) {
			if id, ok := strings.CutPrefix(strings.TrimSpace(line), "run_id:"); ok {
				shard.Instance = id
			}
		}
	}
	for _, cmd := range cmds {
		text, err := cmd.Result()
		switch {
		case err == nil:
			shard.Present++
			if n, err := strconv.ParseUint(text, 10, 64); err == nil {
				run = max(run, n)
			}
		case errors.Is(err, redis.Nil):
		case redirected(err.Error()): // its slot has just left this shard
			shard.Markers--
			s.write.cluster.ReloadState(ctx)
		default:
			shard.Reachable = false
			shard.Err = s.fault(addr, err)
		}
	}
	return shard, run
}
