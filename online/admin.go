package online

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
)

// Ping asks every master of the tier for a sign of life. The error names the first node
// that gave none.
func (s *Store) Ping(ctx context.Context) error {
	err := s.eachMaster(ctx, func(ctx context.Context, node *redis.Client, addr string) error {
		if err := node.Ping(ctx).Err(); err != nil {
			return s.fault(addr, err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// FlushAll deletes everything on every master, of every project. It is for the
// demonstration and for tests: nothing else may lose a tier on purpose.
func (s *Store) FlushAll(ctx context.Context) error {
	err := s.eachMaster(ctx, func(ctx context.Context, node *redis.Client, addr string) error {
		if err := node.FlushAll(ctx).Err(); err != nil {
			return s.fault(addr, err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("flush redis: %w", err)
	}
	return nil
}

// Delete removes values whatever their version. Absent ones are no error. It is for retiring
// a view version; a single entity is erased by putting a tombstone, which also keeps older
// values from coming back. The results are aligned: nil is gone. The error is that of ctx.
func (s *Store) Delete(ctx context.Context, refs []feature.Ref) ([]error, error) {
	results := make([]error, len(refs))
	keys := s.keys(len(refs), func(i int) feature.Ref { return refs[i] })
	faults := faults{store: s}
	for start := 0; start < len(keys); start += s.cfg.PipelineSize {
		part := keys[start:min(start+s.cfg.PipelineSize, len(keys))]
		pipe := s.write.universal().Pipeline()
		cmds := make([]*redis.IntCmd, len(part))
		for i, key := range part {
			cmds[i] = pipe.Del(ctx, key)
		}
		send(ctx, pipe)
		for i, cmd := range cmds {
			if err := cmd.Err(); err != nil {
				results[start+i] = faults.of(ctx, part[i], err)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return results, fmt.Errorf("delete %d values from redis: %w", len(refs), err)
	}
	return results, nil
}

// Info is what Store.Info tells.
type Info = feature.OnlineInfo

// Info asks every master. One that does not answer is an error: a partial sum would mislead.
func (s *Store) Info(ctx context.Context) (Info, error) {
	var (
		sum       Info
		mu        sync.Mutex
		unlimited bool
	)
	err := s.eachMaster(ctx, func(ctx context.Context, node *redis.Client, addr string) error {
		one, err := s.nodeInfo(ctx, node)
		if err != nil {
			return s.fault(addr, err)
		}
		mu.Lock()
		defer mu.Unlock()
		sum.Masters++
		sum.UsedMemory += one.UsedMemory
		sum.MaxMemory += one.MaxMemory
		sum.Keys += one.Keys
		sum.Policy = joinDistinct(sum.Policy, one.Policy)
		sum.Version = joinDistinct(sum.Version, one.Version)
		unlimited = unlimited || one.MaxMemory == 0
		return nil
	})
	if err != nil {
		return Info{}, fmt.Errorf("info: %w", err)
	}
	if unlimited {
		sum.MaxMemory = 0
	}
	return sum, nil
}

func (s *Store) nodeInfo(ctx context.Context, node *redis.Client) (Info, error) {
	keys, err := node.DBSize(ctx).Result()
	if err != nil {
		return Info{}, err
	}
	if s.cfg.Embedded { // knows neither its memory nor a limit
		return Info{Keys: keys, Policy: "noeviction", Version: "embedded"}, nil
	}
	text, err := node.Info(ctx).Result()
	if err != nil {
		return Info{}, err
	}
	one := Info{Keys: keys}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "used_memory":
			one.UsedMemory, err = strconv.ParseInt(value, 10, 64)
		case "maxmemory":
			one.MaxMemory, err = strconv.ParseInt(value, 10, 64)
		case "maxmemory_policy":
			one.Policy = value
		case "redis_version":
			one.Version = value
		}
		if err != nil {
			return Info{}, fmt.Errorf("INFO %s: %w", name, err)
		}
	}
	return one, nil
}

func joinDistinct(list, item string) string {
	switch {
	case list == "":
		return item
	case strings.Contains(","+list+",", ","+item+","):
		return list
	}
	return list + "," + item
}

// scanCount is how many keys a server looks at per step of a scan.
const scanCount = 1000

// Scan reports every stored ref of a view, in no order, in batches. A key that is there for
// the whole scan is reported at least once, and may be reported twice. Keys that are not
// Hearth's are passed over. An error of fn ends the scan and is returned as it is.
func (s *Store) Scan(ctx context.Context, view feature.ViewID, fn func(refs []feature.Ref) error) error {
	prefix := string(s.appendPrefix(nil, view))
	pattern := globEscape(prefix) + "*}"
	nodes, err := s.masters(ctx)
	if err != nil {
		return fmt.Errorf("scan %s: %w", view, err)
	}
	var refs []feature.Ref
	for _, node := range nodes {
		for cursor := uint64(0); ; {
			keys, next, err := node.Scan(ctx, cursor, pattern, scanCount).Result()
			if err != nil {
				return fmt.Errorf("scan %s: %w", view, s.fault(s.nodeAddr(node), err))
			}
			refs = refs[:0]
			for _, key := range keys {
				if k, ok := parseKey(prefix, key); ok {
					refs = append(refs, feature.Ref{View: view, Key: k})
				}
			}
			if len(refs) > 0 {
				if err := fn(refs); err != nil {
					return err
				}
			}
			if cursor = next; cursor == 0 {
				break
			}
		}
	}
	return nil
}

func (s *Store) nodeAddr(node *redis.Client) string {
	if s.write.cluster == nil {
		return s.addrs()
	}
	return node.Options().Addr
}

func (s *Store) masters(ctx context.Context) ([]*redis.Client, error) {
	if s.write.cluster == nil {
		return []*redis.Client{s.write.single}, nil
	}
	var (
		mu    sync.Mutex
		nodes []*redis.Client
	)
	err := s.write.cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node)
		return nil
	})
	if err != nil {
		return nil, s.fault("", err)
	}
	return nodes, nil
}

// eachMaster calls fn for all masters at the same time and joins their errors.
func (s *Store) eachMaster(ctx context.Context, fn func(ctx context.Context, node *redis.Client, addr string) error) error {
	nodes, err := s.masters(ctx)
	if err != nil {
		return err
	}
	errs := make([]error, len(nodes))
	var group sync.WaitGroup
	for i, node := range nodes {
		group.Go(func() { errs[i] = fn(ctx, node, s.nodeAddr(node)) })
	}
	group.Wait()
	return errors.Join(errs...)
}
