// Package dynamodb is the backing tier in Amazon DynamoDB: one on-demand table of values,
// one of run state. It owns the AWS client: nothing else in the tree speaks to DynamoDB.
//
// The table of values has the partition key e (entity key) and the sort key v
// (view@version), and the attributes r (24 bytes of version, compared as bytes), p (the
// stored value), h (8 bytes, hash of the content) and, where the view has a retain
// time, x (unix seconds, DynamoDB's time to live). The state table has k (kind), n (name),
// b (JSON), rev (revision) and x.
package dynamodb

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go/logging"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/pace"
)

// Config configures [Open].
type Config struct {
	// Table holds the values. Required.
	Table string
	// StateTable holds the run state. Defaults to Table + "-state".
	StateTable string
	// Region defaults to what the AWS configuration says (AWS_REGION, the profile), and to
	// us-east-1 for a loopback Endpoint.
	Region string
	// Endpoint overrides where DynamoDB is: an emulator or a VPC endpoint. Defaults to AWS.
	Endpoint string
	// Credentials defaults to the AWS default chain (environment, profile, web identity,
	// container, instance). For a loopback Endpoint where the environment and the profile have
	// none, made-up ones are used, because emulators want a signature and do not check it.
	Credentials aws.CredentialsProvider

	// Batches is how many requests of Put may be in flight, over all calls, and how many of
	// Get and Delete. Fewer are when DynamoDB throttles writes. Defaults to 8.
	Batches int
	// MaxWriteUnits bounds the write units per second that Put and Delete use, by the sizes of
	// the items. Defaults to 0: no bound but the table's; throttles slow it down in any case.
	MaxWriteUnits float64
	// MaxReadUnits bounds the read units per second that Scan and Fetch use, by what DynamoDB reports.
	// Defaults to 0: no bound.
	MaxReadUnits float64
	// ConsistentRead makes Get strongly consistent, for twice the read units. Defaults to
	// false: a reader may see a value of a moment ago, which is never older than what its
	// own writes acknowledged by more than that moment.
	ConsistentRead bool
	// ConsistentScan makes Scan strongly consistent, for twice the read units. Defaults to
	// false.
	ConsistentScan bool
	// StockDecoder reads scan pages with the AWS client's own decoder instead of the fast one.
	// Defaults to false.
	StockDecoder bool

	// RetryFor is how long a call goes on without any progress while DynamoDB throttles or
	// does not answer. Defaults to 60 s; a deadline of the context ends it earlier.
	RetryFor time.Duration
	// AttemptTimeout bounds one HTTP request. Defaults to 15 s.
	AttemptTimeout time.Duration
	// RetryMaxAttempts is how often the AWS client sends one request that failed in transit.
	// Defaults to 3. Throttles beyond that are handled by RetryFor.
	RetryMaxAttempts int
	// HTTPClient replaces the transport. Defaults to a pooled one; tests put faults here.
	HTTPClient interface {
		Do(*http.Request) (*http.Response, error)
	}

	// NoPointInTimeRecovery leaves point-in-time recovery of the table of values as it is.
	// Defaults to false: Apply turns it on.
	NoPointInTimeRecovery bool
	// NoDeletionProtection leaves deletion protection as it is. Defaults to false: Apply turns
	// it on for both tables.
	NoDeletionProtection bool
	// KMSKey encrypts both tables under this key (id, ARN or alias; "aws/dynamodb" for the
	// AWS-managed one) when Apply creates them. Defaults to "": DynamoDB's own key.
	KMSKey string

	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Clock defaults to the machine's.
	Clock clock.Clock
}

// Store is a backing tier in DynamoDB. It implements backing.Store.
type Store struct {
	cfg      Config
	client   *ddb.Client
	log      *slog.Logger
	clock    clock.Clock
	loopback bool
	idle     func()        // closes idle connections
	slots    chan struct{} // requests of Get and Delete in flight

	fetchInput *ddb.BatchGetItemInput // of every Fetch
	ahead      *ahead

	window *pace.Window // batches of Put in flight, over all calls
	write  *pace.Bucket // units of Put and Delete
	read   *pace.Bucket // units of Scan and Fetch
	order  hitRates
	forms  forms
	stats  counters
}

var _ backing.Store = (*Store)(nil)

// Stats counts what is worth a metric.
type Stats struct {
	Throttles      int64 // refusals for rate, of requests and of single statements
	PutItems       int64 // records written one by one because batches could not
	StockPages     int64 // scan pages that the fast decoder gave back to the client's own
	ForeignItems   int64 // scanned items that are no value of Hearth
	ChecksumErrors int64 // responses whose checksum was wrong
}

type counters struct{ throttles, putItems, stockPages, foreign, checksums atomic.Int64 }

// Stats returns the counters since Open.
func (s *Store) Stats() Stats {
	return Stats{
		Throttles: s.stats.throttles.Load(), PutItems: s.stats.putItems.Load(), StockPages: s.stats.stockPages.Load(),
		ForeignItems: s.stats.foreign.Load(), ChecksumErrors: s.stats.checksums.Load(),
	}
}

var tableName = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,255}$`)

// Open prepares a store. It reads the AWS configuration but sends nothing to DynamoDB.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if !tableName.MatchString(cfg.Table) {
		return nil, fmt.Errorf("open dynamodb store: %w: table name %q: use 3 to 255 letters, digits, '_', '-' and '.'", feature.ErrInvalid, cfg.Table)
	}
	cfg.StateTable = cmp.Or(cfg.StateTable, cfg.Table+"-state")
	if !tableName.MatchString(cfg.StateTable) || cfg.StateTable == cfg.Table {
		return nil, fmt.Errorf("open dynamodb store: %w: state table name %q", feature.ErrInvalid, cfg.StateTable)
	}
	cfg.Batches = positive(cfg.Batches, 8)
	cfg.RetryFor = positive(cfg.RetryFor, time.Minute)
	cfg.AttemptTimeout = positive(cfg.AttemptTimeout, 15*time.Second)
	cfg.RetryMaxAttempts = positive(cfg.RetryMaxAttempts, 3)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	s := &Store{cfg: cfg, log: cfg.Logger, clock: cfg.Clock, idle: func() {}, slots: make(chan struct{}, cfg.Batches)}
	s.window = pace.NewWindow(pace.WindowConfig{Clock: cfg.Clock, Max: cfg.Batches, MaxPause: 250 * time.Millisecond})
	s.fetchInput = fetchInput(cfg.Table)
	s.write = pace.NewBucket(cfg.Clock, cfg.MaxWriteUnits, 0)
	s.read = pace.NewBucket(cfg.Clock, cfg.MaxReadUnits, 0)
	if cfg.Endpoint != "" {
		u, err := url.Parse(cfg.Endpoint)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("open dynamodb store: %w: endpoint %q; write for example http://127.0.0.1:8000", feature.ErrInvalid, cfg.Endpoint)
		}
		s.loopback = isLoopback(u.Hostname())
	}
	awsCfg, err := s.loadAWS(ctx)
	if err != nil {
		return nil, err
	}
	client := cfg.HTTPClient
	if client == nil {
		transport := newTransport(cfg.Batches)
		s.idle = transport.CloseIdleConnections
		client = &http.Client{Transport: transport, Timeout: cfg.AttemptTimeout}
	}
	s.ahead = &ahead{http: client, signer: v4.NewSigner(), clock: cfg.Clock}
	s.client = ddb.NewFromConfig(awsCfg, func(o *ddb.Options) {
		if cfg.Endpoint != "" {
			o.BaseEndpoint = &cfg.Endpoint
		}
		o.HTTPClient = wholeBody{client, s.ahead}
		o.Retryer = retry.NewStandard(func(ro *retry.StandardOptions) {
			ro.MaxAttempts = cfg.RetryMaxAttempts
			// The client's own pauses are up to a second each, for a connection that was reset.
			ro.Backoff = retry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) {
				return rand.N(min(basePause<<min(attempt, 5), time.Second)), nil
			})
			// The client's retry quota is shared by all calls and would fail some for the errors
			// of others; the bound here is per call.
			ro.RateLimiter = ratelimit.None
		})
		o.Protocol = &protocol{ClientProtocol: o.Protocol, stats: &s.stats}
		o.DisableValidateResponseChecksum = true // done by protocol, where it has an effect
		o.Logger = logging.Nop{}                 // errors come back to us, and are said once
	})
	s.ahead.credentials = s.client.Options().Credentials
	return s, nil
}

func positive[T int | time.Duration](v, def T) T {
	if v > 0 {
		return v
	}
	return def
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// loadAWS reads region and credentials.
func (s *Store) loadAWS(ctx context.Context) (aws.Config, error) {
	opts := []func(*awsconfig.LoadOptions) error{}
	if s.cfg.Region != "" {
		opts = append(opts, awsconfig.WithRegion(s.cfg.Region))
	}
	if s.cfg.Credentials != nil {
		opts = append(opts, awsconfig.WithCredentialsProvider(s.cfg.Credentials))
	}
	if s.loopback {
		// An emulator has no instance role: do not wait for a metadata service.
		opts = append(opts, awsconfig.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return cfg, fmt.Errorf("open dynamodb store: load the AWS configuration: %w", err)
	}
	if cfg.Region == "" && s.loopback {
		cfg.Region = "us-east-1"
	}
	if cfg.Region == "" {
		return cfg, fmt.Errorf("open dynamodb store: %w: no AWS region; set backing.dynamodb.region or AWS_REGION", feature.ErrInvalid)
	}
	s.cfg.Region = cfg.Region
	if s.loopback && s.cfg.Credentials == nil {
		if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
			cfg.Credentials = credentials.NewStaticCredentialsProvider("local", "local", "")
		}
	}
	return cfg, nil
}

// Close releases the connections.
func (s *Store) Close() error {
	s.idle()
	return nil
}

// where says which DynamoDB this is, for errors.
func (s *Store) where() string {
	if s.cfg.Endpoint != "" {
		return s.cfg.Endpoint
	}
	return s.cfg.Region
}

// acquire takes a slot for one request of Get or Delete.
func (s *Store) acquire(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Store) release() { <-s.slots }
