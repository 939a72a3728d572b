package offline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/telemetry"
	"github.com/hearthstore/hearth/sql"
)

// SnapshotTime is the column of a snapshot that holds its time.
const SnapshotTime = "event_timestamp"

// SnapshotRequest asks for what a reader would have been served at one time.
type SnapshotRequest struct {
	Name      string // of the dataset; recorded
	Project   string
	Selection *feature.Selection
	At        feature.Micros

	// Entities is a Parquet file, folder or CSV file with one row per entity, for
	// selections whose views do not share their join keys, or to ask for some entities
	// only. Defaults to every entity that a selected view knew at At, ordered by key.
	Entities string
	JoinKeys map[string]string // join key -> column of Entities, where the names differ

	FullFeatureNames bool
	EventTimestamps  bool
	FillDefaults     bool
	Output           string
	FileFormat       string // "parquet" or "csv". Defaults to parquet.
	PartitionRows    int64  // Defaults to one file.
	ConfigDigest     string
	Service          string
	Run              uint64
	Progress         telemetry.ProgressFunc
}

// Snapshot publishes one row per entity with what a reader would have been served at
// req.At: the newest value whose event time is not after it and that was known by then,
// within the view's TTL. It is a training set whose labels are all at one time, and is
// written, audited and published like one.
func (e *Engine) Snapshot(ctx context.Context, req SnapshotRequest) (m *Manifest, err error) {
	s, err := e.session(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err = errors.Join(err, s.close()); err != nil {
			m, err = nil, fmt.Errorf("snapshot %s: %w", req.Name, e.explain(err))
		}
	}()
	d := &dataset{session: s, sources: map[feature.ViewID]*source{}, queries: newDigest(), req: DatasetRequest{
		Name: req.Name, Project: req.Project, Selection: req.Selection, KnownAt: true,
		FullFeatureNames: req.FullFeatureNames, EventTimestamps: req.EventTimestamps, FillDefaults: req.FillDefaults,
		Output: req.Output, FileFormat: req.FileFormat, PartitionRows: req.PartitionRows,
		ConfigDigest: req.ConfigDigest, Service: req.Service, Run: req.Run, Progress: req.Progress,
	}}
	if err := d.validate(); err != nil {
		return nil, err
	}
	if req.At == feature.NoTime {
		return nil, feature.Problems{{Path: "at", Message: "no time is given"}}
	}
	d.snapshot = &SnapshotManifest{At: Timestamp{req.At}, Entities: req.Entities}
	d.watchDownloads()
	d.begin("entities")
	path := filepath.Join(s.dir, "entities.parquet")
	var rows string
	if req.Entities != "" {
		if rows, err = d.givenEntities(ctx, req); err != nil {
			return nil, err
		}
	} else if rows, err = d.knownEntities(ctx, req); err != nil {
		return nil, err
	}
	if err := s.Exec(ctx, fmt.Sprintf("COPY (%s) TO %s (FORMAT parquet)", rows, sql.Literal(path))); err != nil {
		return nil, fmt.Errorf("list entities: %w", err)
	}
	d.req.Spine = Spine{Path: path, TimestampField: SnapshotTime, JoinKeys: req.JoinKeys}
	return d.build(ctx)
}

// givenEntities renders the rows of a file with the time added.
func (d *dataset) givenEntities(ctx context.Context, req SnapshotRequest) (string, error) {
	files, err := d.engine.list(ctx, req.Entities)
	if err != nil {
		return "", feature.Problems{{Path: "entities", Message: err.Error()}}
	}
	hive, err := partitions(req.Entities, files)
	var mixed *mixedError
	if errors.As(err, &mixed) {
		return "", feature.Problems{{Path: "entities", Message: err.Error(), Remedy: mixed.remedy()}}
	}
	if err := d.stage(ctx, files); err != nil {
		return "", err
	}
	local := files
	if isCSV(files[0].Path) {
		if local, err = d.convertCSV(ctx, files, "", d.entityText(req)); err != nil {
			return "", err
		}
	}
	from := readParquet(local, len(hive) > 0)
	types, err := d.describe(ctx, from)
	if err != nil {
		return "", fmt.Errorf("read entities: %w", err)
	}
	star := "*"
	if _, ok := types[SnapshotTime]; ok { // whatever time is there, the snapshot has its own
		star = "* EXCLUDE (" + sql.Ident(SnapshotTime) + ")"
	}
	return fmt.Sprintf("SELECT %s, make_timestamptz(%d) AS %s FROM %s ORDER BY file_index, file_row_number", star, int64(req.At), sql.Ident(SnapshotTime), from), nil
}

// entityText are the columns of the entity file that hold join keys, and their types.
func (d *dataset) entityText(req SnapshotRequest) map[string]feature.Type {
	with := d.req
	with.Spine.JoinKeys = req.JoinKeys
	return with.keyTypes()
}

// knownEntities renders the distinct keys of all selected views up to the time.
func (d *dataset) knownEntities(ctx context.Context, req SnapshotRequest) (string, error) {
	var (
		columns []string
		parts   []string
	)
	for i, g := range req.Selection.Groups {
		src, ok := d.sources[g.View.ID()]
		if !ok {
			var err error
			if src, err = d.open(ctx, g.View, nil, timeRange{feature.NoTime, req.At}); err != nil {
				return "", fmt.Errorf("open view %s: %w", g.View.ID(), err)
			}
			d.sources[g.View.ID()] = src
		}
		mine := slices.Sorted(maps.Values(g.JoinKeys))
		if i == 0 {
			columns = mine
		}
		if !slices.Equal(columns, mine) {
			return "", feature.Problems{{Path: "features", Message: fmt.Sprintf("view %s is about %s, but view %s is about %s", req.Selection.Groups[0].Alias, strings.Join(columns, ", "), g.Alias, strings.Join(mine, ", ")),
				Remedy: "name a file of entities that has all of these columns, or select views of one entity"}}
		}
		keys := make([]string, len(columns))
		for k, jk := range g.View.JoinKeys {
			at := slices.Index(columns, g.JoinKeys[jk.Name])
			keys[at] = src.scan.Keys[k] + " AS " + sql.Ident(columns[at])
		}
		where := append(slices.Clone(src.scan.Where), src.bounds(feature.NoTime, req.At)...)
		parts = append(parts, fmt.Sprintf("SELECT %s FROM %s WHERE %s", strings.Join(keys, ", "), src.from, strings.Join(where, " AND ")))
	}
	quoted, known := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		quoted[i], known[i] = sql.Ident(c), sql.Ident(c)+" IS NOT NULL"
	}
	return fmt.Sprintf("SELECT DISTINCT %s, make_timestamptz(%d) AS %s FROM (%s) WHERE %s ORDER BY %s", strings.Join(quoted, ", "), int64(req.At), sql.Ident(SnapshotTime),
		strings.Join(parts, " UNION ALL "), strings.Join(known, " AND "), strings.Join(quoted, ", ")), nil
}
