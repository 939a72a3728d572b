// Package hotkeys brings what readers are asked for to the rewarm that needs it: each
// reader keeps a sketch and stores it in the state table now and then; a rewarm merges
// the sketches of all readers. It builds without cgo.
package hotkeys

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/sketch"
)

const (
	kind = "sketch"
	// life is how long a stored sketch counts: what was hot a day ago is not hot news.
	life = 24 * time.Hour
	// maxPart leaves room within a state item.
	maxPart = 300 << 10
	// maxRefs bounds what a rewarm loads first.
	maxRefs = 500_000
	// firstStore is when a new reader stores its sketch for the first time.
	firstStore = time.Minute
	// The sketch is aged when so many times its capacity was recorded, or after so long:
	// often enough that what cooled down makes room, seldom enough that the many keys
	// which are asked for a few times an hour keep their order.
	decayAdds  = 16
	decayAfter = 6 * time.Hour
	// closeTimeout bounds the last store of a reader that ends.
	closeTimeout = 2 * time.Second
)

// Config is what a Recorder needs.
type Config struct {
	State backing.StateStore // required
	// Every is how often the sketch is stored, the first time sooner. A full sketch is a few
	// megabytes of state items, so that often is dear. Defaults to 10m.
	Every time.Duration
	// Sketch sizes the sketch.
	Sketch sketch.Config
	Clock  clock.Clock  // defaults to clock.System
	Logger *slog.Logger // defaults to discarding
}

// Recorder counts refs and stores the hot ones. Record is cheap and safe for concurrent
// use.
type Recorder struct {
	cfg    Config
	name   string // unique: two readers never share an item
	sketch *sketch.Sketch
	saved  map[string]int64 // the revision of each stored part
	stop   context.CancelFunc
	done   chan struct{}
}

// Start begins to record; Close ends it. ctx gives the values of the store's calls, not
// their life.
func Start(ctx context.Context, cfg Config) *Recorder {
	if cfg.Every <= 0 {
		cfg.Every = 10 * time.Minute
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &Recorder{cfg: cfg, name: rand.Text(), sketch: sketch.New(cfg.Sketch), saved: map[string]int64{}, stop: stop, done: make(chan struct{})}
	go r.keep(ctx)
	return r
}

// Record counts one ref that was asked for.
func (r *Recorder) Record(ref feature.Ref) { r.sketch.Record(ref) }

// Close stores the sketch a last time and ends.
func (r *Recorder) Close() {
	r.stop()
	<-r.done
}

func (r *Recorder) keep(ctx context.Context) {
	defer close(r.done)
	wait, decayed, stored := min(r.cfg.Every, firstStore), r.cfg.Clock.Now(), uint64(0)
	for r.cfg.Clock.Sleep(ctx, wait) == nil {
		wait = r.cfg.Every
		added := r.sketch.Added()
		if added != stored { // else nobody asked for anything since
			r.store(ctx)
			stored = added
		}
		if now := r.cfg.Clock.Now(); added >= decayAdds*uint64(r.sketch.Capacity()) || now.Sub(decayed) >= decayAfter {
			r.sketch.Decay()
			decayed, stored = now, 0
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	r.store(last)
}

// store writes the parts of the sketch. Failing costs nothing but a colder order of the
// next rewarm, so it is a line in the debug log.
func (r *Recorder) store(ctx context.Context) {
	now := r.cfg.Clock.Now()
	erased, err := backing.ErasedSince(ctx, r.cfg.State, now.Add(-life))
	if err != nil {
		r.cfg.Logger.Debug("hot keys not stored", "error", err)
		return
	}
	top := r.sketch.Top()
	if erased != nil { // this sketch may still count an entity that was erased meanwhile
		top = slices.DeleteFunc(slices.Clone(top), func(e sketch.Entry) bool { return erased(e.Ref.Key) })
	}
	parts := sketch.Encode(top, maxPart)
	expire := feature.MicrosOf(now).Add(life)
	for i, part := range parts {
		name := fmt.Sprintf("%s/%03d", r.name, i)
		if err := r.put(ctx, backing.StateItem{Kind: kind, Name: name, Value: part, ExpireAt: expire}); err != nil {
			r.cfg.Logger.Debug("hot keys not stored", "error", err)
			return
		}
	}
	for name, revision := range r.saved {
		var n int
		if _, err := fmt.Sscanf(name[len(r.name):], "/%d", &n); err == nil && n >= len(parts) {
			if err := r.cfg.State.DeleteState(ctx, kind, name, revision); err != nil {
				r.cfg.Logger.Debug("old part of hot keys not removed", "error", err)
				return
			}
			delete(r.saved, name)
		}
	}
}

// put writes one part. The names are this reader's alone: a conflict means that an answer
// was lost, that the store removed an old part by its age, or that an erased key was taken
// out of it, so the revision is asked for.
func (r *Recorder) put(ctx context.Context, item backing.StateItem) error {
	item.Revision = r.saved[item.Name]
	saved, err := r.cfg.State.PutState(ctx, item)
	if errors.Is(err, feature.ErrConflict) {
		there, looking := r.cfg.State.GetState(ctx, kind, item.Name)
		if looking != nil && !errors.Is(looking, feature.ErrNotFound) {
			return looking
		}
		item.Revision = there.Revision
		saved, err = r.cfg.State.PutState(ctx, item)
	}
	if err == nil {
		r.saved[item.Name] = saved.Revision
	}
	return err
}

// Forget takes keys out of the stored sketches and returns how many entries went. Readers
// that count them still leave them out from now on, because they ask for erased keys before
// they store (backing.ErasedSince): record the erasure first.
func Forget(ctx context.Context, state backing.StateStore, drop func(feature.Key) bool) (removed int, err error) {
	items, err := state.ListState(ctx, kind, backing.ListOptions{})
	if err != nil {
		return 0, fmt.Errorf("forget hot keys: %w", err)
	}
	for _, item := range items {
		n, err := forgetIn(ctx, state, item, drop)
		removed += n
		if err != nil {
			return removed, fmt.Errorf("forget hot keys: %w", err)
		}
	}
	return removed, nil
}

func forgetIn(ctx context.Context, state backing.StateStore, item backing.StateItem, drop func(feature.Key) bool) (int, error) {
	for {
		entries, err := sketch.Decode(item.Value)
		if err != nil { // unreadable, of another release perhaps: it may name the key
			return 0, state.DeleteState(ctx, kind, item.Name, item.Revision)
		}
		kept := slices.DeleteFunc(slices.Clone(entries), func(e sketch.Entry) bool { return drop(e.Ref.Key) })
		if len(kept) == len(entries) {
			return 0, nil
		}
		if parts := sketch.Encode(kept, 0); len(parts) == 1 {
			item.Value = parts[0]
			_, err = state.PutState(ctx, item)
		} else {
			err = state.DeleteState(ctx, kind, item.Name, item.Revision)
		}
		if !errors.Is(err, feature.ErrConflict) {
			return len(entries) - len(kept), err
		}
		if item, err = state.GetState(ctx, kind, item.Name); errors.Is(err, feature.ErrNotFound) {
			return 0, nil
		} else if err != nil {
			return 0, err
		}
	}
}

// Load merges the stored sketches of all readers, hottest ref first. A part that cannot be
// decoded (of another release) is left out.
func Load(ctx context.Context, state backing.StateStore, now time.Time) ([]feature.Ref, error) {
	items, err := state.ListState(ctx, kind, backing.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("load hot keys: %w", err)
	}
	merger := sketch.NewMerger(maxRefs)
	for _, item := range items {
		if item.ExpireAt != feature.NoTime && item.ExpireAt < feature.MicrosOf(now) {
			continue
		}
		entries, err := sketch.Decode(item.Value)
		if errors.Is(err, feature.ErrCorrupt) || errors.Is(err, feature.ErrUnknownFormat) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("load hot keys: %w", err)
		}
		merger.Add(entries)
	}
	return sketch.Refs(merger.Entries()), nil
}
