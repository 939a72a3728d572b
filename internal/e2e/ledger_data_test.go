package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/hearthstore/hearth/feature"
)

// accountRow is one row of a generated source. No two rows of one account have the same
// event time, so that what must be stored in the end does not depend on which run read what.
type accountRow struct {
	ID      int64     `parquet:"id"`
	Event   time.Time `parquet:"event_timestamp,timestamp(microsecond)"`
	Created time.Time `parquet:"created_timestamp,timestamp(microsecond)"`
	Balance int64     `parquet:"balance"`
	Note    string    `parquet:"note"`
	Deleted bool      `parquet:"is_deleted"`
}

var accountFields = []feature.Field{{Name: "balance", Type: feature.Int64}, {Name: "note", Type: feature.String}}

// accounts generates files of a source and knows what they must come to.
type accounts struct {
	t    *testing.T
	r    *repo
	rng  *rand.Rand
	ids  int
	seen map[[2]int64]bool
	want map[int64]accountRow
	n    int
}

const accountsConfig = `project: accounts
entities:
  - {name: account, join_keys: [{name: id, type: int64}]}
feature_views:
  - name: account
    entities: [account]
    source: {path: "data/*.parquet", timestamp_field: event_timestamp, created_timestamp_column: created_timestamp, deleted_column: is_deleted}
    features: [{name: balance, type: int64}, {name: note, type: string}]
feature_services:
  - {name: all, features: ["account:*"]}
online: %s
backing: %s
`

// newAccounts makes a repository with a source of ids accounts and no file yet.
func newAccounts(t *testing.T, rng *rand.Rand, ids int, online, backing string) *accounts {
	t.Helper()
	r := newRepo(t, "{embedded: {}}", "{sqlite: {path: .hearth/backing.db}}") // for its environment
	r.dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(r.dir, "data"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "hearth.yaml"), fmt.Appendf(nil, accountsConfig, online, backing), 0o600); err != nil {
		t.Fatal(err)
	}
	return &accounts{t: t, r: r, rng: rng, ids: ids, seen: map[[2]int64]bool{}, want: map[int64]accountRow{}}
}

// write adds a file of n rows: new accounts, newer and late rows, deletions.
func (a *accounts) write(n int) {
	a.t.Helper()
	epoch := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rows := make([]accountRow, 0, n)
	for len(rows) < n {
		minute := a.rng.Int64N(300_000)
		x := accountRow{ID: a.rng.Int64N(int64(a.ids)), Event: epoch.Add(time.Duration(minute) * time.Minute), Balance: a.rng.Int64(),
			Note: fmt.Sprintf("%x", a.rng.Uint64()), Deleted: a.rng.IntN(12) == 0}
		x.Created = x.Event.Add(time.Duration(a.rng.IntN(60)) * time.Second)
		if id := [2]int64{x.ID, minute}; a.seen[id] {
			continue
		}
		a.seen[[2]int64{x.ID, minute}] = true
		rows = append(rows, x)
		if best, ok := a.want[x.ID]; !ok || x.Event.After(best.Event) {
			a.want[x.ID] = x
		}
	}
	a.n++
	path := filepath.Join(a.r.dir, "data", fmt.Sprintf("part-%03d.parquet", a.n))
	if err := parquet.WriteFile(path+".tmp", rows); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		a.t.Fatal(err)
	}
}

// check compares what a tier holds with what must be there: the values, their event and their
// created times. Run numbers may differ. A missing payload of a deletion is fine where
// deletions may be forgotten.
func (a *accounts) check(tier string, held map[string][]byte, deletionsStay bool) {
	a.t.Helper()
	wrong := 0
	for id, w := range a.want {
		key := fmt.Sprintf("id=%d", id)
		p := held[key]
		if problem := a.compare(w, p, deletionsStay); problem != "" {
			if wrong++; wrong <= 5 {
				a.t.Errorf("%s, %s: %s", tier, key, problem)
			}
		}
		delete(held, key)
	}
	for key := range held {
		a.t.Errorf("%s holds %s, which was never in the source", tier, key)
	}
	if wrong > 5 {
		a.t.Errorf("%s: %d keys are wrong", tier, wrong)
	}
}

func (a *accounts) compare(w accountRow, payload []byte, deletionsStay bool) string {
	if w.Deleted && !deletionsStay && payload != nil && payload[0] == feature.FormatTombstone {
		return "" // the marker of an earlier deletion says the same to a reader; verify leaves it, too
	}
	if payload == nil {
		if w.Deleted && !deletionsStay {
			return ""
		}
		return "nothing is there"
	}
	h, body, err := feature.ParsePayload(payload)
	if err != nil {
		return err.Error()
	}
	if h.Version.Event != feature.MicrosOf(w.Event) || h.Version.Created != feature.MicrosOf(w.Created) {
		return fmt.Sprintf("version %s, want %s/%s", h.Version, w.Event, w.Created)
	}
	if h.Tombstone != w.Deleted {
		return fmt.Sprintf("deleted is %v, want %v", h.Tombstone, w.Deleted)
	}
	if w.Deleted {
		return ""
	}
	want, err := feature.AppendFeatures(nil, accountFields, []feature.Value{feature.IntValue(w.Balance), feature.StringValue(w.Note)})
	if err != nil {
		return err.Error()
	}
	if !bytes.Equal(body, want) {
		return "the features are others"
	}
	return ""
}
