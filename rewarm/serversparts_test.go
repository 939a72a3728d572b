package rewarm_test

import (
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

// The cluster has memory for about half: the hot keys are in, others as far as they fit, the
// run is partial and the cluster not warm. With more memory the next run brings the rest.
// Seen red with: room without end.
func hottestPart(s *servers) {
	s.flush()
	var hot hotNow
	for i := s.n - s.n/10; i < s.n; i++ {
		hot = append(hot, entityRef(i))
	}
	limit := func(bytes int64) {
		for _, node := range s.masters() {
			if _, err := node.Do("CONFIG", "SET", "maxmemory", fmt.Sprint(bytes)); err != nil {
				s.Fatal(err)
			}
		}
	}
	defer limit(0)
	plan := s.rewarm(false, func(r *rewarm.Request) { r.PlanOnly = true }).Plan
	perKey := (plan.RedisNeeded - 3*256<<10) / plan.Live
	// Of the limit a twentieth stays free.
	limit(int64(float64(plan.RedisUsed+perKey*plan.Live/2)/0.95) / 3)
	r, err := rewarm.New(rewarm.Config{Backing: s.table, Online: tier{s.online}, State: documents{s.table.Store}, Views: []*feature.View{serversView},
		Project: project, Workers: 4, BatchSize: 50, Hot: hot})
	if err != nil {
		s.Fatal(err)
	}
	rep, err := r.Run(s.Context(), rewarm.Request{Run: 800, IfCold: true, Segments: 8, Hottest: true})
	if err != nil || rep.Status != rewarm.StatusPartial || rep.Warm || !strings.Contains(strings.Join(rep.Problems, " "), "hottest part") {
		s.Fatalf("%v %+v", err, rep)
	}
	got, err := s.online.Get(s.Context(), hot)
	if err != nil || slices.ContainsFunc(got, func(g feature.GetResult) bool { return g.Payload == nil }) {
		s.Errorf("hot keys are missing: %v", err)
	}
	held := rep.HotWritten + rep.Written
	if rep.HotWritten != int64(len(hot)) || held < int64(s.n)*3/10 || held > int64(s.n)*7/10 {
		s.Errorf("%d of %d values are in, %d hot: %+v", held, s.n, rep.HotWritten, rep)
	}
	limit(0)
	if rep := s.rewarm(false); rep.Status != rewarm.StatusDone || !rep.Warm {
		s.Errorf("with memory for all: %+v", rep)
	}
	s.verify()
}
