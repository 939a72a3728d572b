// Package app is the only place that wires everything: it opens what a configuration
// names and gives each command one method. It decides nothing about features; the rooms
// do that.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/config"
	"github.com/hearthstore/hearth/internal/telemetry"
	"github.com/hearthstore/hearth/internal/tiers"
	"github.com/hearthstore/hearth/jobs"
	"github.com/hearthstore/hearth/offline"
	"github.com/hearthstore/hearth/online"
)

// Options are what an App is opened with.
type Options struct {
	// ConfigPath is the hearth.yaml. Required.
	ConfigPath string
	// Log defaults to none.
	Log *slog.Logger
	// Clock defaults to the machine's.
	Clock clock.Clock
	// Progress receives reports of long work. Defaults to none.
	Progress telemetry.ProgressFunc
	// Serving keeps the read deadlines of the configuration, which are those of an online
	// service. A command connects anew each time and waits longer. Defaults to false.
	Serving bool
}

// The least read deadlines of a command.
const (
	patientOnline  = 3 * time.Second
	patientBacking = 10 * time.Second
)

// App is an opened feature repository. Tiers and engine are opened when they are first
// needed. It is safe for concurrent use.
type App struct {
	cfg      *config.Config
	log      *slog.Logger
	clock    clock.Clock
	progress telemetry.ProgressFunc
	holder   string
	// configured are the read deadlines of the file, whatever this command waits.
	configured struct{ online, backing time.Duration }

	mu      sync.Mutex
	online  *online.Store
	backing backing.Store
	engine  *offline.Engine
}

// Open reads the configuration. The error holds every problem of the file.
func Open(_ context.Context, o Options) (*App, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	cfg, err := config.Load(o.ConfigPath, config.WithScheduleCheck(func(spec, zone string) error {
		_, err := jobs.ParseSchedule(spec, zone)
		return err
	}))
	if err != nil {
		return nil, err
	}
	a := &App{cfg: cfg, log: o.Log, clock: o.Clock, progress: o.Progress, holder: holderName()}
	a.configured.online, a.configured.backing = cfg.Reader.OnlineTimeout, cfg.Reader.BackingTimeout
	if !o.Serving {
		cfg.Reader.OnlineTimeout = max(cfg.Reader.OnlineTimeout, patientOnline)
		cfg.Reader.BackingTimeout = max(cfg.Reader.BackingTimeout, patientBacking)
	}
	return a, nil
}

// holderName says in leases and in the ledger which process works.
func holderName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return host + "/" + strconv.Itoa(os.Getpid())
}

// Config is the configuration that was read.
func (a *App) Config() *config.Config { return a.cfg }

// Close closes what was opened.
func (a *App) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	if a.engine != nil {
		errs = append(errs, a.engine.Close())
	}
	if a.online != nil {
		errs = append(errs, a.online.Close())
	}
	if a.backing != nil {
		errs = append(errs, a.backing.Close())
	}
	a.engine, a.online, a.backing = nil, nil, nil
	return errors.Join(errs...)
}

func (a *App) deps() tiers.Deps { return tiers.Deps{Logger: a.log, Clock: a.clock} }

// onlineTier opens the online tier. It does not contact Redis.
func (a *App) onlineTier(ctx context.Context) (*online.Store, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.online == nil {
		s, err := tiers.OpenOnline(ctx, a.cfg, a.deps())
		if err != nil {
			return nil, err
		}
		a.online = s
	}
	return a.online, nil
}

// backingTier opens the backing tier. The embedded one is set up on the way: nobody is
// asked to run `hearth apply` for a file.
func (a *App) backingTier(ctx context.Context) (backing.Store, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.backing == nil {
		s, err := tiers.OpenBacking(ctx, a.cfg, a.deps())
		if err != nil {
			return nil, err
		}
		if a.cfg.Backing.SQLite != nil {
			if _, err := s.Apply(ctx); err != nil {
				return nil, errors.Join(fmt.Errorf("set up the embedded backing tier: %w", err), s.Close())
			}
		}
		a.backing = s
	}
	return a.backing, nil
}

// probeTimeout bounds how long work waits for a backing tier that never answered. Once it
// has, the tier's own patience applies, which rides out minutes of trouble.
const probeTimeout = 10 * time.Second

// answeringBacking is the backing tier for work that needs it: one that does not answer at
// all is said in seconds, not after every retry.
func (a *App) answeringBacking(ctx context.Context) (backing.Store, error) {
	store, err := a.backingTier(ctx)
	if err != nil {
		return nil, err
	}
	return store, a.probe(ctx, store)
}

func (a *App) probe(ctx context.Context, store backing.Store) error {
	probing, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	d, err := store.Describe(probing)
	switch {
	case err == nil, errors.Is(err, feature.ErrNotApplied): // a missing table is for the caller to meet
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case probing.Err() != nil && !errors.Is(err, feature.ErrUnreachable):
		err = fmt.Errorf("%w: backing tier %s %s gave no answer in %s: %w", feature.ErrUnreachable, d.Kind, d.Name, probeTimeout, err)
	}
	return fmt.Errorf("%w; nothing was done", err)
}

// offlineEngine opens DuckDB.
func (a *App) offlineEngine(ctx context.Context) (*offline.Engine, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.engine == nil {
		e, err := offline.Open(ctx, a.offlineConfig())
		if err != nil {
			return nil, err
		}
		a.engine = e
	}
	return a.engine, nil
}

func (a *App) offlineConfig() offline.Config {
	c := a.cfg.Offline
	return offline.Config{
		MemoryBytes: c.Memory, TempDir: c.TempDir, Threads: c.Threads, Logger: a.log, Clock: a.clock,
		Sources: a.cfg.Project.Sources,
		S3: offline.S3Config{
			Endpoint: c.S3.Endpoint, Region: c.S3.Region, PathStyle: c.S3.PathStyle,
			StagingDir: c.S3.StagingDir, StagingBytes: c.S3.Staging,
		},
	}
}

// views resolves names of views ("name" or "name@n"); none means all.
func (a *App) views(names []string) ([]*feature.View, error) {
	p := &a.cfg.Project
	if len(names) == 0 {
		all := make([]*feature.View, len(p.Views))
		for i := range p.Views {
			all[i] = &p.Views[i]
		}
		return all, nil
	}
	var problems feature.Problems
	seen := map[feature.ViewID]bool{}
	var views []*feature.View
	for _, name := range names {
		id, err := feature.ParseViewID(name)
		if err != nil {
			problems = append(problems, feature.Problem{Message: err.Error()})
			continue
		}
		v := p.View(id)
		if v == nil {
			problems = append(problems, feature.Problem{Message: fmt.Sprintf("unknown feature view %q", name), Remedy: "see feature_views in " + a.cfg.Path})
			continue
		}
		if !seen[id] {
			seen[id] = true
			views = append(views, v)
		}
	}
	return views, problems.Err()
}

func viewIDs(views []*feature.View) []feature.ViewID {
	ids := make([]feature.ViewID, len(views))
	for i, v := range views {
		ids[i] = v.ID()
	}
	return ids
}

// usage is an error of the command line; it matches feature.ErrInvalid (exit code 2).
func usage(format string, args ...any) error {
	return feature.Problems{{Message: fmt.Sprintf(format, args...)}}
}
