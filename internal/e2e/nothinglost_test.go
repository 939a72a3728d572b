package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/parquet-go/parquet-go"

	"github.com/hearthstore/hearth/internal/testservers"
)

// Sources that go bad after a good run: materialize and dataset build fail with words, what
// is served and what was built stays, and the repaired source goes on as if nothing was.
//
// It guards against a training set that is written in place: a failure would take the old one.
func TestBadSourcesLoseNothing(t *testing.T) {
	t.Parallel()
	r := newRepo(t, embedded, sqlite)
	source := filepath.Join(r.dir, "data", "credit_history.parquet")
	good, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	r.must(0, nil, "materialize")
	r.must(0, nil, "dataset", "build", "loans")
	manifest, err := os.ReadFile(filepath.Join(r.dir, "out", "loans", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		spoil func() error
		says  []string
	}{
		{"gone", func() error { return os.Remove(source) }, []string{"credit_history.parquet"}},
		{"no Parquet", func() error { return os.WriteFile(source, []byte("this is no Parquet"), 0o600) }, []string{"credit_history.parquet"}},
		{"cut short", func() error { return os.WriteFile(source, good[:len(good)/2], 0o600) }, []string{"credit_history.parquet"}},
		{"wrong column", func() error {
			type other struct {
				Applicant string    `parquet:"dob_ssn"`
				Event     time.Time `parquet:"event_timestamp,timestamp(microsecond)"`
				Created   time.Time `parquet:"created_timestamp,timestamp(microsecond)"`
				Due       int64     `parquet:"card_due"`
			}
			return parquet.WriteFile(source, []other{{Applicant: "x", Event: time.Unix(1, 0), Created: time.Unix(1, 0)}})
		}, []string{"credit_card_due"}},
		{"wrong type", func() error {
			type other struct {
				Applicant string    `parquet:"dob_ssn"`
				Event     time.Time `parquet:"event_timestamp,timestamp(microsecond)"`
				Created   time.Time `parquet:"created_timestamp,timestamp(microsecond)"`
				Due       string    `parquet:"credit_card_due"`
			}
			return parquet.WriteFile(source, []other{{Applicant: "x", Event: time.Unix(1, 0), Created: time.Unix(1, 0), Due: "much"}})
		}, []string{"credit_card_due"}},
	} {
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"materialize", "--full", "--feature-views", "credit_history"}, {"dataset", "build", "loans"}} {
			res := r.run(args...)
			if res.code != 1 && res.code != 2 {
				t.Errorf("%s: %v: exit %d, want 1 or 2", c.name, args, res.code)
			}
			for _, word := range c.says {
				if !strings.Contains(res.stderr, word) {
					t.Errorf("%s: %v does not say %q:\n%s\n%s", c.name, args, word, res.stdout, res.stderr)
				}
			}
		}
		var got getDoc
		r.must(0, &got, "get", applicant)
		got.from(t, "PRESENT", "backing")
		if after, err := os.ReadFile(filepath.Join(r.dir, "out", "loans", "manifest.json")); err != nil || string(after) != string(manifest) {
			t.Errorf("%s: the earlier training set is not whole any more (%v)", c.name, err)
		}
		if err := os.WriteFile(source, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var m materializeDoc
	r.must(0, &m, "materialize")
	for _, v := range m.Views {
		if v.Backing.Written != 0 || v.Backing.Failed != 0 {
			t.Errorf("the repaired source: %+v", v)
		}
	}
}

// Rows without a key or a time are counted and kept aside with the reason; the others count.
// It guards against a NULL key that becomes text (1 more written, 1 fewer rejected).
func TestNullKeysAreRejected(t *testing.T) {
	t.Parallel()
	type row struct {
		Applicant *string    `parquet:"dob_ssn,optional"`
		Event     *time.Time `parquet:"event_timestamp,optional,timestamp(microsecond)"`
		Created   time.Time  `parquet:"created_timestamp,timestamp(microsecond)"`
		Card      int64      `parquet:"credit_card_due"`
		Mortgage  int64      `parquet:"mortgage_due"`
		Student   int64      `parquet:"student_loan_due"`
		Vehicle   int64      `parquet:"vehicle_loan_due"`
		Pulls     int64      `parquet:"hard_pulls"`
		Missed2y  int64      `parquet:"missed_payments_2y"`
		Missed1y  int64      `parquet:"missed_payments_1y"`
		Missed6m  int64      `parquet:"missed_payments_6m"`
		Bankrupt  int64      `parquet:"bankruptcies"`
	}
	key, empty, at := "19450101_7094", "", time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRepo(t, embedded, sqlite)
	if err := parquet.WriteFile(filepath.Join(r.dir, "data", "credit_history.parquet"), []row{
		{Applicant: &key, Event: &at, Created: at, Card: 7},
		{Applicant: nil, Event: &at, Created: at, Card: 8},
		{Applicant: &key, Event: nil, Created: at, Card: 9},
		{Applicant: &empty, Event: &at, Created: at, Card: 10}, // empty text is a key like another
	}); err != nil {
		t.Fatal(err)
	}
	var m struct {
		Status string `json:"status"`
		Views  []struct {
			Rejected    int64  `json:"rejected"`
			RejectsFile string `json:"rejects_file"`
			Backing     counts `json:"backing"`
		} `json:"views"`
	}
	r.must(0, &m, "materialize", "--feature-views", "credit_history")
	if m.Status != "done" || m.Views[0].Rejected != 2 || m.Views[0].Backing.Written != 2 {
		t.Errorf("materialize: %+v, want 2 rejected and 2 written", m)
	}
	files, err := filepath.Glob(filepath.Join(r.dir, ".hearth", "rejects", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no rejects file (%v): %+v", err, m)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{`\"dob_ssn\" is null`, "event time is null"} {
		if !strings.Contains(string(text), word) {
			t.Errorf("the rejects file does not name %s:\n%s", word, text)
		}
	}
	// In a training set a label row without a key stays, without features.
	var set datasetDoc
	r.must(0, &set, "dataset", "build", "loans")
	if set.Rows != 28638 {
		t.Errorf("training set: %+v, want all 28638 rows", set)
	}
}

// A table of the right name that somebody else made for something else is not touched.
// Red when the key schema is not compared.
func TestTableWithAnotherKeySchema(t *testing.T) {
	t.Parallel()
	endpoint := testservers.SharedDynamoDB(t)
	client := dynamodb.New(dynamodb.Options{Region: testservers.AWSRegion, BaseEndpoint: &endpoint,
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", "")})
	_, err := client.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: aws.String("somebody_elses"), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash}},
	})
	if err != nil {
		t.Fatal(err)
	}
	theirs := fmt.Sprintf("{dynamodb: {table: somebody_elses, region: us-east-1, endpoint: %q}}", endpoint)
	r := newRepo(t, embedded, theirs)
	refused := func(args ...string) {
		t.Helper()
		res := r.run(args...)
		if res.code != 1 && res.code != 2 || !strings.Contains(res.stderr, "somebody_elses") || !strings.Contains(res.stderr, "key") {
			t.Errorf("%v: exit %d\n%s\n%s", args, res.code, res.stdout, res.stderr)
		}
	}
	refused("apply", "--dry-run")
	refused("apply")
	d, err := client.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("somebody_elses")})
	if err != nil || len(d.Table.KeySchema) != 1 || aws.ToBool(d.Table.DeletionProtectionEnabled) {
		t.Errorf("the table was changed: %+v (%v)", d.Table, err)
	}
	var missing *types.ResourceNotFoundException
	_, err = client.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("somebody_elses-state")})
	if !errors.As(err, &missing) {
		t.Errorf("a state table was made beside it: %v", err)
	}
	// Also when the state table is there.
	r.edit(func(s string) string {
		return replaceLine(t, s, "backing:", "backing: "+strings.Replace(theirs, "table: somebody_elses", "table: another, state_table: somebody_elses-state", 1))
	})
	r.must(0, nil, "apply")
	r.edit(func(s string) string { return replaceLine(t, s, "backing:", "backing: "+theirs) })
	refused("materialize", "--feature-views", "credit_history")
	refused("rewarm")
}
