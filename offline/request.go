package offline

import (
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// Spine names the label rows of a training set.
type Spine struct {
	// Path is a Parquet file, glob or folder, or CSV files. Several files are taken in
	// order of path; the order of the rows is the order of the training set.
	Path           string
	TimestampField string
	// JoinKeys maps a join key to the spine column that holds it, where the names differ.
	JoinKeys map[string]string
}

// Plan is how the newest row at or before a label is found. All plans give the same rows.
type Plan string

// The plans (docs/TRAINING_SETS.md).
const (
	PlanAuto   Plan = ""       // chosen per view from counts
	PlanIndex  Plan = "index"  // the labels in memory, and one pass over the keys and times of the features
	PlanASOF   Plan = "asof"   // sort-merge over the entities and times: safe for any shape
	PlanBucket Plan = "bucket" // hash join within time buckets of one TTL; needs a TTL
	PlanHash   Plan = "hash"   // hash join within the TTL
)

// DatasetRequest asks for one training set.
type DatasetRequest struct {
	Name      string // of the dataset
	Project   string
	Spine     Spine
	Selection *feature.Selection

	FullFeatureNames bool // name every column view__feature
	EventTimestamps  bool // add <view>__event_timestamp per view
	FillDefaults     bool // the view's default where there is no value
	KnownAt          bool // only rows whose created time is not after the label; rows without one count as known

	// Output is the folder that becomes the training set. An earlier training set there is
	// replaced whole; any other content is refused.
	Output string
	// FileFormat is "parquet" or "csv". Defaults to parquet.
	FileFormat string
	// PartitionRows splits the output into files of that many rows. Defaults to one file.
	PartitionRows int64
	// Plan forces a plan for every view. Defaults to choosing one per view.
	Plan Plan

	assembly Assembly // forced by tests
	tables   bool     // forced by tests: no index

	ConfigDigest string // recorded in the manifest and the files
	Service      string // recorded
	Run          uint64 // recorded
	Progress     telemetry.ProgressFunc
}
