//go:build unix

// Command fetch installs what the tests of this module need: redis-server, a
// Java runtime, a locale, promtool, DynamoDB Local, dynoxide and Feast's Python
// SDK. It changes nothing when everything is there.
//
// System packages are installed with apt-get, as root or through "sudo -n".
// On other systems the command lists what is missing and fails. DynamoDB Local
// comes from Maven Central, dynoxide from npm and Feast from PyPI, each through
// its own client, into a cache folder outside of the source tree (see testservers.CacheDir).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/hearthstore/hearth/internal/testservers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "fetch: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	needs := []need{redisServer, java, enUS, promtool, dynamoDBLocal, dynoxide, feast}
	if len(missing(ctx, needs)) == 0 {
		return nil
	}
	unlock, err := lockCache()
	if err != nil {
		return err
	}
	defer unlock()
	// Looked at again: another run may have fetched it while we waited.
	todo := missing(ctx, needs)
	if err := installPackages(ctx, todo); err != nil {
		return err
	}
	for _, n := range todo {
		if n.fetch == nil {
			continue
		}
		say("%s: installing", n.name)
		err := n.fetch(ctx)
		if err != nil && ctx.Err() == nil { // networks have moments
			say("%s: %v; trying once more", n.name, err)
			err = n.fetch(ctx)
		}
		if err != nil {
			return fmt.Errorf("install %s: %w", n.name, err)
		}
	}
	var errs []error
	for _, n := range needs {
		if err := n.check(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s is still missing after its installation: %w", n.name, err))
		}
	}
	return errors.Join(errs...)
}

// missing are the needs that are not met.
func missing(ctx context.Context, needs []need) []need {
	var out []need
	for _, n := range needs {
		if n.check(ctx) != nil {
			out = append(out, n)
		}
	}
	return out
}

// lockCache makes sure that one fetch at a time writes to the cache and runs
// the package manager: two installations at once break one of them.
func lockCache() (unlock func(), err error) {
	dir, err := testservers.CacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the cache: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the cache: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil // nothing was written to it
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "fetch: "+format+"\n", args...) }
