package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
)

// conditional is set-if-newer as a person writes it by hand: one key per call, and the 24
// bytes of the version compared as six numbers, since text follows the server's locale. It
// looks into nothing else: no formats, no damaged values, no errors told apart.
var conditional = redis.NewScript(`
local old = redis.call('GET', KEYS[1])
if old then
  local a = {struct.unpack('>I4I4I4I4I4I4', old, 10)}
  local b = {struct.unpack('>I4I4I4I4I4I4', ARGV[1], 10)}
  for i = 1, 6 do
    if a[i] > b[i] then return 0 end
    if a[i] < b[i] then break end
    if i == 6 then return 2 end
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

// bareConditional writes recs by one EVALSHA per key in pipelines of 500, and wants this
// answer for each.
func (b *bench) bareConditional(recs []feature.Record, want int) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		return b.spread(len(recs), 500, func(from, to int) error {
			pipe := b.bare.Pipeline()
			cmds := make([]*redis.Cmd, to-from)
			for i := range cmds {
				r := &recs[from+i]
				cmds[i] = conditional.EvalSha(ctx, pipe, []string{b.store.RedisKey(r.Ref)}, r.Payload, time.Hour.Milliseconds())
			}
			if _, err := pipe.Exec(ctx); err != nil {
				return err
			}
			for _, cmd := range cmds {
				if got, err := cmd.Int(); err != nil || got != want {
					return errors.Join(err, fmt.Errorf("the script answered %d, want %d", got, want))
				}
			}
			return nil
		})
	}
}
