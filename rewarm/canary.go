package rewarm

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hearthstore/hearth/feature"
)

const (
	canaryRenew  = 15 * time.Minute // well within the hour that deletion markers live
	canaryMember = "hearth_canary"  // the join key of entities that nobody has
)

// sing puts canaries before the first page of a pass is read, and new ones every quarter of
// an hour: deletion markers of keys that no entity has, which die by themselves.
//
// Witnesses alone leave one loss unseen: a page is read, one of its keys is deleted, the
// tier is lost and the deletion's marker with it, and the page is put, before anything
// else was. The canaries are there from the beginning, on every shard.
//
// Nothing else depends on them: where they cannot be put, the witnesses are what is left.
func (p *pass) sing(ctx context.Context) {
	cfg := &p.r.cfg
	now := cfg.Clock.Now()
	song := canarySet{Run: p.req.Run, At: feature.MicrosOf(now), N: cfg.Canaries}
	view := p.views.any()
	refs := song.refs(view)
	recs := make([]feature.Record, len(refs))
	for i, ref := range refs {
		version := feature.Version{Event: song.At, Created: feature.NoTime, Run: song.Run}
		payload := feature.AppendPayload(nil, feature.Header{Fingerprint: view.Fingerprint(), Version: version, Tombstone: true}, nil)
		recs[i] = feature.Record{Ref: ref, Version: version, Payload: payload, Online: feature.NoTime, Retain: feature.NoTime}
	}
	results, err := cfg.Online.Put(ctx, recs)
	if err != nil || len(results) != len(recs) || slices.ContainsFunc(results, func(r feature.PutResult) bool { return r.Outcome != feature.Written && r.Outcome != feature.Unchanged }) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.song = song
}

// canarySet names the canaries that were put at one moment; the zero value is none. It is
// kept in the checkpoints, so that a resumed run can ask for those of the one before.
type canarySet struct {
	Run uint64         `json:"run"`
	At  feature.Micros `json:"at"`
	N   int            `json:"n"`
}

func (c canarySet) refs(view *feature.View) []feature.Ref {
	if c.At == 0 {
		return nil
	}
	refs := make([]feature.Ref, 0, c.N)
	for i := range c.N {
		key, err := feature.NewKey(feature.KeyPart{Name: canaryMember, Value: fmt.Sprintf("%d.%d.%d", c.Run, c.At, i)})
		if err == nil { // always
			refs = append(refs, feature.Ref{View: view.ID(), Key: key})
		}
	}
	return refs
}

// any is one of the views, always the same one.
func (s viewSet) any() *feature.View {
	var first *feature.View
	for _, v := range s.byID {
		if first == nil || v.ID().String() < first.ID().String() {
			first = v
		}
	}
	return first
}

// silent returns errLost when a canary is gone before its time.
func (r *Rewarmer) silent(ctx context.Context, view *feature.View, song canarySet) error {
	// After a long sleep of the machine they may have died of age.
	if song.At == 0 || feature.MicrosOf(r.cfg.Clock.Now()).Sub(song.At) > 2*canaryRenew {
		return nil
	}
	gone, err := r.absentOnline(ctx, song.refs(view))
	if err != nil || len(gone) == 0 {
		return err
	}
	return r.lostOrEvicted(ctx)
}

func (p *pass) singing() canarySet {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.song
}

// lost asks canaries and witnesses.
func (p *pass) lost(ctx context.Context, ws []witness) error {
	song := p.singing()
	if err := p.r.silent(ctx, p.views.any(), song); err != nil {
		return err
	}
	if song.At != 0 && feature.MicrosOf(p.r.cfg.Clock.Now()).Sub(song.At) > canaryRenew {
		p.sing(ctx)
	}
	return p.r.lost(ctx, ws)
}
