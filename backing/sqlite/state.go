package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
)

// GetState implements backing.StateStore.
func (s *Store) GetState(ctx context.Context, kind, name string) (backing.StateItem, error) {
	item := backing.StateItem{Kind: kind, Name: name}
	var x sql.NullInt64
	err := s.reader.QueryRowContext(ctx, `SELECT b, rev, x FROM state WHERE k = ? AND n = ?`, kind, name).Scan(&item.Value, &item.Revision, &x)
	if errors.Is(err, sql.ErrNoRows) {
		return item, fmt.Errorf("state %s/%s: %w", kind, name, feature.ErrNotFound)
	}
	item.ExpireAt = micros(x)
	return item, s.wrap("read state "+kind+"/"+name, err)
}

// PutState implements backing.StateStore.
func (s *Store) PutState(ctx context.Context, item backing.StateItem) (backing.StateItem, error) {
	if err := backing.CheckState(item.Kind, item.Name, item.Value); err != nil {
		return item, err
	}
	revision, err := backing.NewRevision()
	if err != nil {
		return item, err
	}
	value := item.Value
	if value == nil {
		value = []byte{}
	}
	var res sql.Result
	if item.Revision == 0 {
		res, err = s.writer.ExecContext(ctx, `INSERT INTO state (k, n, b, rev, x) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			item.Kind, item.Name, value, revision, unixSeconds(item.ExpireAt))
	} else {
		res, err = s.writer.ExecContext(ctx, `UPDATE state SET b = ?, rev = ?, x = ? WHERE k = ? AND n = ? AND rev = ?`,
			value, revision, unixSeconds(item.ExpireAt), item.Kind, item.Name, item.Revision)
	}
	op := "write state " + item.Kind + "/" + item.Name
	if err != nil {
		return item, s.wrap(op, err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return item, s.wrap(op, err)
	}
	if n == 0 {
		return item, fmt.Errorf("state %s/%s: %w", item.Kind, item.Name, feature.ErrConflict)
	}
	item.Revision = revision
	return item, nil
}

// DeleteState implements backing.StateStore.
func (s *Store) DeleteState(ctx context.Context, kind, name string, revision int64) error {
	op := "delete state " + kind + "/" + name
	res, err := s.writer.ExecContext(ctx, `DELETE FROM state WHERE k = ? AND n = ? AND rev = ?`, kind, name, revision)
	if err != nil {
		return s.wrap(op, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return s.wrap(op, err)
	}
	var exists bool
	if err := s.reader.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM state WHERE k = ? AND n = ?)`, kind, name).Scan(&exists); err != nil {
		return s.wrap(op, err)
	}
	if exists {
		return fmt.Errorf("state %s/%s: %w", kind, name, feature.ErrConflict)
	}
	return nil
}

// ListState implements backing.StateStore.
func (s *Store) ListState(ctx context.Context, kind string, opt backing.ListOptions) (items []backing.StateItem, err error) {
	query := `SELECT n, b, rev, x FROM state WHERE k = ?`
	args := []any{kind}
	if opt.Prefix != "" {
		// TEXT compares bytewise here (BINARY), so a prefix is a range: from itself to the first
		// text after everything that begins with it. 0xff occurs in no UTF-8 text.
		query += ` AND n >= ? AND n < ?`
		args = append(args, opt.Prefix, opt.Prefix+"\xff")
	}
	order := `ASC`
	if opt.Descending {
		order = `DESC`
	}
	if opt.After != "" {
		if opt.Descending {
			query += ` AND n < ?`
		} else {
			query += ` AND n > ?`
		}
		args = append(args, opt.After)
	}
	query += ` ORDER BY n ` + order
	if opt.Limit > 0 {
		query += ` LIMIT ?`
		args = append(args, opt.Limit)
	}
	rows, err := s.reader.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.wrap("list state "+kind, err)
	}
	defer func() {
		if closeErr := rows.Close(); closeErr != nil {
			err = errors.Join(err, s.wrap("list state "+kind, closeErr))
		}
	}()
	for rows.Next() {
		item := backing.StateItem{Kind: kind}
		var x sql.NullInt64
		if err := rows.Scan(&item.Name, &item.Value, &item.Revision, &x); err != nil {
			return nil, s.wrap("list state "+kind, err)
		}
		item.ExpireAt = micros(x)
		items = append(items, item)
	}
	return items, s.wrap("list state "+kind, rows.Err())
}

func micros(x sql.NullInt64) feature.Micros {
	if !x.Valid {
		return feature.NoTime
	}
	return feature.Micros(x.Int64 * 1e6)
}
