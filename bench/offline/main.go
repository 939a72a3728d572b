// Command offline compares a training set built by Hearth with what the bare engine does
// with the queries that a person would write: a plain ASOF join, one ASOF join per view, and
// a hash join inside the TTL with row_number. All run on the same seeded data, each in a process of its own, in turns.
//
//	go run ./bench/offline                 # 5M rows per view, 1M labels; some minutes
//	go run ./bench/offline -scale 0.1 -runs 3
//	go run ./bench/offline -shape hot      # also long, few, wide, hive
//	go run ./bench/offline -scale 0.2 -memory 1073741824 -views 4,40   # Hearth alone: does memory grow with the views?
//	go run ./bench/offline -scale 4 -entities 1000000 -labels 5000000 -memory 1073741824 -runs 1
//	go run ./bench/offline -python venv/bin/python   # with Feast and Polars, where installed
//
// Hearth's time includes what the others do not do: the leakage audit, the content digest,
// the manifest with its statistics, and publishing. Feast and Polars take part where Python has
// them: their seconds leave their imports out, their CPU seconds and memory do not.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	_ "github.com/duckdb/duckdb-go/v2" // the bare engine

	"github.com/hearthstore/hearth/bench/internal/lab"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/telemetry"
	"github.com/hearthstore/hearth/offline"
)

type options struct {
	dir     string
	scale   float64
	runs    int
	memory  int64
	threads int
	child   string
	python  string
	shape   string
	limit   time.Duration
	only    string
	plan    string
	views   string

	entities, labels int64
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "folder for the data; kept when given. Defaults to a temporary folder")
	flag.Float64Var(&o.scale, "scale", 1, "1 is 5M rows per view, 100k entities, 1M labels")
	flag.Int64Var(&o.entities, "entities", 0, "entities. Defaults to what -scale says")
	flag.Int64Var(&o.labels, "labels", 0, "labels. Defaults to what -scale says")
	flag.IntVar(&o.runs, "runs", 3, "runs of each contender")
	flag.Int64Var(&o.memory, "memory", 4<<30, "memory limit in bytes")
	flag.IntVar(&o.threads, "threads", 2, "threads")
	flag.StringVar(&o.python, "python", "python3", "Python for Feast and Polars, which take part where they are installed")
	flag.StringVar(&o.shape, "shape", "even", "of the data: even; long (1,000 rows per entity, no TTL); hot (one entity with 30 % of all rows and 10 % of the labels); few (labels of 1 % of the entities); wide (a fifth of the rows, 100 features per view); hive (a folder per day of a year, labels of one week)")
	flag.StringVar(&o.views, "views", "", "build with Hearth alone, with each of these numbers of views over one file (4,40)")
	flag.DurationVar(&o.limit, "limit", 5*time.Minute, "a contender that takes longer is stopped, and takes no further part")
	flag.StringVar(&o.only, "only", "", "run this contender alone")
	flag.StringVar(&o.plan, "plan", "", "force Hearth's plan of every view: index, asof, bucket or hash. Defaults to its own choice")
	flag.StringVar(&o.child, "child", "", "run one contender and print its time (used by the benchmark itself)")
	flag.Parse()
	lab.Main("offline", func(ctx context.Context, _ io.Writer) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) (err error) {
	if o.child != "" {
		return child(ctx, o)
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "hearth-bench-*"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	// In a process of its own: on Linux a child's peak memory begins with its parent's.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, self, "-child", "generate", "-dir", o.dir, "-shape", o.shape, "-scale", strconv.FormatFloat(o.scale, 'g', -1, 64),
		"-entities", strconv.FormatInt(o.entities, 10), "-labels", strconv.FormatInt(o.labels, 10),
		"-memory", strconv.FormatInt(o.memory, 10), "-threads", strconv.Itoa(o.threads)).CombinedOutput(); err != nil {
		return fmt.Errorf("generate data: %w: %s", err, out)
	}
	if o.views != "" {
		return manyViews(ctx, o)
	}
	installed, err := probe(ctx, o)
	if err != nil {
		return err
	}
	names := append(slices.Clone(contenders), installed...)
	if o.shape != "even" { // the peers' script knows the views of that one
		names = slices.Clone(contenders)
	}
	if o.only != "" {
		names = []string{o.only}
	}
	sums := map[string]string{}
	results := map[string][]result{}
	for i := range o.runs {
		for _, name := range names {
			if r := results[name]; len(r) > 0 && r[len(r)-1].stopped {
				continue
			}
			r, err := spawn(ctx, o, name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			_, _ = fmt.Fprintf(os.Stderr, "run %d: %-16s %6.2f s  %6.2f CPU s  %5d MB  %s\n", i+1, name, r.Seconds, r.cpu, r.rss>>20, r.Note)
			results[name] = append(results[name], r)
		}
	}
	for _, name := range names { // after all runs, for its memory would count as theirs
		if r := results[name]; r[len(r)-1].stopped {
			continue
		}
		if sums[name], err = checksum(ctx, o, name); err != nil {
			return fmt.Errorf("check the result of %s: %w", name, err)
		}
	}
	return table(o, names, results, sums)
}

var contenders = []string{"hearth", "hash+row_number", "plain ASOF", "ASOF per view"}

type result struct {
	Seconds float64 `json:"seconds"`
	Note    string  `json:"note"`
	stopped bool    // at the limit, or out of memory
	rss     int64
	cpu     float64 // seconds of user and system time: on a busy machine the fairer figure
}

// spawn runs one contender in a process of its own, so that each has its own peak memory.
func spawn(ctx context.Context, o options, name string) (result, error) {
	self, err := os.Executable()
	if err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "-child", name, "-dir", o.dir, "-shape", o.shape, "-plan", o.plan, "-views", o.views, "-memory", strconv.FormatInt(o.memory, 10), "-threads", strconv.Itoa(o.threads))
	if slices.Contains(peers, name) {
		if cmd, err = peerCommand(ctx, o, name); err != nil {
			return result{}, err
		}
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if ctx.Err() != nil || err != nil && name != "hearth" {
		r := result{Seconds: o.limit.Seconds(), Note: "stopped at the limit", stopped: true}
		if ctx.Err() == nil {
			r.Note = fmt.Sprint("failed: ", err)
		}
		if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			r.rss = usage.Maxrss << 10
		}
		return r, nil
	}
	if err != nil {
		return result{}, err
	}
	var r result
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n")) // before the last one, libraries may say what they like
	if err := json.Unmarshal(lines[len(lines)-1], &r); err != nil {
		return result{}, fmt.Errorf("output %q: %w", out, err)
	}
	r.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.rss = usage.Maxrss << 10
	}
	return r, nil
}

func child(ctx context.Context, o options) error {
	if o.child == "generate" {
		return generate(ctx, o)
	}
	out := output(o, o.child)
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	started := clock.System.Now()
	var (
		r   result
		err error
	)
	if o.child == "hearth" {
		r.Note, err = hearth(ctx, o, out)
	} else {
		err = bare(ctx, o, out)
	}
	if err != nil {
		return err
	}
	r.Seconds = clock.System.Now().Sub(started).Seconds()
	return json.NewEncoder(os.Stdout).Encode(r)
}

const day = 24 * time.Hour

func hearth(ctx context.Context, o options, out string) (note string, err error) {
	e, err := offline.Open(ctx, offline.Config{MemoryBytes: o.memory, Threads: o.threads, TempDir: filepath.Join(o.dir, "tmp")})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	p := feature.Project{Name: "bench", Views: []feature.View{view(o, "a", o.ttl(3), "driver_id"), view(o, "b", o.ttl(14), "driver_id", "region_id")}}
	if o.views != "" {
		n, err := strconv.Atoi(o.views)
		if err != nil {
			return "", err
		}
		p.Views = nil
		for i := range n {
			v := view(o, "a", o.ttl(3), "driver_id")
			v.Name = fmt.Sprintf("v%d", i)
			p.Views = append(p.Views, v)
		}
	}
	var refs []feature.FeatureRef
	for i := range p.Views {
		refs = append(refs, feature.FeatureRef{View: p.Views[i].ID(), Feature: "*"})
	}
	sel, err := p.Resolve(refs)
	if err != nil {
		return "", err
	}
	var (
		stage, steps string
		since        time.Time
		used         time.Duration
	)
	m, err := e.BuildDataset(ctx, offline.DatasetRequest{Name: "bench", Spine: offline.Spine{Path: filepath.Join(o.dir, "spine.parquet"), TimestampField: "event_timestamp"}, Selection: sel, Output: out, Plan: offline.Plan(o.plan), FullFeatureNames: o.views != "",
		Progress: func(p telemetry.Progress) {
			if p.Stage != stage {
				now, cpu := clock.System.Now(), lab.CPU()
				if stage != "" {
					steps += fmt.Sprintf("; %s %.1f (%.1f)", stage, now.Sub(since).Seconds(), (cpu - used).Seconds())
				}
				stage, since, used = p.Stage, now, cpu
			}
		}})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("plans %s, %s; %d rows, %d leaks%s", m.Views[0].Plan, m.Views[1].Plan, m.Rows, m.Leaks, steps), nil
}

// ttl is a view's TTL of so many days: none where histories are long.
func (o options) ttl(days int) time.Duration {
	if o.shape == "long" {
		return 0
	}
	return time.Duration(days) * day
}

func view(o options, name string, ttl time.Duration, keys ...string) feature.View {
	v := feature.View{Name: name, Version: 1, TTL: ttl, Source: feature.Source{Path: o.path(name), TimestampField: "event_timestamp", CreatedTimestampColumn: "created"}}
	for _, k := range keys {
		v.JoinKeys = append(v.JoinKeys, feature.JoinKey{Name: k, Type: feature.Int64})
	}
	features := 10
	if o.shape == "wide" {
		features = 100
	}
	for i := range features {
		f := feature.Field{Name: fmt.Sprintf("%s_f%d", name, i), Type: feature.Float64}
		if i%10 >= 7 {
			f = feature.Field{Name: fmt.Sprintf("%s_s%d", name, i), Type: feature.String}
		}
		v.Features = append(v.Features, feature.Feature{Field: f})
	}
	return v
}

// path is where a view's rows are: a file, or a folder of folders by day.
func (o options) path(name string) string {
	if o.shape == "hive" && name != "spine" {
		return filepath.Join(o.dir, name)
	}
	return filepath.Join(o.dir, name+".parquet")
}

func columns(o options, alias, name string) string {
	v := view(o, name, 0)
	names := make([]string, len(v.Features))
	for i, f := range v.Features {
		names[i] = alias + "." + f.Name
	}
	return strings.Join(names, ", ")
}

// open opens the bare engine on one connection.
func open(ctx context.Context, o options) (*sql.Conn, func() error, error) {
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return nil, nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	closeAll := func() error { return errors.Join(conn.Close(), db.Close()) }
	for _, set := range []string{"SET TimeZone = 'UTC'", fmt.Sprintf("SET threads = %d", o.threads), fmt.Sprintf("SET memory_limit = '%dMiB'", o.memory>>20),
		"SET preserve_insertion_order = false", fmt.Sprintf("SET temp_directory = '%s'", filepath.Join(o.dir, "spill"))} {
		if _, err := conn.ExecContext(ctx, set); err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
	}
	return conn, closeAll, nil
}

// bare runs what a person would write.
func bare(ctx context.Context, o options, out string) (err error) {
	conn, closeAll, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	file := func(name string) string {
		if o.shape == "hive" && name != "spine" {
			return "read_parquet('" + o.path(name) + "/*/*.parquet', hive_partitioning = true)"
		}
		return "read_parquet('" + o.path(name) + "')"
	}
	target := filepath.Join(out, "part.parquet")
	statements := o.statements(file, target)
	for _, s := range statements {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// statements are what a person would write for a contender.
func (o options) statements(file func(string) string, target string) (out []string) {
	fresh := func(value, label string, days int) string { // "" without a TTL
		if o.ttl(days) == 0 {
			return "true"
		}
		return fmt.Sprintf("%s >= %s - to_microseconds(%d)", value, label, o.ttl(days).Microseconds())
	}
	views := []struct {
		name, on string
		days     int
	}{{"a", "s.driver_id = f.driver_id", 3}, {"b", "s.driver_id = f.driver_id AND s.region_id = f.region_id", 14}}
	if o.child == "plain ASOF" { // ties as they come, in no order, the NULL guard forgotten
		list, joins := "", ""
		for _, v := range views {
			for _, c := range strings.Split(columns(o, v.name, v.name), ", ") {
				list += fmt.Sprintf(", CASE WHEN %s THEN %s END AS %s", fresh(v.name+".event_timestamp", "s.event_timestamp", v.days), c, c[2:])
			}
			joins += fmt.Sprintf(" ASOF LEFT JOIN %s %s ON %s AND s.event_timestamp >= %s.event_timestamp", file(v.name), v.name, strings.ReplaceAll(v.on, "f.", v.name+"."), v.name)
		}
		return []string{fmt.Sprintf("COPY (SELECT s.*%s FROM %s s%s) TO '%s' (FORMAT parquet, COMPRESSION zstd)", list, file("spine"), joins, target)}
	}
	for _, v := range views {
		// Ties by created time, or as they come; both in the spine's order.
		kind, pick := "JOIN", " QUALIFY row_number() OVER (PARTITION BY s.file_row_number ORDER BY f.event_timestamp DESC, f.created DESC NULLS LAST) = 1"
		if o.child == "ASOF per view" {
			kind, pick = "ASOF JOIN", ""
		}
		out = append(out, fmt.Sprintf("CREATE TEMP TABLE m_%s AS SELECT s.file_row_number AS row_id, %s FROM (SELECT *, file_row_number FROM %s) s %s %s f ON %s AND s.event_timestamp >= f.event_timestamp WHERE %s%s",
			v.name, columns(o, "f", v.name), file("spine"), kind, file(v.name), v.on, fresh("f.event_timestamp", "s.event_timestamp", v.days), pick))
	}
	return append(out, fmt.Sprintf("COPY (SELECT s.* EXCLUDE (row_id), %s, %s FROM (SELECT *, file_row_number AS row_id FROM %s) s LEFT JOIN m_a a ON a.row_id = s.row_id LEFT JOIN m_b b ON b.row_id = s.row_id ORDER BY s.row_id) TO '%s' (FORMAT parquet, COMPRESSION zstd)",
		columns(o, "a", "a"), columns(o, "b", "b"), file("spine"), target))
}

// manyViews builds with Hearth alone, with growing numbers of views.
func manyViews(ctx context.Context, o options) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "shape %s, scale %g, %d threads, memory limit %d MiB\n\nviews\tseconds\tCPU s\tpeak RSS MB\n", o.shape, o.scale, o.threads, o.memory>>20)
	for _, n := range strings.Split(o.views, ",") {
		one := o
		one.views = n
		r, err := spawn(ctx, one, "hearth")
		if err != nil {
			return fmt.Errorf("%s views: %w", n, err)
		}
		_, _ = fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%d\n", n, r.Seconds, r.cpu, r.rss>>20)
	}
	return t.Flush()
}

func table(o options, names []string, results map[string][]result, sums map[string]string) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "shape "+o.shape+", scale %g, %d threads, memory limit %d MiB, %d runs each, in turns\n\n", o.scale, o.threads, o.memory>>20, o.runs)
	_, _ = fmt.Fprintln(t, "contender\tmedian s\tspread s\tratio\tmedian CPU s\tratio\tpeak RSS MB\tresult")
	median := func(name string, of func(result) float64) float64 {
		s := make([]float64, 0, len(results[name]))
		for _, r := range results[name] {
			s = append(s, of(r))
		}
		slices.Sort(s)
		return s[len(s)/2]
	}
	wall, cpu := func(r result) float64 { return r.Seconds }, func(r result) float64 { return r.cpu }
	for _, name := range names {
		verdict := "equal"
		switch r := results[name]; {
		case r[len(r)-1].stopped:
			verdict = r[len(r)-1].Note
		case sums[name] != sums[names[0]]:
			verdict = "differs"
		}
		low, high, rss := results[name][0].Seconds, 0.0, int64(0)
		for _, r := range results[name] {
			low, high, rss = min(low, r.Seconds), max(high, r.Seconds), max(rss, r.rss)
		}
		_, _ = fmt.Fprintf(t, "%s\t%.2f\t%.2f-%.2f\t%.2f\t%.2f\t%.2f\t%d\t%s\n", name, median(name, wall), low, high, median(name, wall)/median(names[0], wall),
			median(name, cpu), median(name, cpu)/median(names[0], cpu), rss>>20, verdict)
	}
	for _, name := range peers {
		if !slices.Contains(names, name) && o.only == "" {
			_, _ = fmt.Fprintf(t, "%s\tnot installed\n", name)
		}
	}
	return t.Flush()
}
