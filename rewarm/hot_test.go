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

// fetching is a table with Fetch: it refuses the first request for its rate, and answers at
// most seven keys of each other one.
type fetching struct {
	*table
	fetches int
}

func (f *fetching) Fetch(_ context.Context, refs []feature.Ref, page *feature.ScanPage) ([]feature.Ref, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	memory := page.Records[:cap(page.Records)]
	for i := range memory { // as a real store overwrites it
		for j := range memory[i].Payload {
			memory[i].Payload[j] = 0xEE
		}
	}
	page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
	if f.fetches++; f.fetches == 1 {
		return nil, feature.ErrThrottled
	}
	n := min(len(refs), 7)
	for _, ref := range refs[:n] {
		page.ReadUnits += 0.5
		if payload, ok := f.rows[ref]; ok {
			var rec feature.Record
			if n := len(page.Records); n < len(memory) {
				rec.Payload = memory[n].Payload[:0]
			}
			rec.Ref, rec.Payload = ref, append(rec.Payload, payload...)
			page.Records = append(page.Records, rec)
		}
	}
	return refs[n:], nil
}

// What a fetch leaves unread is asked for again, and neither that nor a throttle costs a
// value: all are online, byte by byte, before the scan begins.
// Seen red with: left forgotten; the rest read onto the page of the first answer.
func TestHotKeysAreFetched(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.fill(250)
	table := &fetching{table: w.table}
	var hot []feature.Ref
	for i := range 250 {
		hot = append(hot, feature.Ref{View: w.views[0].ID(), Key: key(i)})
	}
	w.table.onScan = func(n int, _ feature.ScanRequest) error {
		for _, ref := range hot {
			if got, ok := w.online.get(ref); !ok || string(got.payload) != string(w.table.get(ref)) {
				t.Errorf("scan %d: %s is not online yet, or damaged", n, ref)
			}
		}
		return nil
	}
	rep, err := w.rewarmer(func(c *Config) { c.Hot, c.Backing = hotList{refs: hot}, table }).Run(context.Background(), Request{Run: 1, IfCold: true})
	if err != nil {
		t.Fatal(err)
	}
	w.checkComplete()
	if rep.HotWritten != 250 || rep.HotReadUnits != 125 || rep.Throttled != 1 || w.table.gets > 0 || rep.Status != StatusDone {
		t.Errorf("report %+v, %d single reads", rep, w.table.gets)
	}
}
