package offline

import (
	"context"
	"fmt"
	"strings"

	"github.com/hearthstore/hearth/sql"
)

const (
	sampleRows = 100_000 // of the features that a sample holds, at least, where there are so many
	// A sample of one row in n shows none of so many times n rows once in 150 times.
	sampleMisses = 5
	shortBucket  = 60_000_000 // counting labels per microsecond would tell no more than per minute
)

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
	if src.query == "" && len(src.files) > 1 && len(j.Bounds.Where) > 0 {
		query += " WHERE " + strings.Join(j.Bounds.Where, " AND ")
	}
	err = s.QueryRow(ctx, query, &rows)
	return rows, err
}

// sampled describes the sample of a join's features in table p<n>.
type sampled struct {
	rows  int64
	every int64 // one row in so many
}

// missed is how many rows can lie together and escape the sample.
func (p sampled) missed() int64 { return sampleMisses * (p.every - 1) }

// sample takes keys and times of the features that the labels can need, picked by their
// places in the files: the same rows each time, and as likely from one key or hour as from another.
func (s *session) sample(ctx context.Context, j sql.Join, rows int64) (p sampled, err error) {
	p.every = max(1, rows/sampleRows)
	scan := j.Scan
	scan.Where = append([]string{fmt.Sprintf("hash(file_index, file_row_number) %% %d = 0", p.every)}, scan.Where...)
	query := fmt.Sprintf("CREATE OR REPLACE TEMP TABLE p%d AS SELECT * FROM %s", j.N, scan.Select(j.Bounds, "keys", "ev"))
	if err := s.Exec(ctx, query); err != nil {
		return p, err
	}
	err = s.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM p%d", j.N), &p.rows)
	return p, err
}

// countPairs counts the labels that the sampled features meet, of the same key and of these
// within buckets, without making the pairs: of one key there may be too many.
func (s *session) countPairs(ctx context.Context, j sql.Join) (all, within float64, err error) {
	query := `SELECT coalesce(sum(f.n * s.n), 0)::DOUBLE FROM (SELECT %[2]s, count(*) AS n FROM s%[1]d GROUP BY %[2]s) s
JOIN (SELECT %[2]s, count(*) AS n FROM p%[1]d GROUP BY %[2]s) f ON %[3]s`
	if err := s.QueryRow(ctx, fmt.Sprintf(query, j.N, j.KeyNames(""), j.KeysEqual("s", "f")), &all); err != nil || j.TTL == 0 {
		return all, all, err
	}
	query = `SELECT coalesce(sum(f.n), 0)::DOUBLE FROM (SELECT %[2]s, t // %[4]d AS b FROM s%[1]d) s
JOIN (SELECT %[2]s, b, count(*) AS n FROM (SELECT %[2]s, unnest([ev // %[4]d, ev // %[4]d + 1]) AS b FROM p%[1]d) GROUP BY %[2]s, b) f
  ON %[3]s AND s.b = f.b`
	err = s.QueryRow(ctx, fmt.Sprintf(query, j.N, j.KeyNames(""), j.KeysEqual("s", "f"), j.TTL), &within)
	return all, within, err
}

// matching reads the share of the sampled features that a semi-join on the first key column
// would keep.
func (s *session) matching(ctx context.Context, j sql.Join) (share float64, err error) {
	query := fmt.Sprintf("SELECT coalesce((count(*) FILTER (k0 IN (SELECT k0 FROM s%d))) / count(*), 0)::DOUBLE FROM p%d", j.N, j.N)
	err = s.QueryRow(ctx, query, &share)
	return share, err
}
