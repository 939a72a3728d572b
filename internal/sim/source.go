package sim

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hearthstore/hearth/feature"
)

// Source is the offline side in memory: files of rows.
type Source struct {
	Inject Injector
	// Batch is how many rows an emit gets at most. Defaults to 3.
	Batch int
	// Reading, if set, is called for each Latest before it emits: a chance to change files.
	Reading func()

	mu    sync.Mutex
	files map[string]sourceFile
}

type sourceFile struct {
	feature.File
	rows []feature.Row
}

// NewSource returns a source without files.
func NewSource() *Source { return &Source{Batch: 3, files: map[string]sourceFile{}} }

// Write adds a file or replaces it; generation makes its identity.
func (s *Source) Write(path string, generation int64, rows ...feature.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = sourceFile{File: feature.File{Path: path, Size: int64(len(rows)), Modified: feature.Micros(generation)}, rows: rows}
}

// Remove deletes a file.
func (s *Source) Remove(path string) { s.mu.Lock(); defer s.mu.Unlock(); delete(s.files, path) }

// Files lists the files.
func (s *Source) Files(ctx context.Context, _ *feature.View) ([]feature.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if f := s.Inject.at("source.files", 0); f != nil {
		return nil, f.Err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []feature.File
	for _, path := range slices.Sorted(maps.Keys(s.files)) {
		out = append(out, s.files[path].File)
	}
	return out, nil
}

// Latest emits the newest row per key in key order.
func (s *Source) Latest(ctx context.Context, req feature.LatestRequest, emit func([]feature.Row) error) (feature.LatestStats, error) {
	stats := feature.LatestStats{Newest: feature.NoTime}
	if f := s.Inject.at("source.latest", 0); f != nil {
		return stats, f.Err
	}
	latest, err := s.collect(req, &stats)
	if err != nil {
		return stats, err
	}
	if s.Reading != nil {
		s.Reading()
	}
	// The rows are valid only during emit: the same memory each time, and scribbled over.
	buf := make([]feature.Row, 0, s.Batch)
	flush := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := emit(buf)
		for _, r := range buf {
			for i := range r.Features {
				r.Features[i] = 0xc1 // never used by MessagePack
			}
		}
		clear(buf)
		buf = buf[:0]
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(latest)) {
		r := latest[key]
		r.Features = slices.Clone(r.Features)
		buf = append(buf, r)
		stats.Emitted++
		stats.Newest = max(stats.Newest, r.Event)
		if len(buf) == cap(buf) {
			if err := flush(); err != nil {
				return stats, err
			}
		}
	}
	if len(buf) > 0 {
		if err := flush(); err != nil {
			return stats, err
		}
	}
	return stats, nil
}

func (s *Source) collect(req feature.LatestRequest, stats *feature.LatestStats) (map[feature.Key]feature.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	latest := map[feature.Key]feature.Row{}
	for _, f := range req.Files {
		stored, ok := s.files[f.Path]
		if !ok {
			return nil, fmt.Errorf("open %s: no such file", f.Path)
		}
		future := false
		for n, r := range stored.rows {
			if feature.ShardOf(r.Key, req.Shards) != req.Shard {
				continue
			}
			stats.RowsRead++
			switch {
			case r.Key == "" || r.Event == feature.NoTime:
				stats.Rejected++
				if stats.Reasons == nil {
					stats.Reasons = map[string]int64{}
				}
				stats.Reasons["null join key"]++
				if req.Reject != nil {
					req.Reject(feature.Reject{View: req.View.ID().String(), File: f.Path, Row: int64(n + 1), Reason: "null join key"})
				}
			case req.End != feature.NoTime && r.Event > req.End:
				future = true
			case req.Start != feature.NoTime && r.Event < req.Start:
			default:
				if best, ok := latest[r.Key]; !ok || newer(&r, &best) {
					latest[r.Key] = r
				}
			}
		}
		if future {
			stats.Future = append(stats.Future, f.Path)
		}
	}
	return latest, nil
}

func newer(a, b *feature.Row) bool {
	if a.Event != b.Event {
		return a.Event > b.Event
	}
	if a.Created != b.Created {
		return a.Created > b.Created
	}
	return bytes.Compare(a.Features, b.Features) > 0
}

// State keeps run state in memory. S and P are the slot and progress types of the user,
// F its name for a file set.
type State[S fmt.Stringer, P any, F ~string] struct {
	Inject Injector
	// Run returns the run that saved p; a save by an earlier run conflicts.
	Run func(p P) uint64

	mu    sync.Mutex
	slots map[string]P
	files map[string][]feature.File
}

// NewState returns an empty state.
func NewState[S fmt.Stringer, P any, F ~string](run func(P) uint64) *State[S, P, F] {
	return &State[S, P, F]{Run: run, slots: map[string]P{}, files: map[string][]feature.File{}}
}

// Load returns a slot.
func (s *State[S, P, F]) Load(ctx context.Context, slot S) (p P, err error) {
	if f := s.Inject.at("state.load", 0); f != nil {
		return p, f.Err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots[slot.String()], ctx.Err()
}

// Save replaces a slot.
func (s *State[S, P, F]) Save(ctx context.Context, slot S, p P) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f := s.Inject.at("state.save", 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f == nil || f.Apply > 0 {
		if old, ok := s.slots[slot.String()]; ok && s.Run(old) > s.Run(p) {
			return fmt.Errorf("save %s: %w", slot, feature.ErrConflict)
		}
		s.slots[slot.String()] = p
	}
	if f != nil {
		return f.Err
	}
	return nil
}

// Files returns a set.
func (s *State[S, P, F]) Files(ctx context.Context, slot S, set F) ([]feature.File, error) {
	if f := s.Inject.at("state.files", 0); f != nil {
		return nil, f.Err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.files[slot.String()+" "+string(set)]), ctx.Err()
}

// SaveFiles replaces a set.
func (s *State[S, P, F]) SaveFiles(ctx context.Context, slot S, set F, files []feature.File) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f := s.Inject.at("state.savefiles", 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f == nil || f.Apply > 0 {
		s.files[slot.String()+" "+string(set)] = slices.Clone(files)
	}
	if f != nil {
		return f.Err
	}
	return nil
}

// Empty reports whether no slot was saved.
func (s *State[S, P, F]) Empty(ctx context.Context) (bool, error) {
	if f := s.Inject.at("state.empty", 0); f != nil {
		return false, f.Err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.slots) == 0, ctx.Err()
}

// Describe lists the state for a comparison.
func (s *State[S, P, F]) Describe() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(s.files)) {
		if len(s.files[k]) > 0 {
			fmt.Fprintf(&b, "%s: %v\n", k, s.files[k])
		}
	}
	return b.String()
}
