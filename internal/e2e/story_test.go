package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hearthstore/hearth/internal/testservers"
)

// The whole path against a Redis Cluster of three masters and DynamoDB Local: build,
// materialize, lose Redis, read through the fallback, rewarm, verify; then lose each tier
// for good.
func TestStoryOverRealServers(t *testing.T) {
	t.Parallel()
	cluster := testservers.RedisCluster(t, testservers.ClusterOptions{})
	table := testservers.DynamoDBLocal(t, testservers.DynamoDBOptions{})
	addrs, err := json.Marshal(cluster.Addrs())
	if err != nil {
		t.Fatal(err)
	}
	r := newRepo(t,
		fmt.Sprintf("{redis: {addrs: %s, cluster: true}}", addrs),
		fmt.Sprintf("{dynamodb: {table: story, region: us-east-1, endpoint: %q}}", table.Endpoint()))

	// Before apply there is no table: every command says so, and what to do.
	if res := r.run("materialize"); res.code != 1 || !strings.Contains(res.stderr, "hearth apply") {
		t.Fatalf("materialize without tables: exit %d\n%s", res.code, res.stderr)
	}
	r.must(0, nil, "validate")
	r.must(0, nil, "apply", "--dry-run")
	r.must(0, nil, "apply")
	r.must(0, nil, "apply") // again changes nothing

	var set datasetDoc
	r.must(0, &set, "dataset", "build", "loans")
	if set.Rows != 28638 || set.Leakage != 0 {
		t.Errorf("training set: %+v, want 28638 rows and no leakage", set)
	}
	for _, v := range set.Views {
		if v.Matched == 0 {
			t.Errorf("view %s matched nothing", v.View)
		}
	}
	if _, err := os.Stat(filepath.Join(r.dir, "out", "loans", "manifest.json")); err != nil {
		t.Error(err)
	}

	var m materializeDoc
	r.must(0, &m, "materialize")
	written := map[string]int64{}
	for _, v := range m.Views {
		written[v.View] = v.Backing.Written
		if v.Online.Written != v.Backing.Written || v.Online.Behind != 0 {
			t.Errorf("%s: %+v online, %+v backing", v.View, v.Online, v.Backing)
		}
	}
	if m.Status != "done" || written["zipcode_features@1"] != 28844 || written["credit_history@1"] != 1000 {
		t.Fatalf("materialize: %+v", m)
	}
	r.must(0, &m, "materialize") // I7: running again does nothing
	if m.Status != "nothing" {
		t.Errorf("second materialize: %s, want nothing", m.Status)
	}
	r.must(0, &m, "materialize", "--full")
	for _, v := range m.Views {
		if v.Backing.Written != 0 || v.Online.Written != 0 {
			t.Errorf("I7: full run over unchanged data wrote: %+v", v)
		}
	}

	var got getDoc
	r.must(0, &got, "get", applicant)
	got.from(t, "PRESENT", "online")

	for _, node := range cluster.Nodes {
		if _, err := node.Do("FLUSHALL"); err != nil {
			t.Fatal(err)
		}
	}
	r.must(0, &got, "get", applicant)
	got.from(t, "PRESENT", "backing")
	if len(got.Unreachable) != 0 {
		t.Errorf("an empty Redis is not unreachable: %v", got.Unreachable)
	}

	var w rewarmDoc
	r.must(0, &w, "rewarm", "--if-cold", "--verify", "0.1")
	if w.Status != "done" || !w.Cold {
		t.Errorf("rewarm: %+v", w)
	}
	r.must(0, &w, "rewarm", "--if-cold")
	if w.Status != "nothing" || w.Cold {
		t.Errorf("rewarm of a warm Redis: %+v, want nothing", w)
	}
	var v verifyDoc
	r.must(0, &v, "verify")
	if v.Compared != 29844 || v.Missing+v.Older+v.Different+v.Extra != 0 {
		t.Errorf("verify: %+v, want 29844 compared and no difference", v)
	}
	r.must(0, &got, "get", applicant)
	got.from(t, "PRESENT", "online")
	r.must(0, nil, "status")

	// A key that is lost in Redis alone is found, and healed.
	lost := "credit_scoring:zipcode_features@1:{zipcode=43128}"
	if n, err := cluster.OwnerOf(lost).Do("DEL", lost); err != nil || fmt.Sprint(n) != "1" {
		t.Fatalf("DEL %s: %v, %v", lost, n, err)
	}
	r.must(5, &v, "verify")
	if v.Missing != 1 {
		t.Errorf("verify: %+v, want 1 missing", v)
	}
	r.must(0, nil, "verify", "--repair")
	r.must(0, nil, "verify")

	for _, node := range cluster.Nodes {
		node.Kill()
	}
	r.must(0, &got, "get", applicant)
	got.from(t, "PRESENT", "backing")
	if !slices.Contains(got.Unreachable, "online") {
		t.Errorf("unreachable: %v, want online", got.Unreachable)
	}
	r.must(3, nil, "status")
	if res := r.run("rewarm"); res.code != 1 {
		t.Errorf("rewarm into a dead Redis: exit %d\n%s", res.code, res.stderr)
	}
	r.must(3, &m, "materialize", "--full", "--feature-views", "credit_history") // the table holds everything, Redis is behind
	if m.Status != "partial" {
		t.Errorf("materialize with Redis down: %s, want partial", m.Status)
	}

	table.Kill()
	r.must(3, &got, "get", applicant)
	got.from(t, "UNKNOWN", "default")
	for _, tier := range []string{"online", "backing"} {
		if !slices.Contains(got.Unreachable, tier) {
			t.Errorf("unreachable: %v, want %s in it", got.Unreachable, tier)
		}
	}
	if res := r.run("materialize"); res.code != 1 {
		t.Errorf("materialize without a table: exit %d\n%s", res.code, res.stderr)
	}
}

// The same files build the same bytes, whatever the threads.
func TestTrainingSetIsTheSameEveryTime(t *testing.T) {
	t.Parallel()
	r := newRepo(t, "{embedded: {}}", "{sqlite: {path: .hearth/backing.db}}")
	var first, second datasetDoc
	r.must(0, &first, "dataset", "build", "loans")
	r.edit(func(s string) string { return s + "\noffline: {threads: 1, memory: 1GB}\n" })
	r.must(0, &second, "dataset", "build", "loans", "--out", "again")
	if first.Digest == "" || first.Digest != second.Digest {
		t.Errorf("digests %q and %q", first.Digest, second.Digest)
	}
	r.must(0, nil, "dataset", "describe", filepath.Join("out", "loans"))
}

func TestDemo(t *testing.T) {
	t.Parallel()
	r := newRepo(t, "{embedded: {}}", "{sqlite: {path: .hearth/backing.db}}")
	var doc struct {
		Rows         int64 `json:"dataset_rows"`
		Materialized int64 `json:"materialized"`
		Verified     int64 `json:"verified"`
		Differences  int64 `json:"differences"`
	}
	for range 2 { // the second demo replaces the folder of the first
		r.must(0, &doc, "demo", "--dir", "story")
		if doc.Rows != 28638 || doc.Materialized != 29844 || doc.Verified != 29844 || doc.Differences != 0 {
			t.Fatalf("demo: %+v", doc)
		}
	}
	var got getDoc
	r.must(0, &got, "-c", "story/hearth.yaml", "get", applicant)
	got.from(t, "PRESENT", "backing")
	if res := r.run("demo", "--dir", "data"); res.code != 2 {
		t.Errorf("demo into a folder of somebody's: exit %d", res.code)
	}
}
