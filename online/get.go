package online

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// Get reads each ref: its payload (possibly a tombstone's), nothing when the tier does not
// have it, or an error when the tier could not say. Results are aligned by index and each is
// judged by itself: when a part of a cluster is down, the answers of the rest stand. A ref
// may occur more than once. Payloads are the caller's to keep; a few share one block of
// memory.
//
// Deadlines are the caller's. Every node is asked on its own, so one that hangs until the
// deadline does not take the other nodes' answers with it. The error of Get itself is
// always nil unless ctx had ended before anything was asked.
func (s *Store) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, s.fault("", err)
	}
	results := make([]feature.GetResult, len(refs))
	if len(refs) == 0 {
		return results, nil
	}
	keys := s.keys(len(refs), func(i int) feature.Ref { return refs[i] })
	fetch := s.fetchBlobs
	if s.cfg.Layout == LayoutHash {
		fetch = s.fetchHashes
	}
	shares, err := s.shares(ctx, keys)
	if err != nil {
		// The client does not know the cluster yet, or its seed did not answer within this
		// read's deadline: it learns in the background, with the patience of a dial.
		s.read.cluster.ReloadState(ctx)
		err = s.fault("", err)
		for i := range results {
			results[i].Err = err
		}
		return results, nil
	}
	asking, cancel := s.reserve(ctx)
	var group sync.WaitGroup
	if s.read.cluster != nil {
		unguarded := fetch
		fetch = func(ctx context.Context, sh share, refs []feature.Ref, keys []string, results []feature.GetResult) {
			s.guarded(ctx, unguarded, sh, refs, keys, results)
		}
	}
	for _, sh := range shares[1:] {
		group.Go(func() { fetch(asking, sh, refs, keys, results) })
	}
	fetch(asking, shares[0], refs, keys, results)
	group.Wait()
	cancel()
	s.follow(ctx, refs, keys, results)
	return results, nil
}

// reserve keeps half of the time that is left in a cluster, so that a node which hangs
// leaves time to follow the redirections of the healthy ones.
func (s *Store) reserve(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || s.read.cluster == nil {
		return ctx, func() {}
	}
	now := clock.System.Now() // deadlines of contexts are in the machine's time
	return context.WithDeadline(ctx, now.Add(deadline.Sub(now)/2))
}

// share is the part of a read that one node serves.
type share struct {
	node  *redis.Client
	addr  string
	index []int // nil: all keys, in order
}

// shares groups the keys by the node that owns their slot. go-redis could do that
// itself, but when a deadline ends while it retries one node's part it stamps the error on
// the answers of all nodes.
func (s *Store) shares(ctx context.Context, keys []string) ([]share, error) {
	if s.read.cluster == nil {
		return []share{{node: s.read.single, addr: s.addrs()}}, nil
	}
	var shares []share
	at := make(map[*redis.Client]int, 8)
	for i, key := range keys {
		node, err := s.read.cluster.MasterForKey(ctx, key)
		if err != nil {
			return nil, err
		}
		n, ok := at[node]
		if !ok {
			n = len(shares)
			at[node] = n
			shares = append(shares, share{node: node, addr: node.Options().Addr, index: make([]int, 0, len(keys)-i)})
		}
		shares[n].index = append(shares[n].index, i)
	}
	return shares, nil
}

// errRedirected marks a key whose slot moved since the client last asked for the topology.
type errRedirected struct{ reply string }

func (e *errRedirected) Error() string { return e.reply }

// RedisError makes it one of the client library's reply errors.
func (*errRedirected) RedisError() {}

// follow asks again, through the client's own redirection, for the keys that were
// answered with MOVED or ASK, and has the topology reloaded where a node failed.
func (s *Store) follow(ctx context.Context, refs []feature.Ref, keys []string, results []feature.GetResult) {
	if s.read.cluster == nil {
		return
	}
	var moved []int
	failed := false
	for i := range results {
		var redirect *errRedirected
		switch {
		case results[i].Err == nil:
		case errors.As(results[i].Err, &redirect):
			moved = append(moved, i)
		case errors.Is(results[i].Err, feature.ErrCorrupt), errors.Is(results[i].Err, feature.ErrUnknownFormat):
		default:
			failed = true
		}
	}
	if failed || len(moved) > 0 {
		s.read.cluster.ReloadState(ctx) // in the background, at most every 200 ms
	}
	if len(moved) == 0 {
		return
	}
	sh := share{index: moved}
	if s.cfg.Layout == LayoutHash {
		s.readHashes(ctx, s.read.cluster, sh, refs, keys, results)
		return
	}
	pipe := s.read.cluster.Pipeline()
	cmds := make([]*redis.StringCmd, len(moved))
	for n, i := range moved {
		cmds[n] = pipe.Get(ctx, keys[i])
	}
	send(ctx, pipe)
	for n, i := range moved {
		payload, err := cmds[n].Bytes()
		switch {
		case err == nil:
			results[i] = feature.GetResult{Payload: payload}
		case errors.Is(err, redis.Nil):
			results[i] = feature.GetResult{}
		default:
			results[i] = feature.GetResult{Err: s.fault("", err)}
		}
	}
}

// fetchBlobs reads one node's share: one MGET on a single server, one GET per key in a
// pipeline in a cluster, where a command must not span slots.
//
// The replies are taken as they come from the wire into one reused buffer: the typed
// commands allocate three times per value.
func (s *Store) fetchBlobs(ctx context.Context, sh share, _ []feature.Ref, keys []string, results []feature.GetResult) {
	buf := replies.Get().(*replyBuffer)
	defer func() {
		if cap(buf.b) <= maxKeptReply {
			replies.Put(buf)
		}
	}()
	buf.b = buf.b[:0]
	if sh.index == nil {
		s.fetchMany(ctx, sh, keys, results, buf)
		return
	}
	var block payloads
	pipe := sh.node.Pipeline()
	cmds := make([]*redis.RawWriteToCmd, len(sh.index))
	args := make([]any, 2*len(sh.index))
	for n, i := range sh.index {
		args[2*n], args[2*n+1] = "get", keys[i]
		cmds[n] = redis.NewRawWriteToCmd(ctx, buf, args[2*n:2*n+2:2*n+2]...)
		_ = pipe.Process(ctx, cmds[n]) // queues only
	}
	send(ctx, pipe)
	at, faults := int64(0), sharedFault{store: s, addr: sh.addr}
	for n, i := range sh.index {
		size, err := cmds[n].Result()
		end := min(at+size, int64(len(buf.b)))
		if err == nil {
			_, err = block.take(buf.b[at:end], &results[i])
		}
		if err != nil {
			results[i] = feature.GetResult{Err: faults.of(err)}
		}
		at = end
	}
}

// maxMGet is the most keys of one MGET: other clients wait while it runs.
const maxMGet = 1000

// fetchMany reads all keys from a single server.
func (s *Store) fetchMany(ctx context.Context, sh share, keys []string, results []feature.GetResult, buf *replyBuffer) {
	for len(keys) > maxMGet {
		s.fetchMany(ctx, sh, keys[:maxMGet], results[:maxMGet], buf)
		keys, results, buf.b = keys[maxMGet:], results[maxMGet:], buf.b[:0]
	}
	args := make([]any, 1, len(keys)+1)
	args[0] = "mget"
	for _, k := range keys {
		args = append(args, k)
	}
	err := sh.node.Process(ctx, redis.NewRawWriteToCmd(ctx, buf, args...))
	rest, n := buf.b, 0
	if err == nil {
		rest, n, err = parseArray(buf.b)
	}
	if err == nil && n != len(keys) {
		err = errProtocol
	}
	var block payloads
	for i := range keys {
		if err == nil {
			rest, err = block.take(rest, &results[i])
		}
		if err != nil {
			fail(results[i:], s.fault(sh.addr, err))
			return
		}
	}
}

// sharedFault makes one error for equal causes in a row.
type sharedFault struct {
	store *Store
	addr  string
	cause string
	made  error
}

func (f *sharedFault) of(err error) error {
	var redirect *errRedirected
	if errors.As(err, &redirect) {
		return err // follow replaces it
	}
	if f.made == nil || f.cause != err.Error() {
		f.cause, f.made = err.Error(), f.store.fault(f.addr, err)
	}
	return f.made
}

func fail(results []feature.GetResult, err error) {
	for i := range results {
		results[i] = feature.GetResult{Err: err}
	}
}

// maxKeptReply keeps one huge read from holding its memory for ever.
const maxKeptReply = 1 << 20

var replies = sync.Pool{New: func() any { return new(replyBuffer) }}

// replyBuffer collects replies as they come from the wire.
type replyBuffer struct{ b []byte }

func (r *replyBuffer) Write(p []byte) (int, error) {
	r.b = append(r.b, p...)
	return len(p), nil
}

// ReadFrom spares io.CopyN a buffer of its own.
func (r *replyBuffer) ReadFrom(from io.Reader) (int64, error) {
	if l, ok := from.(*io.LimitedReader); ok {
		n := int(l.N)
		start := len(r.b)
		r.b = append(r.b, make([]byte, n)...)
		got, err := io.ReadFull(l, r.b[start:])
		r.b = r.b[:start+got]
		return int64(got), err
	}
	n, err := io.Copy(struct{ io.Writer }{r}, from)
	return n, err
}

// errProtocol is a reply that is not what the protocol promises.
var errProtocol = errors.New("reply breaks the Redis protocol")

func parseArray(b []byte) (rest []byte, n int, err error) {
	if len(b) > 0 && b[0] == '*' {
		return parseLength(b)
	}
	var r feature.GetResult
	var p payloads
	if _, err := p.take(b, &r); err != nil {
		return nil, 0, err
	}
	return nil, 0, errProtocol
}

// parseLength reads "<type><decimal>\r\n".
func parseLength(b []byte) (rest []byte, n int, err error) {
	end := bytes.IndexByte(b, '\n')
	if end < 2 || b[end-1] != '\r' {
		return nil, 0, errProtocol
	}
	if n, err = strconv.Atoi(string(b[1 : end-1])); err != nil {
		return nil, 0, errProtocol
	}
	return b[end+1:], n, nil
}

// payloads hands out copies of values that share blocks of limited size: fewer
// allocations than one each, and a caller that keeps one value keeps one block at most.
type payloads struct{ free []byte }

const blockSize = 4096

func (p *payloads) copy(b []byte) []byte {
	switch {
	case len(b) == 0:
		return []byte{} // stored, though damaged: not absent
	case len(b) > blockSize/4:
		return bytes.Clone(b)
	}
	if len(b) > len(p.free) {
		p.free = make([]byte, blockSize)
	}
	out := p.free[:len(b):len(b)]
	p.free = p.free[len(b):]
	copy(out, b)
	return out
}

// take reads one bulk, null or error reply from b.
func (p *payloads) take(b []byte, result *feature.GetResult) (rest []byte, err error) {
	if len(b) < 3 {
		return nil, errProtocol
	}
	switch b[0] {
	case '$':
		rest, n, err := parseLength(b)
		switch {
		case err == nil && n == -1:
			return rest, nil
		case err != nil || n < 0 || n+2 > len(rest):
			return nil, errProtocol
		}
		result.Payload = p.copy(rest[:n])
		return rest[n+2:], nil
	case '_':
		return b[min(len(b), 3):], nil
	case '-', '!':
		line, rest, _ := bytes.Cut(b[1:], []byte("\r\n"))
		if b[0] == '!' {
			line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		}
		if redirected(string(line)) {
			return rest, &errRedirected{string(line)}
		}
		return rest, replyError(line)
	}
	return nil, errProtocol
}
