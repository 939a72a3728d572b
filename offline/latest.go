package offline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/offline/internal/duck"
	"github.com/hearthstore/hearth/sql"
)

// Latest finds the newest row of every entity in the given files and hands the rows to
// emit, at most 2,048 at a time, each key at most once, in no particular order. The rows
// are valid only during the call. An error of emit ends the read and is returned.
//
// Newest means: event time, then created time (a known one before an unknown one), then
// the md5 of the row's text, so the same files give the same rows. Rows that cannot become
// a value (NULL key, NULL or infinite time, value out of range for its type, key too long)
// are counted by reason and handed to req.Reject; of several shards each reports the rows
// of its own keys, and shard 0 those without a key.
//
// A query source is always run over all of its files, whatever req.Files says: windows and
// counters over a part of the rows would be wrong.
func (e *Engine) Latest(ctx context.Context, req feature.LatestRequest, emit func([]feature.Row) error) (stats feature.LatestStats, err error) {
	stats.Newest = feature.NoTime
	if req.View == nil || len(req.Files) == 0 {
		return stats, fmt.Errorf("latest: %w: a view and at least one file are needed", feature.ErrInvalid)
	}
	if req.Shards > 1 && (req.Shard < 0 || req.Shard >= req.Shards) {
		return stats, fmt.Errorf("latest of view %s: %w: shard %d of %d; shards count from 0", req.View.ID(), feature.ErrInvalid, req.Shard, req.Shards)
	}
	s, err := e.session(ctx)
	if err != nil {
		return stats, err
	}
	defer func() {
		if err = errors.Join(err, s.close()); err != nil {
			err = fmt.Errorf("latest of view %s: %w", req.View.ID(), e.explain(err))
		}
	}()
	s.downloaded = req.Downloaded
	only := req.Files
	if req.View.Source.Query != "" {
		only = nil
	}
	src, err := s.open(ctx, req.View, only, always)
	if err != nil {
		return stats, err
	}
	l := &latest{session: s, req: req, src: src, stats: &stats}
	if err := l.profile(ctx); err != nil {
		return stats, src.unreadable(err)
	}
	if err := l.rejects(ctx); err != nil {
		return stats, err
	}
	if err := l.stream(ctx, emit); err != nil {
		return stats, err
	}
	return stats, unchanged(src.files)
}

type latest struct {
	*session
	req      feature.LatestRequest
	src      *source
	stats    *feature.LatestStats
	rejected int64 // rows of all shards, as the profile counted them
	key      []byte
}

// faulty is true for a row that cannot become a value.
func (l *latest) faulty() string {
	conditions := make([]string, len(l.src.faults))
	for i, f := range l.src.faults {
		conditions[i] = "coalesce(" + f.when + ", false)"
	}
	return strings.Join(conditions, " OR ")
}

// outside is true for a row that the request's bounds exclude. A row without a time is not.
func (l *latest) outside() string {
	out := "false"
	if l.req.End != feature.NoTime {
		out += fmt.Sprintf(" OR coalesce(%s > %d, false)", l.src.scan.Event, int64(l.req.End))
	}
	if l.req.Start != feature.NoTime {
		out += fmt.Sprintf(" OR coalesce(%s < %d, false)", l.src.scan.Event, int64(l.req.Start))
	}
	return out
}

// profile counts what is there, in one narrow scan: the rows of each file, those after
// End, and those that will be rejected.
func (l *latest) profile(ctx context.Context) error {
	future := "false"
	if l.req.End != feature.NoTime {
		future = fmt.Sprintf("coalesce(%s > %d, false)", l.src.scan.Event, int64(l.req.End))
	}
	query := fmt.Sprintf(`SELECT filename, count(*), count(*) FILTER (%s), count(*) FILTER ((%s) AND NOT (%s)) FROM %s GROUP BY filename`,
		future, l.faulty(), l.outside(), l.src.from)
	return l.Each(ctx, query, func(scan func(dest ...any) error) error {
		var (
			local                 string
			rows, future, rejects int64
		)
		if err := scan(&local, &rows, &future, &rejects); err != nil {
			return err
		}
		l.stats.RowsRead += rows - future
		l.rejected += rejects
		if future == 0 {
			return nil
		}
		if l.src.query != "" {
			for _, f := range l.src.files {
				l.stats.Future = append(l.stats.Future, f.Path)
			}
			return nil
		}
		l.stats.Future = append(l.stats.Future, l.path(local))
		slices.Sort(l.stats.Future)
		return nil
	})
}

// path maps a file as DuckDB read it to the path that the source gave it.
func (l *latest) path(local string) string {
	if l.src.query != "" {
		return ""
	}
	for _, f := range l.src.files {
		if f.local == local {
			return f.Path
		}
	}
	return local
}

// rejects reports every row that cannot become a value.
func (l *latest) rejects(ctx context.Context) error {
	if l.rejected == 0 {
		return nil
	}
	var reason strings.Builder
	reason.WriteString("CASE")
	for i, f := range l.src.faults {
		fmt.Fprintf(&reason, " WHEN coalesce(%s, false) THEN %d", f.when, i)
	}
	reason.WriteString(" END")
	query := fmt.Sprintf("SELECT filename, file_row_number, %s, %s FROM %s WHERE (%s) AND NOT (%s)",
		reason.String(), strings.Join(l.src.scan.Keys, ", "), l.src.from, l.faulty(), l.outside())
	rows, err := l.Query(ctx, query)
	if err != nil {
		return err
	}
	for rows.Next() {
		for i := range rows.Len() {
			key, ok := l.keyOf(rows, 3, i)
			shard := 0
			if ok {
				shard = feature.ShardOf(feature.Key(key), l.req.Shards)
			}
			if l.req.Shards > 1 && shard != l.req.Shard {
				continue
			}
			r := feature.Reject{File: l.path(string(rows.Column(0).Bytes(i))), Reason: l.src.faults[rows.Column(2).Int(i)].reason}
			if r.File != "" {
				r.Row = rows.Column(1).Int(i) + 1
			}
			if ok {
				r.Key = string(key)
			}
			l.reject(r)
		}
	}
	return rows.Close()
}

func (l *latest) reject(r feature.Reject) {
	r.View = l.req.View.ID().String()
	l.stats.Rejected++
	if l.stats.Reasons == nil {
		l.stats.Reasons = map[string]int64{}
	}
	l.stats.Reasons[r.Reason]++
	if l.req.Reject != nil {
		l.req.Reject(r)
	}
}

// keyOf encodes the key of row i from the columns that begin at first, in order of name.
// ok is false when a component is NULL. The bytes are valid until the next call.
func (l *latest) keyOf(rows *duck.Rows, first, i int) (key []byte, ok bool) {
	var text [64]byte
	l.key = l.key[:0]
	for j, jk := range l.req.View.JoinKeys {
		c := rows.Column(first + j)
		if c.Null(i) {
			return nil, false
		}
		l.key = feature.AppendKeyPart(l.key, jk.Name, string(appendKeyText(text[:0], c, i, jk.Type)))
	}
	return l.key, true
}

// stream finds the newest rows and emits them.
func (l *latest) stream(ctx context.Context, emit func([]feature.Row) error) error {
	scan := l.src.scan
	scan.Where = append(slices.Clone(l.src.bounds(l.req.Start, l.req.End)), "NOT ("+l.faulty()+")")
	query, err := sql.DuckDB("latest", sql.Latest{Scan: scan})
	if err != nil {
		return err
	}
	rows, err := l.Query(ctx, query)
	if err != nil {
		return err
	}
	var (
		view     = l.req.View
		event    = len(view.JoinKeys)
		first    = event + 3
		batch    []feature.Row
		keys     []byte // the batch's keys, end to end
		ends     []int
		features []byte // the batch's features, end to end
		emitErr  error
	)
	for emitErr == nil && rows.Next() {
		batch, keys, ends, features = batch[:0], keys[:0], ends[:0], features[:0]
		cuts := make([]int, 0, rows.Len())
		for i := range rows.Len() {
			key, ok := l.keyOf(rows, 0, i)
			if !ok {
				return errors.Join(errors.New("a row without a key passed the filter"), rows.Close())
			}
			if l.req.Shards > 1 && feature.ShardOf(feature.Key(key), l.req.Shards) != l.req.Shard {
				continue
			}
			if len(key) > feature.MaxKeyBytes {
				l.reject(feature.Reject{Reason: fmt.Sprintf("entity key is longer than %d bytes", feature.MaxKeyBytes)})
				continue
			}
			row := feature.Row{Event: feature.Micros(rows.Column(event).Int(i)), Created: feature.NoTime, Deleted: rows.Column(event + 2).Bool(i)}
			if c := rows.Column(event + 1); !c.Null(i) {
				row.Created = feature.Micros(c.Int(i))
			}
			keys = append(keys, key...)
			ends = append(ends, len(keys))
			if !row.Deleted {
				start := len(features)
				features = feature.AppendArrayHeader(features, len(view.Features))
				for j, f := range view.Features {
					features = appendColumn(features, rows.Column(first+j), i, f.Type)
				}
				features = feature.PackRuns(features, start)
			}
			cuts = append(cuts, len(features))
			l.stats.Newest = max(l.stats.Newest, row.Event)
			batch = append(batch, row)
		}
		// One string holds all keys of the batch, so that a batch costs one allocation and
		// a caller that keeps a key keeps no more than its batch.
		text, from, start := string(keys), 0, 0
		for i := range batch {
			batch[i].Key = feature.Key(text[start:ends[i]])
			if !batch[i].Deleted {
				batch[i].Features = features[from:cuts[i]:cuts[i]]
			}
			start, from = ends[i], cuts[i]
		}
		if len(batch) > 0 {
			emitErr = emit(batch)
			l.stats.Emitted += int64(len(batch))
		}
	}
	return errors.Join(emitErr, rows.Close())
}
