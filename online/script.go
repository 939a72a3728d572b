package online

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// The set-if-newer scripts take any number of keys and answer with one element per key: a
// code, or the text of the error that the key met. One key's error does not stop the
// others, but READONLY is raised as the whole call's error: the client must see it to drop
// the connection to a node that is a master no more.
const (
	codeOlder    = 0 // a newer version is stored
	codeReplaced = 1 // stored in place of something
	codeSame     = 2 // exactly this was stored already
	codeNew      = 3 // stored where nothing was
)

// blobScript: KEYS[i], each of them once, has the payload ARGV[2i-1] and the expiry ARGV[2i]
// in ms, "0" for none. Many keys are read at once: a call from a script to Redis costs about as
// much as all else that is done for a key. MGET says of a key of another type that it is
// not there, and SET replaces it all the same; where MGET is refused each key is asked for.
//
// The versions are compared as numbers of four bytes: Lua's "<" on strings follows the
// server's locale and is wrong for half of the versions outside the C locale; "==" is safe
// everywhere. What is stored but has no readable version (another type, another format,
// too short) is replaced, and so are other bytes under the same version: one version has
// one content, so the stored bytes are damaged.
const blobScript = `
local byte, pcall = string.byte, redis.pcall
local function word(s, p)
  local a, b, c, d = byte(s, p, p + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end
local function judge(old, new)
  if old == new then return 2 end
  local format = byte(old)
  if #old < 37 or (format ~= 1 and format ~= 2 and format ~= 3) or (format == 2 and #old ~= 37) then return 1 end
  for p = 10, 30, 4 do
    local a, b = word(old, p), word(new, p)
    if a < b then return 1 end
    if a > b then return 0 end
  end
  return 1
end
local out, all = {}, nil
if #KEYS > 1 then
  all = pcall('MGET', unpack(KEYS))
  if all.err then all = nil end
end
for i = 1, #KEYS do
  local key, new, at = KEYS[i], ARGV[2*i-1], ARGV[2*i]
  local old
  if all then old = all[i] else old = pcall('GET', key) end
  local code = 3
  if type(old) == 'string' then
    code = judge(old, new)
  elseif type(old) == 'table' then
    code = 1
    if not string.find(old.err, 'WRONGTYPE', 1, true) then code = old.err end
  end
  if code == 1 or code == 3 then
    local done
    if at == '0' then done = pcall('SET', key, new) else done = pcall('SET', key, new, 'PXAT', at) end
    if done.err then
      if string.find(done.err, 'READONLY', 1, true) then return {err = done.err} end
      code = done.err
    end
  end
  out[i] = code
end
return out`

// hashScript: ARGV holds per key, one after the other: the expiry in ms ("0" for none),
// the number of fields, and that many names and values. The first field is "_v".
//
// The fields are set before the surplus ones are removed, so that a Redis that is full
// refuses before anything was changed.
const hashScript = `
local function judge(key, first, n)
  local old = redis.pcall('HGET', key, '_v')
  if type(old) == 'table' then
    if not string.find(old.err, 'WRONGTYPE', 1, true) then return old.err end
    redis.call('DEL', key)
    return 1
  end
  if not old then return 3 end
  if #old ~= 48 then return 1 end
  local new = ARGV[first + 1]
  for p = 1, 41, 8 do
    local a, b = tonumber(string.sub(old, p, p + 7), 16), tonumber(string.sub(new, p, p + 7), 16)
    if not a or a < b then return 1 end
    if a > b then return 0 end
  end
  local all, stored = redis.call('HGETALL', key), {}
  if #all ~= 2 * n then return 1 end
  for f = 1, #all, 2 do stored[all[f]] = all[f + 1] end
  for f = first, first + 2 * n - 2, 2 do
    if stored[ARGV[f]] ~= ARGV[f + 1] then return 1 end
  end
  return 2
end
local function store(key, at, first, n, replaced)
  for f = first, first + 2 * n - 2, 500 do
    local done = redis.pcall('HSET', key, unpack(ARGV, f, math.min(f + 499, first + 2 * n - 1)))
    if type(done) == 'table' then return done.err end
  end
  if redis.call('HLEN', key) ~= n then
    replaced = true
    local keep = {}
    for f = first, first + 2 * n - 2, 2 do keep[ARGV[f]] = true end
    for _, name in ipairs(redis.call('HKEYS', key)) do
      if not keep[name] then redis.call('HDEL', key, name) end
    end
  end
  if at ~= '0' then redis.call('PEXPIREAT', key, at) elseif replaced then redis.call('PERSIST', key) end
end
local out, at = {}, 1
for i = 1, #KEYS do
  local n, first = tonumber(ARGV[at + 1]), at + 2
  local code = judge(KEYS[i], first, n)
  if code == 1 or code == 3 then
    local failed = store(KEYS[i], ARGV[at], first, n, code == 1)
    if failed and string.find(failed, 'READONLY', 1, true) then return {err = failed} end
    code = failed or code
  end
  out[i] = code
  at = first + 2 * n
end
return out`

// runScript sends one EVALSHA per group of keys in one pipeline. groups holds the command
// arguments after the script: numkeys, keys, values. What failed because the node did not
// have the script (a new master, a restart, SCRIPT FLUSH) is sent once more with the
// script's text, which also leaves it there for the next time. That needs no
// other node to be up, as loading everywhere would.
func (s *Store) runScript(ctx context.Context, groups [][]any) []*redis.Cmd {
	cmds := make([]*redis.Cmd, len(groups))
	pipe := s.write.universal().Pipeline()
	for i, group := range groups {
		group[0], group[1] = "evalsha", s.script.Hash()
		cmds[i] = scriptCmd(ctx, group)
		_ = pipe.Process(ctx, cmds[i]) // queues only
	}
	send(ctx, pipe)
	var again []int
	for i, cmd := range cmds {
		if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
			again = append(again, i)
		}
	}
	if len(again) == 0 {
		return cmds
	}
	pipe = s.write.universal().Pipeline()
	for n, i := range again {
		// The text travels once; what follows it on the same connection finds the script.
		// In a cluster each command may go to another node.
		if n == 0 || s.write.cluster != nil {
			groups[i][0], groups[i][1] = "eval", s.scriptText()
		}
		cmds[i] = scriptCmd(ctx, groups[i])
		_ = pipe.Process(ctx, cmds[i])
	}
	send(ctx, pipe)
	return cmds
}

func (s *Store) scriptText() string {
	if s.cfg.Layout == LayoutHash {
		return hashScript
	}
	return blobScript
}

func scriptCmd(ctx context.Context, args []any) *redis.Cmd {
	cmd := redis.NewCmd(ctx, args...)
	cmd.SetFirstKeyPos(3)
	return cmd
}

// verdict reads element i of a script's answer.
func verdict(cmd *redis.Cmd, i, n int) (code int64, err error) {
	if err := cmd.Err(); err != nil {
		return 0, err
	}
	answers, err := cmd.Slice()
	if err != nil || len(answers) != n {
		return 0, replyError(fmt.Sprintf("ERR set-if-newer script: unexpected answer %T", cmd.Val()))
	}
	switch a := answers[i].(type) {
	case int64:
		return a, nil
	case string:
		return 0, replyError(a)
	}
	return 0, replyError(fmt.Sprintf("ERR set-if-newer script: unexpected element %T", answers[i]))
}

// replyError is an error that Redis reported inside a script's answer.
type replyError string

func (e replyError) Error() string { return string(e) }

// RedisError makes it one of the client library's reply errors.
func (replyError) RedisError() {}
