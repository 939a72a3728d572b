package offline

import (
	"context"
	"fmt"

	"github.com/hearthstore/hearth/sql"
)

// joinTables finds the winners by joins of tables, and fetches their features into table m<i>.
func (d *dataset) joinTables(ctx context.Context, i int, j sql.Join, plan Plan, v *ViewManifest) error {
	template := "winner_asof"
	if plan == PlanBucket || plan == PlanHash {
		template, j.Bucket = "winner_hash", plan == PlanBucket
	}
	d.beginView(i, "winners")
	if err := d.run(ctx, template, j); err != nil {
		return err
	}
	d.digestQuery(j, template, "fetch", "ties")
	d.winners[i] = sql.Winners{N: i}
	if err := d.fetch(ctx, i, j, v); err != nil {
		return err
	}
	return d.Exec(ctx, fmt.Sprintf("DROP TABLE w%d", i))
}

// tieFactor bounds the fetch: above it, ties are the rule and are resolved per key first.
const tieFactor = 2

// fetch reads the features of the winners and breaks ties.
func (d *dataset) fetch(ctx context.Context, i int, j sql.Join, v *ViewManifest) error {
	var winners, fetched int64
	if err := d.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM w%d", i), &winners); err != nil {
		return err
	}
	if !j.KnownAt {
		j.Limit = tieFactor*winners + 1000
	}
	d.beginView(i, "features")
	if err := d.run(ctx, "fetch", j); err != nil {
		return err
	}
	count := func(dest *int64) error { return d.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM m%d", i), dest) }
	if err := count(&fetched); err != nil {
		return err
	}
	if fetched > winners {
		d.beginView(i, "ties")
	}
	switch {
	case j.Limit > 0 && fetched >= j.Limit:
		if err := d.run(ctx, "fetch_tied", j); err != nil {
			return err
		}
		v.Ties = winners
	case fetched > winners:
		template := "ties"
		if len(j.Fetch) == len(j.Scan.Features) {
			template = "ties_here"
		}
		if err := d.run(ctx, template, j); err != nil {
			return err
		}
		if err := d.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM t%d", i), &v.Ties); err != nil {
			return err
		}
		if err := d.Exec(ctx, fmt.Sprintf("DROP TABLE t%d", i)); err != nil {
			return err
		}
	}
	if err := count(&fetched); err != nil {
		return err
	}
	if fetched != winners {
		return fmt.Errorf("%w: %d winners, %d found again in the files of view %s; run again when their writer is done", errChanged, winners, fetched, d.req.Selection.Groups[i].Alias)
	}
	// A tombstone that wins means that there was no value at the label's time.
	if d.req.Selection.Groups[i].View.Source.DeletedColumn == "" {
		return nil
	}
	if err := d.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM m%d WHERE del", i), &v.Deleted); err != nil {
		return err
	}
	return d.Exec(ctx, fmt.Sprintf("DELETE FROM m%d WHERE del", i))
}
