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
// files exist and are Parquet, the columns exist and have types that fit. Only footers are
// read, and event times where the files do not agree on their columns; of many remote files a
// sample. Queries are bound, not run. It returns every problem.
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
	if query == "" {
		if files, err = s.footers(ctx, sample(files)); err != nil {
			return feature.Problems{problemAt(v, field, "%v", err)}
		}
		if src.hive, err = partitions(v.Source.Path, src.files); err != nil {
			return asProblems(v, field, src.unreadable(err))
		}
		src.from = readParquet(files, len(src.hive) > 0)
		shapes, err := s.staged(ctx, src, files)
		if err == nil {
			err = s.evolved(ctx, src, shapes)
		}
		if err == nil {
			err = s.kept(ctx, src, shapes)
		}
		if err != nil {
			return asProblems(v, field, src.unreadable(err))
		}
	} else {
		if err := s.stage(ctx, files); err != nil {
			return feature.Problems{problemAt(v, field, "%v", err)}
		}
		src.from = "(\n" + query + "\n)"
	}
	if src.types, err = s.describe(ctx, src.from); err != nil {
		return asProblems(v, field, src.unreadable(err))
	}
	return src.bind()
}

// checkedObjects bounds how many footers of remote files a check reads.
const checkedObjects = 64

// sample picks so many of many remote files, evenly over their paths, the first and the last
// among them.
func sample(files []located) []located {
	if len(files) <= checkedObjects || !isRemote(files[0].Path) {
		return files
	}
	out := make([]located, checkedObjects)
	for i := range out {
		out[i] = files[i*(len(files)-1)/(checkedObjects-1)]
	}
	return out
}

// asProblems makes problems of any error.
func asProblems(v *feature.View, field string, err error) feature.Problems {
	var problems feature.Problems
	if errors.As(err, &problems) {
		return problems
	}
	p := problemAt(v, field, "%v", err)
	if v.Source.Query != "" && duck.IsKind(err, duck.Catalog) {
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
