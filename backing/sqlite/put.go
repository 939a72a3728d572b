package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
)

// txRows bounds one transaction: large enough that the cost of a commit vanishes, small
// enough that other processes get in (a transaction of this size takes about 0.1 s).
const txRows = 5000

// The condition is that of backing.Store.Put; ?8 is the floor.
const upsert = `INSERT INTO items (s, v, e, r, p, h, x) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
	ON CONFLICT (s, v, e) DO UPDATE SET r = excluded.r, p = excluded.p, h = excluded.h, x = excluded.x
	WHERE items.r < ?8 OR (items.r < excluded.r AND items.h <> excluded.h)`

// Put implements backing.Store. Each transaction holds up to 5,000 records, sorted by key.
func (s *Store) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	results := make([]feature.PutResult, len(recs))
	write, losers := backing.Newest(recs, results)
	rows := make([]putRow, len(write))
	for n, i := range write {
		r := &recs[i]
		rows[n] = putRow{index: i, shard: feature.ShardOf(r.Key, shards), view: r.View.String(), rec: r}
	}
	slices.SortFunc(rows, func(a, b putRow) int {
		return cmp.Or(cmp.Compare(a.shard, b.shard), cmp.Compare(a.view, b.view), cmp.Compare(a.rec.Key, b.rec.Key))
	})
	err := s.putRows(ctx, rows, results)
	if err != nil && ctx.Err() == nil {
		return nil, err
	}
	for i, w := range losers {
		results[i] = backing.LoserResult(&recs[i], &recs[w], results[w])
	}
	return results, err
}

func (s *Store) putRows(ctx context.Context, rows []putRow, results []feature.PutResult) error {
	for i := 0; i < len(rows); i += txRows {
		err := s.putTx(ctx, rows[i:min(i+txRows, len(rows))], results)
		if err == nil {
			continue
		}
		err = s.wrap("put", err)
		for _, row := range rows[i:] { // this transaction was rolled back, the rest not begun
			results[row.index] = feature.PutResult{Err: fmt.Errorf("put %s: %w", row.rec.Ref, err)}
		}
		if i == 0 || ctx.Err() != nil {
			return err
		}
		return nil
	}
	return nil
}

type putRow struct {
	index int
	shard int
	view  string
	rec   *feature.Record
}

func (s *Store) putTx(ctx context.Context, rows []putRow, results []feature.PutResult) (err error) {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, rollback(tx))
		}
	}()
	put, err := tx.PrepareContext(ctx, upsert)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, put.Close()) }()
	read, err := tx.PrepareContext(ctx, `SELECT r, h FROM items WHERE s = ? AND v = ? AND e = ?`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, read.Close()) }()
	var r, floor []byte
	for _, row := range rows {
		v := row.rec.Version
		hash := feature.ContentHash(row.rec.Payload)
		r, floor = v.Append(r[:0]), v.Floor().Append(floor[:0])
		res, err := put.ExecContext(ctx, row.shard, row.view, string(row.rec.Key), r, row.rec.Payload, int64(hash), unixSeconds(row.rec.Retain), floor)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		if n == 1 {
			results[row.index] = feature.PutResult{Outcome: feature.Written, Stored: v}
			continue
		}
		if results[row.index], err = refused(ctx, read, row, hash); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// refused says why the upsert changed nothing, by what the transaction sees.
func refused(ctx context.Context, read *sql.Stmt, row putRow, hash uint64) (feature.PutResult, error) {
	var (
		r      []byte
		stored int64
	)
	if err := read.QueryRowContext(ctx, row.shard, row.view, string(row.rec.Key)).Scan(&r, &stored); err != nil {
		return feature.PutResult{}, err
	}
	v, err := feature.ParseVersion(r)
	if err != nil {
		return feature.PutResult{Err: fmt.Errorf("put %s: stored version: %w", row.rec.Ref, err)}, nil
	}
	outcome, again := backing.Judge(v, uint64(stored), row.rec.Version, hash)
	if again { // impossible within one transaction
		return feature.PutResult{Err: fmt.Errorf("put %s: %w: refused against stored version %s", row.rec.Ref, feature.ErrConflict, v)}, nil
	}
	return feature.PutResult{Outcome: outcome, Stored: v}, nil
}

// Delete implements backing.Store, in one transaction per 5,000 refs.
func (s *Store) Delete(ctx context.Context, refs []feature.Ref) ([]error, error) {
	results := make([]error, len(refs))
	done := 0
	for chunk := range slices.Chunk(refs, txRows) {
		if err := s.deleteTx(ctx, chunk); err != nil {
			err = s.wrap("delete", err)
			if done == 0 && ctx.Err() == nil {
				return nil, err
			}
			for i := done; i < len(refs); i++ {
				results[i] = fmt.Errorf("delete %s: %w", refs[i], err)
			}
			return results, ctx.Err()
		}
		done += len(chunk)
	}
	return results, nil
}

func (s *Store) deleteTx(ctx context.Context, refs []feature.Ref) (err error) {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, rollback(tx))
		}
	}()
	stmt, err := tx.PrepareContext(ctx, `DELETE FROM items WHERE s = ? AND v = ? AND e = ?`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stmt.Close()) }()
	for _, ref := range refs {
		if _, err := stmt.ExecContext(ctx, feature.ShardOf(ref.Key, shards), ref.View.String(), string(ref.Key)); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// unixSeconds rounds up, as DynamoDB's time to live does; nil for never.
func unixSeconds(m feature.Micros) any {
	if m == feature.NoTime {
		return nil
	}
	n := int64(m) / 1e6
	if int64(m)%1e6 > 0 {
		n++
	}
	return n
}
