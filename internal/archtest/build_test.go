package archtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheFrontDoorBuildsWithoutCgo: a service that embeds the reader must not
// compile the offline engine.
func TestTheFrontDoorBuildsWithoutCgo(t *testing.T) {
	t.Parallel()
	dir := root(t)
	var pkgs []string
	for pkg, file := range map[string]string{".": "hearth.go", "./examples/online_service": "examples/online_service/main.go"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			pkgs = append(pkgs, pkg)
		}
	}
	if len(pkgs) == 0 {
		t.Fatal("there is no front door: neither hearth.go nor examples/online_service/main.go exists")
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "go", append(args, pkgs...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for dep := range strings.Lines(run("list", "-deps")) {
		dep = strings.TrimSpace(dep)
		if strings.Contains(dep, "duckdb") || dep == module+"/offline" {
			t.Errorf("the front door depends on %s", dep)
		}
	}
	run("build", "-buildvcs=false", "-o", os.DevNull)
}
