package config

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

//go:embed template/hearth.yaml template/README.md template/gitignore template/data/*.parquet
var template embed.FS

// InitRepo writes a small feature repository that runs as it is: a commented hearth.yaml,
// sample data, a README.md and a .gitignore. The project gets the folder's name where that
// can be a name. It makes the folder when it does not exist, and overwrites nothing: a
// file that is there already is an error matching feature.ErrInvalid, and nothing is written.
func InitRepo(dir string) error {
	files := map[string][]byte{}
	err := fs.WalkDir(template, "template", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := template.ReadFile(path)
		files[strings.TrimPrefix(path, "template/")] = data
		return err
	})
	if err != nil {
		return fmt.Errorf("init %s: %w", dir, err)
	}
	files[".gitignore"] = files["gitignore"]
	delete(files, "gitignore")
	if abs, err := filepath.Abs(dir); err == nil && validTableName(filepath.Base(abs)) && feature.CheckName(filepath.Base(abs)) == nil {
		files["hearth.yaml"] = []byte(strings.ReplaceAll(string(files["hearth.yaml"]), "my_features", filepath.Base(abs)))
	}
	var problems feature.Problems
	for name := range files {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			message := "the file is already there"
			if err != nil {
				message = reason(err)
			}
			problems = append(problems, feature.Problem{File: filepath.Join(dir, name), Message: message, Remedy: "choose another folder; nothing was written"})
		}
	}
	if len(problems) > 0 {
		return sortedByFile(problems)
	}
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o755); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	for name, data := range files {
		if err := writeNew(filepath.Join(dir, name), data); err != nil {
			return fmt.Errorf("init: %w", err)
		}
	}
	return nil
}

func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
