// Command materialize measures the way from a Parquet source to both tiers: the hearth
// command itself into redis-server and a DynamoDB stand-in, beside Feast's materialize of the
// same files into the same redis-server, where Python has Feast.
//
//	go run ./bench/materialize                                    # 50,000 entities of 10 features
//	go run ./bench/materialize -entities 1000000 -rounds 1        # issue sizes: also
//	go run ./bench/materialize -entities 100000 -features 50      # these
//	go run ./bench/materialize -rows 20000000 -rounds 1 -feast "" # is memory flat?
//	go run ./bench/materialize -backing sqlite
//
// Each round begins with an empty Redis and a new table, and runs the command three times:
// over all rows, over the same files again, and after a file with new rows of 1 % of the
// entities came. Feast writes to Redis alone, without conditions and without a table behind. Every run is a
// process of its own; Hearth's seconds hold the start of its process, Feast's leave its imports out. The
// servers share the machine. The aims: the second run at least five times as fast as the
// first, at most 512 MB beside DuckDB's limit (-memory).
package main

import (
	"bytes"
	"context"
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
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hearthstore/hearth/bench/internal/lab"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/testservers"
)

type options struct {
	entities, features, rows, rounds int
	memoryMB                         int
	backing, hearth, feast, dir      string
	limit                            time.Duration
	child                            bool
}

func main() {
	o := options{}
	python, err := testservers.FeastPython()
	if _, missing := os.Stat(python); err != nil || missing != nil {
		python = ""
	}
	flag.IntVar(&o.entities, "entities", 50_000, "entities")
	flag.IntVar(&o.features, "features", 10, "float32 features per entity")
	flag.IntVar(&o.rows, "rows", 0, "rows of the source; 0 is one per entity")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds")
	flag.IntVar(&o.memoryMB, "memory", 512, "DuckDB's memory limit in MB")
	flag.StringVar(&o.backing, "backing", "dynamodb", "dynamodb (dynoxide, which make deps fetches) or sqlite")
	flag.StringVar(&o.hearth, "hearth", "", "hearth binary; built when not given")
	flag.StringVar(&o.feast, "feast", python, `Python interpreter with feast[redis]; "" leaves Feast out`)
	flag.DurationVar(&o.limit, "limit", 10*time.Minute, "a run that takes longer is stopped")
	flag.StringVar(&o.dir, "dir", "", "folder for the data; kept when given")
	flag.BoolVar(&o.child, "generate", false, "write the data and end (used by the benchmark itself)")
	flag.Parse()
	if o.rows == 0 {
		o.rows = o.entities
	}
	lab.Main("materialize", func(ctx context.Context, out io.Writer) error { return run(ctx, o, out) })
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.child {
		return generate(ctx, o)
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "hearth-bench-materialize-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.source(), 0o700); err != nil {
		return err
	}
	if o.hearth == "" {
		o.hearth = filepath.Join(o.dir, "hearth")
		if text, err := exec.CommandContext(ctx, "go", "build", "-o", o.hearth, "github.com/hearthstore/hearth/cmd/hearth").CombinedOutput(); err != nil {
			return fmt.Errorf("build hearth: %w\n%s", err, text)
		}
	}
	// In a process of its own: on Linux a child's peak memory begins with its parent's.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if text, err := exec.CommandContext(ctx, self, "-generate", "-dir", o.dir, "-entities", strconv.Itoa(o.entities),
		"-features", strconv.Itoa(o.features), "-rows", strconv.Itoa(o.rows)).CombinedOutput(); err != nil {
		return fmt.Errorf("generate data: %w\n%s", err, text)
	}
	b := &bench{o: o}
	if err := b.start(ctx); err != nil {
		return errors.Join(err, b.stop())
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	for round := range o.rounds {
		if err := b.round(ctx, round); err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	return b.report(out)
}

func (o options) source() string  { return filepath.Join(o.dir, "source") }
func (o options) newRows() string { return filepath.Join(o.dir, "new.parquet") } // until a round moves it
func (o options) changed() int    { return max(1, o.entities/100) }
func (o options) arrived() string { return filepath.Join(o.source(), "new.parquet") }
func (o options) rowsOfFile() int { return 2_000_000 }

// sample is one run of one contender.
type sample struct {
	seconds, cpu float64
	rss          int64
}

type row struct {
	name     string
	entities int
	samples  []sample
	note     string
}

const (
	first       = "Hearth, first run"
	second      = "Hearth, unchanged"
	incremental = "Hearth, 1 % new"
	feast       = "Feast, first run"
)

type bench struct {
	o       options
	servers []*lab.Server
	redis   *redis.Client
	addr    string
	backing string // YAML, with %d for the round
	rows    []*row
	memory  map[string]int64 // what Redis grew by in a first run, in bytes
}

func (b *bench) row(name string, entities int) *row {
	for _, r := range b.rows {
		if r.name == name {
			return r
		}
	}
	r := &row{name: name, entities: entities}
	b.rows = append(b.rows, r)
	return r
}

// round runs every contender once. The table is a new one, so that nothing has to be deleted.
func (b *bench) round(ctx context.Context, round int) error {
	repo := filepath.Join(b.o.dir, "round-"+strconv.Itoa(round))
	if err := os.MkdirAll(repo, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(repo, "hearth.yaml"), b.config(round), 0o600); err != nil {
		return err
	}
	if err := os.Remove(b.o.arrived()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := b.hearth(ctx, repo, "apply"); err != nil {
		return err
	}
	before, err := b.flush(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{first, second, incremental} {
		entities := b.o.entities
		if name == incremental {
			entities = b.o.changed()
			if err := os.Link(b.o.newRows(), b.o.arrived()); err != nil {
				return err
			}
		}
		s, err := b.hearth(ctx, repo, "materialize")
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := b.done(ctx, name, entities, s, before); err != nil {
			return err
		}
	}
	if err := os.Remove(b.o.arrived()); err != nil {
		return err
	}
	if b.o.feast == "" || b.row(feast, b.o.entities).note != "" {
		return nil
	}
	if before, err = b.flush(ctx); err != nil {
		return err
	}
	s, err := b.runFeast(ctx, round)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		b.row(feast, b.o.entities).note = "stopped at " + b.o.limit.String()
		return nil
	}
	if err != nil {
		return fmt.Errorf("feast: %w; -feast \"\" leaves it out", err)
	}
	return b.done(ctx, feast, b.o.entities, s, before)
}

// done checks that the values of all entities are in Redis, and keeps the sample.
func (b *bench) done(ctx context.Context, name string, entities int, s sample, before int64) error {
	keys, err := b.redis.DBSize(ctx).Result()
	if err != nil {
		return err
	}
	if keys < int64(b.o.entities) {
		return fmt.Errorf("%s: %d keys in Redis, want one for each of %d entities", name, keys, b.o.entities)
	}
	if name == first || name == feast {
		after, err := lab.Info(ctx, b.redis, "memory", "used_memory")
		if err != nil {
			return err
		}
		b.memory[name] = after - before
	}
	r := b.row(name, entities)
	r.samples = append(r.samples, s)
	fmt.Fprintf(os.Stderr, "%-20s %8.2f s %8.2f CPU s %6d MB\n", name, s.seconds, s.cpu, s.rss>>20)
	return nil
}

// hearth runs the command as its user does.
func (b *bench) hearth(ctx context.Context, repo string, args ...string) (sample, error) {
	cmd := func(ctx context.Context) *exec.Cmd {
		c := exec.CommandContext(ctx, b.o.hearth, args...)
		c.Dir = repo
		c.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+testservers.AWSAccessKeyID, "AWS_SECRET_ACCESS_KEY="+testservers.AWSSecretAccessKey, "AWS_EC2_METADATA_DISABLED=true")
		return c
	}
	s, _, err := b.spawn(ctx, cmd)
	return s, err
}

// spawn runs a command within the limit.
func (b *bench) spawn(ctx context.Context, command func(context.Context) *exec.Cmd) (s sample, stdout []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.o.limit)
	defer cancel()
	cmd := command(ctx)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	begin := clock.System.Now()
	err = cmd.Run()
	s.seconds = clock.System.Now().Sub(begin).Seconds()
	if err != nil {
		return s, nil, fmt.Errorf("%s: %w\n%s%s", cmd, errors.Join(ctx.Err(), err), out.Bytes(), errs.Bytes())
	}
	s.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.rss = usage.Maxrss << 10
	}
	return s, out.Bytes(), nil
}

func (b *bench) report(out io.Writer) error {
	fmt.Fprintf(out, "%d rows, %d entities of %d float32 features, backing %s, %d rounds, DuckDB's limit %d MB\n", b.o.rows, b.o.entities, b.o.features, b.o.backing, b.o.rounds, b.o.memoryMB)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "run\ts median\tfastest\tslowest\tentities/s\tfirst run's s / this\tCPU s\tpeak MB\tbytes/entity in Redis\tper feature\t")
	base := 0.0
	for _, r := range b.rows {
		if len(r.samples) == 0 {
			fmt.Fprintf(w, "%s\t%s\t\t\t\t\t\t\t\t\t\n", r.name, r.note)
			continue
		}
		seconds, cpu, rss := make([]float64, 0, len(r.samples)), make([]float64, 0, len(r.samples)), int64(0)
		for _, s := range r.samples {
			seconds, cpu, rss = append(seconds, s.seconds), append(cpu, s.cpu), max(rss, s.rss)
		}
		slices.Sort(seconds)
		slices.Sort(cpu)
		median := seconds[len(seconds)/2]
		if base == 0 {
			base = median
		}
		memory := "\t"
		if m, ok := b.memory[r.name]; ok {
			memory = fmt.Sprintf("%.0f\t%.1f", float64(m)/float64(b.o.entities), float64(m)/float64(b.o.entities*b.o.features))
		}
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.0f\t%.2f\t%.2f\t%d\t%s\t\n", r.name, median, seconds[0], seconds[len(seconds)-1],
			float64(r.entities)/median, base/median, cpu[len(cpu)/2], rss>>20, memory)
	}
	return w.Flush()
}

// runFeast makes a repository and materializes; its own clock begins after the imports.
func (b *bench) runFeast(ctx context.Context, round int) (sample, error) {
	dir := filepath.Join(b.o.dir, "feast-"+strconv.Itoa(round))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return sample{}, err
	}
	s, out, err := b.spawn(ctx, func(ctx context.Context) *exec.Cmd {
		c := exec.CommandContext(ctx, b.o.feast, "-c", lab.FeastRepo)
		c.Dir = dir
		c.Env = append(os.Environ(), "REDIS="+b.addr, "FEATURES="+strconv.Itoa(b.o.features), "DTYPE=Float32", "SOURCE="+b.o.source(), "FEAST_USAGE=False")
		return c
	})
	if err != nil {
		return s, err
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	var own struct {
		Seconds float64 `json:"seconds"`
	}
	if err := json.Unmarshal(lines[len(lines)-1], &own); err != nil {
		return s, fmt.Errorf("its output %q: %w", out, err)
	}
	s.seconds = own.Seconds
	return s, nil
}
