package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/testservers"
)

// exportTable writes what the table holds as DynamoDB exports it: gzip files of a line per
// item, listed in manifests. It returns the files by their names in the export's folder.
func exportTable(t *testing.T, store *dynamodb.Store, table string) map[string][]byte {
	t.Helper()
	const files = 3
	var texts [files]bytes.Buffer
	var counts [files]int
	var page feature.ScanPage
	req := feature.ScanRequest{Segments: 1}
	for {
		if err := store.Scan(t.Context(), req, &page); err != nil {
			t.Fatal(err)
		}
		for _, rec := range page.Records {
			f := feature.ShardOf(rec.Key, files)
			counts[f]++
			fmt.Fprintf(&texts[f], `{"Item":{"e":{"S":%q},"v":{"S":%q},"p":{"B":%q}}}`+"\n", rec.Key, rec.View, base64.StdEncoding.EncodeToString(rec.Payload))
		}
		if page.Next == nil {
			break
		}
		req.Cursor = bytes.Clone(page.Next)
	}
	out := map[string][]byte{}
	var list strings.Builder
	total := 0
	for f := range texts {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write(texts[f].Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		sum := md5.Sum(packed.Bytes())
		name := fmt.Sprintf("data/%d.json.gz", f)
		out[name] = packed.Bytes()
		fmt.Fprintf(&list, `{"itemCount":%d,"md5Checksum":%q,"etag":"x","dataFileS3Key":"AWSDynamoDB/01/%s"}`+"\n", counts[f], base64.StdEncoding.EncodeToString(sum[:]), name)
		total += counts[f]
	}
	out["manifest-files.json"] = []byte(list.String())
	out["manifest-summary.json"] = fmt.Appendf(nil, `{"version":"2020-06-30","exportArn":"arn:aws:dynamodb:us-east-1:1:table/%[1]s/export/01","tableArn":"arn:aws:dynamodb:us-east-1:1:table/%[1]s",`+
		`"exportTime":"2026-11-20T10:00:00.000Z","manifestFilesS3Key":"AWSDynamoDB/01/manifest-files.json","billedSizeBytes":%[2]d,"itemCount":%[3]d,"outputFormat":"DYNAMODB_JSON","exportType":"FULL_EXPORT"}`, table, 300*total, total)
	return out
}

// Redis is lost; its values come from an export in S3, and what changed since from the
// table. Then drills, which say in the ledger whether the objective is kept.
// It guards against a command without the sweep (the erased value is back), and a drill that
// is recorded as done whatever its verdict.
func TestRewarmFromAnExportAndDrills(t *testing.T) {
	t.Parallel()
	const table = "export_e2e"
	redis, other := testservers.Redis(t, testservers.RedisOptions{}), testservers.Redis(t, testservers.RedisOptions{})
	endpoint := testservers.SharedDynamoDB(t)
	backend := s3mem.New()
	if err := backend.CreateBucket("exports"); err != nil {
		t.Fatal(err)
	}
	s3 := httptest.NewServer(gofakes3.New(backend).Server())
	defer s3.Close()
	r := newRepo(t, fmt.Sprintf("{redis: {addrs: [%q]}}", redis.Addr()), fmt.Sprintf("{dynamodb: {table: %s, region: us-east-1, endpoint: %q}}", table, endpoint))
	objective := func(d string) {
		r.edit(func(s string) string {
			s, _, _ = strings.Cut(s, "\n# of the test\n")
			return s + fmt.Sprintf("\n# of the test\noffline: {s3: {endpoint: %q, path_style: true}}\nrecovery_time_objective: %s\n", s3.URL, d)
		})
	}
	objective("1h")
	r.must(0, nil, "apply")
	r.must(0, nil, "materialize", "--feature-views", "credit_history")

	store, err := dynamodb.Open(t.Context(), dynamodb.Config{Table: table, Region: "us-east-1", Endpoint: endpoint,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
		})})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	folder := filepath.Join(r.dir, "export")
	for name, body := range exportTable(t, store, table) {
		if _, err := backend.PutObject("exports", "AWSDynamoDB/01/"+name, map[string]string{}, bytes.NewReader(body), int64(len(body)), nil); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// Since then: a new applicant was pushed, and one was erased. Then Redis is lost.
	row := `{"dob_ssn":"20000101_0001","event_timestamp":"2026-11-25T00:00:00Z","created_timestamp":"2026-11-25T00:00:00Z","credit_card_due":7}`
	if err := os.WriteFile(filepath.Join(r.dir, "row"), []byte(row), 0o600); err != nil {
		t.Fatal(err)
	}
	push := r.command(t.Context(), "push", "credit_history")
	push.Stdin = strings.NewReader(row)
	if out, err := push.CombinedOutput(); err != nil {
		t.Fatalf("push: %v\n%s", err, out)
	}
	view := feature.ViewID{Name: "credit_history", Version: 1}
	erased := feature.Ref{View: view, Key: "dob_ssn=19450101_7094"}
	if errs, err := store.Delete(t.Context(), []feature.Ref{erased}); err != nil || errs[0] != nil {
		t.Fatal(err, errs)
	}
	lose := func() {
		t.Helper()
		if _, err := redis.Do("FLUSHALL"); err != nil {
			t.Fatal(err)
		}
	}
	lose()
	type doc struct {
		Status, Reason string
		Warm           bool
		Written, Swept int64
		Scanned        int64
		Export         struct{ Written int64 }
		Plan           struct{ Notes []string }
		Problems       []string
	}
	var d doc
	r.must(0, &d, "rewarm", "--from-export", "s3://exports/AWSDynamoDB/01", "--plan")
	if d.Status != "planned" || !strings.Contains(strings.Join(d.Plan.Notes, " "), "catch-up") {
		t.Errorf("plan: %+v", d)
	}
	d = doc{}
	r.must(0, &d, "rewarm", "--if-cold", "--from-export", "s3://exports/AWSDynamoDB/01/")
	if d.Status != "done" || !d.Warm || d.Export.Written != 1000 || d.Written != 1 || d.Swept != 1 {
		t.Errorf("from the export: %+v, want 1000 of it, 1 new and 1 erased", d)
	}
	var v verifyDoc
	r.must(0, &v, "verify")
	if v.Compared != 1000 || v.Missing+v.Older+v.Different+v.Extra != 0 {
		t.Errorf("verify: %+v", v)
	}
	d = doc{}
	r.must(0, &d, "rewarm", "--summary")
	if d.Status != "done" || !d.Warm || d.Scanned != 1000 {
		t.Errorf("summary: %+v", d)
	}
	d = doc{}
	r.must(0, &d, "rewarm", "--if-cold", "--from-export", folder)
	if d.Status != "nothing" || d.Reason != "warm" {
		t.Errorf("when warm: %+v", d)
	}

	lose()
	d = doc{}
	r.must(3, &d, "rewarm", "--from-export", folder, "--no-catch-up")
	if d.Status != "partial" || d.Warm || d.Written != 1000 || len(d.Problems) != 1 {
		t.Errorf("without catching up: %+v", d)
	}
	r.must(0, nil, "rewarm", "--if-cold")
	manifest := filepath.Join(folder, "manifest-summary.json")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, bytes.ReplaceAll(text, []byte("table/"+table), []byte("table/other")), 0o600); err != nil {
		t.Fatal(err)
	}
	if res := r.run("rewarm", "--from-export", folder); res.code != 2 || !strings.Contains(res.stderr, "other") {
		t.Errorf("an export of another table: exit %d\n%s", res.code, res.stderr)
	}

	drill := func(code int, passed bool, status string, args ...string) {
		t.Helper()
		var doc struct {
			Run              uint64
			Passed           bool
			Written, Removed int64
		}
		r.must(code, &doc, append([]string{"rewarm", "--drill"}, args...)...)
		if doc.Passed != passed || doc.Written != 1000 || doc.Removed < 1000 {
			t.Errorf("drill %q: %+v, want passed %v and all 1000 keys put and removed", args, doc, passed)
		}
		var history struct {
			Runs []struct {
				Run    uint64
				Kind   string
				Status string
				Detail struct{ Passed bool }
			}
		}
		r.must(0, &history, "jobs", "history")
		if got := history.Runs[0]; got.Run != doc.Run || got.Kind != "drill" || got.Status != status || got.Detail.Passed != passed {
			t.Errorf("drill %q in the ledger: %+v", args, got)
		}
	}
	drill(0, true, "done", "--drill-redis", other.Addr())
	drill(0, true, "done")
	objective("1ms")
	drill(5, false, "failed", "--drill-redis", other.Addr())
	if n, err := other.Do("DBSIZE"); err != nil || fmt.Sprint(n) != "0" {
		t.Errorf("the other Redis has %v keys left, %v", n, err)
	}
	r.must(0, &v, "verify") // the live keys were not touched
}
