package rewarm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// extras looks for keys that only the online tier has.
func (v *verifier) extras(ctx context.Context) error {
	known := v.known.sorted()
	ids := make([]feature.ViewID, 0, len(v.views.byID))
	for id := range v.views.byID {
		ids = append(ids, id)
	}
	for _, id := range ids {
		err := v.r.cfg.Online.Scan(ctx, id, func(refs []feature.Ref) error {
			var unknown []feature.Ref
			n := 0
			for _, ref := range refs {
				if strings.HasPrefix(string(ref.Key), canaryMember+"=") {
					continue // a rewarm's own; it dies by itself
				}
				n++
				if _, found := slices.BinarySearch(known, refHash(ref, 0)); !found {
					ref.Key = feature.Key(strings.Clone(string(ref.Key)))
					unknown = append(unknown, ref)
				}
			}
			v.mu.Lock()
			v.rep.Online += int64(n)
			v.mu.Unlock()
			return v.lookUp(ctx, unknown)
		})
		if err != nil {
			return fmt.Errorf("scan %s in the online tier: %w", id, err)
		}
	}
	return v.drain(ctx, 1)
}

// lookUp asks the table for keys that its scan did not show.
func (v *verifier) lookUp(ctx context.Context, refs []feature.Ref) error {
	if len(refs) == 0 {
		return nil
	}
	table, err := v.scanner.get(ctx, refs)
	if err != nil {
		return err
	}
	var absent []feature.Ref
	for i, ref := range refs {
		if table[i].Payload == nil && table[i].Err == nil {
			absent = append(absent, ref)
		}
	}
	if len(absent) == 0 {
		return nil
	}
	online, err := v.r.getAll(ctx, v.r.cfg.Online, absent)
	if err != nil {
		return fmt.Errorf("get %d records from the online tier: %w", len(absent), err)
	}
	v.mu.Lock()
	for i, ref := range absent {
		now := feature.MicrosOf(v.r.cfg.Clock.Now())
		v.suspect(noSegment, look(v.views.byID[ref.View], ref, feature.GetResult{}, online[i], now))
	}
	v.mu.Unlock()
	return v.drain(ctx, maxPending)
}
