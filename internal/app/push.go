package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/materializer"
)

// PushOptions say what to push and from where.
type PushOptions struct {
	View string
	// File is a Parquet file (.parquet) or else one with a JSON object a line; "" reads Lines.
	File  string
	Lines io.Reader
}

// maxPush is the most rows of one push: their outcomes are listed one by one.
const maxPush = 100_000

// Push writes rows that a person or program gives. Of JSON lines a wrong one means that
// nothing is written; a row of a Parquet file that cannot become a value is rejected, as in
// a materialization.
func (a *App) Push(ctx context.Context, o PushOptions) (*materializer.PushReport, error) {
	views, err := a.views([]string{o.View})
	if err != nil {
		return nil, err
	}
	v := views[0]
	req := materializer.PushRequest{View: v}
	if strings.EqualFold(filepath.Ext(o.File), ".parquet") {
		req.Rows, req.Rejects, err = a.parquetRows(ctx, v, o.File)
	} else {
		req.Rows, err = lineRows(v, o)
	}
	if err != nil {
		return nil, fmt.Errorf("push %s: nothing was written: %w", v.ID(), err)
	}
	back, err := a.backingTier(ctx)
	if err != nil {
		return nil, err
	}
	m, err := a.materializerOf(ctx, nil)
	if err != nil {
		return nil, err
	}
	// Pushes are many and small: they take a run number and leave no ledger entry. The
	// versions keep them apart from every run.
	if req.Run, err = backing.NextRun(ctx, back); err != nil {
		return nil, err
	}
	return m.Push(ctx, req)
}

func errTooMany() error {
	return fmt.Errorf("%w: more than %d rows; push them in parts, or make them a source", feature.ErrInvalid, maxPush)
}

func lineRows(v *feature.View, o PushOptions) (rows []feature.Row, err error) {
	lines := o.Lines
	if o.File != "" {
		f, err := os.Open(o.File)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", feature.ErrInvalid, err)
		}
		defer func() { _ = f.Close() }() // only read
		lines = f
	}
	err = materializer.ParseNDJSON(v, lines, func(row feature.Row) error {
		if len(rows) == maxPush {
			return errTooMany()
		}
		row.Features = slices.Clone(row.Features)
		rows = append(rows, row)
		return nil
	})
	return rows, err
}

// parquetRows reads a file as if it were the view's source: the same columns, the same
// mapping, the newest row of each entity.
func (a *App) parquetRows(ctx context.Context, v *feature.View, path string) (rows []feature.Row, rejects []feature.Reject, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", feature.ErrInvalid, err)
	}
	engine, err := a.offlineEngine(ctx)
	if err != nil {
		return nil, nil, err
	}
	from := *v
	from.Source.Path, from.Source.Query = path, ""
	files, err := engine.Files(ctx, &from)
	if err != nil {
		return nil, nil, err
	}
	enough := errors.New("enough")
	_, err = engine.Latest(ctx, feature.LatestRequest{View: &from, Files: files, Start: feature.NoTime, End: feature.NoTime,
		Reject: func(r feature.Reject) {
			if len(rejects) <= maxPush {
				rejects = append(rejects, r)
			}
		},
	}, func(batch []feature.Row) error {
		if len(rows)+len(batch)+len(rejects) > maxPush {
			return enough
		}
		for _, row := range batch {
			row.Key, row.Features = feature.Key(strings.Clone(string(row.Key))), slices.Clone(row.Features)
			rows = append(rows, row)
		}
		return nil
	})
	if errors.Is(err, enough) || len(rejects) > maxPush {
		return nil, nil, errTooMany()
	}
	return rows, rejects, err
}
