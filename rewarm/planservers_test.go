package rewarm_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/testservers"
	"github.com/hearthstore/hearth/rewarm"
)

type hotNow []feature.Ref

func (h hotNow) HotKeys(context.Context) ([]feature.Ref, error) { return h, nil }

// A plan over DynamoDB Local and redis-server says what the run then takes, within a fifth:
// items, bytes, read units (hot keys included) and Redis memory. Of the larger table it sees
// a sample only.
// Seen red with: redisSize without the value; hot keys left out of the read units;
// a scan unit of 4 KB; expired values counted as live.
func TestPlanAgainstServers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		items      int
		payload    [2]int // bytes of the one feature, from and to
		ttl        time.Duration
		sampleOnly bool
	}{
		{"small values", 3000, [2]int{1, 30}, 0, false},
		{"mixed values that expire", 9000, [2]int{20, 1500}, 30 * 24 * time.Hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			view := &feature.View{Name: "planned", Version: 1, TTL: c.ttl, JoinKeys: []feature.JoinKey{{Name: "id", Type: feature.Int64}},
				Features: []feature.Feature{{Field: feature.Field{Name: "b", Type: feature.Bytes}}}}
			name := fmt.Sprintf("plan-%d", c.items)
			table := openTableOf(t, testservers.SharedDynamoDB(t), name)
			if _, err := table.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(1, uint64(c.items)))
			var recs []feature.Record
			live, bytes := int64(0), int64(0)
			var hot hotNow
			for i := range c.items {
				event := feature.MicrosOf(time.Now().Add(-time.Hour))
				if i%5 == 0 { // beyond the TTL, if there is one
					event = event.Add(-2 * c.ttl)
				}
				if i%5 != 0 || c.ttl == 0 {
					live++
				}
				h := feature.Header{Fingerprint: view.Fingerprint(), Version: feature.Version{Event: event, Created: feature.NoTime, Run: 1}}
				value := make([]byte, c.payload[0]+rng.IntN(c.payload[1]-c.payload[0]))
				features, err := feature.AppendFeatures(nil, view.Fields(), []feature.Value{feature.BytesValue(value)})
				if err != nil {
					t.Fatal(err)
				}
				rec, err := feature.NewRecord(view, feature.Key(fmt.Sprintf("id=%d", i)), feature.AppendPayload(nil, h, features))
				if err != nil {
					t.Fatal(err)
				}
				recs = append(recs, rec)
				// By the names and values that the table stores: e, v, r, p, h.
				bytes += int64(5 + len(rec.Key) + len(view.ID().String()) + 24 + len(rec.Payload) + 8)
				if i%3 == 0 {
					hot = append(hot, rec.Ref)
				}
			}
			results, err := table.Put(t.Context(), recs)
			if err != nil || slices.ContainsFunc(results, func(r feature.PutResult) bool { return r.Outcome != feature.Written }) {
				t.Fatal("fill the table: ", err)
			}
			to := openOnline(t, []string{testservers.Redis(t, testservers.RedisOptions{}).Addr()})
			r, err := rewarm.New(rewarm.Config{Backing: &pages{Store: table, limit: 500}, Online: to, State: documents{table}, Views: []*feature.View{view}, Project: project, Hot: hot})
			if err != nil {
				t.Fatal(err)
			}
			rep, err := r.Run(t.Context(), rewarm.Request{IfCold: true, PlanOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			before, err := to.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			did, err := r.Run(t.Context(), rewarm.Request{Run: 1, IfCold: true})
			if err != nil || did.Status != rewarm.StatusDone {
				t.Fatal(err, did)
			}
			after, err := to.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			pl := rep.Plan
			if pl.Exact == c.sampleOnly {
				t.Errorf("exact: %v", pl.Exact)
			}
			for _, f := range []struct {
				what         string
				planned, was float64
			}{
				{"items", float64(pl.Items), float64(c.items)}, {"bytes", float64(pl.Bytes), float64(bytes)}, {"live", float64(pl.Live), float64(live)},
				{"written", float64(pl.Live), float64(did.Written + did.HotWritten)}, {"read units", pl.ReadUnits, did.ReadUnits + did.HotReadUnits},
				{"read units of hot keys", pl.HotReadUnits, did.HotReadUnits}, {"Redis memory", float64(pl.RedisNeeded), float64(after.UsedMemory - before.UsedMemory)},
			} {
				t.Logf("%s: planned %.0f, was %.0f (%+.1f %%)", f.what, f.planned, f.was, 100*(f.planned/f.was-1))
				if f.planned < f.was*0.8 || f.planned > f.was*1.2 {
					t.Errorf("%s: planned %.0f, was %.0f", f.what, f.planned, f.was)
				}
			}
		})
	}
}
