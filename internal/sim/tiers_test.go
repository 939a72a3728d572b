package sim_test

import (
	"context"
	"fmt"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sim"
	"github.com/hearthstore/hearth/materializer"
	"github.com/hearthstore/hearth/rewarm"
)

// The tiers as one actor sees them: each record of a put, and each other call, is a step
// of its own, so every interleaving that real stores allow can happen.

type gatedBacking struct {
	*sim.Backing
	a *actor
}

func (b gatedBacking) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	return put(ctx, b.a, "backing", b.Backing.Put, recs)
}

func (b gatedBacking) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	if err := b.a.gate(label("backing.get", refs), false).err(); err != nil {
		return nil, err
	}
	return b.Backing.Get(ctx, refs)
}

func (b gatedBacking) Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error {
	if err := b.a.gate(fmt.Sprintf("backing.scan %d %s", req.Segment, req.Cursor), false).err(); err != nil {
		return err
	}
	req.Limit = 2
	return b.Backing.Scan(ctx, req, page)
}

func (b gatedBacking) Table(context.Context) (rewarm.Table, error) {
	return rewarm.Table{Name: "t", Items: 4, Bytes: 400}, nil
}

type gatedOnline struct {
	*sim.Online
	a *actor
}

func (o gatedOnline) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	return put(ctx, o.a, "online", o.Online.Put, recs)
}

func (o gatedOnline) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	if err := o.a.gate(label("online.get", refs), false).err(); err != nil {
		return nil, err
	}
	return o.Online.Get(ctx, refs)
}

func (o gatedOnline) MarkWarm(ctx context.Context, run uint64) error {
	v := o.a.gate("online.markwarm", true)
	if v.happens() {
		if err := o.Online.MarkWarm(ctx, run); err != nil {
			return err
		}
	}
	return v.err()
}

func (o gatedOnline) Warmth(context.Context) (rewarm.Warmth, error) {
	if err := o.a.gate("online.warmth", false).err(); err != nil {
		return rewarm.Warmth{}, err
	}
	run := o.MarkerRun()
	w := rewarm.Warmth{Reachable: true, Cold: run == 0, MarkerRun: run, Shards: []rewarm.ShardWarmth{{Addr: "one", Reachable: true, Cold: run == 0, Markers: 1}}}
	if run != 0 {
		w.Shards[0].Present = 1
	}
	return w, nil
}

func (o gatedOnline) ColdFilter(context.Context, []byte) (func(feature.Ref) bool, []byte, error) {
	cold := o.MarkerRun() == 0
	return func(feature.Ref) bool { return cold }, nil, nil
}

func (o gatedOnline) Info(context.Context) (rewarm.Info, error) {
	return rewarm.Info{Policy: "noeviction", Version: "7", Masters: 1}, nil
}

func (o gatedOnline) Scan(context.Context, feature.ViewID, func([]feature.Ref) error) error {
	return nil // only Verify asks, and no actor verifies
}

func label(op string, refs []feature.Ref) string {
	if len(refs) > keys {
		return op + " " + string(refs[0].Key) + " …"
	}
	for _, ref := range refs {
		op += " " + string(ref.Key)
	}
	return op
}

type putFunc func(context.Context, []feature.Record) ([]feature.PutResult, error)

// put is one step per record.
func put(ctx context.Context, a *actor, tier string, do putFunc, recs []feature.Record) ([]feature.PutResult, error) {
	if canary(recs[0].Ref) { // they travel in batches of their own, and their order does not matter
		if err := a.gate(tier+".put canaries", false).err(); err != nil {
			return nil, err
		}
		return do(ctx, recs)
	}
	results := make([]feature.PutResult, len(recs))
	for i := range recs {
		v := a.gate(fmt.Sprintf("%s.put %s %s", tier, recs[i].Key, recs[i].Version), true)
		if v == refuse {
			results[i].Err = feature.ErrThrottled
			continue
		}
		if v.happens() {
			res, err := do(ctx, recs[i:i+1])
			if err != nil {
				return nil, err
			}
			results[i] = res[0]
		}
		if err := v.err(); err != nil {
			return nil, err
		}
	}
	return results, nil
}

type memState = sim.State[materializer.Slot, materializer.Progress, materializer.FileSet]

type gatedState struct {
	*memState
	a *actor
}

func (s gatedState) Save(ctx context.Context, slot materializer.Slot, p materializer.Progress) error {
	v := s.a.gate("state.save "+p.LastStatus, true)
	if v.happens() {
		if err := s.memState.Save(ctx, slot, p); err != nil {
			return err
		}
	}
	return v.err()
}

func (s gatedState) SaveFiles(ctx context.Context, slot materializer.Slot, set materializer.FileSet, files []feature.File) error {
	v := s.a.gate(fmt.Sprintf("state.save %s %d", set, len(files)), true)
	if v.happens() {
		if err := s.memState.SaveFiles(ctx, slot, set, files); err != nil {
			return err
		}
	}
	return v.err()
}

type gatedSource struct {
	*sim.Source
	a *actor
}

func (s gatedSource) Latest(ctx context.Context, req feature.LatestRequest, emit func([]feature.Row) error) (feature.LatestStats, error) {
	if err := s.a.gate("source.latest", false).err(); err != nil {
		return feature.LatestStats{}, err
	}
	return s.Source.Latest(ctx, req, emit)
}

// documents is a rewarm.State.
type documents struct {
	a  *actor
	at map[string]document // one actor at a time runs: the scheduler is its lock
}

type document struct {
	value    []byte
	revision int64
}

func (d documents) Load(_ context.Context, name string) ([]byte, int64, error) {
	if err := d.a.gate("checkpoint.load "+name, false).err(); err != nil {
		return nil, 0, err
	}
	doc, ok := d.at[name]
	if !ok {
		return nil, 0, feature.ErrNotFound
	}
	return doc.value, doc.revision, nil
}

func (d documents) Save(_ context.Context, name string, value []byte, revision int64) (int64, error) {
	v := d.a.gate("checkpoint.save "+name, true)
	if v.happens() {
		if d.at[name].revision != revision {
			return 0, feature.ErrConflict
		}
		d.at[name] = document{append([]byte(nil), value...), revision + 1}
	}
	return revision + 1, v.err()
}

func (d documents) Delete(_ context.Context, name string, revision int64) error {
	v := d.a.gate("checkpoint.delete "+name, true)
	if v.happens() {
		if doc, ok := d.at[name]; ok && doc.revision != revision {
			return feature.ErrConflict
		}
		delete(d.at, name)
	}
	return v.err()
}
