package rewarm

import (
	"context"

	"github.com/hearthstore/hearth/feature"
)

// Backing is the durable tier as a rewarm sees it. It is only read.
type Backing interface {
	// Scan reads one page of one segment into page, reusing its memory. The union of all
	// pages of all segments holds every record that exists throughout the scan; a record
	// may come twice, and one that changes meanwhile comes in one of its versions. Errors
	// match feature.ErrThrottled where waiting helps.
	Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error
	// Get reads single values; results are aligned with refs.
	Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error)
	// Table says how large the table is, as far as the store knows without reading it.
	Table(ctx context.Context) (Table, error)
}

// Fetcher is a Backing that reads single values as cheaply as it scans. The hot-first phase
// uses it, if Backing has it, instead of Get.
type Fetcher interface {
	// Fetch reads up to fetchBatch values into page, reusing its memory; refs differ. What the
	// store has not is not on the page. left are refs that it did not read, for its rate or the
	// size of the answer: they are to be asked for again. Errors match feature.ErrThrottled
	// where waiting helps.
	Fetch(ctx context.Context, refs []feature.Ref, page *feature.ScanPage) (left []feature.Ref, err error)
}

// Table is an estimate of what the backing tier holds. DynamoDB refreshes its own every
// six hours, so zero may mean "not known yet".
type Table struct {
	Name  string
	Items int64
	Bytes int64
}

// Online is the fast tier as a rewarm sees it.
type Online interface {
	// Put stores add-or-newer and reports per record, aligned by index. It is idempotent.
	// A tombstone supersedes an older value. An error means that nothing could be tried.
	Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error)
	// Get reads single values; results are aligned with refs.
	Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error)
	// Warmth says which shards lost their markers.
	Warmth(ctx context.Context) (Warmth, error)
	// ColdFilter returns a function that is true for refs in a shard that is cold now, or
	// that was when an earlier call returned before. The state is for later calls: the parts
	// of a tier may change hands while they are filled.
	ColdFilter(ctx context.Context, before []byte) (cold func(feature.Ref) bool, state []byte, err error)
	// MarkWarm writes the markers on every shard. It is idempotent.
	MarkWarm(ctx context.Context, run uint64) error
	// Info says how full the tier is; all its shards together.
	Info(ctx context.Context) (Info, error)
	// Scan calls fn with batches of the refs of a view that the tier holds, in no order. A
	// ref that is there for the whole scan comes at least once. fn's error ends the scan.
	Scan(ctx context.Context, view feature.ViewID, fn func(refs []feature.Ref) error) error
}

// Warmth says what of an Online is there and filled.
type Warmth = feature.Warmth

// ShardWarmth is the warmth of one shard.
type ShardWarmth = feature.ShardWarmth

// Info says how full an Online is.
type Info = feature.OnlineInfo

// State keeps small named documents between runs and machines. Every save is conditional
// on the revision, so that two runs never move the same checkpoint unnoticed.
type State interface {
	// Load matches feature.ErrNotFound when there is no such document.
	Load(ctx context.Context, name string) (value []byte, revision int64, err error)
	// Save writes value if the stored revision is the given one (0: must not exist) and
	// returns the new revision; else the error matches feature.ErrConflict.
	Save(ctx context.Context, name string, value []byte, revision int64) (int64, error)
	// Delete removes the document of the given revision. An absent one is no error.
	Delete(ctx context.Context, name string, revision int64) error
}

// HotKeys knows what live traffic asks for.
type HotKeys interface {
	// HotKeys returns refs, hottest first, each once. Refs that no store has are allowed.
	HotKeys(ctx context.Context) ([]feature.Ref, error)
}
