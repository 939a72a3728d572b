package rewarm

import (
	"context"
	"errors"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

type hotList struct {
	refs []feature.Ref
	err  error
}

func (h hotList) HotKeys(context.Context) ([]feature.Ref, error) { return h.refs, h.err }

// Seen red with: hot returning at once.
func TestHotKeysComeFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.fill(100)
	var hot []feature.Ref
	for i := 90; i < 100; i++ {
		hot = append(hot, feature.Ref{View: w.views[0].ID(), Key: key(i)})
	}
	hot = append(hot, feature.Ref{View: w.views[0].ID(), Key: "id=gone"}, feature.Ref{View: feature.ViewID{Name: "retired", Version: 1}, Key: key(1)})
	w.table.onScan = func(n int, _ feature.ScanRequest) error {
		for _, ref := range hot[:10] {
			if _, ok := w.online.get(ref); !ok {
				t.Errorf("scan %d: %s is not online yet", n, ref)
			}
		}
		return nil
	}
	rep, err := w.rewarmer(func(c *Config) { c.Hot = hotList{refs: hot} }).Run(context.Background(), Request{Run: 1, IfCold: true})
	if err != nil {
		t.Fatal(err)
	}
	w.checkComplete()
	if rep.HotAsked != 11 || rep.HotWritten != 10 || rep.AlreadyNewer != 10 || rep.Written != 190 || rep.Status != StatusDone {
		t.Errorf("report %+v", rep)
	}
}

// Nothing depends on the hot keys.
func TestHotKeysMayFail(t *testing.T) {
	t.Parallel()
	for name, hot := range map[string]hotList{
		"unknown":  {err: errors.New("no sketch")},
		"failing":  {refs: []feature.Ref{{View: testViews()[0].ID(), Key: key(1)}}},
		"disabled": {refs: []feature.Ref{{View: testViews()[0].ID(), Key: key(1)}}},
	} {
		w := newWorld(t, 1)
		w.fill(10)
		if name == "failing" {
			w.table.onGet = func() error { return feature.ErrDenied }
		}
		rep, err := w.rewarmer(func(c *Config) { c.Hot = hot }).Run(context.Background(), Request{Run: 1, IfCold: true, NoHot: name == "disabled"})
		if err != nil || rep.Status != StatusDone || rep.HotWritten != 0 {
			t.Errorf("%s: %v %+v", name, err, rep)
		}
		w.table.onGet = nil
		w.checkComplete()
	}
}
