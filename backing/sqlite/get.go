package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
)

// getKeys is how many keys one query asks for.
const getKeys = 100

// Get implements backing.Store, one query per 100 keys.
func (s *Store) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	results := make([]feature.GetResult, len(refs))
	for start := 0; start < len(refs); start += getKeys {
		end := min(start+getKeys, len(refs))
		if err := s.getChunk(ctx, refs[start:end], results[start:end]); err != nil {
			err = s.wrap("get", err)
			if start == 0 {
				return nil, err
			}
			for i := start; i < len(refs); i++ {
				results[i] = feature.GetResult{Err: fmt.Errorf("get %s: %w", refs[i], err)}
			}
			return results, nil
		}
	}
	return results, nil
}

func (s *Store) getChunk(ctx context.Context, refs []feature.Ref, results []feature.GetResult) (err error) {
	args := make([]any, 0, 4*len(refs))
	var q strings.Builder
	// A join from the list, because the planner turns it into one seek per key.
	q.WriteString(`WITH want (i, s, v, e) AS (VALUES `)
	for i, ref := range refs {
		if i > 0 {
			q.WriteByte(',')
		}
		q.WriteString(`(?,?,?,?)`)
		args = append(args, i, feature.ShardOf(ref.Key, shards), ref.View.String(), string(ref.Key))
	}
	q.WriteString(`) SELECT want.i, items.p FROM want CROSS JOIN items ON items.s = want.s AND items.v = want.v AND items.e = want.e`)
	rows, err := s.reader.QueryContext(ctx, q.String(), args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var (
			i int
			p sql.RawBytes
		)
		if err := rows.Scan(&i, &p); err != nil {
			return err
		}
		results[i].Payload = bytes.Clone(p)
	}
	return rows.Err()
}

const defaultPage = 1000

// Scan implements backing.Store with keyset pages: it holds no cursor open between pages,
// so it never keeps the WAL from being folded in.
func (s *Store) Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) (err error) {
	if req.Segments < 1 || req.Segment < 0 || req.Segment >= req.Segments {
		return fmt.Errorf("scan: %w: segment %d of %d", feature.ErrInvalid, req.Segment, req.Segments)
	}
	limit := req.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	lo, hi := req.Segment*shards/req.Segments, (req.Segment+1)*shards/req.Segments
	after := position{shard: lo}
	if len(req.Cursor) > 0 {
		if after, err = parsePosition(req.Cursor); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
	}
	args := []any{after.shard, after.view, after.key, hi}
	query := `SELECT s, v, e, p, x FROM items WHERE (s, v, e) > (?, ?, ?) AND s < ?`
	if len(req.Views) > 0 {
		query += ` AND v IN (?` + strings.Repeat(`,?`, len(req.Views)-1) + `)`
		for _, v := range req.Views {
			args = append(args, v.String())
		}
	}
	query += ` ORDER BY s, v, e LIMIT ?`
	rows, err := s.reader.QueryContext(ctx, query, append(args, limit)...)
	if err != nil {
		return s.wrap("scan", err)
	}
	defer func() {
		if closeErr := rows.Close(); closeErr != nil {
			err = errors.Join(err, s.wrap("scan", closeErr))
		}
	}()
	page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
	var last position
	for rows.Next() {
		var (
			view, key, payload sql.RawBytes
			x                  sql.NullInt64
		)
		if err := rows.Scan(&last.shard, &view, &key, &payload, &x); err != nil {
			return s.wrap("scan", err)
		}
		last.view, last.key = string(view), string(key)
		// Reuse the memory of the record that was here on the page before.
		n := len(page.Records)
		page.Records = slices.Grow(page.Records, 1)[:n+1]
		if err := fill(&page.Records[n], last, payload, x); err != nil {
			return fmt.Errorf("sqlite %s: scan: %w", s.cfg.Path, err)
		}
	}
	if err := rows.Err(); err != nil {
		return s.wrap("scan", err)
	}
	if len(page.Records) == limit {
		page.Next = last.append(nil)
	}
	return nil
}

func fill(rec *feature.Record, at position, payload []byte, x sql.NullInt64) error {
	id, err := feature.ParseViewID(at.view)
	if err != nil {
		return fmt.Errorf("row %q: %w", at.view, err)
	}
	rec.Ref = feature.Ref{View: id, Key: feature.Key(at.key)}
	rec.Payload = append(rec.Payload[:0], payload...)
	rec.Version, rec.Online, rec.Retain = feature.Version{}, feature.NoTime, feature.NoTime
	if h, _, err := feature.ParsePayload(rec.Payload); err == nil {
		rec.Version = h.Version
	}
	if x.Valid {
		rec.Retain = feature.Micros(x.Int64 * 1e6)
	}
	return nil
}

// position is a place in the primary key; a scan cursor is its bytes.
type position struct {
	shard     int
	view, key string
}

const positionFormat = 1

func (p position) append(dst []byte) []byte {
	dst = append(dst, positionFormat, byte(p.shard>>8), byte(p.shard), byte(len(p.view)>>8), byte(len(p.view)))
	dst = append(dst, p.view...)
	return append(dst, p.key...)
}

func parsePosition(b []byte) (position, error) {
	if len(b) < 5 || b[0] != positionFormat {
		return position{}, fmt.Errorf("%w: cursor is not of this store", feature.ErrInvalid)
	}
	n := int(b[3])<<8 | int(b[4])
	if len(b) < 5+n {
		return position{}, fmt.Errorf("%w: cursor is cut", feature.ErrInvalid)
	}
	return position{shard: int(b[1])<<8 | int(b[2]), view: string(b[5 : 5+n]), key: string(b[5+n:])}, nil
}

var _ backing.StateStore = (*Store)(nil)

// ViewsOf implements backing.Store. It looks through one shard of 1,024: there is no index
// by key alone, because nothing but erasing an entity asks so.
func (s *Store) ViewsOf(ctx context.Context, key feature.Key) (ids []feature.ViewID, err error) {
	rows, err := s.reader.QueryContext(ctx, `SELECT v FROM items WHERE s = ? AND e = ?`, feature.ShardOf(key, shards), string(key))
	if err != nil {
		return nil, s.wrap("list the views of a key", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, s.wrap("list the views of a key", err)
		}
		if id, err := feature.ParseViewID(text); err == nil { // else no value of Hearth
			ids = append(ids, id)
		}
	}
	return ids, s.wrap("list the views of a key", rows.Err())
}
