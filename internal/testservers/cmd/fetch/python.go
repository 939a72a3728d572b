//go:build unix

package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/hearthstore/hearth/internal/testservers"
)

// promtool checks the alert rules.
var promtool = need{
	name:     "promtool",
	check:    func(context.Context) error { return lookPath("promtool") },
	packages: func() []string { return []string{"prometheus"} },
	manual:   "promtool, which comes with Prometheus",
}

// feast is the SDK that the tests serve, unmodified, in an environment of its own.
var feast = need{
	name:     "Feast " + testservers.FeastVersion,
	check:    func(context.Context) error { return checkCached(testservers.FeastDir) },
	packages: pythonPackages,
	manual:   "Python 3.10 or newer with venv and pip",
	fetch:    fetchFeast,
}

// pythonPackages: Debian has the parts of Python that make an environment in a package of
// their own.
func pythonPackages() []string {
	if exec.Command("python3", "-c", "import venv, ensurepip").Run() == nil {
		return nil
	}
	return []string{"python3", "python3-venv"}
}

// fetchFeast installs into a folder that is moved into place afterwards, which an
// environment bears: its interpreter finds its packages by where it stands. (The scripts
// beside it do not; run modules with the interpreter.)
func fetchFeast(ctx context.Context) error {
	return install(testservers.FeastDir, func(tmp string) error {
		if err := runIn(ctx, "", "python3", "-m", "venv", tmp); err != nil {
			return err
		}
		python := filepath.Join(tmp, "bin", "python")
		if err := runIn(ctx, "", python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
			"--only-binary", ":all:", "feast[redis]=="+testservers.FeastVersion); err != nil {
			return err
		}
		if err := runIn(ctx, "", python, "-c", "import feast, pandas, pyarrow, redis, requests"); err != nil {
			return fmt.Errorf("use what was installed: %w", err)
		}
		return nil
	})
}
