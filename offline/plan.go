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
	FeatureRows int64 `json:"feature_rows"` // estimate of the rows in the time range of the spine
	SpineRows   int64 `json:"spine_rows"`   // with a key and a time
	SpineKeys   int64 `json:"spine_keys"`
	MostRows    int64 `json:"most_rows"`              // spine rows of the most frequent key
	FeatureKeys int64 `json:"feature_keys,omitempty"` // estimate; 0 when it was not needed
	Pairs       int64 `json:"pairs,omitempty"`        // estimate of what a hash plan would compare
}

// The thresholds of the rule. They were fitted to measured shapes (docs/TRAINING_SETS.md).
const (
	smallFeatures   = 50_000 // below, counting costs more than it can save
	pairsPerRow     = 3      // a hash plan may compare so many pairs per row that ASOF would sort
	skewFactor      = 10     // a key with so many times the mean number of spine rows is hot
	skewSlack       = 100
	semiJoinShare   = 0.5 // a spine with fewer of the entities filters the feature side first
	fewKeysPerEntry = 2
	rowsPerSpineKey = 100 // so many feature rows per spine entity ask for the semi-join without a count
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

// choose picks the plan of one join from counts, and says why.
//
//	pairs = Nf * (Ns / Ds) * min(1, 2*ttl/range)
//	bucket  if there is a TTL, no key is hot and pairs <= 3 * (Nf + Ns)
//	hash    the same, where 2*ttl >= range: buckets would exclude nothing
//	asof    else; with a semi-join if the spine has fewer than half of the entities, or so few
//	        for the feature rows that counting theirs would cost as much as a needless semi-join
func (s *session) choose(ctx context.Context, j sql.Join, src *source, in timeRange, spineRows int64) (plan Plan, why string, st PlanStats, err error) {
	st.SpineRows = spineRows
	if spineRows == 0 || in.hi == feature.NoTime {
		return PlanASOF, "no spine row has a key and a time", st, nil
	}
	column := sql.Ident(src.view.Source.TimestampField)
	first, _ := micros("min("+column+")", src.types[src.view.Source.TimestampField], src.view.Source.TimestampUnit)
	last, _ := micros("max("+column+")", src.types[src.view.Source.TimestampField], src.view.Source.TimestampUnit)
	var (
		rows       int64
		begin, end *int64
	)
	// Of one file this is answered from its footer. Of several DuckDB would read the whole
	// column of times, so that only the row groups are read that the labels can need.
	from := src.from
	if src.query == "" && len(src.files) > 1 {
		from += " WHERE " + strings.Join(j.Bounds.Where, " AND ")
	}
	if err := s.QueryRow(ctx, fmt.Sprintf("SELECT count(*), %s, %s FROM %s", first, last, from), &rows, &begin, &end); err != nil {
		return "", "", st, err
	}
	if rows < smallFeatures || begin == nil || end == nil {
		st.FeatureRows = rows
		return PlanASOF, "few feature rows", st, nil
	}
	// Rows within the range of the spine, as if they were spread evenly.
	lo, hi := max(*begin, int64(in.lo)), min(*end, int64(in.hi))
	span := float64(hi) - float64(lo)
	if full := float64(*end) - float64(*begin); full > 0 && span >= 0 {
		st.FeatureRows = int64(float64(rows) * min(1, span/full))
	} else if span >= 0 {
		st.FeatureRows = rows
	}
	query := fmt.Sprintf("SELECT count(*), max(n) FROM (SELECT count(*) AS n FROM s%d GROUP BY %s)", j.N, j.KeyNames(""))
	if err := s.QueryRow(ctx, query, &st.SpineKeys, &st.MostRows); err != nil {
		return "", "", st, err
	}
	mean := float64(st.SpineRows) / float64(st.SpineKeys)
	hot := float64(st.MostRows) > skewFactor*mean+skewSlack
	if j.TTL > 0 {
		share := 1.0
		if span > 0 {
			share = min(1, 2*float64(j.TTL)/span)
		}
		pairs := float64(st.FeatureRows) * mean * share
		st.Pairs = int64(min(pairs, math.MaxInt64/2))
		if !hot && pairs <= pairsPerRow*float64(st.FeatureRows+st.SpineRows) {
			if share >= 1 {
				return PlanHash, "few candidates per label, and the TTL covers the whole range", st, nil
			}
			return PlanBucket, "few candidates per label", st, nil
		}
		why = "many candidates per label"
		if hot {
			why = "one entity has many labels"
		}
	} else {
		why = "no TTL"
	}
	if st.FeatureRows > rowsPerSpineKey*st.SpineKeys {
		return PlanASOFSemi, why + "; the spine has few entities for so many feature rows", st, nil
	}
	if float64(st.FeatureRows) > fewKeysPerEntry*float64(st.SpineKeys) {
		query := fmt.Sprintf("SELECT approx_count_distinct(hash(%s)) FROM %s", j.KeyNames(""), j.Scan.Select(j.Bounds, "keys"))
		if err := s.QueryRow(ctx, query, &st.FeatureKeys); err != nil {
			return "", "", st, err
		}
		if float64(st.SpineKeys) < semiJoinShare*float64(st.FeatureKeys) {
			return PlanASOFSemi, why + "; the spine has few of the entities", st, nil
		}
	}
	return PlanASOF, why, st, nil
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
