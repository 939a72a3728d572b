package offline

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
)

// The rule's choice on each shape of data, and that all plans give the same rows there. The
// shapes are those of the benchmark, small: the counts behind the rule are ratios.
// Seen red with the thresholds for skew, pairs and the semi-join each taken out of the rule, and
// with the count of entities always made.
func TestPlanOfEachShape(t *testing.T) {
	t.Parallel()
	const facts, day = 60_000, int64(24 * 3600 * 1_000_000)
	at := func(salt string, days int64) string {
		return fmt.Sprintf("make_timestamp(%d + (hash(i, '%s') %% %d)::BIGINT)", base, salt, days*day)
	}
	for name, c := range map[string]struct {
		key, labelKey string
		facts, labels int
		days          int64 // that the data spans
		ttl           time.Duration
		want          Plan
	}{
		// Few rows per entity, all entities asked for.
		"even": {"hash(i, 'k') % 1200", "hash(i, 's') % 1200", facts, 12_000, 30, 3 * 24 * time.Hour, PlanBucket},
		// The TTL covers the whole range: buckets would exclude nothing.
		"old values count": {"hash(i, 'k') % 30000", "hash(i, 's') % 30000", facts, 12_000, 30, 60 * 24 * time.Hour, PlanHash},
		// Long histories: many candidates within the TTL, or no TTL at all.
		"long history": {"hash(i, 'k') % 1000", "hash(i, 's') % 1000", facts, 12_000, 30, 14 * 24 * time.Hour, PlanASOF},
		"unbounded":    {"hash(i, 'k') % 1000", "hash(i, 's') % 1000", facts, 12_000, 30, 0, PlanASOF},
		// So long that a count of the entities would cost as much as the semi-join that it could save.
		"very long history": {"hash(i, 'k') % 60", "hash(i, 's') % 60", facts, 12_000, 30, 0, PlanASOFSemi},
		// One entity has 30 % of the rows and 10 % of the labels.
		"hot key": {"CASE WHEN i % 10 < 3 THEN 0 ELSE hash(i, 'k') % 1200 END", "CASE WHEN i % 10 < 1 THEN 0 ELSE hash(i, 's') % 1200 END", facts, 12_000, 30, 3 * 24 * time.Hour, PlanASOF},
		// 1 % of the entities is asked for, each often.
		"few entities": {"hash(i, 'k') % 1200", "hash(i, 's') % 12", facts, 12_000, 30, 3 * 24 * time.Hour, PlanASOFSemi},
		// Too little to count.
		"small": {"hash(i, 'k') % 1200", "hash(i, 's') % 1200", 4_000, 1_000, 30, 3 * 24 * time.Hour, PlanASOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, dir := openEngine(t), t.TempDir()
			copySQL(t, e, fmt.Sprintf("SELECT (%s)::BIGINT AS k, %s AS at, (hash(i, 'a') %% 1000)::BIGINT AS a FROM range(%d) r(i)", c.key, at("e", c.days), c.facts), filepath.Join(dir, "facts.parquet"))
			copySQL(t, e, fmt.Sprintf("SELECT (%s)::BIGINT AS k, %s AS t FROM range(%d) r(i)", c.labelKey, at("t", c.days), c.labels), filepath.Join(dir, "labels.parquet"))
			v := &feature.View{Name: "v", Version: 1, TTL: c.ttl, JoinKeys: []feature.JoinKey{{Name: "k", Type: feature.Int64}},
				Source: feature.Source{Path: filepath.Join(dir, "facts.parquet"), TimestampField: "at"}, Features: []feature.Feature{{Field: feature.Field{Name: "a", Type: feature.Int64}}}}
			digest := ""
			plans := []Plan{PlanAuto, PlanASOF, PlanASOFSemi, PlanHash}
			if c.want == PlanBucket {
				plans = append(plans, PlanBucket)
			}
			if (c.want == PlanASOF || name == "very long history") && c.facts == facts {
				plans = plans[:3] // a hash join over such data takes its time, which is why it is not chosen
			}
			for _, plan := range plans {
				m, err := e.BuildDataset(t.Context(), DatasetRequest{Name: "d", Spine: Spine{Path: filepath.Join(dir, "labels.parquet"), TimestampField: "t"},
					Selection: selectionOf(t, []*feature.View{v}, ref(t, "v:*")), Output: filepath.Join(dir, "out"), Plan: plan})
				if err != nil {
					t.Fatal(err)
				}
				got := m.Views[0]
				if plan == PlanAuto && got.Plan != c.want {
					t.Errorf("chose %s (%s), want %s: %+v", got.Plan, got.PlanReason, c.want, got.PlanStats)
				}
				if digest == "" {
					digest = m.Digest
				}
				if m.Digest != digest || got.Matched == 0 {
					t.Errorf("plan %q: digest %s, want %s; %d matched", plan, m.Digest, digest, got.Matched)
				}
			}
		})
	}
}
