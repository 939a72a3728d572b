package materializer

import (
	"context"
	"errors"
	"fmt"

	"github.com/hearthstore/hearth/feature"
)

// Repair says that something else (a rewarm, a verification with repair) is about to bring
// everything online, and afterwards that it did.
type Repair struct {
	m      *Materializer
	slots  []Slot
	was    []Progress
	behind [][]feature.File
}

// BeginRepair notes how far the slots are. Call it before the other work begins to read the
// backing tier.
func (m *Materializer) BeginRepair(ctx context.Context, slots []Slot) (*Repair, error) {
	r := &Repair{m: m}
	for _, s := range slots {
		p, err := m.cfg.State.Load(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("view %s: read run state: %w", s.View, err)
		}
		if !p.saved() {
			continue
		}
		files, err := m.cfg.State.Files(ctx, s, FilesBehind)
		if err != nil {
			return nil, fmt.Errorf("view %s: read run state: %w", s.View, err)
		}
		r.slots, r.was, r.behind = append(r.slots, s), append(r.was, p), append(r.behind, files)
	}
	return r, nil
}

// Done forgets what was behind in the slots that no run has saved since BeginRepair: what
// a run did meanwhile may have come too late for the repair. No run of the slots should be
// under way: the caller holds their leases.
func (r *Repair) Done(ctx context.Context) error {
	var errs []error
	for i, s := range r.slots {
		errs = append(errs, r.clear(ctx, s, r.was[i], r.behind[i]))
	}
	return errors.Join(errs...)
}

func (r *Repair) clear(ctx context.Context, s Slot, was Progress, wasBehind []feature.File) error {
	now, err := r.m.cfg.State.Load(ctx, s)
	if err != nil {
		return fmt.Errorf("view %s: read run state: %w", s.View, err)
	}
	behind, err := r.m.cfg.State.Files(ctx, s, FilesBehind)
	if err != nil {
		return fmt.Errorf("view %s: read run state: %w", s.View, err)
	}
	if now.LastRun != was.LastRun || now.LastStatus != was.LastStatus || !sameFiles(behind, wasBehind) || now.OnlineBehind == 0 && len(behind) == 0 && now.LastStatus != statusPruning {
		return nil
	}
	now.OnlineBehind, now.Stray = 0, 0
	if now.LastStatus == statusPruning {
		now.LastStatus = StatusInterrupted
	}
	if err := r.m.cfg.State.Save(ctx, s, now); err != nil {
		return fmt.Errorf("view %s: save run state: %w", s.View, err)
	}
	if err := r.m.cfg.State.SaveFiles(ctx, s, FilesBehind, []feature.File{}); err != nil {
		return fmt.Errorf("view %s: save run state: %w", s.View, err)
	}
	return nil
}
