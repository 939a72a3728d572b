package offline

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

// planCase is a shape of data: SQL over the row number i for keys and times, in microseconds
// since the base of the generated data.
type planCase struct {
	key, at           string // of the features
	labelKey, labelAt string
	facts, labels     int
	ttl               time.Duration
	want              Plan
}

// evenly is SQL for times spread over so many days.
func evenly(salt string, days int64) string {
	return fmt.Sprintf("(hash(i, '%s') %% %d)::BIGINT", salt, days*24*3600*1_000_000)
}

func (c planCase) write(t testing.TB, e *Engine, dir string) *feature.View {
	t.Helper()
	copySQL(t, e, fmt.Sprintf("SELECT (%s)::BIGINT AS k, make_timestamp(%d + %s) AS at, (hash(i, 'a') %% 1000)::BIGINT AS a FROM range(%d) r(i)", c.key, base, c.at, c.facts), filepath.Join(dir, "facts.parquet"))
	copySQL(t, e, fmt.Sprintf("SELECT (%s)::BIGINT AS k, make_timestamp(%d + %s) AS t FROM range(%d) r(i)", c.labelKey, base, c.labelAt, c.labels), filepath.Join(dir, "labels.parquet"))
	return &feature.View{Name: "v", Version: 1, TTL: c.ttl, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}},
		Source: feature.Source{Path: filepath.Join(dir, "facts.parquet"), TimestampField: "at"}, Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}}}
}

func (c planCase) build(t testing.TB, e *Engine, dir string, v *feature.View, plan Plan) *Manifest {
	t.Helper()
	m, err := e.BuildDataset(t.Context(), DatasetRequest{Name: "d", Spine: Spine{Path: filepath.Join(dir, "labels.parquet"), TimestampField: "t"},
		Selection: selectionOf(t, []*feature.View{v}, ref(t, "v:*")), Output: filepath.Join(dir, "out"), Plan: plan, tables: plan == PlanAuto})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// pairs counts what the hash plans would compare, by making every pair of equal keys, and the
// bound of the rule.
func (c planCase) pairs(t testing.TB, e *Engine, dir string) (all, within, limit int64) {
	t.Helper()
	w := max(c.ttl.Microseconds(), 1)
	s, err := e.session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	labels := "'" + filepath.Join(dir, "labels.parquet") + "'"
	features := fmt.Sprintf("(SELECT k, epoch_us(\"at\") AS ev FROM '%s' WHERE epoch_us(\"at\") <= (SELECT max(epoch_us(t)) FROM %s)", filepath.Join(dir, "facts.parquet"), labels)
	if c.ttl > 0 {
		features += fmt.Sprintf(" AND epoch_us(\"at\") >= (SELECT min(epoch_us(t)) - %d FROM %s)", w, labels)
	}
	features += ")"
	query := fmt.Sprintf("SELECT count(*), count(*) FILTER (epoch_us(s.t) // %d - f.ev // %d IN (0, 1)) FROM %s s JOIN %s f ON s.k = f.k", w, w, labels, features)
	if err := s.QueryRow(t.Context(), query, &all, &within); err != nil {
		t.Fatal(err)
	}
	query = fmt.Sprintf("SELECT %d * (count(*) + %d) FROM %s", pairsPerRow, c.labels, features)
	if err := s.QueryRow(t.Context(), query, &limit); err != nil {
		t.Fatal(err)
	}
	return all, within, limit
}

// The rule's choice on each shape of data, that it gives the rows that ASOF gives, and that a
// hash plan is taken only where it makes no more pairs than the bound says, counted by making them. The
// shapes are those of the benchmark, small, and some that mislead an estimate from ranges of
// time; the counts behind the rule are ratios.
//
// Seen red with each of these: pairs estimated from the range of times; an average for the
// labels' busiest buckets, or for their peers; the worst case not asked for; buckets where pairs are few.
func TestPlanOfEachShape(t *testing.T) {
	t.Parallel()
	const facts, labels = 60_000, 12_000
	const few, mid, hot = "hash(i, 'k') % 1200", "hash(i, 'k') % 1000", "CASE WHEN i % 10 < 3 THEN 0 ELSE hash(i, 'k') % 1200 END"
	day := func(n int64) time.Duration { return time.Duration(n) * 24 * time.Hour }
	for name, c := range map[string]planCase{
		// Few rows per entity, all entities asked for: M.
		"even": {few, evenly("e", 30), "hash(i, 's') % 1200", evenly("t", 30), facts, labels, day(3), PlanBucket},
		// WIDE: even fewer labels per entity.
		"wide": {"hash(i, 'k') % 5000", evenly("e", 30), "hash(i, 's') % 5000", evenly("t", 30), facts, labels, day(3), PlanBucket},
		// HIVE in one file: a year of features, labels of one week. What the join will read is not counted.
		"one week": {few, evenly("e", 365), "hash(i, 's') % 1200", "30000000000000 + " + evenly("t", 7), facts, labels, day(3), PlanASOF},
		// So few labels of an entity that buckets would save less than they cost, with or without a TTL.
		"old values count":    {"hash(i, 'k') % 30000", evenly("e", 30), "hash(i, 's') % 30000", evenly("t", 30), facts, labels, day(60), PlanHash},
		"few labels, no TTL":  {"hash(i, 'k') % 30000", evenly("e", 30), "hash(i, 's') % 30000", evenly("t", 30), facts, labels, 0, PlanHash},
		"long history":        {mid, evenly("e", 30), "hash(i, 's') % 1000", evenly("t", 30), facts, labels, day(14), PlanASOF}, // LH30
		"unbounded":           {mid, evenly("e", 30), "hash(i, 's') % 1000", evenly("t", 30), facts, labels, 0, PlanASOF},       // LH
		"very long history":   {"hash(i, 'k') % 60", evenly("e", 30), "hash(i, 's') % 60", evenly("t", 30), facts, labels, 0, PlanASOF},
		"hot key":             {hot, evenly("e", 30), "CASE WHEN i % 10 < 1 THEN 0 ELSE hash(i, 's') % 1200 END", evenly("t", 30), facts, labels, day(3), PlanASOF},
		"hot key of labels":   {few, evenly("e", 30), "CASE WHEN i % 10 < 1 THEN 0 ELSE hash(i, 's') % 1200 END", evenly("t", 30), facts, labels, day(3), PlanASOF},
		"few entities":        {few, evenly("e", 30), "hash(i, 's') % 12", evenly("t", 30), facts, labels, day(3), PlanASOF},
		"few entities, often": {few, evenly("e", 30), "hash(i, 's') % 12", evenly("t", 30), facts, labels, day(14), PlanASOF},
		"few entities, ever":  {few, evenly("e", 30), "hash(i, 's') % 12", evenly("t", 30), facts, labels, 0, PlanASOF},
		// One label of 1970 or of 2099 among those of a week, over ten years of features: the range
		// between them says that few pairs meet.
		"a label of 1970":  {few, evenly("e", 7), "hash(i, 's') % 1200", "CASE WHEN i = 7 THEN -1600000000000000 ELSE " + evenly("t", 7) + " END", facts, labels, day(14), PlanASOF},
		"a label of 2099":  {few, evenly("e", 7), "hash(i, 's') % 1200", "CASE WHEN i = 7 THEN 2500000000000000 ELSE " + evenly("t", 7) + " END", facts, labels, day(14), PlanASOF},
		"both, few pairs":  {few, evenly("e", 30), "hash(i, 's') % 1200", "CASE i WHEN 7 THEN -1600000000000000 WHEN 8 THEN 2500000000000000 ELSE " + evenly("t", 30) + " END", facts, labels, day(3), PlanBucket},
		"a feature of old": {few, "CASE WHEN i = 7 THEN -1500000000000000 ELSE " + evenly("e", 7) + " END", "hash(i, 's') % 1200", "CASE WHEN i = 7 THEN -1500000000000000 ELSE " + evenly("t", 7) + " END", facts, labels, day(14), PlanASOF},
		// All features of a year within a few hours: alone, and with half of the labels.
		"burst of features": {few, "CASE WHEN i < 2 THEN i * 30000000000000 ELSE 15000000000000 + (hash(i, 'e') % 10000000000)::BIGINT END", "hash(i, 's') % 1200", evenly("t", 365), facts, labels, day(3), PlanBucket},
		"burst of both": {few, "CASE WHEN i < 2 THEN i * 30000000000000 ELSE 15000000000000 + (hash(i, 'e') % 10000000000)::BIGINT END", "hash(i, 's') % 1200",
			"CASE WHEN i % 2 = 0 THEN 15000000000000 + (hash(i, 't') % 10000000000)::BIGINT ELSE " + evenly("t", 365) + " END", facts, labels, day(3), PlanASOF},
		// A sixth of the entities has most of both, as users do: the mean of labels per entity says little.
		"busy entities": {"i % 500", evenly("e", 30), "CASE WHEN i < 10000 THEN i % 500 ELSE i END", evenly("t", 30), facts, labels, day(5), PlanASOF},
		// One entity has most of the features, and more labels than others, though few of all.
		"busy features": {"CASE WHEN i % 10 < 9 THEN 0 ELSE i END", evenly("e", 30), "CASE WHEN i < 150 THEN 0 ELSE i END", evenly("t", 30), facts, labels, day(9), PlanASOF},
		// Too little to count.
		"small": {few, evenly("e", 30), "hash(i, 's') % 1200", evenly("t", 30), 4_000, 1_000, day(3), PlanASOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, dir := openEngine(t), t.TempDir()
			v := c.write(t, e, dir)
			all, within, limit := c.pairs(t, e, dir)
			digest := ""
			plans := []Plan{PlanAuto, PlanASOF, PlanIndex}
			if name == "even" || name == "few entities" || name == "old values count" {
				plans = []Plan{PlanAuto, PlanASOF, PlanIndex, PlanHash, PlanBucket}
			}
			for _, plan := range plans {
				m := c.build(t, e, dir, v, plan)
				got := m.Views[0]
				if digest == "" {
					digest = m.Digest
				}
				if m.Digest != digest {
					t.Errorf("plan %q: digest %s, want %s", plan, m.Digest, digest)
				}
				if plan != PlanAuto {
					continue
				}
				if got.Plan != c.want {
					t.Errorf("chose %s (%s), want %s: %+v; %d pairs, %d within buckets, at most %d", got.Plan, got.PlanReason, c.want, got.PlanStats, all, within, limit)
				}
				made := map[Plan]int64{PlanHash: all, PlanBucket: within}[got.Plan]
				if made > limit {
					t.Errorf("plan %s compares %d pairs, more than %d: %+v", got.Plan, made, limit, got.PlanStats)
				}
			}
		})
	}
}

// Whatever the shape, a hash plan never makes more than ten times the pairs of the bound: the
// choice may be wrong by a little, and does not explode. The shapes come from a generator, so
// that none is there because the rule knows it.
// Seen red with a bound twenty times as high.
func TestPlanNeverExplodes(t *testing.T) {
	t.Parallel()
	shapes := rapid.Custom(func(r *rapid.T) planCase {
		keys := func(salt string) string {
			n := rapid.SampledFrom([]int{30, 300, 3000, 30000}).Draw(r, salt+" keys")
			share := rapid.IntRange(0, 90).Draw(r, salt+" % on few keys")
			few := rapid.SampledFrom([]int{1, 10, 100}).Draw(r, salt+" few keys")
			return fmt.Sprintf("CASE WHEN hash(i, '%[1]sb') %% 100 < %[2]d THEN hash(i, '%[1]s') %% %[3]d ELSE hash(i, '%[1]s') %% %[4]d END", salt, share, few, n)
		}
		times := func(salt string) string {
			days := rapid.SampledFrom([]int64{1, 30, 365}).Draw(r, salt+" days")
			share := rapid.IntRange(0, 100).Draw(r, salt+" % in a burst")
			expr := fmt.Sprintf("CASE WHEN hash(i, '%[1]sc') %% 100 < %[2]d THEN (hash(i, '%[1]s') %% 3600000000)::BIGINT ELSE %[3]s END", salt, share, evenly(salt, days))
			if rapid.Bool().Draw(r, salt+" outlier") {
				expr = "CASE WHEN i = 3 THEN -1500000000000000 ELSE " + expr + " END"
			}
			return expr
		}
		return planCase{key: keys("k"), at: times("e"), labelKey: keys("s"), labelAt: times("t"), facts: 55_000, labels: rapid.SampledFrom([]int{2_000, 20_000}).Draw(r, "labels"),
			ttl: rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour, 72 * time.Hour, 2000 * time.Hour}).Draw(r, "TTL")}
	})
	e := openEngine(t)
	for seed := range 24 {
		c, dir := shapes.Example(seed), t.TempDir()
		v := c.write(t, e, dir)
		got := c.build(t, e, dir, v, PlanAuto).Views[0]
		if got.Plan != PlanHash && got.Plan != PlanBucket {
			continue
		}
		all, within, limit := c.pairs(t, e, dir)
		if made := map[Plan]int64{PlanHash: all, PlanBucket: within}[got.Plan]; made > worstCase*limit {
			t.Errorf("seed %d: plan %s compares %d pairs, more than %d: %+v\n%+v", seed, got.Plan, made, worstCase*limit, got.PlanStats, c)
		}
	}
}
