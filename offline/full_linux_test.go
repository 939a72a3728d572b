package offline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A disk that is full while the training set is written gives an error that says what
// failed and what to do, publishes nothing, keeps what stood there before, and leaves no
// scratch behind. The disk is full for one process only: RLIMIT_FSIZE stops its files at
// a size. Seen red with EFBIG unknown to diskFull, and with the scratch folder kept by the publisher.
func TestDiskFull(t *testing.T) {
	task := childTask{Dir: t.TempDir(), Generate: true, Rows: 200_000, Labels: 100_000, Memory: 400 << 20}
	task.spawn(t)
	task.Generate, task.Views, task.FileSize = false, 2, 1<<20
	if r := task.spawn(t); !saysDiskFull(r.Error) || r.Rows != 0 {
		t.Errorf("%d rows, %q", r.Rows, r.Error)
	}
	task.nothingLeft(t)
	if _, err := os.Stat(filepath.Join(task.Dir, "out", "d")); !os.IsNotExist(err) {
		t.Errorf("something was published: %v", err)
	}
	task.FileSize = 0
	if r := task.spawn(t); r.Error != "" {
		t.Fatal(r.Error)
	}
	before, err := os.ReadFile(filepath.Join(task.Dir, "out", "d", manifestName))
	if err != nil {
		t.Fatal(err)
	}
	task.FileSize = 1 << 20
	if r := task.spawn(t); !saysDiskFull(r.Error) {
		t.Errorf("%q", r.Error)
	}
	task.nothingLeft(t)
	after, err := os.ReadFile(filepath.Join(task.Dir, "out", "d", manifestName))
	if err != nil || string(after) != string(before) {
		t.Errorf("the training set that stood there was touched (%v)", err)
	}
}

// saysDiskFull reports whether the text says what happened and what to do.
func saysDiskFull(text string) bool {
	return strings.Contains(text, "build dataset d: write: ") && strings.Contains(text, "nothing was published") && strings.Contains(text, "free space")
}

// nothingLeft checks that the build left neither scratch files nor locks.
func (c childTask) nothingLeft(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"tmp", "out"} {
		entries, err := os.ReadDir(filepath.Join(c.Dir, dir))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "d" {
				t.Errorf("%s/%s is left", dir, e.Name())
			}
		}
	}
}
