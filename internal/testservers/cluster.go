//go:build unix

package testservers

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	clusterSlots     = 16384
	clusterReadyTime = 3 * time.Minute
	clusterPoll      = 20 * time.Millisecond
)

// ClusterOptions describe a Redis cluster on loopback.
type ClusterOptions struct {
	// Masters is the number of masters. Defaults to 3.
	Masters int
	// Replicas is the number of replicas of each master. Defaults to 0.
	Replicas int
	// Node holds the options of every node (TLS, user, memory, ...).
	Node RedisOptions
}

// RedisClusterServers is a running cluster.
type RedisClusterServers struct {
	// Nodes are the masters, in the order of their slots, then the replicas:
	// node Masters+i follows node i % Masters. A failover changes the roles.
	Nodes []*RedisServer

	t       testing.TB
	options ClusterOptions
}

// RedisCluster starts a cluster for one test. It returns when every node sees
// all slots served and every replica has synced.
func RedisCluster(t testing.TB, o ClusterOptions) *RedisClusterServers {
	t.Helper()
	c, err := startCluster(t.TempDir(), o)
	if err != nil {
		t.Fatalf("testservers: %v", err)
	}
	c.t = t
	for _, n := range c.Nodes {
		n.t = t
		t.Cleanup(n.cleanup)
	}
	return c
}

// Addrs are the addresses of all nodes.
func (c *RedisClusterServers) Addrs() []string {
	out := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		out[i] = n.Addr()
	}
	return out
}

// OwnerOf is the node that serves key now, according to the first node that
// answers.
func (c *RedisClusterServers) OwnerOf(key string) *RedisServer {
	c.t.Helper()
	n, err := c.ownerOf(key)
	must(c.t, err)
	return n
}

// WaitReady waits until every running node sees all slots served. Call it
// after a node came back or a replica had to take over.
func (c *RedisClusterServers) WaitReady() {
	c.t.Helper()
	must(c.t, c.waitServing())
}

func startCluster(dir string, o ClusterOptions) (*RedisClusterServers, error) {
	if o.Masters == 0 {
		o.Masters = 3
	}
	// A busy machine lets a node stand still for seconds. Only where a replica is to take
	// over should the others notice soon that a master does not answer.
	o.Node.clusterTimeout = 15 * time.Second
	if o.Replicas > 0 {
		o.Node.clusterTimeout = 2 * time.Second
	}
	var last error
	for range startTries {
		c := &RedisClusterServers{options: o}
		if last = c.create(dir); last == nil {
			return c, nil
		}
		if err := c.shutdown(); err != nil {
			return nil, errors.Join(last, err)
		}
		if len(c.Nodes) == 0 { // nothing could be started at all
			break
		}
	}
	return nil, fmt.Errorf("start a Redis cluster: %w", last)
}

func (c *RedisClusterServers) create(dir string) error {
	var certs *Certs
	if c.options.Node.TLS {
		var err error
		if certs, err = newCerts(dir + "/tls"); err != nil {
			return err
		}
	}
	for range c.options.Masters * (1 + c.options.Replicas) {
		n, err := launchRedis(dir, c.options.Node, certs)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, n)
	}
	for _, n := range c.Nodes {
		if err := n.waitReady(); err != nil {
			return err
		}
	}
	if err := c.join(); err != nil {
		return err
	}
	return c.waitFormed()
}

// join makes a cluster of the nodes: own epochs, slots in equal shares, and an
// introduction of everybody to the first node. It does what "redis-cli
// --cluster create" does, without its fixed pauses.
func (c *RedisClusterServers) join() error {
	masters := c.options.Masters
	for i, n := range c.Nodes {
		if _, err := n.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
			return err
		}
		if i < masters {
			from, to := i*clusterSlots/masters, (i+1)*clusterSlots/masters-1
			if _, err := n.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(from), strconv.Itoa(to)); err != nil {
				return err
			}
		}
		if i > 0 {
			first := strconv.Itoa(c.Nodes[0].port.number)
			if _, err := n.Do("CLUSTER", "MEET", "127.0.0.1", first); err != nil {
				return err
			}
		}
	}
	for i, n := range c.Nodes[masters:] {
		id, err := c.Nodes[i%masters].Do("CLUSTER", "MYID")
		if err != nil {
			return err
		}
		// Refused until the node has heard of its master.
		err = poll(clusterReadyTime, func() error {
			_, err := n.Do("CLUSTER", "REPLICATE", fmt.Sprint(id))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// waitFormed waits for the new cluster: everybody knows everybody, all slots
// are served, every replica is in sync and known to the masters as one.
func (c *RedisClusterServers) waitFormed() error {
	known := fmt.Sprintf("cluster_known_nodes:%d", len(c.Nodes))
	replicas := len(c.Nodes) - c.options.Masters
	for i, n := range c.Nodes {
		err := poll(clusterReadyTime, func() error {
			if err := n.serving(known); err != nil {
				return err
			}
			nodes, err := n.text("CLUSTER", "NODES")
			if err != nil {
				return err
			}
			if got := strings.Count(nodes, "slave"); got != replicas {
				return fmt.Errorf("%s sees %d replicas of %d", n.Addr(), got, replicas)
			}
			if i < c.options.Masters {
				return nil
			}
			return n.contains("master_link_status:up", "INFO", "replication")
		})
		if err != nil {
			return fmt.Errorf("wait for the cluster: %w", err)
		}
	}
	return nil
}

func (c *RedisClusterServers) waitServing() error {
	for _, n := range c.Nodes {
		if n.PID() == 0 {
			continue
		}
		if err := poll(clusterReadyTime, func() error { return n.serving() }); err != nil {
			return fmt.Errorf("wait for the cluster: %w", err)
		}
	}
	return nil
}

// serving reports whether this node sees every slot served.
func (s *RedisServer) serving(more ...string) error {
	want := append([]string{"cluster_state:ok", fmt.Sprintf("cluster_slots_ok:%d", clusterSlots)}, more...)
	for _, w := range want {
		if err := s.contains(w, "CLUSTER", "INFO"); err != nil {
			return err
		}
	}
	return nil
}

func (s *RedisServer) text(args ...string) (string, error) {
	v, err := s.Do(args...)
	if err != nil {
		return "", err
	}
	return fmt.Sprint(v), nil
}

// contains reports as an error that the answer lacks the line want.
func (s *RedisServer) contains(want string, args ...string) error {
	got, err := s.text(args...)
	if err != nil {
		return err
	}
	if !strings.Contains(got, want+"\r\n") {
		return fmt.Errorf("%s: no %s in %s", s.Addr(), want, strings.Join(args, " "))
	}
	return nil
}

func (c *RedisClusterServers) ownerOf(key string) (*RedisServer, error) {
	var last error
	for _, n := range c.Nodes {
		if n.PID() == 0 {
			continue
		}
		slot, err := n.Do("CLUSTER", "KEYSLOT", key)
		if err != nil {
			last = err
			continue
		}
		ranges, err := n.Do("CLUSTER", "SLOTS")
		if err != nil {
			last = err
			continue
		}
		if owner := c.find(ranges, slot); owner != nil {
			return owner, nil
		}
		last = fmt.Errorf("no node serves slot %v", slot)
	}
	return nil, fmt.Errorf("owner of key %q: %w", key, last)
}

// find looks a slot up in an answer of CLUSTER SLOTS: from, to, [host, port, id].
func (c *RedisClusterServers) find(ranges, slot any) *RedisServer {
	n, _ := slot.(int64)
	list, _ := ranges.([]any)
	for _, r := range list {
		row, _ := r.([]any)
		if len(row) < 3 {
			continue
		}
		from, _ := row[0].(int64)
		to, _ := row[1].(int64)
		master, _ := row[2].([]any)
		if n < from || n > to || len(master) < 2 {
			continue
		}
		for _, s := range c.Nodes {
			if master[1] == int64(s.port.number) {
				return s
			}
		}
	}
	return nil
}

func (c *RedisClusterServers) shutdown() error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.shutdown())
	}
	return errors.Join(errs...)
}

// poll calls f until it succeeds or the time is up.
func poll(timeout time.Duration, f func() error) error {
	end := time.Now().Add(timeout)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not after %s: %w", timeout, err)
		}
		time.Sleep(clusterPoll)
	}
}
