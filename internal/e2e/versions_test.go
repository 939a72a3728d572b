package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthstore/hearth"
	"github.com/hearthstore/hearth/internal/testservers"
)

// traffic is an online service that reads one applicant over and over, as long as a
// deployment of it runs.
type traffic struct {
	t      *testing.T
	name   string
	reader *hearth.Features
	stop   context.CancelFunc
	done   sync.WaitGroup
	reads  atomic.Int64
}

// deploy opens the front door on the configuration as it is now and starts to read. Every
// answer must be a stored value: a default would be the downtime.
func (r *repo) deploy(name string) *traffic {
	r.t.Helper()
	reader, err := hearth.Open(r.t.Context(), filepath.Join(r.dir, "hearth.yaml"))
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(r.t.Context())
	s := &traffic{t: r.t, name: name, reader: reader, stop: stop}
	s.done.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			s.read()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return s
}

func (s *traffic) read() {
	// A context of its own: what is asked for when the deployment ends is still answered.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	resp, err := s.reader.Get(ctx, hearth.Request{FeatureService: "credit_score_v1", Entities: []map[string]string{{"zipcode": "43128", "dob_ssn": "19450101_7094"}}})
	if err != nil {
		s.t.Errorf("%s: %v", s.name, err)
		return
	}
	row := resp.Row(0)
	for i := range row.Len() {
		if it := row.At(i); it.Status != hearth.Present {
			s.t.Errorf("%s, read %d: %s is %s from %s", s.name, s.reads.Load(), it.Name, it.Status, it.Tier)
			return
		}
	}
	s.reads.Add(1)
}

// more waits until the service has read a few more times.
func (s *traffic) more() {
	s.t.Helper()
	want := s.reads.Load() + 5
	for s.reads.Load() < want && !s.t.Failed() {
		<-time.After(time.Millisecond)
	}
}

func (s *traffic) end() {
	s.t.Helper()
	s.stop()
	s.done.Wait()
	if err := s.reader.Close(); err != nil {
		s.t.Error(err)
	}
	if s.reads.Load() == 0 {
		s.t.Errorf("%s read nothing", s.name)
	}
}

// TestNewVersionWithoutDowntime changes a view incompatibly with readers running: the edit in
// place is refused with the way to go, version 2 is published beside 1, the service is
// switched, 1 is retired. No read of either deployment ever gets a default. It guards
// against a retire that deletes by view name alone, and an in-place change that is let through
// (readers of the old configuration lose the values).
func TestNewVersionWithoutDowntime(t *testing.T) {
	t.Parallel()
	redis := testservers.Redis(t, testservers.RedisOptions{})
	r := newRepo(t, fmt.Sprintf("{redis: {addrs: [%q]}}", redis.Addr()), "{sqlite: {path: .hearth/backing.db}}")
	// The services cache nothing: each read shows what the tiers hold.
	r.edit(func(s string) string {
		return s + "\nreader: {cache: {max_entries: 0}, online_timeout: 10s, backing_timeout: 20s}\n"
	})
	r.must(0, nil, "materialize")
	one := r.deploy("the deployment of version 1")
	one.more()

	var original string
	const pulls = "{name: hard_pulls, type: int64}"
	r.edit(func(s string) string {
		original = s
		if !strings.Contains(s, pulls) {
			t.Fatal("the example has changed")
		}
		return strings.Replace(s, pulls, "{name: hard_pulls, type: float64}", 1)
	})
	res := r.run("materialize", "--full")
	for _, want := range []string{`"hard_pulls" was int64 and is float64`, "version: 2", "hearth materialize --feature-views credit_history@2", "hearth retire credit_history@1"} {
		if !strings.Contains(res.stderr, want) {
			t.Errorf("the refusal lacks %s:\n%s", want, res.stderr)
		}
	}
	if res.code != 3 && res.code != 2 { // the other view of the run is done
		t.Errorf("an incompatible change in place: exit %d", res.code)
	}
	one.more()

	// Version 2 beside 1.
	second := func(s string) string {
		from := strings.Index(s, "  - name: credit_history\n")
		to := strings.Index(s, "feature_services:")
		if from < 0 || to < from {
			t.Fatal("the example has changed")
		}
		block := strings.Replace(s[from:to], "name: credit_history\n", "name: credit_history\n    version: 2\n", 1)
		return s[:to] + strings.Replace(block, pulls, "{name: hard_pulls, type: float64}", 1) + s[to:]
	}
	r.edit(func(string) string { return second(original) })
	var m materializeDoc
	r.must(0, &m, "materialize", "--feature-views", "credit_history@2")
	if m.Status != "done" || m.Views[0].Backing.Written != 1000 || m.Views[0].Online.Written != 1000 {
		t.Errorf("publish version 2: %+v", m)
	}
	one.more()
	if res := r.run("retire", "credit_history@1"); res.code != 2 || !strings.Contains(res.stderr, "credit_score_v1") {
		t.Errorf("retire of a version that a service reads: exit %d\n%s", res.code, res.stderr)
	}

	// The service is switched, and version 1 is no longer declared.
	r.edit(func(string) string {
		from := strings.Index(original, "  - name: credit_history\n")
		to := strings.Index(original, "feature_services:")
		s := strings.Replace(second(original), original[from:to], "", 1)
		s = strings.Replace(s, "feature_views: [credit_history]", "feature_views: [\"credit_history@2\"]", 1)
		return strings.Replace(s, `"credit_history:*"`, `"credit_history@2:*"`, 1)
	})
	two := r.deploy("the deployment of version 2")
	two.more()
	one.end()

	var doc struct {
		Status  string `json:"status"`
		Backing struct {
			Deleted int64 `json:"deleted"`
		} `json:"backing"`
		Online struct {
			Deleted int64 `json:"deleted"`
		} `json:"online"`
	}
	r.must(0, &doc, "retire", "credit_history@1", "--dry-run")
	r.must(0, &doc, "retire", "credit_history@1")
	if doc.Status != "done" || doc.Backing.Deleted != 1000 || doc.Online.Deleted != 1000 {
		t.Errorf("retire: %+v", doc)
	}
	two.more()
	for version, want := range map[string]int{"1": 0, "2": 1000} {
		keys, err := redis.Do("KEYS", "credit_scoring:credit_history@"+version+":*")
		if list, ok := keys.([]any); err != nil || !ok || len(list) != want {
			t.Errorf("%d keys of version %s are online, want %d (%v)", len(list), version, want, err)
		}
	}
	r.must(0, &doc, "retire", "credit_history@1")
	if doc.Status != "nothing" {
		t.Errorf("retired twice: %+v", doc)
	}
	var v verifyDoc
	r.must(0, &v, "verify")
	if v.Compared != 29844 {
		t.Errorf("verify: %+v", v)
	}
	two.more()
	two.end()

	// A scheduler that still has the old configuration cannot bring version 1 back.
	r.edit(func(string) string { return original })
	if res := r.run("materialize", "--feature-views", "credit_history"); res.code != 2 || !strings.Contains(res.stderr, "retired") {
		t.Errorf("materialize of a retired version: exit %d\n%s", res.code, res.stderr)
	}
}
