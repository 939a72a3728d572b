package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/internal/clock"
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

// startTarget starts the servers, each for an equal part of the slots.
func startTarget(ctx context.Context, masters int) (t *target, err error) {
	t = &target{masters: masters}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	var bus []string
	for range masters {
		port := ""
		if masters > 1 {
			if port, err = freePort(); err != nil {
				return t, err
			}
			bus = append(bus, port)
		}
		addr, pid, stop, err := startRedis(ctx, port)
		if err != nil {
			return t, err
		}
		t.addrs, t.pids, t.stops = append(t.addrs, addr), append(t.pids, pid), append(t.stops, stop)
	}
	if masters > 1 {
		if err := join(ctx, t.addrs, bus); err != nil {
			return t, err
		}
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

// join makes one cluster of empty servers.
func join(ctx context.Context, addrs, bus []string) error {
	const slots = 16384
	for i, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr})
		defer func() { _ = c.Close() }()
		host, port, _ := strings.Cut(addrs[0], ":")
		if err := c.ClusterAddSlotsRange(ctx, slots*i/len(addrs), slots*(i+1)/len(addrs)-1).Err(); err != nil {
			return err
		}
		if err := c.Do(ctx, "cluster", "set-config-epoch", i+1).Err(); err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		if err := c.Do(ctx, "cluster", "meet", host, port, bus[0]).Err(); err != nil {
			return err
		}
	}
	for _, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr})
		defer func() { _ = c.Close() }()
		err := patiently(ctx, func() error {
			info, err := c.ClusterInfo(ctx).Result()
			if err == nil && !(strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_size:%d", len(addrs)))) {
				err = fmt.Errorf("the cluster is not ready: %s", info)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func patiently(ctx context.Context, try func() error) error {
	for deadline := clock.System.Now().Add(20 * time.Second); ; {
		err := try()
		if err == nil || clock.System.Now().After(deadline) {
			return err
		}
		if err := clock.System.Sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// startRedis starts one server; with a bus port one that is to be part of a cluster.
func startRedis(ctx context.Context, bus string) (addr string, pid int, stop func(), err error) {
	port, err := freePort()
	if err != nil {
		return "", 0, nil, err
	}
	dir, err := os.MkdirTemp("", "hearth-bench-rewarm-")
	if err != nil {
		return "", 0, nil, err
	}
	args := []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", dir, "--appendonly", "no"}
	if bus != "" {
		args = append(args, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "5000")
	}
	cmd := exec.CommandContext(ctx, "redis-server", args...)
	if err := cmd.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return "", 0, nil, fmt.Errorf("start redis-server (install it first): %w", err)
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}
	addr = "127.0.0.1:" + port
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = c.Close() }()
	if err := patiently(ctx, func() error { return c.Ping(ctx).Err() }); err != nil {
		stop()
		return "", 0, nil, fmt.Errorf("redis-server does not answer: %w", err)
	}
	return addr, cmd.Process.Pid, stop, nil
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
