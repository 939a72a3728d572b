package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Server is a process that listens on a loopback port.
type Server struct {
	Addr string // host:port
	PID  int
	cmd  *exec.Cmd
	dir  string // its scratch folder
}

// Start runs argv followed by a free port, in a scratch folder, and waits until it takes
// connections.
func Start(ctx context.Context, argv ...string) (s *Server, err error) {
	addr, err := FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	s = &Server{Addr: addr}
	if s.dir, err = os.MkdirTemp("", "hearth-bench-server-"); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	s.cmd = exec.Command(argv[0], append(argv[1:], port)...)
	s.cmd.Dir = s.dir
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s (install it first): %w", argv[0], err), os.RemoveAll(s.dir))
	}
	s.PID = s.cmd.Process.Pid
	err = Await(ctx, func() bool {
		c, err := net.Dial("tcp", addr)
		return err == nil && c.Close() == nil
	})
	if err != nil {
		s.Stop()
		return nil, fmt.Errorf("%s on %s does not answer: %w", argv[0], addr, err)
	}
	return s, nil
}

// Stop ends the process. It may have ended before.
func (s *Server) Stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // "signal: killed"
	_ = os.RemoveAll(s.dir)
}

// Redis starts a redis-server that keeps nothing on disk, with more of its options.
func Redis(ctx context.Context, more ...string) (*Server, error) {
	return Start(ctx, append(append([]string{"redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"}, more...), "--port")...)
}

// FreeAddr is a loopback address that nobody listens on at the moment.
func FreeAddr(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

const slots = 16384

// Cluster starts masters without replicas, each with an equal part of the slots, and waits
// until every one of them sees all.
func Cluster(ctx context.Context, masters int) (servers []*Server, err error) {
	defer func() {
		if err != nil {
			for _, s := range servers {
				s.Stop()
			}
			err = fmt.Errorf("start a cluster: %w", err)
		}
	}()
	var bus string // the first one's
	for i := range masters {
		addr, err := FreeAddr(ctx)
		if err != nil {
			return servers, err
		}
		_, port, _ := net.SplitHostPort(addr)
		s, err := Redis(ctx, "--cluster-enabled", "yes", "--cluster-port", port, "--cluster-node-timeout", "5000")
		if err != nil {
			return servers, err
		}
		if servers = append(servers, s); i == 0 {
			bus = port
		}
		if err := join(ctx, servers[0].Addr, bus, s.Addr, i, masters); err != nil {
			return servers, err
		}
	}
	for _, s := range servers {
		c := redis.NewClient(&redis.Options{Addr: s.Addr})
		err := Await(ctx, func() bool {
			info, err := c.ClusterInfo(ctx).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_size:%d\r", masters))
		})
		if err := errors.Join(err, c.Close()); err != nil {
			return servers, err
		}
	}
	return servers, nil
}

// join gives a new node its slots and makes it known to the first one.
func join(ctx context.Context, first, bus, addr string, i, masters int) (err error) {
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.ClusterAddSlotsRange(ctx, slots*i/masters, slots*(i+1)/masters-1).Err(); err != nil {
		return err
	}
	if err := c.Do(ctx, "cluster", "set-config-epoch", i+1).Err(); err != nil {
		return err
	}
	if i == 0 {
		return nil
	}
	host, port, _ := net.SplitHostPort(first)
	return c.Do(ctx, "cluster", "meet", host, port, bus).Err()
}

// Info reads a number that a Redis server tells of itself.
func Info(ctx context.Context, c *redis.Client, section, name string) (int64, error) {
	text, err := c.Info(ctx, section).Result()
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
