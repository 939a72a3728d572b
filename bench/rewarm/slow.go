package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/bench/internal/lab"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/pace"
)

// itemBytes is about what one item takes on its way to Redis: command, key, value, options.
const itemBytes = payloadSize + 75

// slowShard stands in front of a Redis server and lets through as many bytes a second as it
// is told, whoever sends them: a shard that is the limit, of which a machine has room for
// several. What comes back is not held up.
type slowShard struct {
	listener net.Listener
	server   string
	rate     *pace.Bucket
	stop     context.CancelFunc
	conns    sync.WaitGroup
}

func startSlowShard(ctx context.Context, server string, itemsPerSecond float64) (*slowShard, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	s := &slowShard{listener: l, server: server, rate: pace.NewBucket(clock.System, itemsPerSecond*itemBytes, itemsPerSecond*itemBytes/200), stop: stop}
	s.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Go(func() { s.serve(ctx, c) })
		}
	})
	return s, nil
}

func (s *slowShard) addr() string { return s.listener.Addr().String() }

func (s *slowShard) close() {
	s.stop()
	_ = s.listener.Close()
	s.conns.Wait()
}

// serve carries one connection until either side closes it. What breaks shows in the work.
func (s *slowShard) serve(ctx context.Context, client net.Conn) {
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.server)
	if err != nil {
		_ = client.Close()
		return
	}
	both := func() { _ = client.Close(); _ = server.Close() }
	defer context.AfterFunc(ctx, both)()
	defer both()
	var answers sync.WaitGroup
	answers.Go(func() { defer both(); copyAll(client, server, nil) })
	copyAll(server, client, func(n int) error { return s.rate.Wait(ctx, float64(n)) })
	both()
	answers.Wait()
}

// copyAll copies small pieces, so that no connection takes the turn of the others.
func copyAll(to, from net.Conn, before func(n int) error) {
	b := make([]byte, 8<<10)
	for {
		n, err := from.Read(b)
		if n > 0 && before != nil && before(n) != nil {
			return
		}
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// slow puts a slow shard in front of each server of a target, and makes the servers of a
// cluster name these instead of themselves.
func (t *target) slow(ctx context.Context, itemsPerSecond float64) error {
	servers := t.addrs
	t.addrs = nil
	for _, server := range servers {
		s, err := startSlowShard(ctx, server, itemsPerSecond)
		if err != nil {
			return err
		}
		t.addrs, t.stops = append(t.addrs, s.addr()), append(t.stops, s.close)
	}
	if t.masters == 1 {
		return nil
	}
	for i, server := range servers {
		_, port, _ := net.SplitHostPort(t.addrs[i])
		if err := once(server, func(c *redis.Client) error { return c.ConfigSet(ctx, "cluster-announce-port", port).Err() }); err != nil {
			return fmt.Errorf("announce a slow shard: %w", err)
		}
	}
	for _, server := range servers {
		err := once(server, func(c *redis.Client) error {
			return lab.Await(ctx, func() bool {
				shards, err := c.ClusterShards(ctx).Result()
				known := 0
				for _, s := range shards {
					for _, addr := range t.addrs {
						if len(s.Nodes) > 0 && strings.HasSuffix(addr, fmt.Sprintf(":%d", s.Nodes[0].Port)) {
							known++
						}
					}
				}
				return err == nil && known == len(servers)
			})
		})
		if err != nil {
			return fmt.Errorf("announce slow shards: %w", err)
		}
	}
	return nil
}

func once(addr string, do func(*redis.Client) error) error {
	c := redis.NewClient(&redis.Options{Addr: addr})
	return errors.Join(do(c), c.Close())
}
