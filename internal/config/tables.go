package config

import (
	"math"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// The declaration tables: one function per object of the file. Each binds the keys of the
// object to the fields of the struct it is given. Defaults stand here and nowhere else.

// document is what the file holds before names are resolved.
type document struct {
	project     string
	description string
	entities    []rawEntity
	sources     []feature.NamedSource
	views       []rawView
	services    []rawService
	datasets    []rawDataset
	online      Online
	backing     Backing
	reader      Reader
	server      Server
	offline     Offline
	jobs        []rawJob
	rto         time.Duration
}

type rawEntity struct {
	name, description string
	joinKeys          []feature.JoinKey
}

type rawView struct {
	name, description string
	version           int
	entities          []string
	ttl, retain       time.Duration
	source            feature.Source
	features          []rawFeature
}

type rawFeature struct {
	name, description string
	typ               feature.Type
	def               *node
}

type rawService struct {
	name, description, onStale string
	features                   []rawRef
}

type rawRef struct {
	ref, as  string
	joinKeys map[string]string
}

type rawDataset struct {
	Dataset
	refs []rawRef
}

type rawJob struct {
	Job
	materialize *rawMaterialize
	dataset     *DatasetJob
	rewarm      *rawRewarm
}

type rawMaterialize struct {
	views       []string
	full, prune bool
}

type rawRewarm struct {
	RewarmJob
	views []string
}

func documentTable(c *document) value {
	return object([]field{
		key("project", name(&c.project), "Name of the feature repository. It is part of every key in Redis.").must(),
		key("description", text(&c.description), "Free text."),
		key("entities", list(&c.entities, entityTable), "What features describe, and the columns that identify it.").must(),
		key("sources", list(&c.sources, sourceTable), `Named paths that queries refer to as {{source "name"}}.`),
		key("feature_views", list(&c.views, viewTable), "Named, versioned groups of features of one entity set, each with one source.").must(),
		key("feature_services", list(&c.services, serviceTable), "The named vectors that models read."),
		key("datasets", list(&c.datasets, datasetTable), "Training sets."),
		key("online", inline(&c.online, onlineTable), "The fast tier: Redis, or a server inside the process.").absent("embedded"),
		key("backing", inline(&c.backing, backingTable), "The durable tier: DynamoDB, or a SQLite file.").absent("SQLite in `.hearth/backing.db`"),
		key("reader", inline(&c.reader, readerTable), "How online reads behave."),
		key("server", inline(&c.server, serverTable), "The HTTP server of hearth serve."),
		key("offline", inline(&c.offline, offlineTable), "The engine that reads Parquet."),
		key("jobs", list(&c.jobs, jobTable), "What runs on a schedule (hearth jobs start, hearth serve --jobs) or by name (hearth jobs run NAME)."),
		key("recovery_time_objective", duration(&c.rto), "How long bringing back a cold online tier may take. hearth rewarm --plan and drills compare with it.").absent("no objective"),
	})
}

func entityTable(e *rawEntity) value {
	return object([]field{
		key("name", name(&e.name), "Name of the entity.").must(),
		key("join_keys", list(&e.joinKeys, joinKeyTable), "The columns that identify it, at least one.").must(),
		key("description", text(&e.description), "Free text."),
	})
}

func joinKeyTable(j *feature.JoinKey) value {
	return object([]field{
		key("name", name(&j.Name), "Name of the column.").must(),
		key("type", typeOf(&j.Type), "int64, int32, string, bool or bytes.").must(),
	})
}

func sourceTable(s *feature.NamedSource) value {
	return object([]field{
		key("name", name(&s.Name), "Name that queries use.").must(),
		key("path", path(&s.Path), "File, glob, folder (hive partitions) or s3://bucket/prefix/**.").must(),
	})
}

func viewTable(v *rawView) value {
	return object([]field{
		key("name", name(&v.name), "Name of the view.").must(),
		key("version", integer(&v.version, 1, math.MaxInt32), "Version of the view: publish 2 beside 1, switch readers, then retire 1.").or("1"),
		key("description", text(&v.description), "Free text."),
		key("entities", list(&v.entities, name), "The entities that the features describe, at least one.").must(),
		key("ttl", duration(&v.ttl), "How old a value may be and still count: a bound on the join in training sets, a verdict on freshness online.").or("0").absent("no bound"),
		key("retain", duration(&v.retain), "How long after its event time the backing tier keeps a value.").or("0").absent("for ever"),
		key("source", inline(&v.source, viewSourceTable), "Where the rows come from.").must(),
		key("features", list(&v.features, featureTable), "The features, at least one. Their order is part of the stored format.").must(),
	})
}

func viewSourceTable(s *feature.Source) value {
	return object([]field{
		key("path", path(&s.Path), "File, glob, folder (hive partitions) or s3://bucket/prefix/**."),
		key("query", localPath(&s.Query), `File of a SQL query over {{source "name"}}, instead of path. Windows and counters are computed there.`),
		key("timestamp_field", nonEmpty(&s.TimestampField), "Column of the event time: when the fact held.").must(),
		key("timestamp_unit", enum(&s.TimestampUnit, "s", "ms", "us", "ns"), "Unit of event times that are whole numbers since 1970.").absent("the column is a date or timestamp"),
		key("time_partitions", timePartitions(&s.TimePartitions), "A promise: the folders' names give the event time, in UTC, as in day=%Y-%m-%d or year=%Y/month=%m. Training sets then leave folders out unread; a file that breaks the promise is an error.").absent("names of folders leave nothing out"),
		key("created_timestamp_column", nonEmpty(&s.CreatedTimestampColumn), "Column of the time at which the row became known. It breaks ties and is what known_at compares."),
		key("deleted_column", nonEmpty(&s.DeletedColumn), "Boolean column: true deletes the key (a tombstone)."),
		key("field_mapping", mapping(&s.FieldMapping, "source column", "feature or join key"), "Columns whose names differ from the feature or join key they hold."),
	}, exactlyOne("path", "query"))
}

func featureTable(f *rawFeature) value {
	return object([]field{
		key("name", name(&f.name), "Name of the feature.").must(),
		key("type", typeOf(&f.typ), "int64, int32, float64, float32, string, bool, bytes, timestamp, or list<T> of one of them.").must(),
		key("default", anything(&f.def), "Served when there is no value, and trained on with fill_defaults.").absent("null"),
		key("description", text(&f.description), "Free text."),
	})
}

func serviceTable(s *rawService) value {
	return object([]field{
		key("name", name(&s.name), "Name of the service.").must(),
		key("features", list(&s.features, refTable), `What it reads, in order: "view:feature", "view@2:feature", "view:*".`).must(),
		key("on_stale", enum(&s.onStale, string(StaleValue), string(StaleDefault)), "What is served for a value older than its view's ttl: the last known value, or the default. The status is OUTSIDE_MAX_AGE either way.").or(string(StaleValue)),
		key("description", text(&s.description), "Free text."),
	})
}

// refTable accepts the short form, "view:feature", and the long one, a mapping.
func refTable(r *rawRef) value {
	short := text(&r.ref)
	long := object([]field{
		key("feature", text(&r.ref), `"view:feature", "view@2:feature" or "view:*".`).must(),
		key("as", name(&r.as), "Name for the view here, so that it can be joined a second time.").absent("the view's name"),
		key("join_keys", mapping(&r.joinKeys, "join key", "column"), "Spine columns (or names in a request) to join by, where they differ from the join keys."),
	})
	v := value{typeName: "feature reference", fields: long.fields, oneOf: []value{short, long}}
	v.schema = func() map[string]any { return map[string]any{"oneOf": []any{short.schema(), long.schema()}} }
	v.read = func(d *decoder, n *node) {
		switch {
		case n == nil:
		case n.kind == mapNode:
			long.read(d, n)
		case n.kind == stringNode:
			short.read(d, n)
		default:
			d.wrong(n, "a feature reference", `write "view:feature", or {feature: "view:feature", as: NAME, join_keys: {…}}`)
		}
	}
	return v
}

func datasetTable(c *rawDataset) value {
	return object([]field{
		key("name", name(&c.Name), "Name of the dataset.").must(),
		key("description", text(&c.Description), "Free text."),
		key("spine", inline(&c.Spine, spineTable), "The label rows: the training set has exactly these, once each, in this order.").must(),
		key("feature_service", name(&c.Service), "The service whose features are joined."),
		key("features", list(&c.refs, refTable), "The features to join, instead of a service."),
		key("full_feature_names", boolean(&c.FullFeatureNames), "Name every column view__feature, not only those that would collide.").or("false"),
		key("event_timestamps", boolean(&c.EventTimestamps), "Add each view's event time as a column.").or("false"),
		key("fill_defaults", boolean(&c.FillDefaults), "Replace missing features by their defaults, as the reader does.").or("false"),
		key("known_at", boolean(&c.KnownAt), "Take only rows that were known (created) at the label's time.").or("false"),
		key("output", inline(&c.Output, outputTable), "Where the training set goes."),
	}, exactlyOne("feature_service", "features"))
}

func spineTable(s *Spine) value {
	return object([]field{
		key("path", path(&s.Path), "File, glob, folder or s3://bucket/prefix/**.").must(),
		key("timestamp_field", nonEmpty(&s.TimestampField), "Column of the label's time.").must(),
		key("join_keys", mapping(&s.JoinKeys, "join key", "spine column"), "Columns of the join keys whose names differ.").absent("columns of the join keys' names"),
	})
}

func outputTable(o *Output) value {
	return object([]field{
		key("path", localPath(&o.Path), "Folder that is written.").absent("`out/NAME`"),
	})
}

func onlineTable(o *Online) value {
	return object([]field{
		key("redis", optional(&o.Redis, redisTable), "A Redis server or cluster."),
		key("embedded", optional(&o.Embedded, embeddedTable), "A Redis-protocol server inside the process, for trying out and for tests. It holds its data in memory: each process starts cold."),
		key("layout", enum(&o.Layout, "blob", "hash"), "blob: one string per entity and view, fastest. hash: one Redis hash with a readable field per feature, for people who read Redis from other languages.").or("blob"),
		key("tombstone_ttl", duration(&o.TombstoneTTL), "How long a deleted key blocks older writes. Longer than any materialize or rewarm may take for one page.").or("1h"),
	}, exactlyOne("redis", "embedded"))
}

func embeddedTable(*Embedded) value { return object(nil) }

func redisTable(r *Redis) value {
	return object([]field{
		key("addrs", list(&r.Addrs, hostPort), "host:port of the server, or of some nodes of the cluster.").must(),
		key("cluster", boolean(&r.Cluster), "Whether it is a Redis Cluster.").or("false"),
		key("username", text(&r.Username), "User of the access control list.").absent("the default user"),
		key("password_env", secretEnv(&r.Password), "Environment variable that holds the password."),
		key("password_file", secretFile(&r.Password), "File that holds the password. It is read for each connection, so it may be rotated."),
		key("tls", optional(&r.TLS, tlsTable), "TLS to the server. `tls: {}` turns it on with the system's authorities.").absent("no TLS"),
		key("iam_auth", optional(&r.IAMAuth, iamTable), "ElastiCache authentication with AWS credentials instead of a password. It needs username and tls."),
		key("db", integer(&r.DB, 0, 65535), "Numbered database. A cluster has only 0.").or("0"),
		key("pool_size", integer(&r.PoolSize, 0, 100000), "Connections per node for reads; 0 is what reader.peak_rps needs, or 10 per CPU.").or("0"),
		key("write_timeout", duration(&r.WriteTimeout), "Bound on each socket operation of writes; reads have reader.online_timeout.").or("3s"),
	}, atMostOne("password_env", "password_file", "iam_auth"))
}

func tlsTable(t *TLS) value {
	return object([]field{
		key("enabled", boolean(&t.Enabled), "false turns TLS off and keeps the other keys.").or("true"),
		key("ca_file", localPath(&t.CAFile), "Certificate authorities, PEM.").absent("the system's"),
		key("cert_file", localPath(&t.CertFile), "Client certificate, PEM."),
		key("key_file", localPath(&t.KeyFile), "Key of the client certificate, PEM."),
		key("server_name", nonEmpty(&t.ServerName), "Name to check the certificate against.").absent("the host of the address"),
		key("insecure_skip_verify", boolean(&t.InsecureSkipVerify), "Accept any certificate. For tests only.").or("false"),
	}, allOrNone("cert_file", "key_file"))
}

func iamTable(a *IAMAuth) value {
	return object([]field{
		key("cache_name", nonEmpty(&a.CacheName), "Replication group id, or name of the serverless cache.").must(),
		key("region", nonEmpty(&a.Region), "AWS region.").absent("as the AWS environment says"),
		key("serverless", boolean(&a.Serverless), "Whether the cache is serverless.").or("false"),
	})
}

func backingTable(b *Backing) value {
	return object([]field{
		key("dynamodb", optional(&b.DynamoDB, dynamoTable), "DynamoDB: the production tier. hearth apply creates the tables."),
		key("sqlite", optional(&b.SQLite, sqliteTable), "A SQLite file: the tier of a laptop. Several processes on one machine may share it."),
	}, exactlyOne("dynamodb", "sqlite"))
}

func dynamoTable(t *DynamoDB) value {
	return object([]field{
		key("table", tableName(&t.Table), "Table of the values.").absent("the project's name"),
		key("state_table", tableName(&t.StateTable), "Table of leases, watermarks, the ledger and checkpoints.").absent("table + `-state`"),
		key("region", text(&t.Region), "AWS region.").absent("as the AWS environment says"),
		key("endpoint", httpURL(&t.Endpoint), "Another endpoint than AWS: an emulator, a VPC endpoint.").absent("AWS"),
		key("max_write_units", integer(&t.MaxWriteUnits, 0, math.MaxInt32), "Write units a second that jobs may use; 0 is no bound.").or("0"),
		key("max_read_units", integer(&t.MaxReadUnits, 0, math.MaxInt32), "Read units a second that jobs may use; 0 is no bound.").or("0"),
		key("deletion_protection", boolean(&t.DeletionProtection), "Whether hearth apply protects the tables from deletion.").or("true"),
		key("point_in_time_recovery", boolean(&t.PointInTimeRecovery), "Whether hearth apply turns on point-in-time recovery.").or("true"),
	})
}

func tableName(dst *string) value {
	return checked(dst, "table name", "use 3 to 255 letters, digits, _ - and .", map[string]any{"type": "string", "pattern": `^[A-Za-z0-9_.-]{3,255}$`},
		validTableName)
}

func validTableName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return len(s) >= 3 && len(s) <= 255
}

func sqliteTable(s *SQLite) value {
	return object([]field{
		key("path", localPath(&s.Path), "The file.").or(".hearth/backing.db"),
	})
}

func readerTable(r *Reader) value {
	return object([]field{
		key("cache", inline(&r.Cache, cacheTable), "The cache inside the process."),
		key("online_timeout", positive(&r.OnlineTimeout), "Deadline of the online tier, per read.").or("20ms"),
		key("backing_timeout", positive(&r.BackingTimeout), "Deadline of the backing tier, per read.").or("100ms"),
		key("max_backing_rps", integer(&r.MaxBackingRPS, 1, math.MaxInt32), "Requests a second that reads may send to the backing tier; one asks for up to 100 keys.").or("500"),
		key("peak_rps", integer(&r.PeakRPS, 0, math.MaxInt32), "Reads a second of one process at the peak: sizes the connection pool to Redis where online.redis.pool_size is not set; 0 is unknown.").or("0"),
		key("negative_ttl", duration(&r.NegativeTTL), "How long an absent key is remembered; 0 is not at all.").or("1s"),
		key("serve_stale", duration(&r.ServeStale), "How long past its time a cached value may be served when no tier answers; 0 is not at all.").or("1m"),
	})
}

func cacheTable(c *Cache) value {
	return object([]field{
		key("max_entries", integer(&c.MaxEntries, 0, math.MaxInt32), "Values held; 0 turns the cache off.").or("100000"),
		key("ttl", duration(&c.TTL), "How long a value is held; 0 turns the cache off.").or("5s"),
	})
}

func serverTable(s *Server) value {
	return object([]field{
		key("listen", listenAddress(&s.Listen), "Address to listen on.").or("127.0.0.1:6566"),
		key("insecure", boolean(&s.Insecure), "Serve features on other addresses than loopback without a token: only where the network itself keeps others out.").or("false"),
		key("auth", inline(&s.Auth, authTable), "Bearer tokens that requests must bring.").absent("reads are open, writes are off"),
		key("tls", optional(&s.TLS, serverTLSTable), "HTTPS.").absent("plain HTTP"),
		key("limits", inline(&s.Limits, serverLimitsTable), "What requests may ask for."),
		key("drain", inline(&s.Drain, serverDrainTable), "How the server ends."),
		key("tracing", optional(&s.Tracing, serverTracingTable), "OpenTelemetry spans. The standard variables (OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, …) tune them.").absent("no spans"),
	})
}

func serverLimitsTable(l *ServerLimits) value {
	return object([]field{
		key("body", size(&l.Body), "Bytes of a request.").or("8MiB"),
		key("entities", integer(&l.Entities, 1, math.MaxInt32), "Entities of a read.").or("10000"),
		key("features", integer(&l.Features, 1, math.MaxInt32), "Features of a read that lists them.").or("1000"),
		key("values", integer(&l.Values, 1, math.MaxInt32), "Entities × features of a read.").or("1000000"),
		key("requests", integer(&l.Requests, 1, math.MaxInt32), "Requests at once; more are answered 429.").or("1024"),
		key("read_time", duration(&l.ReadTime), "Time of a read.").or("5s"),
	})
}

func serverDrainTable(d *ServerDrain) value {
	return object([]field{
		key("delay", duration(&d.Delay), "How long requests are still taken after /readyz has begun to say no, for load balancers to notice.").or("0s"),
		key("timeout", duration(&d.Timeout), "How long requests and runs under way may take to end.").or("15s"),
	})
}

func serverTracingTable(t *ServerTracing) value {
	return object([]field{
		key("otlp_endpoint", httpURL(&t.OTLPEndpoint), "Collector that takes OTLP over HTTP, as http://127.0.0.1:4318.").must(),
	})
}

func authTable(a *Auth) value {
	return object([]field{
		key("read_token_env", secretEnv(&a.ReadToken), "Environment variable that holds the token for feature reads."),
		key("read_token_file", secretFile(&a.ReadToken), "File that holds it."),
		key("admin_token_env", secretEnv(&a.AdminToken), "Environment variable that holds the token for writes, jobs and the status page. Without it the server does not write."),
		key("admin_token_file", secretFile(&a.AdminToken), "File that holds it."),
	}, atMostOne("read_token_env", "read_token_file"), atMostOne("admin_token_env", "admin_token_file"))
}

func serverTLSTable(t *ServerTLS) value {
	return object([]field{
		key("cert_file", localPath(&t.CertFile), "Certificate chain, PEM.").must(),
		key("key_file", localPath(&t.KeyFile), "Key, PEM.").must(),
	})
}

func offlineTable(o *Offline) value {
	return object([]field{
		key("engine", engine(&o.Engine), "The engine.").or("duckdb"),
		key("memory", size(&o.Memory), "Memory bound; larger inputs spill to temp_dir.").absent("half of the machine"),
		key("temp_dir", localPath(&o.TempDir), "Folder for what does not fit into memory.").or(".hearth/tmp"),
		key("threads", integer(&o.Threads, 0, 4096), "Threads; 0 is one per CPU.").or("0"),
		key("chunk", size(&o.Chunk), "Bytes of new files that a materialization takes before it records them: about what is read again after a kill.").or("1GiB"),
		key("s3", inline(&o.S3, s3Table), "How s3:// paths are read."),
	})
}

func s3Table(s *S3) value {
	return object([]field{
		key("endpoint", httpURL(&s.Endpoint), "Another endpoint than AWS.").absent("AWS"),
		key("region", text(&s.Region), "Region.").absent("as the AWS environment says"),
		key("path_style", boolean(&s.PathStyle), "Put the bucket into the path instead of the host name.").or("false"),
		key("staging_dir", localPath(&s.StagingDir), "Folder that objects are copied to before they are read.").or(".hearth/staging"),
		key("staging", size(&s.Staging), "Space that staged objects may take: those used least recently go first, those in use stay.").absent("20GiB"),
	})
}

func jobTable(j *rawJob) value {
	return object([]field{
		key("name", name(&j.Name), "Name of the job.").must(),
		key("schedule", nonEmpty(&j.Schedule), `Cron line ("5 * * * *"), @hourly, @daily, @weekly, @monthly, @yearly, or @every 90s.`).absent("runs only by name"),
		key("timezone", zone(&j.Timezone), "Time zone of the cron line, by IANA name.").or("UTC"),
		key("timeout", duration(&j.Timeout), "Bound on one run with its retries; 0 is no bound.").or("0"),
		key("retries", integer(&j.Retries, 0, 100), "How often a failed run is tried again, with growing pauses.").or("2"),
		key("catch_up", enum(&j.CatchUp, "skip", "last", "all"), "What happens to due times that passed while nothing ran: none, only the last, or all of them.").or("last"),
		key("materialize", optional(&j.materialize, materializeTable), "Bring new rows into both tiers."),
		key("dataset", optional(&j.dataset, datasetJobTable), "Build a training set."),
		key("rewarm", optional(&j.rewarm, rewarmTable), "Fill the online tier from the backing tier."),
	}, exactlyOne("materialize", "dataset", "rewarm"))
}

func materializeTable(m *rawMaterialize) value {
	return object([]field{
		key("feature_views", list(&m.views, text), `Views: "name" (version 1) or "name@2".`).absent("all"),
		key("full", boolean(&m.full), "Take every file, not only new and changed ones.").or("false"),
		key("prune", boolean(&m.prune), "With full: delete keys that vanished from the source.").or("false"),
	})
}

func datasetJobTable(b *DatasetJob) value {
	return object([]field{
		key("name", name(&b.Name), "The dataset.").must(),
	})
}

func rewarmTable(r *rawRewarm) value {
	return object([]field{
		key("if_cold", boolean(&r.IfCold), "Only when the online tier, or a shard of it, lost its data.").or("false"),
		key("feature_views", list(&r.views, text), `Views: "name" (version 1) or "name@2".`).absent("all"),
		key("segments", integer(&r.Segments, 0, 1000000), "Parallel scan segments; 0 chooses by size.").or("0"),
		key("max_read_rate", integer(&r.MaxReadRate, 0, math.MaxInt32), "Read units a second; 0 is paced by latency alone.").or("0"),
		key("max_write_rate", integer(&r.MaxWriteRate, 0, math.MaxInt32), "Keys a second; 0 is paced by latency alone.").or("0"),
		key("max_slowdown", number(&r.MaxSlowdown, 1.01, 1000), "Keep the p99 of live reads within so many times what it is before the run, for example 2.").absent("no such bound"),
		key("verify", number(&r.Verify, 0, 1), "Share of the keys to compare afterwards, 0 to 1.").or("0"),
	})
}

// positive is a duration that must not be 0.
func positive(dst *time.Duration) value {
	v := duration(dst)
	read := v.read
	v.read = func(d *decoder, n *node) {
		before := len(d.problems)
		if read(d, n); n != nil && *dst == 0 && len(d.problems) == before {
			d.add(d.pos(n), "a deadline of 0 would fail every read", durationRemedy)
		}
	}
	return v
}

// engine accepts duckdb, and tells people who ask for an engine that runs elsewhere where.
func engine(dst *string) value {
	v := enum(dst, "duckdb")
	read := v.read
	v.read = func(d *decoder, n *node) {
		if n != nil && n.kind == stringNode {
			switch n.text {
			case "spark", "trino", "athena":
				d.add(d.pos(n), "engine "+n.text+" does not run inside Hearth", "keep duckdb here, and run the queries of sql/ on the cluster")
				return
			}
		}
		read(d, n)
	}
	return v
}
