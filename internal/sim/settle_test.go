package sim_test

import (
	"fmt"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/materializer"
	"github.com/hearthstore/hearth/rewarm"
)

// settle lets everything run once more without faults, and checks where it ends.
func (u *universe) settle() error {
	ctx := u.t.Context()
	full := func() (*materializer.Report, error) {
		u.run++
		req := u.request(u.run)
		req.Full = true
		return u.materializer(nil).Run(ctx, req)
	}
	// Incremental first: what crashed runs left must be found without --full.
	u.run++
	if r, err := u.materializer(nil).Run(ctx, u.request(u.run)); err != nil {
		return fmt.Errorf("the incremental run after all failed: %w (%+v)", err, r.Views[0])
	}
	if err := u.taken("after the incremental run"); err != nil {
		return err
	}
	if err := u.rewarm(); err != nil {
		return err
	}
	if err := u.equal("I8, after a rewarm"); err != nil {
		return err
	}
	if r, err := full(); err != nil {
		return fmt.Errorf("a full run failed: %w (%+v)", err, r.Views[0])
	}
	r, err := full()
	if err != nil {
		return fmt.Errorf("a full run failed: %w", err)
	}
	if v := r.Views[0]; v.Backing.Written != 0 || v.Online.Written != 0 {
		return fmt.Errorf("I7 violated: a full run right after another wrote %+v %+v", v.Backing, v.Online)
	}
	if err := u.equal("after a full run"); err != nil {
		return err
	}
	return u.check.first()
}

func (u *universe) rewarm() error {
	u.run++
	s := u.scheduler()
	s.faults, s.env = 0, func() {}
	var (
		report *rewarm.Report
		err    error
	)
	s.start(0, "rewarm at end", func(a *actor) {
		report, err = u.rewarmer(a).Run(u.t.Context(), rewarm.Request{Run: u.run, Segments: 2, Restart: true})
	})
	if stuck := s.run(); stuck != nil {
		return stuck
	}
	if err != nil {
		return fmt.Errorf("the last rewarm failed: %w (%+v)", err, report)
	}
	return nil
}

// taken checks that the backing tier holds or surpasses everything that files ever offered and
// pushes reported as stored.
func (u *universe) taken(when string) error {
	now := feature.MicrosOf(u.clock.Now())
	backing := u.backing.Snapshot()
	for key, times := range u.newest {
		ref := feature.Ref{View: u.view.ID(), Key: key}
		if u.view.Retain > 0 && times[0].Add(u.view.Retain) <= now {
			continue
		}
		v := versionOf(string(backing[ref]))
		if v.Event < times[0] || v.Event == times[0] && v.Created < times[1] {
			return fmt.Errorf("%s the backing tier holds %s of %s, offered was %s/%s", when, v, ref, times[0], times[1])
		}
	}
	return nil
}

// equal checks that every live value of the backing tier is online with the same bytes,
// and that nothing else is.
func (u *universe) equal(when string) error {
	now := feature.MicrosOf(u.clock.Now())
	online := u.online.Snapshot()
	for ref, payload := range u.backing.Snapshot() {
		rec, err := feature.NewRecord(u.view, ref.Key, payload)
		if err != nil {
			return err
		}
		got, there := online[ref]
		delete(online, ref)
		switch {
		case rec.Tombstone():
			if there && string(got) != string(payload) {
				return fmt.Errorf("%s: %s is deleted in the table at %s and online at %s", when, ref, rec.Version, versionOf(string(got)))
			}
		case rec.Online != feature.NoTime && rec.Online <= now:
			// The marker of an older deletion may be there: it says the same to a reader.
			if there && got[0] != feature.FormatTombstone {
				return fmt.Errorf("%s: %s has expired and is online", when, ref)
			}
		case rec.Retain != feature.NoTime && rec.Retain <= now:
		case string(got) != string(payload):
			return fmt.Errorf("%s: the table holds %s at %s, online is %s", when, ref, rec.Version, versionOf(string(got)))
		}
	}
	for ref, payload := range online {
		// A deletion's marker may outlive what the table knew of the key: both say "not there".
		if canary(ref) || payload[0] == feature.FormatTombstone {
			continue
		}
		return fmt.Errorf("%s: %s is online only", when, ref)
	}
	return nil
}
