package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/bench/internal/lab"
	"github.com/hearthstore/hearth/online"
)

// target is a Redis to bring things back to: one server, or a cluster of masters.
type target struct {
	masters int
	online  *online.Store
	bare    redis.UniversalClient
	addrs   []string
	pids    []int
	stops   []func()
}

func (t *target) close() {
	for i := len(t.stops) - 1; i >= 0; i-- {
		t.stops[i]()
	}
}

// name tells targets apart in the table.
func (t *target) name(work string) string {
	if t.masters == 1 {
		return work
	}
	return fmt.Sprintf("%s, %d masters", work, t.masters)
}

func (t *target) flush(ctx context.Context) error {
	if c, ok := t.bare.(*redis.ClusterClient); ok {
		return c.ForEachMaster(ctx, func(ctx context.Context, m *redis.Client) error { return m.FlushAll(ctx).Err() })
	}
	return t.bare.FlushAll(ctx).Err()
}

// startTarget starts the servers, each for an equal part of the slots, and each of so many
// items per second at most if shardRate is above 0.
func startTarget(ctx context.Context, masters int, shardRate float64) (t *target, err error) {
	t = &target{masters: masters}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	var servers []*lab.Server
	if masters > 1 {
		servers, err = lab.Cluster(ctx, masters)
	} else if one, startErr := lab.Redis(ctx); startErr == nil {
		servers = []*lab.Server{one}
	} else {
		err = startErr
	}
	if err != nil {
		return t, err
	}
	for _, s := range servers {
		t.addrs, t.pids, t.stops = append(t.addrs, s.Addr), append(t.pids, s.PID), append(t.stops, s.Stop)
	}
	if shardRate > 0 {
		if err := t.slow(ctx, shardRate); err != nil {
			return t, err
		}
	}
	if masters > 1 {
		t.bare = redis.NewClusterClient(&redis.ClusterOptions{Addrs: t.addrs, PoolSize: 16})
	} else {
		t.bare = redis.NewClient(&redis.Options{Addr: t.addrs[0], PoolSize: 16})
	}
	t.stops = append(t.stops, func() { _ = t.bare.Close() })
	t.online, err = online.Open(ctx, online.Config{Project: "bench", Addrs: t.addrs, Cluster: masters > 1})
	if err != nil {
		return t, err
	}
	t.stops = append(t.stops, func() { _ = t.online.Close() })
	return t, nil
}

// cpuOf is the CPU time of other processes, to a hundredth of a second; 0 where /proc does
// not tell it.
func cpuOf(pids ...int) (total time.Duration) {
	const tick = 10 * time.Millisecond
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ") // the name may hold anything
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			continue
		}
		for _, f := range fields[11:13] {
			n, _ := strconv.Atoi(f) // what is no number counts nothing
			total += time.Duration(n) * tick
		}
	}
	return total
}

// memory reads a line of /proc/self/status in kB; 0 where there is none.
func memory(name string) int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}

// resetPeak makes the peak memory of this process what it has now.
func resetPeak() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }
