package sim_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hearthstore/hearth/backing/sqlite"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/sim"
	"github.com/hearthstore/hearth/materializer"
	"github.com/hearthstore/hearth/online"
)

// TestRealStores runs materializers and pushes at once over SQLite and an embedded Redis
// server, with a flush and canceled runs in between, and checks that both stores end with
// the same bytes under versions that nothing offered surpasses. The interleaving is the
// machine's: what the simulation proves of the exact tiers in memory, this checks of the
// stores' own conditions. Red when the SQLite upsert drops its version condition.
func TestRealStores(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	back, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(t.TempDir(), "backing.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, back)
	if _, err := back.Apply(ctx); err != nil {
		t.Fatal(err)
	}
	on, err := online.Open(ctx, online.Config{Project: "p", Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, on)
	view := &feature.View{Name: "v", Version: 1, JoinKeys: []feature.JoinKey{{Name: "id", Type: feature.Int64}},
		Features: []feature.Feature{{Field: feature.Field{Name: "n", Type: feature.Int64}}}}
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 2))
	source := sim.NewSource()
	state := sim.NewState[materializer.Slot, materializer.Progress, materializer.FileSet](func(p materializer.Progress) uint64 { return p.LastRun })
	m, err := materializer.New(materializer.Config{Source: source, Backing: back, Online: on, State: state, BatchSize: 7, BackingWorkers: 3})
	if err != nil {
		t.Fatal(err)
	}
	request := func(run uint64) materializer.Request {
		return materializer.Request{Run: run, Views: []*feature.View{view}, Start: feature.NoTime, End: feature.NoTime}
	}
	newest := map[feature.Key]feature.Micros{}
	randomRow := func() feature.Row {
		f, err := feature.AppendFeatures(nil, view.Fields(), []feature.Value{feature.IntValue(rng.Int64N(3))})
		if err != nil {
			t.Fatal(err)
		}
		r := feature.Row{Key: keyOf(rng.IntN(40)), Event: feature.MicrosOf(epoch.Add(time.Duration(rng.IntN(9)) * time.Minute)), Created: feature.NoTime, Features: f}
		newest[r.Key] = max(newest[r.Key], r.Event)
		return r
	}
	run := uint64(0)
	for round := range 12 {
		rows := make([]feature.Row, 30)
		for i := range rows {
			rows[i] = randomRow()
		}
		source.Write("f"+strconv.Itoa(round), int64(round), rows...)
		var group sync.WaitGroup
		for actor := range 4 {
			run++
			number := run
			var pushed []feature.Row
			if actor > 1 {
				pushed = []feature.Row{randomRow(), randomRow(), randomRow()}
			}
			group.Go(func() {
				switch actor {
				case 0: // dies on the way
					dying, cancel := context.WithTimeoutCause(ctx, time.Duration(number%5)*time.Millisecond, feature.ErrLeaseLost)
					defer cancel()
					if _, err := m.Run(dying, request(number)); err != nil && dying.Err() == nil && !errors.Is(err, feature.ErrConflict) {
						t.Error(err)
					}
				case 1:
					if _, err := m.Run(ctx, request(number)); err != nil && !errors.Is(err, feature.ErrConflict) {
						t.Error(err)
					}
				default:
					if _, err := m.Push(ctx, materializer.PushRequest{Run: number, View: view, Rows: pushed}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		if round == 5 {
			if err := on.FlushAll(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 { // everything in the files again; what was only pushed may have been flushed
		run++
		req := request(run)
		req.Full = true
		r, err := m.Run(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		if v := r.Views[0]; run%2 == 0 && v.Backing.Written+v.Online.Written != 0 {
			t.Errorf("the second full run wrote %+v %+v", v.Backing, v.Online)
		}
	}
	var refs []feature.Ref
	for key := range newest {
		refs = append(refs, feature.Ref{View: view.ID(), Key: key})
	}
	stored, err := back.Get(ctx, refs)
	if err != nil {
		t.Fatal(err)
	}
	fast, err := on.Get(ctx, refs)
	if err != nil {
		t.Fatal(err)
	}
	for i, ref := range refs {
		v := versionOf(string(stored[i].Payload))
		if v.Event != newest[ref.Key] {
			t.Errorf("%s is stored at %s, offered was %s", ref, v, newest[ref.Key])
		}
		if fast[i].Payload != nil && string(fast[i].Payload) != string(stored[i].Payload) {
			t.Errorf("%s: the table has %s, online is %s", ref, v, versionOf(string(fast[i].Payload)))
		}
	}
	if len(refs) < 30 {
		t.Errorf("only %d keys were compared", len(refs))
	}
}

func closed(t *testing.T, c interface{ Close() error }) {
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
