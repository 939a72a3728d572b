package online

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
)

// discardBlob deletes KEYS[1] if it still holds exactly ARGV[1].
var discardBlob = redis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`)

// discardHash deletes KEYS[1] if its version and checksum fields are still ARGV[1] and ARGV[2].
var discardHash = redis.NewScript(`
if (redis.call('HGET', KEYS[1], '_v') or '') == ARGV[1] and (redis.call('HGET', KEYS[1], '_c') or '') == ARGV[2] then
  return redis.call('DEL', KEYS[1])
end
return 0`)

// Discard removes the values of refs that are damaged, and only those: each is read again
// and removed if it is still the same damaged bytes. A put that is set-if-newer cannot
// replace damage inside a version that happens to look newer. It is idempotent and stops
// at the first ref that the tier could not be asked for.
func (s *Store) Discard(ctx context.Context, refs []feature.Ref) error {
	for _, ref := range refs {
		if err := s.discard(ctx, ref); err != nil && !errors.Is(err, redis.Nil) {
			return s.fault("", err)
		}
	}
	return nil
}

func (s *Store) discard(ctx context.Context, ref feature.Ref) error {
	key, c := s.RedisKey(ref), s.write.universal()
	if s.cfg.Layout == LayoutHash {
		fields, err := c.HGetAll(ctx, key).Result()
		if err != nil || len(fields) == 0 {
			return err
		}
		if _, err := s.payload(ref, fields); !errors.Is(err, feature.ErrCorrupt) {
			return nil
		}
		return discardHash.Run(ctx, c, []string{key}, fields[fieldVersion], fields[fieldChecksum]).Err()
	}
	payload, err := c.Get(ctx, key).Bytes()
	if err != nil {
		return err
	}
	if _, _, err := feature.ParsePayload(payload); !errors.Is(err, feature.ErrCorrupt) {
		return nil
	}
	return discardBlob.Run(ctx, c, []string{key}, payload).Err()
}
