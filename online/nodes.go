package online

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/breaker"
	"github.com/hearthstore/hearth/internal/clock"
)

// nodes keeps a breaker for each node of a cluster that reads were sent to. A node that
// failed several times in a row is not asked for a while: its keys are answered at once, so
// that reads do not wait for a frozen node until their deadline, one after the other.
type nodes struct {
	cfg      Config
	mu       sync.RWMutex
	breakers map[string]*breaker.Breaker // by address; grows with the cluster only
}

func newNodes(cfg Config) *nodes { return &nodes{cfg: cfg, breakers: map[string]*breaker.Breaker{}} }

func (n *nodes) of(addr string) *breaker.Breaker {
	n.mu.RLock()
	b := n.breakers[addr]
	n.mu.RUnlock()
	if b != nil {
		return b
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if b = n.breakers[addr]; b == nil {
		b = breaker.New(n.cfg.Clock, n.cfg.NodeBreaker, func(open bool) {
			if open {
				n.cfg.Logger.Warn("redis node is out; reads go round it and probe it", "node", addr)
			} else {
				n.cfg.Logger.Info("redis node answers again", "node", addr)
			}
		})
		n.breakers[addr] = b
	}
	return b
}

// Nodes lists the nodes of a cluster that reads were sent to, by address, and whether they
// are asked. It is nil for a single server and never nil for a cluster.
func (s *Store) Nodes() []breaker.Node {
	if s.read.cluster == nil {
		return nil
	}
	s.nodes.mu.RLock()
	defer s.nodes.mu.RUnlock()
	out := make([]breaker.Node, 0, len(s.nodes.breakers))
	for addr, b := range s.nodes.breakers {
		out = append(out, breaker.Node{Addr: addr, Breaker: b.State()})
	}
	slices.SortFunc(out, func(a, b breaker.Node) int { return cmp.Compare(a.Addr, b.Addr) })
	return out
}

type fetch func(ctx context.Context, sh share, refs []feature.Ref, keys []string, results []feature.GetResult)

// guarded asks one node of a cluster if its breaker allows it, and judges it by what came
// back. A node that had less time than Patience is not judged by its silence.
func (s *Store) guarded(ctx context.Context, f fetch, sh share, refs []feature.Ref, keys []string, results []feature.GetResult) {
	b := s.nodes.of(sh.addr)
	permit, ok := b.Allow()
	if !ok {
		err := &NodeError{Addr: sh.addr, Err: breaker.ErrOpen}
		for _, i := range sh.index {
			results[i] = feature.GetResult{Err: err}
		}
		return
	}
	began := clock.System.Now() // deadlines of contexts are in the machine's time
	f(ctx, sh, refs, keys, results)
	v := breaker.Sick
	for _, i := range sh.index {
		if !errors.Is(results[i].Err, feature.ErrUnreachable) {
			v = breaker.Healthy // it answered, if only to redirect
			break
		}
	}
	if v == breaker.Sick && (errors.Is(ctx.Err(), context.Canceled) || ctx.Err() != nil && clock.System.Now().Sub(began) < s.cfg.Patience) {
		v = breaker.Neutral
	}
	b.Done(permit, v)
}
