package materializer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// Source is the offline side.
type Source interface {
	// Files lists the files behind a view as they are now.
	Files(ctx context.Context, v *feature.View) ([]feature.File, error)
	// Latest hands over the newest row of each entity in batches. Each key comes at most
	// once; the rows are valid only until emit returns. When emit fails, Latest stops and
	// returns that error.
	Latest(ctx context.Context, req feature.LatestRequest, emit func([]feature.Row) error) (feature.LatestStats, error)
}

// Backing is the durable tier. It is safe for concurrent use and keeps nothing of its
// arguments after it returns.
type Backing interface {
	// Put stores each record that is newer than what is there; see feature.PutResult. The
	// results are aligned with recs. It is idempotent and retries on its own for a while.
	// A result that failed with an error matching feature.ErrInvalid can never be stored.
	Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error)
	// Get reads values; the results are aligned with refs.
	Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error)
	// Scan reads one page of one segment; see feature.ScanRequest.
	Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error
}

// Online is the fast tier. It is safe for concurrent use and keeps nothing of its
// arguments after it returns.
type Online interface {
	// Put stores each record that is newer than what is there, until its Online instant.
	Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error)
	// Get reads values; the results are aligned with refs.
	Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error)
	// MarkWarm leaves the markers by which every shard shows that it was filled and has lost
	// nothing since.
	MarkWarm(ctx context.Context, run uint64) error
}

// State keeps what runs must remember. It is durable: what a call saved is there after a
// crash of any machine.
type State interface {
	// Load returns the progress of a slot, and the zero Progress when none was saved.
	Load(ctx context.Context, s Slot) (Progress, error)
	// Save replaces it. It fails with an error matching feature.ErrConflict if a run with a
	// later number has saved the slot.
	Save(ctx context.Context, s Slot, p Progress) error
	// Files returns a set as one SaveFiles left it, in any order; nil when there is none.
	Files(ctx context.Context, s Slot, set FileSet) ([]feature.File, error)
	// SaveFiles replaces a set whole: a reader sees the old one or the new one.
	SaveFiles(ctx context.Context, s Slot, set FileSet, files []feature.File) error
	// Empty reports whether no slot of the project was ever saved, which means that nothing
	// was ever written to the backing tier.
	Empty(ctx context.Context) (bool, error)
}

// Slot names what one line of runs makes progress on: a view version, or one shard of it.
type Slot struct {
	View   feature.ViewID
	Shard  int // 0 <= Shard < Shards
	Shards int // 0 or 1: not sharded
}

// String is "view@1", or "view@1/3-of-8" for the shard with index 3. State may use it as
// a name.
func (s Slot) String() string {
	if s.Shards <= 1 {
		return s.View.String()
	}
	return s.View.String() + "/" + strconv.Itoa(s.Shard) + "-of-" + strconv.Itoa(s.Shards)
}

// FileSet tells the two sets of files of a slot apart.
type FileSet string

// The file sets.
const (
	// FilesTaken are the files of which the backing tier holds every row.
	FilesTaken FileSet = "taken"
	// FilesBehind are those of them whose rows may not have reached the online tier.
	FilesBehind FileSet = "behind"
)

// Progress is how far a slot is.
type Progress struct {
	// Fields is the schema under which the values are stored; nil when nothing was saved.
	Fields []feature.Field `json:"fields"`
	// Watermark is the clock time of the newest run whose files are all in the backing tier.
	Watermark feature.Micros `json:"watermark"`
	// Newest is the newest event time stored.
	Newest feature.Micros `json:"newest_event"`
	// Entities estimates how many keys the slot has.
	Entities   int64  `json:"entities_estimate"`
	LastRun    uint64 `json:"last_run"` // 0: only pushed to so far
	LastStatus string `json:"last_status"`
	// OnlineBehind is how many values the online tier may lack.
	OnlineBehind int64 `json:"online_behind"`
	// Stray is how many of those no file leads to: deletions by a prune, and values whose
	// files are gone. A rewarm or a repair brings them (see BeginRepair).
	Stray int64 `json:"online_behind_stray"`
	// ChunkBytes is the size of the chunks of a run that took some and did not finish; 0: none.
	ChunkBytes int64 `json:"chunk_bytes,omitempty"`
}

// The LastStatus of a slot while a run is under way, and while a prune is.
const (
	statusRunning = "running"
	statusPruning = "pruning"
)

func (p Progress) saved() bool { return len(p.Fields) > 0 }

// Config is what a Materializer needs.
type Config struct {
	Source  Source  // required by Run; a Materializer that only pushes has none
	Backing Backing // required
	Online  Online  // required
	State   State   // required

	// Erased is asked at the start of each run and push for the entities whose erasure is
	// still guarded (see Forget). The function it returns says until which moment the facts
	// about a key are erased; nil when there are none. It must be safe for concurrent use.
	// Defaults to none.
	Erased func(ctx context.Context) (func(feature.Key) (feature.Micros, bool), error)

	Clock    clock.Clock            // defaults to the machine's
	Logger   *slog.Logger           // defaults to none
	Progress telemetry.ProgressFunc // defaults to none

	// Reserve draws n consecutive run numbers, larger than all drawn before, for the chunks of
	// a run (see chunks.go). Without it every run is one chunk.
	Reserve func(ctx context.Context, n int) (first uint64, err error)

	// ChunkBytes is how many bytes of pending files a run takes before it writes down that
	// they are taken, and so about how much is read again after a kill. A run has at most 16
	// chunks or so: those of more files are larger. Defaults to 1 GiB.
	ChunkBytes int64
	// PassedKeys is how many keys (about 60 bytes each) a run of several chunks remembers so as
	// not to send their older rows. Defaults to 2 million.
	PassedKeys int
	// BatchSize is how many records travel together. Defaults to 500.
	BatchSize int
	// BackingWorkers is how many batches are with the backing tier at once. Defaults to 8.
	BackingWorkers int
	// OnlineWorkers is how many batches are with the online tier at once. Defaults to 2.
	OnlineWorkers int
	// Attempts is how often a batch is sent to the backing tier without any record of it
	// getting through, on top of the tier's own retries, before its rest counts as failed.
	// Defaults to 4.
	Attempts int
	// MaxFailedBatches is how many batches in a row may fail whole before the view is given
	// up. Defaults to 3.
	MaxFailedBatches int
	// OnlineCooldown is how long a run leaves the online tier alone after three batches in a
	// row failed there. Defaults to 10s.
	OnlineCooldown time.Duration
	// MaxBatchAge is how long after the backing tier's answer a batch may still be sent
	// online; a later one (the machine was suspended) counts as behind and is looked up
	// again by the next run. It must stay below the life of the online tier's deletion
	// markers, which guard a deleted key against what was read before. Defaults to 15m.
	MaxBatchAge time.Duration
	// TombstoneRetain is how long the backing tier keeps a deletion at least, counted from
	// the run, in views that have a retain time; in others it keeps it for ever. An older
	// row that arrives within it cannot bring the key back. Defaults to 30 days.
	TombstoneRetain time.Duration
	// MaxRejects is the most lines of one rejects file; what is beyond is only counted.
	// Defaults to 100000.
	MaxRejects int
	// PruneKeys is how many keys (8 bytes each) a prune holds in memory. A view with more
	// is pruned in several passes over source and table. Defaults to 16 million.
	PruneKeys int
	// Region chooses the price of a dry run; WritePrice, in dollars per million write
	// request units, overrides it. WriteRate is how many write units per second to expect;
	// it defaults to 4000, which a new on-demand table takes at once.
	Region     string
	WritePrice float64
	WriteRate  float64
}

// Materializer runs materializations. It is safe for concurrent use; two runs of one view
// at once are safe too, but waste work: callers hold a lease per view.
type Materializer struct {
	cfg   Config
	clock clock.Clock
	log   *slog.Logger
}

// New checks cfg and fills in its defaults.
func New(cfg Config) (*Materializer, error) {
	if cfg.Backing == nil || cfg.Online == nil || cfg.State == nil {
		return nil, fmt.Errorf("new materializer: %w: Backing, Online and State are required", feature.ErrInvalid)
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"BatchSize", cfg.BatchSize}, {"BackingWorkers", cfg.BackingWorkers}, {"OnlineWorkers", cfg.OnlineWorkers}, {"Attempts", cfg.Attempts},
		{"MaxFailedBatches", cfg.MaxFailedBatches}, {"MaxRejects", cfg.MaxRejects}, {"PruneKeys", cfg.PruneKeys}, {"PassedKeys", cfg.PassedKeys}, {"ChunkBytes", int(cfg.ChunkBytes)}} {
		if n.value < 0 {
			return nil, fmt.Errorf("new materializer: %w: %s is %d", feature.ErrInvalid, n.name, n.value)
		}
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.ChunkBytes = cmp.Or(cfg.ChunkBytes, 1<<30)
	cfg.PassedKeys = cmp.Or(cfg.PassedKeys, 2_000_000)
	cfg.BatchSize = cmp.Or(cfg.BatchSize, 500)
	cfg.BackingWorkers = cmp.Or(cfg.BackingWorkers, 8)
	cfg.OnlineWorkers = cmp.Or(cfg.OnlineWorkers, 2)
	cfg.Attempts = cmp.Or(cfg.Attempts, 4)
	cfg.MaxFailedBatches = cmp.Or(cfg.MaxFailedBatches, 3)
	cfg.OnlineCooldown = cmp.Or(cfg.OnlineCooldown, 10*time.Second)
	cfg.MaxBatchAge = cmp.Or(cfg.MaxBatchAge, 15*time.Minute)
	cfg.TombstoneRetain = cmp.Or(cfg.TombstoneRetain, 30*24*time.Hour)
	cfg.MaxRejects = cmp.Or(cfg.MaxRejects, 100_000)
	cfg.PruneKeys = cmp.Or(cfg.PruneKeys, 16<<20)
	cfg.WriteRate = cmp.Or(cfg.WriteRate, 4000)
	return &Materializer{cfg: cfg, clock: cfg.Clock, log: cfg.Logger}, nil
}

// Request says what to materialize.
type Request struct {
	// Run is the run's number. It is new for every attempt and larger than all before: two
	// attempts under one number could not correct each other. A dry run needs none.
	Run   uint64
	Views []*feature.View
	// Full takes every file, not only the new and changed ones.
	Full bool
	// Force overrides a refusal: of a schema change with Full, of a prune that would delete
	// everything or that cannot trust its source.
	Force bool
	// DryRun reads and estimates; nothing is written.
	DryRun bool
	// Prune, with Full, deletes the keys of the backing tier that the source has no row of.
	Prune bool
	// Start and End bound the event times, both inclusive; NoTime means no bound for Start and
	// the clock time of the run for End. (The zero Micros is 1970: a caller without bounds
	// says NoTime.) With a Start every file is read and none is recorded as taken.
	Start, End feature.Micros
	// Shard and Shards restrict the run to the entities of one shard; each shard has its
	// own progress. Shards 0 or 1: all entities.
	Shard, Shards int
	// RejectsDir is where `<run>-<view>.ndjson` lists the rejected rows; "" for nowhere.
	RejectsDir string
}

func (r Request) check() error {
	switch {
	case r.Run == 0 && !r.DryRun:
		return fmt.Errorf("materialize: %w: run number 0", feature.ErrInvalid)
	case len(r.Views) == 0:
		return fmt.Errorf("materialize: %w: no feature view given", feature.ErrInvalid)
	case r.Shards < 0 || r.Shard < 0 || r.Shard >= max(r.Shards, 1):
		return fmt.Errorf("materialize: %w: shard %d of %d; shards count from 0", feature.ErrInvalid, r.Shard, r.Shards)
	case r.Prune && !r.Full:
		return fmt.Errorf("materialize: %w: prune needs full: only a run that reads every file knows what vanished", feature.ErrInvalid)
	case r.Prune && (r.Start != feature.NoTime || r.End != feature.NoTime):
		return fmt.Errorf("materialize: %w: prune goes with no start and no end: rows outside the bounds would look vanished", feature.ErrInvalid)
	case r.Start != feature.NoTime && r.End != feature.NoTime && r.Start > r.End:
		return fmt.Errorf("materialize: %w: start %s is after end %s", feature.ErrInvalid, r.Start, r.End)
	}
	seen := map[feature.ViewID]bool{}
	for _, v := range r.Views {
		if v == nil || len(v.Features) == 0 {
			return fmt.Errorf("materialize: %w: a view without features", feature.ErrInvalid)
		}
		if seen[v.ID()] {
			return fmt.Errorf("materialize: %w: view %s is given twice", feature.ErrInvalid, v.ID())
		}
		seen[v.ID()] = true
	}
	return nil
}

// permanent reports errors that no retry within a run can cure.
func permanent(err error) bool {
	return errors.Is(err, feature.ErrDenied) || errors.Is(err, feature.ErrNotApplied) || errors.Is(err, feature.ErrLeaseLost)
}

// erased asks Config.Erased.
func (m *Materializer) erased(ctx context.Context) (func(feature.Key) (feature.Micros, bool), error) {
	if m.cfg.Erased == nil {
		return nil, nil
	}
	f, err := m.cfg.Erased(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the erased entities: %w; nothing was written", err)
	}
	return f, nil
}

// guarded reports whether a row tells of an erased time of its entity.
func guarded(erased func(feature.Key) (feature.Micros, bool), row *feature.Row) bool {
	if erased == nil {
		return false
	}
	until, ok := erased(row.Key)
	return ok && row.Event <= until
}
