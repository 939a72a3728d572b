// Package config reads hearth.yaml. One set of declaration tables (tables.go) drives
// validation, defaults, the published JSON Schema and the reference in docs, so none of
// them can say something else than the others. Every problem of a file is reported at
// once, with its place and what would be right.
package config

import (
	"time"

	"github.com/hearthstore/hearth/feature"
)

// Config is a feature repository, read and checked.
type Config struct {
	// Project holds the entities, views and services. Views know their join keys, sorted
	// by name; source paths are absolute.
	Project feature.Project
	// Path is the file, Dir its folder; both absolute when [Load] read it.
	Path, Dir string
	// Digest is the SHA-256 of the content: equal for files that say the same, whatever
	// their comments, order of keys or place. Secrets are not part of it.
	Digest string
	// Description is free text.
	Description string
	// OnStale says per service what a reader serves for values older than their TTL.
	OnStale map[string]OnStale
	// Datasets are the training sets.
	Datasets []Dataset
	// Online is the Redis tier. Defaults to embedded.
	Online Online
	// Backing is the durable tier. Defaults to SQLite in .hearth/backing.db.
	Backing Backing
	// Reader tunes reads.
	Reader Reader
	// Server is the HTTP server.
	Server Server
	// Offline is the engine over Parquet.
	Offline Offline
	// Jobs are what runs on a schedule.
	Jobs []Job
	// RecoveryTimeObjective is how long a rewarm may take: plans and drills are compared
	// with it. Defaults to 0, none.
	RecoveryTimeObjective time.Duration

	places map[string]Pos
}

// OnStale is what a reader serves for a value that is older than its view's TTL; the
// status is OUTSIDE_MAX_AGE in either case.
type OnStale string

// What a service serves for a stale value.
const (
	StaleValue   OnStale = "value"   // the last known value
	StaleDefault OnStale = "default" // the feature's default, or null
)

// Dataset is one training set.
type Dataset struct {
	Name        string
	Description string
	// Spine holds the label rows.
	Spine Spine
	// Service is the feature service; "" when Features are listed.
	Service string
	// Features are the references that the selection was made of.
	Features []feature.FeatureRef
	// Selection is the resolved list of features.
	Selection *feature.Selection
	// FullFeatureNames names columns view__feature. Defaults to false.
	FullFeatureNames bool
	// EventTimestamps adds each view's event time as a column. Defaults to false.
	EventTimestamps bool
	// FillDefaults replaces missing features by their defaults. Defaults to false: null.
	FillDefaults bool
	// KnownAt takes only rows that were known (created) at the label's time. Defaults to false.
	KnownAt bool
	// Output is where the rows go.
	Output Output
}

// Spine is the label rows of a training set.
type Spine struct {
	Path           string
	TimestampField string
	// JoinKeys maps every join key that the selection needs to a spine column. A key that
	// the file does not list maps to the column of its own name.
	JoinKeys map[string]string
}

// Output is where a training set goes.
type Output struct {
	Path string // absolute folder. Defaults to out/NAME beside the file.
}

// Online is the fast tier: exactly one of Redis and Embedded is set.
type Online struct {
	Redis    *Redis
	Embedded *Embedded
	// Layout is "blob" or "hash". Defaults to blob.
	Layout string
	// TombstoneTTL is how long a deleted key blocks older writes. Defaults to 1h.
	TombstoneTTL time.Duration
}

// Embedded is the Redis-protocol server inside the process. It holds its data in memory:
// each process starts cold.
type Embedded struct{}

// Redis is a server or cluster.
type Redis struct {
	Addrs    []string
	Cluster  bool   // defaults to false
	Username string // defaults to ""
	Password Secret // password_env or password_file
	TLS      *TLS   // nil: no TLS
	IAMAuth  *IAMAuth
	DB       int // defaults to 0
	PoolSize int // connections per node for reads; 0: 10 per CPU
	// WriteTimeout bounds each socket operation of writes. Defaults to 3s.
	WriteTimeout time.Duration
}

// TLS is the client side of TLS.
type TLS struct {
	Enabled            bool   // defaults to true
	CAFile             string // "": the system's authorities
	CertFile, KeyFile  string // a client certificate; "" for none
	ServerName         string // "": the host of the address
	InsecureSkipVerify bool   // defaults to false
}

// IAMAuth is ElastiCache's authentication with AWS credentials instead of a password.
type IAMAuth struct {
	CacheName  string
	Region     string // "": as the AWS environment says
	Serverless bool   // defaults to false
}

// Backing is the durable tier: exactly one of DynamoDB and SQLite is set.
type Backing struct {
	DynamoDB *DynamoDB
	SQLite   *SQLite
}

// DynamoDB is the production backing tier.
type DynamoDB struct {
	Table      string // defaults to the project's name
	StateTable string // defaults to Table + "-state"
	Region     string // "": as the AWS environment says
	Endpoint   string // "": AWS
	// MaxWriteUnits and MaxReadUnits pace jobs, in capacity units a second. 0: no bound.
	MaxWriteUnits, MaxReadUnits int
	DeletionProtection          bool // defaults to true
	PointInTimeRecovery         bool // defaults to true
}

// SQLite is the backing tier of a laptop.
type SQLite struct {
	Path string // defaults to .hearth/backing.db
}

// Reader tunes reads.
type Reader struct {
	Cache          Cache
	OnlineTimeout  time.Duration // defaults to 20ms
	BackingTimeout time.Duration // defaults to 100ms
	MaxBackingRPS  int           // defaults to 500; requests a second to the backing tier
	PeakRPS        int           // defaults to 0, unknown; sizes the connection pool to Redis
	NegativeTTL    time.Duration // defaults to 1s: how long an absent key is remembered
	// ServeStale is how long past its cache TTL a cached value may still be served when no
	// tier answers. Defaults to 1m; 0 for never.
	ServeStale time.Duration
}

// Cache is the reader's in-process cache.
type Cache struct {
	MaxEntries int           // defaults to 100000; 0 turns the cache off
	TTL        time.Duration // defaults to 5s; 0 turns the cache off
}

// Server is the HTTP server.
type Server struct {
	Listen   string // defaults to 127.0.0.1:6566
	Insecure bool   // other addresses than loopback without a read token; defaults to false
	Auth     Auth
	TLS      *ServerTLS // nil: plain HTTP
	Limits   ServerLimits
	Drain    ServerDrain
	Tracing  *ServerTracing // nil: no spans
}

// Auth holds the tokens that requests must bring. Without a read token reads are open;
// without an admin token nothing is written.
type Auth struct {
	ReadToken  Secret // for feature reads
	AdminToken Secret // for writes, jobs and the status page
}

// ServerLimits bounds what requests may ask for.
type ServerLimits struct {
	Body     int64         // bytes of a request; defaults to 8MiB
	Entities int           // of a read; defaults to 10000
	Features int           // of a read; defaults to 1000
	Values   int           // entities × features of a read; defaults to 1000000
	Requests int           // at once; defaults to 1024
	ReadTime time.Duration // of a read; defaults to 5s
}

// ServerDrain is how the server ends.
type ServerDrain struct {
	Delay   time.Duration // requests are still taken after /readyz says no; defaults to 0
	Timeout time.Duration // for requests and runs under way; defaults to 15s
}

// ServerTracing says where spans go.
type ServerTracing struct {
	OTLPEndpoint string // OTLP over HTTP
}

// ServerTLS is the server side of TLS.
type ServerTLS struct {
	CertFile, KeyFile string
}

// Offline is the engine over Parquet.
type Offline struct {
	Engine  string // defaults to duckdb
	Memory  int64  // bytes; 0: half of the machine
	TempDir string // defaults to .hearth/tmp
	Threads int    // 0: all
	Chunk   int64  // bytes of files that a materialization takes at once; defaults to 1 GiB
	S3      S3
}

// S3 tunes how s3:// sources are read.
type S3 struct {
	Endpoint   string // "": AWS
	Region     string // "": as the AWS environment says
	PathStyle  bool   // defaults to false
	StagingDir string // defaults to .hearth/staging
	Staging    int64  // bytes that staged files may take; 0: 20 GiB
}

// Job is what runs on a schedule, or by name. Exactly one of Materialize, Dataset and
// Rewarm is set.
type Job struct {
	Name     string
	Schedule string        // "": only by name
	Timezone string        // defaults to UTC
	Timeout  time.Duration // 0: none
	Retries  int           // defaults to 2
	CatchUp  string        // skip, last or all. Defaults to last

	Materialize *MaterializeJob
	Dataset     *DatasetJob
	Rewarm      *RewarmJob

	// Pos is the place of the schedule, for the report of a line that cannot be parsed.
	Pos Pos
}

// Kind is the word for what the job does: materialize, dataset or rewarm.
func (j *Job) Kind() string {
	switch {
	case j.Materialize != nil:
		return "materialize"
	case j.Dataset != nil:
		return "dataset"
	}
	return "rewarm"
}

// MaterializeJob brings new rows into the tiers.
type MaterializeJob struct {
	FeatureViews []feature.ViewID // empty: all
	Full         bool             // defaults to false: only new or changed files
	Prune        bool             // with Full: delete what vanished. Defaults to false
}

// DatasetJob builds a training set.
type DatasetJob struct {
	Name string
}

// RewarmJob fills the online tier from the backing tier.
type RewarmJob struct {
	IfCold       bool             // defaults to false: always
	FeatureViews []feature.ViewID // empty: all
	Segments     int              // 0: chosen by size
	MaxReadRate  int              // read units a second; 0: paced by latency alone
	MaxWriteRate int              // keys a second; 0: paced by latency alone
	MaxSlowdown  float64          // of the p99 of live reads, above 1; 0: paced by the puts' latency alone
	Verify       float64          // share of keys to compare afterwards, 0 to 1. Defaults to 0
}

// Dataset returns the named dataset, or nil.
func (c *Config) Dataset(name string) *Dataset {
	for i := range c.Datasets {
		if c.Datasets[i].Name == name {
			return &c.Datasets[i]
		}
	}
	return nil
}

// Job returns the named job, or nil.
func (c *Config) Job(name string) *Job {
	for i := range c.Jobs {
		if c.Jobs[i].Name == name {
			return &c.Jobs[i]
		}
	}
	return nil
}

// Locate fills in file, line and column of problems that know only the path of what they
// complain about (feature_views[0].source.path), or of something inside it.
func (c *Config) Locate(ps feature.Problems) feature.Problems {
	for i := range ps {
		for path := ps[i].Path; path != "" && ps[i].Line == 0; path = parentPath(path) {
			if at, ok := c.places[path]; ok {
				ps[i].File, ps[i].Line, ps[i].Column = at.File, at.Line, at.Column
			}
		}
	}
	return ps
}

func parentPath(path string) string {
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '.' || path[i] == '[' {
			return path[:i]
		}
	}
	return ""
}
