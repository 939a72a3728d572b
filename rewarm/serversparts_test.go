package rewarm_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/rewarm"
)

// Two runs, as of two machines, do a range each under one name. The summary says after the
// first which segments are not through, and at the end what both did together.
// Seen red with: the summary counting one range; the first range marking the cluster warm.
func twoRanges(s *servers) {
	s.flush()
	part := func(from, to int) *rewarm.Report {
		return s.rewarm(false, func(r *rewarm.Request) {
			r.Attempt, r.Range, r.SegmentFrom, r.SegmentTo = "both", true, from, to
		})
	}
	summary := func() *rewarm.Report {
		rep, err := serversRewarmer(s, s.table, s.online).Summary(s.Context(), "both")
		if err != nil {
			s.Fatal(err)
		}
		return rep
	}
	first := part(0, 3)
	if rep := summary(); first.Warm || rep.Status != rewarm.StatusPartial || rep.SegmentsDone != 4 || rep.Scanned != first.Scanned || !strings.Contains(strings.Join(rep.Problems, " "), "segments 4-7 of 8") {
		s.Errorf("after the first: %+v; summary %+v", first, rep)
	}
	second := part(4, 7)
	if rep := summary(); !second.Warm || rep.Status != rewarm.StatusDone || !rep.Warm || rep.SegmentsDone != 8 ||
		rep.Scanned != int64(s.n) || rep.Written != first.Written+second.Written || rep.Written != int64(s.n) {
		s.Errorf("after the second: %+v; summary %+v", second, rep)
	}
	s.verify()
}

// The cluster has memory for about half of another project: its hot keys are in, others as
// far as they fit, the run is partial and the project not warm. With more memory the next
// run brings the rest.
// Seen red with: hot returning at once. (Room without end is stopped by Redis itself here;
// TestHottestPart counts it.)
func hottestPart(s *servers) {
	const n, size = 400, 60_000
	s.flush()
	view := &feature.View{Name: "big", Version: 1, JoinKeys: serversView.JoinKeys, Features: []feature.Feature{{Field: feature.Field{Name: "b", Type: feature.Bytes}}}}
	table := openTableOf(s, s.dynamo.Endpoint(), "hottest")
	if _, err := table.Apply(s.Context()); err != nil {
		s.Fatal(err)
	}
	features, err := feature.AppendFeatures(nil, view.Fields(), []feature.Value{feature.BytesValue(make([]byte, size))})
	if err != nil {
		s.Fatal(err)
	}
	payload := feature.AppendPayload(nil, feature.Header{Fingerprint: view.Fingerprint(), Version: feature.Version{Event: 1_700_000_000_000_000, Created: feature.NoTime, Run: 1}}, features)
	var recs []feature.Record
	var hot hotNow
	for i := range n {
		rec, err := feature.NewRecord(view, feature.Key(fmt.Sprintf("id=%d", i)), payload)
		if err != nil {
			s.Fatal(err)
		}
		recs = append(recs, rec)
		if i%10 == 0 {
			hot = append(hot, rec.Ref)
		}
	}
	results, err := table.Put(s.Context(), recs)
	if err != nil || slices.ContainsFunc(results, func(r feature.PutResult) bool { return r.Outcome != feature.Written }) {
		s.Fatal("fill the table: ", err)
	}
	to := openOnlineOf(s, s.cluster.Addrs(), "hottest")
	r, err := rewarm.New(rewarm.Config{Backing: &pages{Store: table}, Online: to, State: documents{table}, Views: []*feature.View{view},
		Project: "hottest", Workers: 4, BatchSize: 20, Hot: hot})
	if err != nil {
		s.Fatal(err)
	}
	// Buffers and backlogs of replication take some megabytes of their own, now and then: the
	// values are many times as much, and with ballast the twentieth that stays free is more, too.
	for _, node := range s.masters() {
		for i := 0; ; i++ {
			if _, err := node.Do("SETRANGE", fmt.Sprintf("ballast-%d", i), "40000000", "x"); err == nil {
				break
			} else if !strings.Contains(err.Error(), "MOVED") {
				s.Fatal(err)
			}
		}
	}
	info, err := to.Info(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	limit := func(bytes int64) {
		for _, node := range s.masters() {
			if _, err := node.Do("CONFIG", "SET", "maxmemory", fmt.Sprint(bytes)); err != nil {
				s.Fatal(err)
			}
		}
	}
	defer limit(0)
	limit(int64(float64(info.UsedMemory+n*size/2)/0.95) / 3) // a twentieth stays free
	if _, err := r.Run(s.Context(), rewarm.Request{Run: 1, IfCold: true, Segments: 8}); !errors.Is(err, rewarm.ErrDoesNotFit) {
		s.Errorf("all of it: %v, want it refused", err)
	}
	rep, err := r.Run(s.Context(), rewarm.Request{Run: 2, IfCold: true, Segments: 8, Hottest: true})
	if err != nil || rep.Status != rewarm.StatusPartial || rep.Warm || !strings.Contains(strings.Join(rep.Problems, " "), "hottest part") {
		s.Fatalf("%v %+v", err, rep)
	}
	got, err := to.Get(s.Context(), hot)
	if err != nil || slices.ContainsFunc(got, func(g feature.GetResult) bool { return g.Payload == nil }) {
		s.Errorf("hot keys are missing: %v", err)
	}
	if held := rep.HotWritten + rep.Written; rep.HotWritten != int64(len(hot)) || held < n/4 || held > n*6/10 {
		s.Errorf("%d of %d values are in, %d hot: %+v", held, n, rep.HotWritten, rep)
	}
	limit(0)
	if rep, err := r.Run(s.Context(), rewarm.Request{Run: 3, IfCold: true, Segments: 8}); err != nil || rep.Status != rewarm.StatusDone || !rep.Warm {
		s.Errorf("with memory for all: %v %+v", err, rep)
	}
	if rep, err := r.Verify(s.Context(), rewarm.VerifyRequest{Fraction: 1}); err != nil || !rep.OK() || rep.Compared != n {
		s.Errorf("verify: %v %+v", err, rep)
	}
	s.flush()
	s.settle()
}
