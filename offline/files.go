package offline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/sql"
)

// located is a source file and where its bytes can be read.
type located struct {
	feature.File
	local string
	// footer is true when local holds the file's footer only: its schema and statistics can
	// be read, its rows cannot.
	footer bool
}

func isRemote(path string) bool { return strings.HasPrefix(path, "s3://") }

// list finds the files behind a path: a file, a glob (** crosses folders) or a folder
// with *.parquet below it, hive partitions included. The order is by path. Names that
// begin with '_' or '.' are other programs' scratch and are left out of folders.
func (e *Engine) list(ctx context.Context, path string) ([]located, error) {
	if isRemote(path) {
		return e.stage.list(ctx, path)
	}
	paths, err := localPaths(ctx, path)
	if err != nil {
		return nil, err
	}
	files := make([]located, 0, len(paths))
	for _, p := range paths {
		f, err := statFile(p)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", path, err)
		}
		files = append(files, located{File: f, local: p})
	}
	return files, nil
}

func localPaths(ctx context.Context, path string) ([]string, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.IsDir():
		return []string{path}, nil
	case err == nil:
		return walk(ctx, path, path, func(rel string) bool { return strings.HasSuffix(rel, ".parquet") })
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open source: %w", err)
	case !strings.ContainsAny(path, "*?["):
		return nil, fmt.Errorf("open source %s: %w: there is no such file or folder", path, feature.ErrNotFound)
	}
	// The folder above the first component with a wildcard is where the walk begins.
	base := path
	for strings.ContainsAny(base, "*?[") {
		base = filepath.Dir(base)
	}
	pattern := strings.Split(filepath.ToSlash(path), "/")
	return walk(ctx, path, base, func(rel string) bool {
		return matchGlob(pattern, strings.Split(filepath.ToSlash(filepath.Join(base, rel)), "/"))
	})
}

func walk(ctx context.Context, path, base string, take func(rel string) bool) ([]string, error) {
	var out []string
	err := filepath.WalkDir(base, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), "_") || strings.HasPrefix(d.Name(), ".")
		switch {
		case d.IsDir() && hidden && p != base:
			return fs.SkipDir
		case d.IsDir() || hidden:
			return nil
		}
		rel, err := filepath.Rel(base, p)
		if err == nil && take(rel) {
			out = append(out, p)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	if len(out) == 0 {
		if path != base {
			return nil, fmt.Errorf("list %s: %w: no file matches", path, feature.ErrNotFound)
		}
		return nil, fmt.Errorf("list %s: %w: no Parquet file is there", path, feature.ErrNotFound)
	}
	slices.Sort(out)
	return out, nil
}

// matchGlob matches path components; a "**" component stands for any number of them.
func matchGlob(pattern, path []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for i := 0; i <= len(path); i++ {
				if matchGlob(pattern[1:], path[i:]) {
					return true
				}
			}
			return false
		}
		if len(path) == 0 {
			return false
		}
		if ok, err := filepath.Match(pattern[0], path[0]); err != nil || !ok {
			return false
		}
		pattern, path = pattern[1:], path[1:]
	}
	return len(path) == 0
}

func statFile(path string) (feature.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return feature.File{}, err
	}
	return feature.File{Path: path, Size: info.Size(), Modified: feature.MicrosOf(info.ModTime())}, nil
}

// errChanged marks a file that is not what it was when it was listed.
var errChanged = errors.New("file changed while it was read")

// unchanged checks that local files still are what was listed. Staged copies of objects
// never change: their names carry the ETag.
func unchanged(files []located) error {
	for _, f := range files {
		if isRemote(f.Path) {
			continue
		}
		now, err := statFile(f.local)
		if err != nil {
			return fmt.Errorf("%w: %s: %w; run again when its writer is done", errChanged, f.Path, err)
		}
		if now.Size != f.Size || now.Modified != f.Modified {
			return fmt.Errorf("%w: %s; run again when its writer is done, and let writers write elsewhere and rename", errChanged, f.Path)
		}
	}
	return nil
}

// partitions returns the names of the hive partition folders ("day=2021-01-01") that lie
// between base and the files. They are columns of every row, so that all files must have the same.
func partitions(path string, files []located) (map[string]bool, error) {
	var first []string
	base := path
	for strings.ContainsAny(base, "*?[") {
		base = filepath.Dir(base)
	}
	for i, f := range files {
		var own []string
		rel := strings.TrimPrefix(f.Path, base)
		parts := strings.Split(filepath.ToSlash(rel), "/")
		for _, part := range parts[:len(parts)-1] {
			if name, _, ok := strings.Cut(part, "="); ok {
				own = append(own, name)
			}
		}
		switch {
		case i == 0:
			first = own
		case !slices.Equal(slices.Sorted(slices.Values(first)), slices.Sorted(slices.Values(own))):
			return nil, &mixedError{path, files[0].Path, f.Path, first, own}
		}
	}
	names := make(map[string]bool, len(first))
	for _, name := range first {
		names[name] = true
	}
	return names, nil
}

// mixedError says that two files of one source lie in different partition folders.
type mixedError struct {
	path, a, b string
	ofA, ofB   []string
}

func (m *mixedError) Error() string {
	in := func(names []string) string {
		if len(names) == 0 {
			return "is in no partition folder"
		}
		return "is in partition folders of " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s %s, but %s %s: the rows of one have columns that those of the other lack", m.a, in(m.ofA), m.b, in(m.ofB))
}

func (m *mixedError) Unwrap() error { return feature.ErrInvalid }

// remedy names what to do, with a pattern that takes the files of the partition folders only.
func (m *mixedError) remedy() string {
	names := m.ofA
	if len(m.ofB) > len(names) {
		names = m.ofB
	}
	pattern := strings.TrimSuffix(m.path, "/")
	if strings.ContainsAny(pattern, "*?[") {
		pattern = "…"
	}
	for _, name := range names {
		pattern += "/" + name + "=*"
	}
	return "move one of the two elsewhere, or give a path that takes files of one kind, as " + pattern + "/*.parquet"
}

// readParquet renders the table function over files. Partition values are text: DuckDB's
// guess of their types would depend on which files a run takes.
func readParquet(files []located, hive bool) string {
	var b strings.Builder
	b.WriteString("read_parquet([")
	for i, f := range files {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(sql.Literal(f.local))
	}
	b.WriteString("], union_by_name = " + strconv.FormatBool(len(files) > 1))
	b.WriteString(", hive_partitioning = " + strconv.FormatBool(hive))
	if hive {
		b.WriteString(", hive_types_autocast = false")
	}
	b.WriteString(")")
	return b.String()
}
