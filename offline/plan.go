package offline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/sql"
)

// PlanStats are the counts that a plan was chosen from.
type PlanStats struct {
	FeatureRows int64   `json:"feature_rows"` // in the time range of the spine, as far as they were counted: at most
	SpineRows   int64   `json:"spine_rows"`   // with a key and a time
	SpineKeys   int64   `json:"spine_keys"`
	MostRows    int64   `json:"most_rows"`          // spine rows of the most frequent key
	Pairs       int64   `json:"pairs,omitempty"`    // estimate of what a hash plan would compare
	Sampled     int64   `json:"sampled,omitempty"`  // feature rows that were looked at; 0 when counts of the spine were enough
	Matching    float64 `json:"matching,omitempty"` // share of the sampled rows whose first key column has labels; 0 when it was not needed
}

// The thresholds of the rule. They were fitted to measured shapes (docs/TRAINING_SETS.md).
const (
	smallFeatures = 50_000 // below, counting costs more than it can save
	pairsPerRow   = 3      // a hash plan may compare so many pairs per row that ASOF would sort
	worstCase     = 10     // without a look at the features, the worst of them must stay within so many times that
	semiJoinShare = 0.5    // with fewer of the feature rows matching, a semi-join pays
	skewFactor    = 10     // a key with so many times the mean number of spine rows, and skewSlack more, is called hot
	skewSlack     = 100
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
//	3 * (feature rows + labels)
//
// comparisons, else ASOF, which sorts both and cannot explode. No range of times enters the
// estimate, since one stray time would stretch it: first the features are taken to follow the
// labels over the keys and to lie in the busiest two buckets, which is a little too many where
// they do not. If that is too many, or could hide far more, a sample of the features decides.
func (s *session) choose(ctx context.Context, j sql.Join, src *source, spineRows int64) (plan Plan, why string, st PlanStats, err error) {
	st.SpineRows = spineRows
	if spineRows == 0 {
		return PlanASOF, "no spine row has a key and a time", st, nil
	}
	if st.FeatureRows, err = s.featureRows(ctx, j, src); err != nil {
		return "", "", st, err
	}
	if st.FeatureRows < smallFeatures {
		return PlanASOF, "few feature rows", st, nil
	}
	labels, err := s.countLabels(ctx, j)
	if err != nil {
		return "", "", st, err
	}
	st.SpineKeys, st.MostRows = labels.keys, labels.most
	all := float64(st.FeatureRows) * labels.peers
	plan, why = st.hashPlan(all, all*labels.busiest)
	if plan != "" && float64(st.FeatureRows)*float64(st.MostRows) <= worstCase*st.mostPairs() {
		return plan, why, st, nil
	}
	// From here on what the features are, not what they can be.
	sample, err := s.sample(ctx, j, st.FeatureRows)
	if err != nil {
		return "", "", st, err
	}
	defer func() { err = errors.Join(err, s.Exec(ctx, fmt.Sprintf("DROP TABLE p%d", j.N))) }()
	st.Sampled, st.FeatureRows = sample.rows, sample.rows*sample.every
	all, within, err := s.countPairs(ctx, j)
	if err != nil {
		return "", "", st, err
	}
	plan, why = st.hashPlan(all*float64(sample.every), within*float64(sample.every))
	if plan != "" && float64(sample.missed())*float64(st.MostRows) > st.mostPairs() {
		plan, why = "", "one entity has so many labels that a sample cannot tell how many pairs there are"
	}
	if plan != "" {
		return plan, why, st, nil
	}
	if st.Matching, err = s.matching(ctx, j); err != nil {
		return "", "", st, err
	}
	if sample.rows > 0 && st.Matching < semiJoinShare {
		return PlanASOFSemi, why + "; few of the feature rows are of the spine's entities", st, nil
	}
	return PlanASOF, why, st, nil
}

// mostPairs is the number of comparisons up to which a hash plan is no slower than ASOF.
func (st *PlanStats) mostPairs() float64 {
	return pairsPerRow * float64(st.FeatureRows+st.SpineRows)
}

// hashPlan decides between the hash plans, given the pairs of equal keys and those of them
// within buckets, of which there are as many without a TTL. Buckets double the labels and
// widen the key, so that they are used only where it takes them. It returns "" if neither
// plan will do.
func (st *PlanStats) hashPlan(all, within float64) (plan Plan, why string) {
	limit := st.mostPairs()
	switch {
	case all <= limit:
		within, plan, why = all, PlanHash, "few labels and features of one entity"
	case within <= limit:
		plan, why = PlanBucket, "few candidates per label"
	case float64(st.MostRows) > skewFactor*float64(st.SpineRows)/float64(st.SpineKeys)+skewSlack:
		why = "one entity has many labels"
	default:
		why = "many candidates per label"
	}
	st.Pairs = int64(min(within, math.MaxInt64/2))
	return plan, why
}

// forbids reports why a forced plan cannot be used for a view, or "".
func (p Plan) forbids(v *feature.View) string {
	switch p {
	case PlanAuto, PlanASOF, PlanASOFSemi, PlanHash:
		return ""
	case PlanBucket:
		if v.TTL < time.Microsecond {
			return "plan bucket needs a TTL"
		}
		return ""
	}
	return fmt.Sprintf("unknown plan %q; use asof, asof+semi, bucket or hash", string(p))
}
