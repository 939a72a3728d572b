package offline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/offline/internal/duck"
)

// Check compares the sources of a project's views with what is declared about them: the
// files exist and are Parquet, the columns exist and have types that fit. Data is not
// read; queries are bound, not run. It returns every problem.
func (e *Engine) Check(ctx context.Context, p *feature.Project) feature.Problems {
	s, err := e.session(ctx)
	if err != nil {
		return feature.Problems{{Message: err.Error()}}
	}
	defer func() { _ = s.close() }()
	var problems feature.Problems
	for i := range p.Views {
		problems = append(problems, s.check(ctx, &p.Views[i])...)
	}
	return problems
}

func (s *session) check(ctx context.Context, v *feature.View) feature.Problems {
	field := "source.path"
	if v.Source.Query != "" {
		field = "source.query"
	}
	files, query, err := s.engine.locate(ctx, v)
	if err != nil {
		return feature.Problems{problemAt(v, field, "%v", err)}
	}
	src := &source{view: v, files: files, query: query}
	if err := s.stage(ctx, sample(files, query)); err != nil {
		return feature.Problems{problemAt(v, field, "%v", err)}
	}
	if query == "" {
		files = sample(files, query)
		src.hive = partitions(v.Source.Path, files)
		src.from = readParquet(files, len(src.hive) > 0)
		if err := s.evolved(ctx, src, files); err != nil {
			return asProblems(v, field, src.unreadable(err))
		}
	} else {
		src.from = "(\n" + query + "\n)"
	}
	if src.types, err = s.describe(ctx, src.from); err != nil {
		return asProblems(v, field, src.unreadable(err))
	}
	return src.bind()
}

// sample bounds what a check downloads: the oldest and the newest of many objects.
func sample(files []located, query string) []located {
	if query != "" || len(files) < 3 || !isRemote(files[0].Path) {
		return files
	}
	return []located{files[0], files[len(files)-1]}
}

// asProblems makes problems of any error.
func asProblems(v *feature.View, field string, err error) feature.Problems {
	var problems feature.Problems
	if errors.As(err, &problems) {
		return problems
	}
	p := problemAt(v, field, "%v", err)
	if duck.IsKind(err, duck.Catalog) {
		p.Remedy = "correct the SQL of the query"
	}
	return feature.Problems{p}
}

// explain adds what to do to an error of the engine.
func (e *Engine) explain(err error) error {
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w; nothing was published, and what stood there before is kept", err)
	case duck.IsKind(err, duck.Memory):
		return fmt.Errorf("%w; nothing was published: raise --memory or offline.memory (now %d MiB), or free space in temp_dir %s", err, e.config.MemoryBytes>>20, e.config.TempDir)
	case diskFull(err):
		return fmt.Errorf("%w; nothing was published and what stood there before is kept: free space for the output and for temp_dir %s", err, e.config.TempDir)
	}
	return err
}

// diskFull reports whether a file could not grow: the disk, a quota or a limit of the
// process is exhausted. DuckDB gives the system's text only.
func diskFull(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, errno) || duck.IsKind(err, duck.IO) && strings.Contains(strings.ToLower(err.Error()), errno.Error()) {
			return true
		}
	}
	return false
}
