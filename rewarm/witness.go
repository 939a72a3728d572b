package rewarm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// errLost ends a pass: what it put is no longer in the online tier.
var errLost = errors.New("the online tier was lost during the rewarm")

// errEvicting ends a run: the online tier drops what it is given.
var errEvicting = errors.New("the online tier evicts: its memory is full. Give it more memory, or rewarm fewer views")

// witness is a value that was put (or found) in the online tier. While all witnesses are
// there nothing was flushed; when one is gone without a reason, a shard was. They are
// ordinary values, so they lie on the shards as the data does and need no help from the
// tier, and they are kept with the checkpoints, so that the next run can ask them too.
type witness struct {
	View   feature.ViewID `json:"view"`
	Key    feature.Key    `json:"key"`
	Expiry feature.Micros `json:"expiry"` // NoTime for never
}

// sampleWitness keeps an even sample over time of what a segment put: every stride-th
// value; when there are too many every other one goes and the stride doubles. The first
// value of a segment always stays, so that an early loss is seen as well.
func (p *pass) sampleWitness(cp *checkpoint, rec *feature.Record) {
	if rec.Tombstone() {
		return
	}
	cp.Stride = max(cp.Stride, 1)
	p.puts[cp.Segment-p.from]++
	if (p.puts[cp.Segment-p.from]-1)%cp.Stride != 0 {
		return
	}
	cp.Witnesses = append(cp.Witnesses, witness{rec.View, feature.Key(strings.Clone(string(rec.Key))), rec.Online})
	if len(cp.Witnesses) > p.witnesses {
		kept := cp.Witnesses[:0]
		for i := 0; i < len(cp.Witnesses); i += 2 {
			kept = append(kept, cp.Witnesses[i])
		}
		cp.Witnesses = kept
		cp.Stride *= 2
	}
}

// witnessesPer is how many witnesses a segment keeps: a few hundred in all, and few enough
// per segment that its checkpoint stays cheap.
func witnessesPer(segments int) int { return min(max(512/segments, 4), 64) }

// lost asks the witnesses. It returns errLost when one is gone that should be there,
// errEvicting when that is because the tier is full. A witness that was deleted or has
// expired says nothing.
func (r *Rewarmer) lost(ctx context.Context, ws []witness) error {
	now := feature.MicrosOf(r.cfg.Clock.Now())
	var refs []feature.Ref
	for _, w := range ws {
		// A minute's margin, for clocks that differ.
		if w.Expiry == feature.NoTime || w.Expiry.Sub(now) > minute {
			refs = append(refs, feature.Ref{View: w.View, Key: w.Key})
		}
	}
	gone, err := r.absentOnline(ctx, refs)
	if err != nil || len(gone) == 0 {
		return err
	}
	// Erased keys are gone rightly: only what the table has counts.
	results, err := r.getAll(ctx, r.cfg.Backing, gone)
	if err != nil {
		return fmt.Errorf("rewarm: ask the backing tier for %d witnesses: %w", len(gone), err)
	}
	missing := false
	for _, res := range results {
		if feature.IsValue(res.Payload) {
			missing = true
		}
	}
	if !missing {
		return nil
	}
	return r.lostOrEvicted(ctx)
}

// lostOrEvicted says why something is gone: a full tier that evicts is not started over.
func (r *Rewarmer) lostOrEvicted(ctx context.Context) error {
	info, err := r.cfg.Online.Info(ctx)
	if err == nil && info.MaxMemory > 0 && info.Policy != "noeviction" && info.UsedMemory > info.MaxMemory/10*9 {
		return errEvicting
	}
	return errLost
}

// absentOnline returns the refs that the online tier does not have.
func (r *Rewarmer) absentOnline(ctx context.Context, refs []feature.Ref) ([]feature.Ref, error) {
	var gone []feature.Ref
	for len(refs) > 0 {
		n := min(len(refs), 100)
		results, err := r.getAll(ctx, r.cfg.Online, refs[:n])
		if err != nil {
			return nil, fmt.Errorf("rewarm: ask the online tier for %d witnesses: %w", n, err)
		}
		for i := range results {
			if results[i].Err == nil && results[i].Payload == nil {
				gone = append(gone, refs[i])
			}
		}
		refs = refs[n:]
	}
	return gone, nil
}
