package offline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/offline/internal/duck"
	"github.com/hearthstore/hearth/offline/internal/newest"
	"github.com/hearthstore/hearth/sql"
)

// indexed is a join whose winners were found by an index: its results, as statements call them.
type indexed struct {
	index                       *newest.Index
	winner, event, known, picks *duck.Call
	found                       newest.Found
	lent                        int64 // bytes of DuckDB's memory
}

// close forgets the functions and the memory. No statement that calls them may be running.
func (x *indexed) close(ctx context.Context, s *session) error {
	for _, c := range []*duck.Call{x.winner, x.event, x.known, x.picks} {
		c.Free()
	}
	x.index.Close()
	return s.lend(context.WithoutCancel(ctx), -x.lent) // whatever ended, DuckDB gets it back
}

// errCrowded says that an index gave up: so many rows share both times with others that they
// are not worth holding.
var errCrowded = errors.New("too many feature rows share entity and times")

// fitsIndex reports whether the index of a join may be held in memory: in two fifths of what the
// process may have, which DuckDB lends.
func (d *dataset) fitsIndex(labels int64, src *source) bool {
	if labels > math.MaxInt32 || d.spine.total > math.MaxUint32 || len(src.files) > newest.MaxFiles {
		return false
	}
	peak, kept := newest.Bytes(labels, d.spine.total, d.req.KnownAt)
	if d.assembly == AssemblyJoin { // which needs what is kept of all of them
		peak += kept * int64(len(d.req.Selection.Groups)-1)
	}
	return peak <= d.engine.config.MemoryBytes*2/5
}

// joinIndexed finds the winners of a join by an index, and says where their features are. It
// returns why it did not, if there was a better way.
func (d *dataset) joinIndexed(ctx context.Context, i int, j sql.Join, v *ViewManifest) (whyNot string, err error) {
	x, from, err := d.pick(ctx, j, v)
	switch {
	case errors.Is(err, errCrowded):
		return err.Error(), d.dropIndexTables(ctx, i)
	case errors.Is(err, syscall.ENOMEM) || duck.IsKind(err, duck.Memory):
		return "no memory for an index", d.dropIndexTables(ctx, i)
	case err != nil:
		return "", err
	}
	v.Ties, v.Deleted = x.found.Twins, x.found.Dead
	d.digestQuery(j, "spine", "offer", "tied", "picked")
	return "", d.take(ctx, x, from)
}

// take says where the features of picked rows are.
func (d *dataset) take(ctx context.Context, x *indexed, from sql.Join) error {
	i := from.N
	d.indexes[i] = x
	from.Call = x.picks
	text, err := sql.DuckDB("picked", from)
	if err != nil {
		return err
	}
	d.winners[i] = sql.Winners{N: i, From: "(" + text + ")", Place: x.winner, Event: x.event}
	if d.assembly == AssemblyJoin && d.req.PartitionRows > 0 { // or every part would read the source again
		d.beginView(i, "features")
		if err := d.Exec(ctx, fmt.Sprintf("CREATE OR REPLACE TEMP TABLE m%d AS %s; DROP TABLE IF EXISTS f%d", i, text, i)); err != nil {
			return err
		}
		d.winners[i].From = d.winners[i].Name()
	}
	return d.Exec(ctx, fmt.Sprintf("DROP TABLE e%d", i))
}

func (d *dataset) dropIndexTables(ctx context.Context, i int) error {
	return d.Exec(ctx, fmt.Sprintf("DROP TABLE IF EXISTS e%d; DROP TABLE IF EXISTS f%d", i, i))
}

// pick finds the winners of a join: one pass over the keys and times of the feature rows, and
// one over the content of those that tie. It returns the join over the rows that their
// features are to be taken from. Table e<N> stays.
func (d *dataset) pick(ctx context.Context, j sql.Join, v *ViewManifest) (x *indexed, from sql.Join, err error) {
	peak, kept := newest.Bytes(v.PlanStats.SpineRows, d.spine.total, d.req.KnownAt)
	if err := d.lend(ctx, peak); err != nil {
		return nil, j, err
	}
	defer func() {
		back := peak - kept
		if err != nil {
			back = peak
		}
		err = errors.Join(err, d.lend(context.WithoutCancel(ctx), -back))
	}()
	d.beginView(j.N, "index")
	index, err := d.indexLabels(ctx, j, &v.PlanStats)
	if err != nil {
		return nil, j, err
	}
	defer func() {
		if err != nil {
			index.Close()
		}
	}()
	d.beginView(j.N, "newest rows")
	if from, err = d.gather(ctx, j, &v.PlanStats); err != nil {
		return nil, j, err
	}
	if err := d.callFor(ctx, "offer", from, offering(index), nil); err != nil {
		return nil, j, err
	}
	if index.Crowded() {
		return nil, j, errCrowded
	}
	if err := d.breakTies(ctx, j, index); err != nil {
		return nil, j, err
	}
	found, err := index.Settle(ctx, int(d.spine.total))
	if err != nil {
		return nil, j, err
	}
	return &indexed{
		index:  index,
		winner: duck.Register(byRow(index.Places(), func(p int64) bool { return p >= 0 })),
		event:  duck.Register(byRow(index.Events(), isTime)), known: duck.Register(byRow(index.Created(), isTime)),
		picks: duck.Register(within(newest.NewSet(index.Places()))),
		found: found, lent: kept,
	}, from, nil
}

// offering hands feature rows to an index: entity, event time, created time, place and whether
// the row says that there is no value. All have an event time: the bounds of a join leave out others.
func offering(index *newest.Index) duck.Func {
	return func(in *duck.Chunk, out *duck.Result) {
		n := in.Len()
		created := slices.Clone(in.Column(2).Int64s(n))
		for i := range created {
			if in.Column(2).Null(i) {
				created[i] = int64(feature.NoTime)
			}
		}
		index.Offer(newest.Rows{Entities: in.Column(0).Int64s(n), Events: in.Column(1).Int64s(n), Created: created, Places: in.Column(3).Int64s(n), Dead: in.Column(4).Bools(n)})
		out.Fill(1)
	}
}

func isTime(t int64) bool { return t != int64(feature.NoTime) }

// byRow looks up a value by the number of a spine's row. It is NULL where there is none.
func byRow(values []int64, is func(int64) bool) duck.Func {
	return func(in *duck.Chunk, out *duck.Result) {
		for i, row := range in.Column(0).Int64s(in.Len()) {
			if v := values[row]; is(v) {
				out.Set(i, v)
			} else {
				out.SetNull(i)
			}
		}
	}
}

// within says of a place whether it is in a set: 1 or 0.
func within(set newest.Set) duck.Func {
	return func(in *duck.Chunk, out *duck.Result) {
		for i, place := range in.Column(0).Int64s(in.Len()) {
			out.Set(i, set.Has(place))
		}
	}
}

// callFor runs a query that calls a function for each row. rows, which may be nil, is given
// its result chunk by chunk.
func (d *dataset) callFor(ctx context.Context, template string, j sql.Join, f duck.Func, rows func(*duck.Rows)) error {
	call := duck.Register(f)
	defer call.Free()
	j.Call = call
	text, err := sql.DuckDB(template, j)
	if err != nil {
		return err
	}
	result, err := d.Query(ctx, text)
	if err != nil {
		return err
	}
	for result.Next() {
		if rows != nil {
			rows(result)
		}
	}
	return result.Close()
}

// indexLabels makes the index over the labels in s<N>, and the table e<N> of their entities.
func (d *dataset) indexLabels(ctx context.Context, j sql.Join, st *PlanStats) (*newest.Index, error) {
	if err := d.run(ctx, "entities", j); err != nil {
		return nil, err
	}
	if err := d.QueryRow(ctx, fmt.Sprintf("SELECT count(*), max(n) FROM e%d", j.N), &st.SpineKeys, &st.MostRows); err != nil {
		return nil, err
	}
	counts := make([]uint32, st.SpineKeys)
	rows, err := d.Query(ctx, fmt.Sprintf("SELECT id, n FROM e%d", j.N))
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		n := rows.Column(1).Int64s(rows.Len())
		for i, id := range rows.Column(0).Int64s(rows.Len()) {
			counts[id] = uint32(n[i])
		}
	}
	if err := rows.Close(); err != nil {
		return nil, err
	}
	index, err := newest.New(newest.Config{Labels: counts, TTL: j.TTL, KnownAt: j.KnownAt, Threads: d.engine.config.Threads})
	if err != nil {
		return nil, err
	}
	err = d.callFor(ctx, "place", j, func(in *duck.Chunk, out *duck.Result) {
		n := in.Len()
		index.Place(in.Column(0).Int64s(n), in.Column(1).Int64s(n), in.Column(2).Int64s(n))
		out.Fill(1)
	}, nil)
	if err == nil {
		err = index.Sort(ctx)
	}
	if err != nil {
		index.Close()
		return nil, err
	}
	return index, nil
}

const (
	// gatherShare of the feature rows, or less, are kept when they are read: keeping one costs
	// as much as reading the keys and times of about so many.
	gatherShare = 16
	gatherFrom  = 200_000 // below so many feature rows it does not matter
	sampleRows  = 50_000  // of the keys, from the beginning
)

// gather keeps the rows of labelled entities in table f<N> where they seem to be few, and returns
// the join over it, else the join that it was given.
func (d *dataset) gather(ctx context.Context, j sql.Join, st *PlanStats) (sql.Join, error) {
	if st.FeatureRows < gatherFrom {
		return j, nil
	}
	sample := j
	sample.Limit = sampleRows
	text, err := sql.DuckDB("sample", sample)
	if err != nil {
		return j, err
	}
	var rows, labelled int64
	if err := d.QueryRow(ctx, text, &rows, &labelled); err != nil {
		return j, err
	}
	if labelled*gatherShare > rows {
		return j, nil
	}
	// The first rows may not be like the others: what is kept is bounded, whatever they said.
	few := j
	few.Limit = min(2*st.FeatureRows/gatherShare, max(st.SpineRows, sampleRows))
	if err := d.run(ctx, "gather", few); err != nil {
		return j, err
	}
	var kept int64
	if err := d.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM f%d", j.N), &kept); err != nil {
		return j, err
	}
	if kept >= few.Limit {
		return j, d.Exec(ctx, fmt.Sprintf("DROP TABLE f%d", j.N))
	}
	st.Gathered = kept
	return j.Over(), nil
}

// breakTies reads the rows between which only their content can choose.
func (d *dataset) breakTies(ctx context.Context, j sql.Join, index *newest.Index) error {
	tied := index.Tied()
	if len(tied) == 0 {
		return nil
	}
	d.beginView(j.N, "ties")
	digests := map[int64]string{}
	err := d.callFor(ctx, "tied", j, within(newest.NewSet(tied)), func(rows *duck.Rows) {
		for i := range rows.Len() {
			digests[rows.Column(0).Int(i)] = string(rows.Column(1).Bytes(i))
		}
	})
	if err != nil {
		return err
	}
	if err := index.BreakTies(digests); err != nil {
		return fmt.Errorf("%w: %w; run again when their writer is done", errChanged, err)
	}
	return nil
}

// changedSource tells a statement that read other rows than those that were picked from
// other failures.
func changedSource(err error) error {
	if err != nil && strings.Contains(err.Error(), sql.OtherRows) {
		return fmt.Errorf("%w: %s; run again when their writer is done", errChanged, sql.OtherRows)
	}
	return err
}

// closeIndexes lets go of what the indexes hold.
func (d *dataset) closeIndexes(ctx context.Context) error {
	var errs []error
	for i := range d.indexes {
		errs = append(errs, d.closeIndex(ctx, i))
	}
	return errors.Join(errs...)
}

// closeIndex does so for one view, if it has an index.
func (d *dataset) closeIndex(ctx context.Context, i int) error {
	x := d.indexes[i]
	if x == nil {
		return nil
	}
	d.indexes[i] = nil
	return x.close(ctx, d.session)
}

// eventsOf renders a subquery of the times of the labels that have a feature row in a view:
// t, and that row's ev and, with known_at, cr. labels has row_id and t.
func (d *dataset) eventsOf(i int, labels string) string {
	x, known := d.indexes[i], ""
	if x == nil {
		if d.req.KnownAt {
			known = ", m.cr"
		}
		return fmt.Sprintf("(SELECT o.t, m.ev%s FROM m%d m JOIN %s o ON o.row_id = m.row_id)", known, i, labels)
	}
	if d.req.KnownAt {
		known = ", " + x.known.SQL("row_id") + " AS cr"
	}
	return fmt.Sprintf("(SELECT * FROM (SELECT t, %s AS ev%s FROM %s) WHERE ev IS NOT NULL)", x.event.SQL("row_id"), known, labels)
}
