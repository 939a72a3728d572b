package offline

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hearthstore/hearth/feature"
)

func genFacts(t *rapid.T) []factRow {
	n := rapid.IntRange(0, 160).Draw(t, "facts")
	seed := rapid.Uint64().Draw(t, "fact seed")
	next := func(n uint64) uint64 {
		seed = seed*6364136223846793005 + 1442695040888963407
		return (seed >> 33) % n
	}
	// Few instants make ties the rule.
	span := uint64(rapid.SampledFrom([]int{4, 40}).Draw(t, "instants"))
	rows := make([]factRow, 0, n)
	for range n {
		if len(rows) > 0 && next(12) == 0 { // exact duplicate
			rows = append(rows, rows[next(uint64(len(rows)))])
			continue
		}
		var r factRow
		// '1,23' beside '12,3': keys that are the same when somebody joins them to text.
		switch next(10) {
		case 0:
		case 1:
			r.K1 = ptr("1,2")
		default:
			r.K1 = ptr([]string{"1", "12", "a"}[next(3)])
		}
		if next(15) > 0 {
			r.K2 = ptr([]int64{3, 23, 7}[next(3)])
		}
		if next(20) > 0 {
			r.Event = ptr(base + int64(next(span)*(40/span)))
		}
		if next(4) > 0 {
			r.Created = ptr(base + int64(next(span+1)*(40/span)))
		}
		if next(3) > 0 {
			r.Deleted = ptr(next(6) == 0)
		}
		if next(6) > 0 {
			r.A = ptr(int64(next(5)))
		}
		if next(6) > 0 {
			r.B = ptr(fmt.Sprintf("v%d", next(4)))
		}
		rows = append(rows, r)
	}
	return rows
}

func genLabels(t *rapid.T) []labelRow {
	n := rapid.IntRange(65, 320).Draw(t, "labels")
	seed := rapid.Uint64().Draw(t, "label seed")
	next := func(n uint64) uint64 {
		seed = seed*6364136223846793005 + 1442695040888963407
		return (seed >> 33) % n
	}
	rows := make([]labelRow, n)
	for i := range rows {
		r := &rows[i]
		r.ID = int64(i)
		if i > 0 && next(15) == 0 { // duplicate spine row: both stay
			*r = rows[next(uint64(i))]
			continue
		}
		if next(15) > 0 {
			r.X = ptr([]string{"1", "12", "a", "1,2", "absent"}[next(5)])
		}
		if next(15) > 0 {
			r.Y = ptr([]int64{3, 23, 7, 99}[next(4)])
		}
		if next(12) > 0 {
			r.T = ptr(base + int64(next(55)) - 3)
		}
	}
	return rows
}

// The join equals the slow reference, row by row, whatever the plan: I1, I2 and I3. The
// data is dense in what goes wrong: NULL keys and times, ties in event and created time,
// exact duplicates, tombstones, composite keys that collide as text, labels one
// microsecond around the TTL, more than 64 labels (DuckDB's ASOF leaks NULL times there).
// Each label is a case: the default 100 checks are about 25,000, and at least 10,000 is asserted.
//
// Seen red with: the tie-break dropped (created, then digest); the NULL guard of the
// narrow spine dropped; the TTL made exclusive; the TTL in the ON of the ASOF join (an error of DuckDB's); keys compared as joined text; tombstones
// ignored; known_at ignored in the winner and in the tie-break; ORDER BY of the output dropped.
func TestJoinEqualsReference(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := openEngine(t)
	cases, run := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		facts, labels := genFacts(rt), genLabels(rt)
		ttl := time.Duration(rapid.SampledFrom([]int{0, 1, 5, 12, 1000}).Draw(rt, "ttl")) * time.Microsecond
		knownAt := rapid.Bool().Draw(rt, "known at")
		run++
		at := filepath.Join(dir, fmt.Sprint(run))
		// The same rows, in one file and in two.
		cut := 0
		if len(facts) > 0 {
			cut = rapid.IntRange(0, len(facts)).Draw(rt, "cut")
		}
		writeParquet(t, filepath.Join(at, "facts", "1.parquet"), facts[:cut])
		writeParquet(t, filepath.Join(at, "facts", "2.parquet"), facts[cut:])
		writeParquet(t, filepath.Join(at, "labels.parquet"), labels)
		view := factsView(filepath.Join(at, "facts"), ttl)
		req := DatasetRequest{
			Name: "d", Spine: Spine{Path: filepath.Join(at, "labels.parquet"), TimestampField: "t", JoinKeys: map[string]string{"k1": "x", "k2": "y"}},
			Selection: selectionOf(t, []*feature.View{view}, ref(t, "facts:*")), EventTimestamps: true, KnownAt: knownAt,
		}
		digest := ""
		plans := []Plan{PlanASOF, PlanHash, PlanBucket}
		if ttl == 0 {
			plans = plans[:2] // buckets need a TTL
		}
		for _, plan := range []Plan{PlanIndex, rapid.SampledFrom(plans).Draw(rt, "other plan")} {
			req.Plan, req.Output = plan, filepath.Join(at, "out-"+string(plan))
			m, err := e.BuildDataset(t.Context(), req)
			if err != nil {
				rt.Fatalf("plan %s: %v", plan, err)
			}
			if m.Leaks != 0 || m.Rows != int64(len(labels)) {
				rt.Fatalf("plan %s: %d leaks, %d rows", plan, m.Leaks, m.Rows)
			}
			if rapid.Bool().Draw(rt, "one feature") { // the same row must win when only a part of it is asked for
				one := req
				one.Selection, one.Output = selectionOf(t, []*feature.View{view}, ref(t, "facts:b")), req.Output+"-b"
				if _, err := e.BuildDataset(t.Context(), one); err != nil {
					rt.Fatalf("plan %s, one feature: %v", plan, err)
				}
				got, all := readJoined(t, one.Output), readJoined(t, req.Output)
				for i := range all {
					if !same(got[i].B, all[i].B) || !same(got[i].Event, all[i].Event) {
						rt.Fatalf("plan %s: row %d has another winner when one feature is asked for", plan, i)
					}
				}
			}
			checkJoined(rt, readJoined(t, req.Output), labels, facts, ttl, knownAt)
			if digest != "" && digest != m.Digest {
				rt.Fatalf("plan %s: digest %s, want %s", plan, m.Digest, digest)
			}
			digest = m.Digest
			cases += len(labels)
		}
	})
	if cases < 10_000 && !t.Failed() {
		t.Errorf("%d rows were compared, want 10,000 at least", cases)
	}
}
