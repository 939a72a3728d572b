package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/hearthstore/hearth/internal/testservers"
)

// TestForget erases an entity that is in both tiers, in a run report and in a rejects file.
// Afterwards nothing in Redis, in either table or on disk holds its values, and its key stands
// only in the guard; the erasure can be shown, and no run brings the entity back. It
// guards against run records that are not scrubbed, a guard at the stored times, and a report
// of the erasure that names the key.
func TestForget(t *testing.T) {
	t.Parallel()
	redis := testservers.Redis(t, testservers.RedisOptions{})
	table := testservers.DynamoDBLocal(t, testservers.DynamoDBOptions{})
	r := newRepo(t, fmt.Sprintf("{redis: {addrs: [%q]}}", redis.Addr()),
		fmt.Sprintf("{dynamodb: {table: people, region: us-east-1, endpoint: %q}}", table.Endpoint()))
	r.must(0, nil, "apply")
	r.must(0, nil, "materialize", "--feature-views", "credit_history")

	// A run without Redis lists keys that are behind: the victim is one of them.
	redis.Kill()
	var m struct {
		Views []struct {
			Failures []struct {
				Key string `json:"key"`
			} `json:"failures"`
		} `json:"views"`
	}
	r.must(3, &m, "materialize", "--feature-views", "credit_history", "--full")
	if len(m.Views) != 1 || len(m.Views[0].Failures) == 0 {
		t.Fatalf("%+v", m)
	}
	key := m.Views[0].Failures[0].Key

	var doc struct {
		Status   string `json:"status"`
		Entities []struct {
			Entity string `json:"entity"`
			Views  []struct {
				Backing string `json:"backing"`
				Online  string `json:"online"`
			} `json:"views"`
		} `json:"entities"`
		Copies struct {
			Ledger  int `json:"ledger_entries"`
			Rejects int `json:"reject_lines"`
		} `json:"copies"`
		Error string `json:"error"`
	}
	rejects := filepath.Join(r.dir, ".hearth", "rejects", "9-credit_history@1.ndjson")
	if err := os.MkdirAll(filepath.Dir(rejects), 0o750); err != nil {
		t.Fatal(err)
	}
	lines := fmt.Sprintf("{\"view\":\"credit_history@1\",\"key\":%q,\"reason\":\"x\"}\n{\"view\":\"credit_history@1\",\"key\":\"dob_ssn=other\",\"reason\":\"x\"}\n", key)
	if err := os.WriteFile(rejects, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	// Redis is still away: erased in the table, and honest about the rest.
	r.must(3, &doc, "forget", key)
	if doc.Status != "partial" || doc.Entities[0].Views[0].Backing != "erased" || doc.Entities[0].Views[0].Online != "failed" || strings.Contains(doc.Error, key) {
		t.Fatalf("forget without Redis: %+v", doc)
	}
	if doc.Copies.Ledger == 0 || doc.Copies.Rejects != 1 {
		t.Errorf("copies: %+v", doc.Copies)
	}
	redis.Restart()
	r.must(0, &doc, "forget", key)
	if doc.Status != "done" {
		t.Fatalf("forget: %+v", doc)
	}

	var got getDoc
	r.must(0, &got, "get", "--features", "credit_history:hard_pulls", key)
	if f := got.Results[0].Features[0]; f.Status != "NOT_FOUND" {
		t.Errorf("the erased entity is %s from %s", f.Status, f.Tier)
	}
	marker, err := redis.Do("GET", "credit_scoring:credit_history@1:{"+key+"}")
	if text, ok := marker.(string); err != nil || !ok || len(text) != 37 {
		t.Errorf("online there is %q (%v), want a marker without features", marker, err)
	}
	db := rawTable(table.Endpoint())
	for _, item := range scanTable(t, db, "people") {
		if e := item["e"].(*types.AttributeValueMemberS).Value; e == key && len(item["p"].(*types.AttributeValueMemberB).Value) != 37 {
			t.Error("the table holds features of the erased entity")
		}
	}
	for _, item := range scanTable(t, db, "people-state") {
		text, err := json.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), strings.TrimPrefix(key, "dob_ssn=")) {
			t.Errorf("the state table names the erased entity: %s", text)
		}
	}
	left, err := os.ReadFile(rejects)
	if err != nil || strings.Contains(string(left), key) || !strings.Contains(string(left), "other") {
		t.Errorf("rejects: %s %v", left, err)
	}

	r.must(0, nil, "materialize", "--feature-views", "credit_history", "--full")
	r.must(0, &got, "get", "--features", "credit_history:hard_pulls", key)
	if f := got.Results[0].Features[0]; f.Status != "NOT_FOUND" {
		t.Errorf("a full run brought it back: %s from %s", f.Status, f.Tier)
	}
	var push struct {
		Rows    int64  `json:"rows"`
		Backing counts `json:"backing"`
		Results []struct {
			Backing string `json:"backing"`
		} `json:"results"`
	}
	r.must(0, &push, "push", "credit_history", "--file", filepath.Join("data", "credit_history.parquet"))
	erased := 0
	for _, x := range push.Results {
		if x.Backing == "erased" {
			erased++
		}
	}
	if push.Rows != 1000 || push.Backing.Unchanged != 999 || erased != 1 {
		t.Errorf("push of the whole source: %d rows, %+v, %d erased", push.Rows, push.Backing, erased)
	}

	var shown struct {
		Entity   string `json:"entity"`
		Erasures []struct {
			Entity string `json:"entity"`
			Status string `json:"status"`
		} `json:"erasures"`
	}
	r.must(0, &shown, "forgotten", key)
	if len(shown.Erasures) != 2 || shown.Erasures[0].Status != "partial" || shown.Erasures[1].Status != "done" || shown.Entity != doc.Entities[0].Entity {
		t.Errorf("forgotten: %+v", shown)
	}
	r.must(5, &shown, "forgotten", "dob_ssn=nobody")
	if res := r.run("forget", "dob_sn=1"); res.code != 2 || !strings.Contains(res.stderr, "dob_ssn") {
		t.Errorf("a join key that nobody declares: exit %d\n%s", res.code, res.stderr)
	}
}

func rawTable(endpoint string) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{Region: "us-east-1", BaseEndpoint: &endpoint, Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})
}

// scanTable returns every item of a table.
func scanTable(t *testing.T, db *dynamodb.Client, name string) []map[string]types.AttributeValue {
	t.Helper()
	var items []map[string]types.AttributeValue
	in := &dynamodb.ScanInput{TableName: &name}
	for {
		out, err := db.Scan(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, out.Items...)
		if len(out.LastEvaluatedKey) == 0 {
			return items
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}
