package offline

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/sql"
)

// PlanStats are the counts that a plan was chosen from.
type PlanStats struct {
	FeatureRows int64 `json:"feature_rows"` // in the time range of the spine, as far as they were counted: at most
	SpineRows   int64 `json:"spine_rows"`   // with a key and a time
	SpineKeys   int64 `json:"spine_keys"`
	MostRows    int64 `json:"most_rows"`          // spine rows of the most frequent key
	Pairs       int64 `json:"pairs,omitempty"`    // estimate of what a hash plan would compare
	Gathered    int64 `json:"gathered,omitempty"` // feature rows that were kept when they were read, since they were few
}

// The thresholds of the rule. They were fitted to measured shapes (docs/TRAINING_SETS.md).
const (
	smallFeatures = 50_000     // below, counting costs more than it can save
	pairsPerRow   = 2          // a hash plan may compare so many pairs per row that ASOF would sort
	shortBucket   = 60_000_000 // counting labels per microsecond would tell no more than per minute
	worstCase     = 10         // the worst that features can be must stay within so many times that
)

// timeRange holds the event times that can match, both ends inclusive.
type timeRange struct{ lo, hi feature.Micros }

// spineRange reads the range of event times that can match the narrow spine of a join.
func (s *session) spineRange(ctx context.Context, n int, ttl int64) (r timeRange, rows int64, err error) {
	lo := "NULL::BIGINT"
	if ttl > 0 {
		lo = "min(lo)"
	}
	var low, high *int64
	err = s.QueryRow(ctx, fmt.Sprintf("SELECT count(*), %s, max(t) FROM s%d", lo, n), &rows, &low, &high)
	r = timeRange{feature.NoTime, feature.NoTime}
	if low != nil {
		r.lo = feature.Micros(*low)
	}
	if high != nil {
		r.hi = feature.Micros(*high)
	}
	return r, rows, err
}

// choose picks the plan of one join from counts, and says why. A hash plan compares each
// feature row with the labels of its key, within buckets with those of two buckets. It is
// taken if that makes at most
//
//	2 * (feature rows + labels)
//
// comparisons, else ASOF, which sorts both and cannot explode. No range of times enters the
// estimate, since one stray time would stretch it: the features are taken to follow the
// labels over the keys and to lie in the busiest two buckets, which is a little too many where
// they do not. The worst that they can be, all of the key with the most labels, must stay
// within ten times the bound.
func (d *dataset) choose(ctx context.Context, j sql.Join, src *source, spineRows int64) (plan Plan, why string, st PlanStats, err error) {
	st.SpineRows = spineRows
	if spineRows == 0 {
		return PlanASOF, "no spine row has a key and a time", st, nil
	}
	if st.FeatureRows, err = d.featureRows(ctx, j, src); err != nil {
		return "", "", st, err
	}
	if !d.req.tables && d.fitsIndex(spineRows, src) {
		return PlanIndex, "the labels fit in memory", st, nil
	}
	if st.FeatureRows < smallFeatures {
		return PlanASOF, "few feature rows", st, nil
	}
	labels, err := d.countLabels(ctx, j)
	if err != nil {
		return "", "", st, err
	}
	st.SpineKeys, st.MostRows = labels.keys, labels.most
	most := pairsPerRow * float64(st.FeatureRows+st.SpineRows)
	all := float64(st.FeatureRows) * labels.peers
	within := all * labels.busiest
	st.Pairs = int64(min(within, math.MaxInt64/2))
	switch {
	case float64(st.FeatureRows)*float64(st.MostRows) > worstCase*most:
		return PlanASOF, "one entity has so many labels that a hash join could make too many pairs", st, nil
	case all <= most: // without buckets, which double the labels and widen the key
		st.Pairs = int64(all)
		return PlanHash, "few labels of one entity", st, nil
	case within <= most && j.TTL > 0:
		return PlanBucket, "few candidates per label", st, nil
	}
	return PlanASOF, "many candidates per label", st, nil
}

// labelCounts describe a narrow spine.
type labelCounts struct {
	keys int64
	most int64 // labels of the most frequent key
	// peers is how many labels the key of a label has, itself included: what a feature row
	// meets when features follow labels over the keys.
	peers   float64
	busiest float64 // the largest share of the labels that one bucket and the next one hold; 1 without a TTL
}

// countLabels reads the narrow spine of a join.
func (s *session) countLabels(ctx context.Context, j sql.Join) (c labelCounts, err error) {
	query := fmt.Sprintf("SELECT count(*), max(n), sum(n::DOUBLE * n) / sum(n) FROM (SELECT count(*) AS n FROM s%d GROUP BY %s)", j.N, j.KeyNames(""))
	if err := s.QueryRow(ctx, query, &c.keys, &c.most, &c.peers); err != nil || j.TTL == 0 {
		c.busiest = 1
		return c, err
	}
	query = fmt.Sprintf(`SELECT max(n) / sum(n) * 2 FROM (
  SELECT sum(n)::DOUBLE AS n FROM (SELECT unnest([b, b - 1]) AS b, n FROM (SELECT t // %d AS b, count(*) AS n FROM s%d GROUP BY b)) GROUP BY b)`,
		max(j.TTL, shortBucket), j.N)
	err = s.QueryRow(ctx, query, &c.busiest)
	return c, err
}

// featureRows counts the rows that a join may read: of one file or query all of them, which
// the footer tells. Of several files that would cost as much as the times of those row groups
// which the labels can need, so these are counted.
func (s *session) featureRows(ctx context.Context, j sql.Join, src *source) (rows int64, err error) {
	query := "SELECT count(*) FROM " + src.from
	if src.query == "" && len(src.files) > 1 && len(j.Bounds) > 0 {
		query += " WHERE " + strings.Join(j.Bounds, " AND ")
	}
	err = s.QueryRow(ctx, query, &rows)
	return rows, err
}

// forbids reports why a forced plan cannot be used for a view, or "".
func (p Plan) forbids(v *feature.View) string {
	switch p {
	case PlanAuto, PlanIndex, PlanASOF, PlanHash:
		return ""
	case PlanBucket:
		if v.TTL < time.Microsecond {
			return "plan bucket needs a TTL"
		}
		return ""
	}
	return fmt.Sprintf("unknown plan %q; use index, asof, bucket or hash", string(p))
}
