package online

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
)

// PoolSize is how many connections to a node serve perSecond reads that hold one for up to
// held each: the mean number in use (Little's law) and three standard deviations of it for
// arrivals at random, which is enough in 999 of 1,000 moments. At least 4.
func PoolSize(perSecond float64, held time.Duration) int {
	busy := perSecond * held.Seconds()
	return max(4, int(math.Ceil(busy+3*math.Sqrt(busy))))
}

// The sizes of a 64-bit Redis 7: an entry of the key space or of the expiries (three words
// in the allocator's next class), the object that a value hangs on, and the slots of a hash
// table per entry, which grows from one to two words while it fills.
const (
	entryBytes   = 32
	objectBytes  = 16
	tableBytes   = 12
	embedded44   = 44 // a longer string is an allocation of its own
	hugeClassLog = 2  // four allocator classes per doubling
)

// ValueMemory is about how many bytes of a Redis server one value of layout blob takes, all
// included, from the lengths of its key and payload.
func ValueMemory(keyBytes, payloadBytes int, expires bool) int {
	total := entryBytes + tableBytes + stringMemory(keyBytes)
	if payloadBytes <= embedded44 {
		total += class(objectBytes + 3 + payloadBytes + 1)
	} else {
		total += objectBytes + stringMemory(payloadBytes)
	}
	if expires {
		total += entryBytes + tableBytes
	}
	return total
}

// stringMemory is the allocation of a dynamic string: header, text, a zero byte.
func stringMemory(n int) int {
	switch {
	case n < 32:
		return class(n + 2)
	case n < 1<<8:
		return class(n + 4)
	case n < 1<<16:
		return class(n + 6)
	}
	return class(n + 10)
}

// class rounds up to what the allocator hands out: steps of 16 up to 128 bytes, and above
// that four sizes per doubling.
func class(n int) int {
	if n <= 128 {
		return max(16, (n+15)/16*16)
	}
	step := 1
	for step<<(hugeClassLog+1) < n {
		step <<= 1
	}
	return (n + step - 1) / step * step
}

// MeasureMemory asks the servers what the values of refs take (MEMORY USAGE), without the
// expiries and the hash tables around them. It returns the sum and how many of refs were
// there.
func (s *Store) MeasureMemory(ctx context.Context, refs []feature.Ref) (total int64, found int, err error) {
	pipe := s.write.universal().Pipeline()
	cmds := make([]*redis.IntCmd, len(refs))
	for i, ref := range refs {
		cmds[i] = pipe.MemoryUsage(ctx, s.RedisKey(ref))
	}
	send(ctx, pipe)
	for _, cmd := range cmds {
		n, err := cmd.Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("measure memory: %w", s.fault("", err))
		}
		total += n
		found++
	}
	return total, found, nil
}
