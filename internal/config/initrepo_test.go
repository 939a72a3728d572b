package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/hearthstore/hearth/feature"
)

// TestInitRepo: what init writes can be read, its sources have the columns that it
// declares, and a second init touches nothing. Red when the sample lacks a column, and when
// files are overwritten.
func TestInitRepo(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "shop_features")
	if err := InitRepo(dir); err != nil {
		t.Fatal(err)
	}
	c, err := Load(filepath.Join(dir, "hearth.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Project.Name != "shop_features" || len(c.Datasets) != 1 || len(c.Jobs) != 3 {
		t.Errorf("project %q, %d datasets, %d jobs", c.Project.Name, len(c.Datasets), len(c.Jobs))
	}
	v := c.Project.Views[0]
	want := []string{v.Source.TimestampField, v.Source.CreatedTimestampColumn, v.JoinKeys[0].Name}
	for _, f := range v.Features {
		want = append(want, f.Name)
	}
	hasColumns(t, v.Source.Path, 200, want)
	hasColumns(t, c.Datasets[0].Spine.Path, 100, []string{"user_id", c.Datasets[0].Spine.TimestampField})
	if b, err := os.ReadFile(filepath.Join(dir, ".gitignore")); err != nil || !strings.Contains(string(b), ".hearth/") {
		t.Errorf(".gitignore: %q, %v", b, err)
	}

	if err := os.WriteFile(filepath.Join(dir, "hearth.yaml"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "README.md")); err != nil {
		t.Fatal(err)
	}
	err = InitRepo(dir)
	if !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), "nothing was written") {
		t.Errorf("second init: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "hearth.yaml")); err != nil || string(b) != "mine" {
		t.Errorf("hearth.yaml is now %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "README.md")); err == nil {
		t.Error("a refused init wrote a file")
	}
}

func hasColumns(t *testing.T, path string, rows int64, want []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	p, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, column := range p.Schema().Columns() {
		have = append(have, column[0])
	}
	if p.NumRows() != rows {
		t.Errorf("%s has %d rows, want %d", filepath.Base(path), p.NumRows(), rows)
	}
	for _, name := range want {
		if !slices.Contains(have, name) {
			t.Errorf("%s has no column %q: %v", filepath.Base(path), name, have)
		}
	}
}
