package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/internal/clock"
)

const slots = 16384

// startCluster runs masters without replicas and joins them.
func startCluster(ctx context.Context, masters int) (stop func(), addrs []string, err error) {
	dir, err := os.MkdirTemp("", "bench-reads")
	if err != nil {
		return nil, nil, err
	}
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
		_ = os.RemoveAll(dir) // scratch of servers that have ended
	}
	for i := range masters {
		one, addr, err := startRedis(ctx, "--cluster-enabled", "yes", "--cluster-config-file", fmt.Sprintf("%s/node-%d.conf", dir, i), "--dir", dir)
		if err != nil {
			stop()
			return nil, nil, err
		}
		stops, addrs = append(stops, one), append(addrs, addr)
	}
	if err := join(ctx, addrs); err != nil {
		stop()
		return nil, nil, fmt.Errorf("join the cluster: %w", err)
	}
	return stop, addrs, nil
}

func join(ctx context.Context, addrs []string) error {
	for i, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr})
		err := c.ClusterAddSlotsRange(ctx, i*slots/len(addrs), (i+1)*slots/len(addrs)-1).Err()
		if i > 0 && err == nil {
			host, port, _ := net.SplitHostPort(addrs[0])
			err = c.ClusterMeet(ctx, host, port).Err()
		}
		if cerr := c.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	for range 300 {
		if ready(ctx, addrs) {
			return nil
		}
		if err := clock.System.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return errors.New("it did not form within 30 s")
}

// ready reports whether every node sees all slots served.
func ready(ctx context.Context, addrs []string) bool {
	for _, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr})
		info, err := c.ClusterInfo(ctx).Result()
		_ = c.Close() // it only looked
		if err != nil || !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", len(addrs))) {
			return false
		}
	}
	return true
}
