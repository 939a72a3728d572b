package offline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/offline/internal/duck"
)

// Config configures an [Engine].
type Config struct {
	// MemoryBytes bounds what the process may take, roughly: DuckDB gets what is left
	// after a reserve for Go and for DuckDB's own overhead, and spills beyond it.
	// Defaults to half of the machine's (or container's) memory.
	MemoryBytes int64
	// TempDir is where spilled data and scratch files go, each engine in a folder of its
	// own that is removed by Close. Folders of engines that died are removed by Open.
	// Defaults to the folder "hearth" in the system's temporary folder.
	TempDir string
	// Threads bounds DuckDB's threads. Defaults to the number of processors.
	Threads int
	// Sources are what {{source "name"}} in query sources refers to. Defaults to none.
	Sources []feature.NamedSource
	// S3 is used for paths that begin with s3://.
	S3 S3Config
	// Logger receives warnings. Defaults to discarding them.
	Logger *slog.Logger
	// Clock tells the time. Defaults to clock.System.
	Clock clock.Clock
}

// S3Config says how s3:// paths are read.
type S3Config struct {
	// Endpoint replaces the AWS endpoint, for S3-compatible stores. Defaults to AWS.
	Endpoint string
	// Region of the buckets. Defaults to what the AWS configuration says, else us-east-1.
	Region string
	// PathStyle puts the bucket in the path instead of the host name. Defaults to false.
	PathStyle bool
	// StagingDir keeps downloaded objects between runs, by ETag. Defaults to the folder
	// "s3" in Config.TempDir.
	StagingDir string
	// StagingBytes bounds StagingDir: the least recently used objects go first. Objects
	// that a running operation needs are kept. Defaults to 20 GiB.
	StagingBytes int64
}

// Engine reads sources. It is safe for concurrent use; its operations share the memory limit.
type Engine struct {
	config Config
	temp   string // this engine's own folder
	lock   *fileLock
	db     *duck.DB
	stage  *stage

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
	serial  int
	lent    int64 // bytes of DuckDB's memory that indexes have
}

const leastMemory = 32 << 20

// Open starts DuckDB. Close it.
func Open(ctx context.Context, config Config) (*Engine, error) {
	if config.MemoryBytes < 0 || config.Threads < 0 {
		return nil, fmt.Errorf("open offline engine: %w: memory and threads must not be negative", feature.ErrInvalid)
	}
	if config.MemoryBytes > 0 && config.MemoryBytes < leastMemory {
		return nil, fmt.Errorf("open offline engine: %w: memory of %d bytes is less than the %d MiB that DuckDB needs; write a size with its unit, as 4GB", feature.ErrInvalid, config.MemoryBytes, leastMemory>>20)
	}
	if config.MemoryBytes == 0 {
		config.MemoryBytes = machineMemory() / 2
	}
	config.Threads = cmp.Or(config.Threads, runtime.GOMAXPROCS(0))
	config.TempDir = cmp.Or(config.TempDir, filepath.Join(os.TempDir(), "hearth"))
	config.S3.StagingDir = cmp.Or(config.S3.StagingDir, filepath.Join(config.TempDir, "s3"))
	config.S3.StagingBytes = cmp.Or(config.S3.StagingBytes, 20<<30)
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Clock == nil {
		config.Clock = clock.System
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e := &Engine{config: config}
	if err := e.openTemp(); err != nil {
		return nil, fmt.Errorf("open offline engine: %w", err)
	}
	db, err := duck.Open(map[string]string{
		"threads":                      strconv.Itoa(config.Threads),
		"memory_limit":                 strconv.FormatInt(duckMemory(config.MemoryBytes)>>10, 10) + "KiB",
		"temp_directory":               filepath.Join(e.temp, "spill"),
		"preserve_insertion_order":     "false",
		"autoinstall_known_extensions": "false",
		"autoload_known_extensions":    "false",
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open offline engine: %w", err), e.closeTemp())
	}
	e.db = db
	e.stage = newStage(config.S3, config.Clock)
	return e, nil
}

// Close waits for running operations, stops DuckDB and removes the scratch files.
// Cancel the operations' contexts first to make it quick.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()
	e.running.Wait()
	e.db.Close()
	if err := e.closeTemp(); err != nil {
		return fmt.Errorf("close offline engine: %w", err)
	}
	return nil
}

// session is one operation's connection and scratch folder.
type session struct {
	*duck.Conn
	engine *Engine
	dir    string
	held   []func() error // staged copies in use
	serial int            // of the folders with footers

	downloaded func(done, total int64) // is told of downloads, in bytes; may be nil
}

// stage makes local copies of remote files, held until the session closes.
func (s *session) stage(ctx context.Context, files []located) error {
	if !slices.ContainsFunc(files, func(f located) bool { return isRemote(f.Path) }) {
		return nil
	}
	release, err := s.engine.stage.fetch(ctx, files, s.downloaded)
	if err != nil {
		return err
	}
	s.held = append(s.held, release)
	return nil
}

func (e *Engine) session(ctx context.Context) (*session, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errors.New("offline engine is closed")
	}
	conn, err := e.db.Connect()
	if err != nil {
		return nil, err
	}
	e.serial++
	s := &session{Conn: conn, engine: e, dir: filepath.Join(e.temp, "op"+strconv.Itoa(e.serial))}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		conn.Close()
		return nil, fmt.Errorf("make scratch folder: %w", err)
	}
	if err := conn.Exec(ctx, "SET TimeZone='UTC'"); err != nil {
		conn.Close()
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	e.running.Add(1)
	return s, nil
}

// lend takes so many bytes from DuckDB's limit for memory outside of it; a negative number gives them back. A
// quarter of the limit always stays.
func (s *session) lend(ctx context.Context, bytes int64) error {
	e := s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lent += bytes
	limit := duckMemory(e.config.MemoryBytes)
	if err := s.Exec(ctx, fmt.Sprintf("SET memory_limit = '%dKiB'", max(limit-e.lent, limit/4)>>10)); err != nil {
		e.lent -= bytes
		return err
	}
	return nil
}

// close drops the operation's temporary tables and files.
func (s *session) close() error {
	defer s.engine.running.Done()
	s.Conn.Close()
	var errs []error
	for _, release := range s.held {
		errs = append(errs, release())
	}
	if len(s.held) > 0 { // what this operation needed may have been more than the bound
		if err := s.engine.stage.trim(); err != nil {
			s.engine.config.Logger.Warn("the staging folder is not within its bound", "err", err)
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		errs = append(errs, fmt.Errorf("remove scratch folder: %w", err))
	}
	return errors.Join(errs...)
}

const (
	ownPrefix = "offline-"
	lockName  = "lock"
)

// openTemp makes the engine's own folder and removes those of engines that died.
func (e *Engine) openTemp() error {
	if err := os.MkdirAll(e.config.TempDir, 0o700); err != nil {
		return fmt.Errorf("make temp_dir: %w", err)
	}
	entries, err := os.ReadDir(e.config.TempDir)
	if err != nil {
		return fmt.Errorf("read temp_dir: %w", err)
	}
	for _, entry := range entries {
		if !entry.IsDir() || !strings.HasPrefix(entry.Name(), ownPrefix) {
			continue
		}
		dir := filepath.Join(e.config.TempDir, entry.Name())
		// A living engine holds the lock in its folder, on whatever machine it runs.
		lock, err := lockFile(filepath.Join(dir, lockName))
		if err != nil {
			continue
		}
		err = errors.Join(os.RemoveAll(dir), lock.release())
		e.config.Logger.Info("removed scratch files of an engine that died", "dir", dir, "err", err)
	}
	if e.temp, err = os.MkdirTemp(e.config.TempDir, ownPrefix+"*"); err != nil {
		return fmt.Errorf("make scratch folder: %w", err)
	}
	if e.lock, err = lockFile(filepath.Join(e.temp, lockName)); err != nil {
		return fmt.Errorf("lock scratch folder: %w", err)
	}
	return nil
}

func (e *Engine) closeTemp() error {
	return errors.Join(os.RemoveAll(e.temp), e.lock.release())
}

// duckMemory is what DuckDB may use of a process's memory: its resident size runs a few
// hundred megabytes above its own limit (0.2 to 0.55 GB were measured), and Go needs some too.
func duckMemory(process int64) int64 {
	reserve := max(process/4, 256<<20)
	return max(process-reserve, process/2, 64<<20)
}

// GoMemory is the share of a process's memory that is Go's own, for debug.SetMemoryLimit: half
// of what DuckDB leaves. The process sets it, as only the process knows what else it does.
func GoMemory(process int64) int64 {
	if process == 0 {
		process = machineMemory() / 2
	}
	return max((process-duckMemory(process))/2, 64<<20)
}

// machineMemory is the memory of the container or, without one, of the machine.
func machineMemory() int64 {
	total := int64(8 << 30)
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
				if kb, err := strconv.ParseInt(f[1], 10, 64); err == nil {
					total = kb << 10
				}
			}
		}
	}
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if b, err := os.ReadFile(path); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
				total = min(total, n)
			}
		}
	}
	return total
}
