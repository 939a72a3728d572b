package sim_test

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/materializer"
	"github.com/hearthstore/hearth/reader"
	"github.com/hearthstore/hearth/rewarm"
)

// mutant is one rule broken on purpose, around the real code. The zero mutant breaks none.
type mutant struct {
	name string
	// compare replaces the order of versions in the online tier.
	compare func(stored, put feature.Version) int
	// force makes the backing tier write without its condition.
	force bool
	// onlineFirst sends what a materializer or a push stores online before it is stored.
	onlineFirst bool
	// newRun sends an unchanged value online under the new run, not the one that is stored.
	newRun bool
	// lie takes every refused backing write for written.
	lie bool
	// repair puts what a reader found in the backing tier online without looking.
	repair bool
	// longer lets a rewarm prolong lives.
	longer bool
	// drop lets a rewarm lose a record of each page; skip, every deletion.
	drop, skip bool
	// revive lets an erasure be a deletion with the times of the value that it deletes.
	revive bool
}

var mutants = []mutant{
	{name: "blind SET", compare: func(feature.Version, feature.Version) int { return -1 }},
	{name: "compare as text", compare: func(stored, put feature.Version) int { return bytes.Compare(fold(stored), fold(put)) }},
	{name: "run number dropped", compare: func(stored, put feature.Version) int { return stored.Floor().Compare(put.Floor()) }},
	{name: "backing tier without condition", force: true},
	{name: "Redis first", onlineFirst: true},
	{name: "unchanged under the new run", newRun: true},
	{name: "a refusal taken for success", lie: true},
	{name: "repair without condition", repair: true},
	{name: "rewarm prolongs lives", longer: true},
	{name: "rewarm drops a record", drop: true},
	{name: "rewarm passes over deletions", skip: true},
	{name: "an erasure at the old times", revive: true},
}

// fold is how a locale may look at bytes: without the difference of case.
func fold(v feature.Version) []byte { return bytes.ToUpper(v.Bytes()) }

// mutantSchedules is within how many schedules each mutant must be caught.
const mutantSchedules = 20_000

// TestMutantsAreCaught: the simulation is worth what it catches. Each rule that the two stores
// rest on is broken on purpose, and some schedule must violate an invariant.
func TestMutantsAreCaught(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for seed := uint64(1); seed <= mutantSchedules; seed++ {
					if err := simulateBroken(m, seed, t, func(string, ...any) {}); err != nil {
						t.Logf("caught by schedule %d: %v", seed, err)
						return
					}
				}
				t.Errorf("not caught within %d schedules", mutantSchedules)
			})
		})
	}
}

func (u *universe) gatedBacking(a *actor) materializer.Backing {
	return mutantBacking{gatedBacking{u.backing, a}, u}
}

// mutantBacking is the backing tier of a broken materializer.
type mutantBacking struct {
	gatedBacking
	u *universe
}

func (b mutantBacking) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	m := b.u.broken
	if m.revive {
		for i := range recs {
			b.u.revive(ctx, &recs[i])
		}
	}
	if m.onlineFirst {
		if _, err := (gatedOnline{b.u.online, b.a}).Put(ctx, recs); err != nil {
			return nil, err
		}
	}
	results, err := b.gatedBacking.Put(ctx, recs)
	for i := range results {
		switch {
		case m.newRun && results[i].Outcome == feature.Unchanged, m.lie && results[i].Outcome == feature.Failed:
			results[i] = feature.PutResult{Outcome: feature.Written, Stored: recs[i].Version}
		}
	}
	return results, err
}

// revive gives an erasure the times of what it erases.
func (u *universe) revive(ctx context.Context, rec *feature.Record) {
	if !rec.Tombstone() || rec.Version.Event < feature.MicrosOf(epoch) {
		return // a deletion of the source
	}
	stored, err := u.backing.Get(ctx, []feature.Ref{rec.Ref})
	if err != nil || stored[0].Payload == nil {
		return
	}
	v := versionOf(string(stored[0].Payload))
	v.Run = rec.Version.Run
	rec.Version = v
	feature.SetVersion(rec.Payload, v)
}

func (u *universe) gatedOnline(a *actor) materializer.Online { return gatedOnline{u.online, a} }

func (u *universe) rewarmBacking(a *actor) rewarm.Backing {
	b := gatedBacking{u.backing, a}
	if !u.broken.drop && !u.broken.skip {
		return b
	}
	return lossyBacking{b, u.broken}
}

// lossyBacking is the backing tier of a rewarm that loses records.
type lossyBacking struct {
	gatedBacking
	m mutant
}

func (b lossyBacking) Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error {
	if err := b.gatedBacking.Scan(ctx, req, page); err != nil {
		return err
	}
	if b.m.drop && len(page.Records) > 0 {
		page.Records = page.Records[1:]
	}
	if b.m.skip {
		kept := page.Records[:0]
		for _, rec := range page.Records {
			if !rec.Tombstone() {
				kept = append(kept, rec)
			}
		}
		page.Records = kept
	}
	return nil
}

func (u *universe) rewarmOnline(a *actor) rewarm.Online {
	o := gatedOnline{u.online, a}
	if !u.broken.longer {
		return o
	}
	return longerOnline{o}
}

// longerOnline is the online tier of a rewarm that gives values another second.
type longerOnline struct{ gatedOnline }

func (o longerOnline) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	for i := range recs {
		if recs[i].Online != feature.NoTime {
			recs[i].Online += 1_000_000
		}
	}
	return o.gatedOnline.Put(ctx, recs)
}

func (u *universe) repairOnline(a *actor) reader.Online {
	o := gatedOnline{u.online, a}
	if !u.broken.repair {
		return o
	}
	return blindOnline{o}
}

// blindOnline is the online tier of a reader that repairs without a condition.
type blindOnline struct{ gatedOnline }

func (o blindOnline) Put(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	return put(ctx, o.a, "online", func(ctx context.Context, recs []feature.Record) ([]feature.PutResult, error) {
		o.Compare = func(feature.Version, feature.Version) int { return -1 } // one actor runs at a time
		defer func() { o.Compare = nil }()
		return o.Online.Put(ctx, recs)
	}, recs)
}
