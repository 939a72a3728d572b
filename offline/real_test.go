package offline

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
)

const realData = "../examples/credit_scoring/data"

// zipRow, historyRow and loanRow are the columns of the real data that the tests compare.
type zipRow struct {
	Zipcode    *int64  `parquet:"zipcode,optional"`
	City       *string `parquet:"city,optional"`
	Population *int64  `parquet:"population,optional"`
	Event      *int64  `parquet:"event_timestamp,optional,timestamp(microsecond)"`
	Created    *int64  `parquet:"created_timestamp,optional,timestamp(microsecond)"`
}

type historyRow struct {
	Applicant *string `parquet:"dob_ssn,optional"`
	Due       *int64  `parquet:"credit_card_due,optional"`
	Event     *int64  `parquet:"event_timestamp,optional,timestamp(microsecond)"`
}

type loanRow struct {
	Loan       *int64  `parquet:"loan_id,optional"`
	Applicant  *string `parquet:"dob_ssn,optional"`
	Zipcode    *int64  `parquet:"zipcode,optional"`
	Status     *int64  `parquet:"loan_status,optional"`
	Event      *int64  `parquet:"event_timestamp,optional,timestamp(microsecond)"`
	City       *string `parquet:"city,optional"`
	Population *int64  `parquet:"population,optional"`
	Due        *int64  `parquet:"credit_card_due,optional"`
}

func creditViews(zipTTL, historyTTL time.Duration) []*feature.View {
	zip := &feature.View{
		Name: "zipcode_features", Version: 1, TTL: zipTTL, JoinKeys: []feature.JoinKey{{Name: "zipcode", Type: feature.Int64}},
		Source: feature.Source{Path: realData + "/zipcode_table.parquet", TimestampField: "event_timestamp", CreatedTimestampColumn: "created_timestamp"},
	}
	for _, name := range []string{"city", "state", "location_type"} {
		zip.Features = append(zip.Features, feature.Feature{Field: feature.Field{Name: name, Type: feature.String}})
	}
	for _, name := range []string{"tax_returns_filed", "population", "total_wages"} {
		zip.Features = append(zip.Features, feature.Feature{Field: feature.Field{Name: name, Type: feature.Int64}})
	}
	history := &feature.View{
		Name: "credit_history", Version: 1, TTL: historyTTL, JoinKeys: []feature.JoinKey{{Name: "dob_ssn", Type: feature.String}},
		Source: feature.Source{Path: realData + "/credit_history.parquet", TimestampField: "event_timestamp", CreatedTimestampColumn: "created_timestamp"},
	}
	for _, name := range []string{"credit_card_due", "mortgage_due", "hard_pulls"} {
		history.Features = append(history.Features, feature.Feature{Field: feature.Field{Name: name, Type: feature.Int64}})
	}
	return []*feature.View{zip, history}
}

// The real credit-scoring data, joined and compared row by row with a loop over all rows
// of each key. With the tutorials' TTL of 90 days nearly every credit history is stale,
// with 7,300 days it counts.
func TestRealDataEqualsReference(t *testing.T) {
	t.Parallel()
	e := openEngine(t)
	zips := map[int64][]zipRow{}
	for _, z := range readRows[zipRow](t, realData+"/zipcode_table.parquet") {
		zips[*z.Zipcode] = append(zips[*z.Zipcode], z)
	}
	histories := map[string][]historyRow{}
	for _, h := range readRows[historyRow](t, realData+"/credit_history.parquet") {
		histories[*h.Applicant] = append(histories[*h.Applicant], h)
	}
	loans := readRows[loanRow](t, realData+"/loan_table.parquet")
	for _, days := range []int{90, 7300} {
		ttl := time.Duration(days) * 24 * time.Hour
		views := creditViews(7300*24*time.Hour, ttl)
		var digests []string
		for _, plan := range []Plan{PlanAuto, PlanASOF, PlanHash, PlanBucket} {
			out := filepath.Join(t.TempDir(), "loans")
			m, err := e.BuildDataset(t.Context(), DatasetRequest{
				Name: "loans", Spine: Spine{Path: realData + "/loan_table.parquet", TimestampField: "event_timestamp"},
				Selection: selectionOf(t, views, ref(t, "zipcode_features:*"), ref(t, "credit_history:*")), Output: out, Plan: plan,
			})
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, m.Digest)
			if plan != PlanAuto {
				continue
			}
			got := readRows[loanRow](t, filepath.Join(out, "part-00000.parquet"))
			if len(got) != len(loans) {
				t.Fatalf("%d rows, want %d", len(got), len(loans))
			}
			matched := 0
			for i, loan := range loans {
				want := loan
				var zip *zipRow
				for j, z := range zips[*loan.Zipcode] {
					if *z.Event <= *loan.Event && *loan.Event-*z.Event <= (7300*24*time.Hour).Microseconds() && (zip == nil || *z.Event > *zip.Event) {
						zip = &zips[*loan.Zipcode][j]
					}
				}
				if zip != nil {
					want.City, want.Population = zip.City, zip.Population
				}
				var history *historyRow
				for j, h := range histories[*loan.Applicant] {
					if *h.Event <= *loan.Event && *loan.Event-*h.Event <= ttl.Microseconds() && (history == nil || *h.Event > *history.Event) {
						history = &histories[*loan.Applicant][j]
					}
				}
				if history != nil {
					want.Due = history.Due
					matched++
				}
				g := got[i]
				if !same(g.Loan, want.Loan) || !same(g.Applicant, want.Applicant) || !same(g.Event, want.Event) || !same(g.City, want.City) ||
					!same(g.Population, want.Population) || !same(g.Due, want.Due) {
					t.Fatalf("row %d: got %s", i, show(g))
				}
			}
			if m.Views[1].Matched != int64(matched) {
				t.Errorf("manifest says %d matched, the reference %d", m.Views[1].Matched, matched)
			}
			t.Logf("TTL %d d: %d of %d loans have a credit history, %.3f s", days, matched, len(loans), m.Seconds)
		}
		for _, d := range digests {
			if d != digests[0] {
				t.Errorf("digests differ between plans: %v", digests)
			}
		}
	}
}
