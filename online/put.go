package online

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/feature"
)

// item is one record on its way to Redis.
type item struct {
	index  int // in the call's records and results
	key    string
	expiry int64 // absolute, in ms; 0 for none
	fields []any // LayoutHash: names and values, see hashView.fields
}

// Put stores each record whose version is newer than the stored one, under its absolute
// expiry, and reports on every record, aligned by index. It is idempotent: after a lost
// answer the same call finds its own versions and reports them Unchanged. Records are
// independent; neither their order nor the outcome of another matters. When a key occurs
// more than once the newest record is sent, and the others share its fate: Older when it was
// stored, Failed when it failed.
//
// A record whose Online instant has passed is not sent: Expired. A tombstone becomes a
// marker that holds its version for Config.TombstoneTTL, so that nothing older revives the
// key meanwhile.
//
// A failed record's error matches feature.ErrUnreachable, feature.ErrDenied, ErrFull,
// ErrReadOnly, ErrTopology or feature.ErrInvalid where one fits, and names the node. The
// error of Put itself is that of ctx; then the results still say what is known.
func (s *Store) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("put %d records to redis: %w", len(recs), err)
	}
	results := make([]feature.PutResult, len(recs))
	items, losers := s.plan(recs, results)

	var group errgroup.Group
	group.SetLimit(s.cfg.Writers)
	for len(items) > 0 {
		n := s.chunk(recs, items)
		chunk := items[:n]
		items = items[n:]
		if len(items) == 0 { // the last one needs no goroutine
			s.putChunk(ctx, recs, chunk, results)
			break
		}
		group.Go(func() error {
			s.putChunk(ctx, recs, chunk, results)
			return nil
		})
	}
	_ = group.Wait() // the functions return nil: every outcome is in results

	for _, l := range losers {
		results[l.index] = l.outcome(recs, results)
	}
	if err := ctx.Err(); err != nil {
		return results, fmt.Errorf("put %d records to redis: %w", len(recs), err)
	}
	return results, nil
}

// maxPipelineBytes bounds the payload bytes of one pipeline, and so of one script call: a
// server that is busy with one call answers nobody else.
const maxPipelineBytes = 4 << 20

// chunk is how many of the items go into the next pipeline; at least one.
func (s *Store) chunk(recs []feature.Record, items []item) int {
	most, size := min(len(items), s.cfg.PipelineSize), 0
	for n := range most {
		if size += len(recs[items[n].index].Payload); size > maxPipelineBytes {
			return max(n, 1)
		}
	}
	return most
}

// loser is a record that another record of the same call and key beat.
type loser struct{ index, winner int }

func (l loser) outcome(recs []feature.Record, results []feature.PutResult) feature.PutResult {
	won := results[l.winner]
	same := recs[l.index].Version == recs[l.winner].Version
	switch {
	case won.Outcome == feature.Written && same:
		return feature.PutResult{Outcome: feature.Unchanged, Stored: won.Stored}
	case won.Outcome == feature.Written, won.Outcome == feature.Unchanged && !same:
		return feature.PutResult{Outcome: feature.Older}
	}
	return won
}

// plan decides what is sent. It fills in the results of what is not.
func (s *Store) plan(recs []feature.Record, results []feature.PutResult) ([]item, []loser) {
	now := feature.MicrosOf(s.cfg.Clock.Now())
	items := make([]item, 0, len(recs))
	keys := s.keys(len(recs), func(i int) feature.Ref { return recs[i].Ref })
	var losers []loser
	newest := make(map[string]int, len(recs)) // key -> position in items, or -1-index of a record not sent
	for i := range recs {
		if err := checkRecord(&recs[i]); err != nil {
			results[i] = feature.PutResult{Err: err}
			continue
		}
		if at, ok := newest[keys[i]]; ok {
			if before := items[at].index; recs[i].Version.Compare(recs[before].Version) > 0 {
				losers = append(losers, loser{index: before, winner: i})
				items[at].index = i
			} else {
				losers = append(losers, loser{index: i, winner: before})
			}
			continue
		}
		newest[keys[i]] = len(items)
		items = append(items, item{index: i, key: keys[i]})
	}
	settle(losers, items, newest, keys)
	kept := items[:0]
	for _, it := range items {
		if s.prepare(&it, &recs[it.index], now, &results[it.index]) {
			kept = append(kept, it)
		}
	}
	return kept, losers
}

// settle points every loser at the record that won in the end, not at one that was
// itself beaten later.
func settle(losers []loser, items []item, newest map[string]int, keys []string) {
	for i := range losers {
		losers[i].winner = items[newest[keys[losers[i].index]]].index
	}
}

// prepare completes an item; false means that the result is already known.
func (s *Store) prepare(it *item, rec *feature.Record, now feature.Micros, result *feature.PutResult) bool {
	switch {
	case rec.Tombstone():
		// The marker is short-lived for its own reason: the record's own expiry is that of
		// the value it deletes.
		it.expiry = millis(now.Add(s.cfg.TombstoneTTL))
	case rec.Online == feature.NoTime:
	case rec.Online <= now:
		*result = feature.PutResult{Outcome: feature.Expired}
		return false
	default:
		it.expiry = millis(rec.Online)
	}
	if s.cfg.Layout == LayoutHash {
		it.fields = s.hashFields(rec)
	}
	return true
}

// millis rounds up: a value never expires before its instant.
func millis(at feature.Micros) int64 {
	ms := int64(at) / int64(time.Millisecond/time.Microsecond)
	if int64(at)%1000 > 0 {
		ms++
	}
	return ms
}

func checkRecord(rec *feature.Record) error {
	if rec.Key == "" || len(rec.Payload) < feature.HeaderSize {
		return fmt.Errorf("put %s: %w: a record needs a key and a payload with a header", rec.Ref, feature.ErrInvalid)
	}
	if _, _, err := feature.ParsePayload(rec.Payload); err != nil {
		return fmt.Errorf("put %s: %w", rec.Ref, err)
	}
	var version [feature.VersionSize]byte
	if !bytes.Equal(rec.Version.Append(version[:0]), rec.Payload[feature.VersionOffset:feature.ChecksumOffset]) {
		return fmt.Errorf("put %s: %w: the record's version is not the payload's", rec.Ref, feature.ErrInvalid)
	}
	return nil
}

// putChunk sends one chunk: plain SET NX first and the script for what exists, or the
// script at once, whichever was cheaper for the keys of late.
func (s *Store) putChunk(ctx context.Context, recs []feature.Record, chunk []item, results []feature.PutResult) {
	faults := faults{store: s}
	if s.cfg.Layout == LayoutBlob && s.existing.Load() <= s.scriptFirst() {
		exist, added := s.addNew(ctx, recs, chunk, results, &faults)
		s.replaceOlder(ctx, recs, exist, results, &faults)
		s.observe(len(exist), len(exist)+added)
		return
	}
	existed, judged := s.replaceOlder(ctx, recs, chunk, results, &faults)
	s.observe(existed, judged)
}

// addNew sends SET NX. It returns the items whose keys exist, and how many were added.
func (s *Store) addNew(ctx context.Context, recs []feature.Record, chunk []item, results []feature.PutResult, faults *faults) (exist []item, added int) {
	pipe := s.write.universal().Pipeline()
	cmds := make([]*redis.StatusCmd, len(chunk))
	args := make([]any, 0, 6*len(chunk))
	for i, it := range chunk {
		start := len(args)
		args = append(args, "set", it.key, recs[it.index].Payload, "nx")
		if it.expiry != 0 {
			args = append(args, "pxat", it.expiry)
		}
		cmds[i] = redis.NewStatusCmd(ctx, args[start:len(args):len(args)]...)
		_ = pipe.Process(ctx, cmds[i]) // queues only
	}
	send(ctx, pipe)
	for i, it := range chunk {
		switch err := cmds[i].Err(); {
		case err == nil && cmds[i].Val() == "OK":
			added++
			results[it.index] = feature.PutResult{Outcome: feature.Written, Stored: recs[it.index].Version}
		case errors.Is(err, redis.Nil):
			exist = append(exist, it)
		case err == nil:
			results[it.index] = feature.PutResult{Err: faults.of(ctx, it.key, errProtocol)}
		default:
			results[it.index] = feature.PutResult{Err: faults.of(ctx, it.key, err)}
		}
	}
	return exist, added
}

// replaceOlder sends the script. It returns how many keys existed of how many that were
// judged; a failed one was not.
func (s *Store) replaceOlder(ctx context.Context, recs []feature.Record, items []item, results []feature.PutResult, faults *faults) (existed, judged int) {
	if len(items) == 0 {
		return 0, 0
	}
	groups := make([][]any, 0, len(items)/s.cfg.ScriptKeys+1)
	for at := 0; at < len(items); at += s.cfg.ScriptKeys {
		part := items[at:min(at+s.cfg.ScriptKeys, len(items))]
		args := make([]any, 3, 3+3*len(part))
		args[2] = len(part)
		for _, it := range part {
			args = append(args, it.key)
		}
		for _, it := range part {
			if s.cfg.Layout == LayoutHash {
				args = append(args, it.expiry, len(it.fields)/2)
				args = append(args, it.fields...)
				continue
			}
			args = append(args, recs[it.index].Payload, it.expiry)
		}
		groups = append(groups, args)
	}
	cmds := s.runScript(ctx, groups)
	for i, it := range items {
		part, within := i/s.cfg.ScriptKeys, i%s.cfg.ScriptKeys
		n := min(s.cfg.ScriptKeys, len(items)-part*s.cfg.ScriptKeys)
		code, err := verdict(cmds[part], within, n)
		if err != nil {
			results[it.index] = feature.PutResult{Err: faults.of(ctx, it.key, err)}
			continue
		}
		judged++
		if code != codeNew {
			existed++
		}
		switch version := recs[it.index].Version; code {
		case codeOlder:
			results[it.index] = feature.PutResult{Outcome: feature.Older}
		case codeSame:
			results[it.index] = feature.PutResult{Outcome: feature.Unchanged, Stored: version}
		default:
			results[it.index] = feature.PutResult{Outcome: feature.Written, Stored: version}
		}
	}
	return existed, judged
}

// scriptFirst is the share of existing keys, in parts per 1024, above which the script
// for all is cheaper than SET NX for all and the script for the rest (measured; the
// script takes many keys per call on a single server).
func (s *Store) scriptFirst() int64 {
	if s.write.cluster != nil {
		return 1024 * 67 / 100
	}
	return 1024 * 55 / 100
}

// observe folds one chunk into the smoothed share of existing keys. Lost updates of
// concurrent chunks do not matter.
func (s *Store) observe(existed, judged int) {
	if judged == 0 {
		return
	}
	share := int64(1024 * existed / judged)
	s.existing.Store((s.existing.Load() + share) / 2)
}

// faults makes one error per node and cause, not one per record.
type faults struct {
	store *Store
	lost  bool // the client does not know the cluster: asking again for each key would wait again
	made  map[faultKey]error
}

type faultKey struct{ addr, text string }

func (f *faults) of(ctx context.Context, key string, err error) error {
	k := faultKey{addr: f.store.addrs(), text: err.Error()}
	if f.store.write.cluster != nil && !f.lost {
		node, unknown := f.store.write.cluster.MasterForKey(ctx, key)
		if f.lost = unknown != nil; !f.lost {
			k.addr = node.Options().Addr
		}
	}
	if made, ok := f.made[k]; ok {
		return made
	}
	if f.made == nil {
		f.made = map[faultKey]error{}
	}
	made := f.store.fault(k.addr, err)
	f.made[k] = made
	return made
}
