package offline

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// childEnv carries what a process of its own is to do, in JSON: see TestChildProcess.
const childEnv = "HEARTH_OFFLINE_TEST_CHILD"

// childTask is one build in a process of its own.
type childTask struct {
	Dir      string
	Generate bool // make the data instead
	Rows     int  // feature rows
	Labels   int
	Views    int
	Memory   int64
	FileSize uint64 // RLIMIT_FSIZE; 0 leaves it alone
}

// childResult is what the process reports.
type childResult struct {
	Peak   int64 // bytes resident at most
	Rows   int64
	Error  string
	Millis int64
}

// TestChildProcess is no test of its own: the tests below run it in a process of its own,
// whose peak memory and limits are not those of the other tests.
func TestChildProcess(t *testing.T) {
	text, ok := os.LookupEnv(childEnv)
	if !ok {
		return
	}
	var task childTask
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		t.Fatal(err)
	}
	result := task.run(t)
	b, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(task.result(), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c childTask) result() string { return filepath.Join(c.Dir, "result.json") }

// spawn runs the task in a process of its own.
func (c childTask) spawn(t *testing.T) childResult {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildProcess$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	b, err := os.ReadFile(c.result())
	if err != nil {
		t.Fatal(err)
	}
	var r childResult
	if err := errors.Join(json.Unmarshal(b, &r), os.Remove(c.result())); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d views, %d rows, memory %d MiB: peak %d MiB, %d ms %s", c.Views, c.Rows, c.Memory>>20, r.Peak>>20, r.Millis, r.Error)
	return r
}

func (c childTask) run(t *testing.T) (r childResult) {
	e, err := Open(t.Context(), Config{MemoryBytes: c.Memory, Threads: 2, TempDir: filepath.Join(c.Dir, "tmp")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	if c.Generate {
		var columns strings.Builder
		for i := range 8 {
			fmt.Fprintf(&columns, ", (hash(i, 'f%d') %% 1000000) / 1000.0 AS f%d", i, i)
		}
		at := func(salt string) string {
			return fmt.Sprintf("make_timestamp(%d + (hash(i, '%s') %% 2592000000000)::BIGINT)", base, salt)
		}
		copySQL(t, e, fmt.Sprintf("SELECT (hash(i, 'k') %% 50000)::BIGINT AS k, %s AS event, %s AS created%s FROM range(%d) r(i)", at("e"), at("c"), columns.String(), c.Rows), filepath.Join(c.Dir, "facts.parquet"))
		copySQL(t, e, fmt.Sprintf("SELECT i AS id, (hash(i, 's') %% 50000)::BIGINT AS k, %s AS t FROM range(%d) r(i)", at("t"), c.Labels), filepath.Join(c.Dir, "labels.parquet"))
		return r
	}
	views := make([]*feature.View, c.Views)
	refs := make([]feature.FeatureRef, c.Views)
	for i := range views {
		v := &feature.View{
			Name: fmt.Sprintf("v%d", i), Version: 1, TTL: 10 * 24 * time.Hour, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}},
			Source: feature.Source{Path: filepath.Join(c.Dir, "facts.parquet"), TimestampField: "event", CreatedTimestampColumn: "created"},
		}
		for f := range 8 {
			v.Features = append(v.Features, feature.Feature{Field: feature.Field{Name: fmt.Sprintf("f%d", f), Type: feature.Float64}})
		}
		views[i], refs[i] = v, ref(t, v.Name+":*")
	}
	if c.FileSize > 0 {
		signal.Ignore(syscall.SIGXFSZ) // so that a write beyond the limit fails with EFBIG
		limit := syscall.Rlimit{Cur: c.FileSize, Max: c.FileSize}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	m, err := e.BuildDataset(t.Context(), DatasetRequest{
		Name: "d", Spine: Spine{Path: filepath.Join(c.Dir, "labels.parquet"), TimestampField: "t"}, Selection: selectionOf(t, views, refs...),
		FullFeatureNames: true, Output: filepath.Join(c.Dir, "out", "d"),
	})
	r.Millis = time.Since(start).Milliseconds()
	if err != nil {
		r.Error = err.Error()
	} else {
		r.Rows = m.Rows
	}
	r.Peak = peakMemory(t)
	return r
}

// peakMemory is the most memory that was resident in this process. ru_maxrss would also count
// the parent's, from before the exec.
func peakMemory(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "VmHWM:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmHWM in /proc/self/status")
	return 0
}

// The limit holds for the whole process (within a quarter) when the data is several times
// as big: 4M rows of 11 columns are about 350 MB in memory, the joined features as much again.
// Seen red with DuckDB's limit four times what it should be (728 MiB).
func TestMemoryBounded(t *testing.T) {
	const memory = 400 << 20
	task := childTask{Dir: t.TempDir(), Rows: 4_000_000, Labels: 1_000_000, Memory: memory}
	task.Generate = true
	task.spawn(t)
	task.Generate, task.Views = false, 2
	r := task.spawn(t)
	if r.Error != "" || r.Rows != int64(task.Labels) {
		t.Fatalf("%d rows, %s", r.Rows, r.Error)
	}
	if r.Peak > memory*5/4 {
		t.Errorf("peak %d MiB", r.Peak>>20)
	}
}

// Forty views keep to the memory of four: each is kept in a scratch file when it is found,
// and the last step reads the files side by side. When all views were joined in one statement,
// this ended in an error at 400 MiB, and took 1.7 GB without a limit.
// Seen red with assemble always answering AssemblyJoin.
func TestMemoryOfManyViews(t *testing.T) {
	const memory = 400 << 20
	task := childTask{Dir: t.TempDir(), Rows: 30_000, Labels: 40_000, Memory: memory}
	task.Generate = true
	task.spawn(t)
	task.Generate = false
	for _, views := range []int{4, 40} {
		task.Views = views
		r := task.spawn(t)
		if r.Error != "" || r.Rows != int64(task.Labels) {
			t.Fatalf("%d views: %d rows, %s", views, r.Rows, r.Error)
		}
		if r.Peak > memory {
			t.Errorf("%d views: peak %d MiB", views, r.Peak>>20)
		}
	}
}
