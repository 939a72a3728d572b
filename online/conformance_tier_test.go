package online

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/testservers"
)

func conformScan(t *testing.T, b backend) {
	s := b.open(t)
	other := b.open(t, func(c *Config) { c.Project = s.cfg.Project + "x" })
	want := map[feature.Ref]bool{}
	var recs []feature.Record
	for i := range 2500 {
		recs = append(recs, record(t, key(i), feature.Version{Event: 1, Run: 1}, 1))
		want[recs[i].Ref] = true
	}
	put(t, s, recs...)
	put(t, other, record(t, "id=other", feature.Version{Event: 1, Run: 1}, 1))
	if err := s.MarkWarm(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	got := map[feature.Ref]bool{}
	err := s.Scan(t.Context(), testView.ID(), func(refs []feature.Ref) error {
		for _, r := range refs {
			got[r] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("scan saw %d refs, want %d", len(got), len(want))
	}
	for r := range want {
		if !got[r] {
			t.Fatalf("scan missed %s", r)
		}
	}
	all := make([]feature.Key, len(recs)) // more than one command holds
	for i := range recs {
		all[i] = recs[i].Key
	}
	for i, r := range get(t, s, all...) {
		if r.Err != nil || !bytes.Equal(r.Payload, recs[i].Payload) {
			t.Fatalf("get of %d at once: %d: %v", len(all), i, r.Err)
		}
	}
	stop := errors.New("stop")
	if err := s.Scan(t.Context(), testView.ID(), func([]feature.Ref) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("scan returned %v, want the callback's error", err)
	}
}

// conformWarmth: seen red with markers that all share one slot (cluster), with cold = no
// marker at all, and with cold = any marker missing.
func conformWarmth(t *testing.T, b backend) {
	if !b.cfg.Embedded { // the whole server is flushed
		if b.cfg.Cluster {
			b.cfg.Addrs = startCluster(t, 0).Addrs()
		} else {
			b.cfg.Addrs = []string{startServer(t, testservers.RedisOptions{}).Addr()}
		}
	}
	s := b.open(t)
	warmth := func() Warmth {
		t.Helper()
		w, err := s.Warmth(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		total := 0
		for _, sh := range w.Shards {
			total += sh.Markers
		}
		if total != markers {
			t.Fatalf("%d markers over all shards, want %d", total, markers)
		}
		return w
	}
	if w := warmth(); !w.Reachable || !w.Cold || w.MarkerRun != 0 {
		t.Fatalf("empty server: %+v", w)
	}
	if err := s.MarkWarm(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if w := warmth(); !w.Reachable || w.Cold || w.MarkerRun != 7 {
		t.Fatalf("after MarkWarm: %+v", w)
	}
	filter, _, err := s.ColdFilter(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if filter(feature.Ref{View: testView.ID(), Key: key(i)}) {
			t.Fatal("a ref of a warm tier is called cold")
		}
	}
	// One shard is lost.
	nodes, err := s.masters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lost := nodes[0]
	if err := lost.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	w := warmth()
	if !w.Cold || !w.Reachable {
		t.Fatalf("after a lost shard: %+v", w)
	}
	for _, sh := range w.Shards {
		if want := sh.Addr == s.nodeAddr(lost); sh.Cold != want {
			t.Fatalf("shard %+v: cold should be %v", sh, want)
		}
	}
	if filter, _, err = s.ColdFilter(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		ref := feature.Ref{View: testView.ID(), Key: key(i)}
		want := true
		if s.write.cluster != nil {
			node, err := s.write.cluster.MasterForKey(t.Context(), s.RedisKey(ref))
			if err != nil {
				t.Fatal(err)
			}
			want = node == lost
		}
		if filter(ref) != want {
			t.Fatalf("%s: cold %v, want %v", ref, !want, want)
		}
	}
	// A tenth of the markers gone (eviction) is not cold.
	if err := s.MarkWarm(t.Context(), 8); err != nil {
		t.Fatal(err)
	}
	for i, k := range s.markerKeys() {
		if i%10 == 0 {
			if err := s.plain().Del(t.Context(), k).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if w := warmth(); w.Cold || w.MarkerRun != 8 {
		t.Fatalf("after some eviction: %+v", w)
	}
	// Nine tenths gone is, although some are there.
	for i, k := range s.markerKeys() {
		if i%10 != 0 {
			continue
		}
		if err := s.plain().Set(t.Context(), k, "8", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for i, k := range s.markerKeys() {
		if i%10 == 0 {
			continue
		}
		if err := s.plain().Del(t.Context(), k).Err(); err != nil {
			t.Fatal(err)
		}
	}
	w = warmth()
	for _, sh := range w.Shards {
		if !sh.Cold || sh.Present == 0 {
			t.Fatalf("after the loss of most: %+v", w)
		}
	}
}

func conformInfo(t *testing.T, b backend) {
	s := b.open(t)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, record(t, key(1), feature.Version{Event: 1, Run: 1}, 1), record(t, key(2), feature.Version{Event: 1, Run: 1}, 1))
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Keys < 2 || info.Policy != "noeviction" || info.Version == "" || (info.UsedMemory == 0) != b.cfg.Embedded {
		t.Fatalf("info: %+v", info)
	}
	if b.cfg.Cluster != (info.Masters == 3) {
		t.Fatalf("masters: %+v", info)
	}
}

func conformInvalid(t *testing.T, b backend) {
	s := b.open(t)
	good := record(t, key(1), feature.Version{Event: 1, Run: 1}, 1)
	noKey, short, format, version := good, good, good, good
	noKey.Key = ""
	short.Payload = good.Payload[:10]
	format.Payload = append([]byte{9}, good.Payload[1:]...)
	version.Version.Run++
	results := put(t, s, noKey, short, good, format, version)
	wantOutcomes(t, results, feature.Failed, feature.Failed, feature.Written, feature.Failed, feature.Failed)
	for i, want := range []error{feature.ErrInvalid, feature.ErrInvalid, nil, feature.ErrUnknownFormat, feature.ErrInvalid} {
		if !errors.Is(results[i].Err, want) {
			t.Errorf("record %d: %v, want %v", i, results[i].Err, want)
		}
	}
	if results := put(t, s); len(results) != 0 {
		t.Fatal("results of nothing")
	}
	if results := get(t, s); len(results) != 0 {
		t.Fatal("results of nothing")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, []feature.Record{good}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, []feature.Ref{good.Ref}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestEmbeddedTime: the embedded server's values expire by the injected clock alone.
func TestEmbeddedTime(t *testing.T) {
	t.Parallel()
	clk := clock.NewFake(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	s := mustOpen(t, Config{Project: "p", Embedded: true, Clock: clk})
	rec := record(t, key(1), feature.Version{Event: 1, Run: 1}, 1)
	rec.Online = feature.MicrosOf(clk.Now().Add(time.Minute))
	wantOutcomes(t, put(t, s, rec), feature.Written)
	step := func(d time.Duration) {
		t.Helper()
		if err := clk.WaitForWaiters(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		clk.Advance(d)
		if err := clk.WaitForWaiters(t.Context(), 1); err != nil { // the tick is done
			t.Fatal(err)
		}
	}
	step(59 * time.Second)
	wantStored(t, s, rec)
	step(2 * time.Second)
	if got := get(t, s, key(1))[0]; got.Payload != nil || got.Err != nil {
		t.Fatalf("still there after its expiry: %v", got)
	}
	wantOutcomes(t, put(t, s, rec), feature.Expired)
}
