package dynamodb_test

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/testservers"
)

func crc(b []byte) string { return strconv.FormatUint(uint64(crc32.ChecksumIEEE(b)), 10) }

// everyCall runs each operation that needs the tables and gives its error.
func everyCall(t *testing.T, s *dynamodb.Store, each func(op string, err error)) {
	t.Helper()
	ctx := t.Context()
	recs, refs := records(3, 1, 1)
	_, err := s.Put(ctx, recs)
	each("put", err)
	_, err = s.Get(ctx, refs)
	each("get", err)
	_, err = s.Delete(ctx, refs)
	each("delete", err)
	var page feature.ScanPage
	each("scan", s.Scan(ctx, feature.ScanRequest{Segments: 1}, &page))
	_, err = s.GetState(ctx, "kind", "name")
	each("get state", err)
	_, err = s.PutState(ctx, backing.StateItem{Kind: "kind", Name: "name", Value: []byte("{}"), ExpireAt: feature.NoTime})
	each("put state", err)
	_, err = s.ListState(ctx, "kind", backing.ListOptions{})
	each("list state", err)
	each("delete state", s.DeleteState(ctx, "kind", "name", 1))
}

func TestNotApplied(t *testing.T) {
	s := open(t, config(testservers.Dynoxide(t, testservers.DynamoDBOptions{}).Endpoint()))
	everyCall(t, s, func(op string, err error) {
		if !errors.Is(err, feature.ErrNotApplied) || !strings.Contains(err.Error(), "hearth apply") {
			t.Errorf("%s: %v", op, err)
		}
	})
	d, err := s.Describe(t.Context())
	if err != nil || !d.Reachable || d.Applied {
		t.Errorf("describe: %+v, %v", d, err)
	}
	plan, err := s.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(plan); strings.Count(got, "create table") != 2 || !strings.Contains(got, "create time to live") || !strings.Contains(got, "create deletion protection") || !strings.Contains(got, "create point-in-time recovery") {
		t.Errorf("plan: %s", got)
	}
	if d, err := s.Describe(t.Context()); err != nil || d.Applied {
		t.Errorf("the plan has changed something: %+v, %v", d, err)
	}
}

func TestUnreachable(t *testing.T) {
	cfg := config("http://" + testservers.FreeAddr(t))
	cfg.RetryFor, cfg.RetryMaxAttempts = 1, 1
	s := open(t, cfg)
	everyCall(t, s, func(op string, err error) {
		if !errors.Is(err, feature.ErrUnreachable) || !strings.Contains(err.Error(), cfg.Endpoint) {
			t.Errorf("%s: %v", op, err)
		}
	})
	if d, err := s.Describe(t.Context()); !errors.Is(err, feature.ErrUnreachable) || d.Reachable {
		t.Errorf("describe: %+v, %v", d, err)
	}
}

// No credentials is said as such, and not as a network error.
func TestNoCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
	cfg := config("http://192.0.2.1:9") // not loopback: nothing is made up, and nothing is sent
	cfg.Region, cfg.RetryFor = "eu-west-1", 1
	s := open(t, cfg)
	everyCall(t, s, func(op string, err error) {
		if !errors.Is(err, feature.ErrDenied) || !strings.Contains(err.Error(), "credentials") {
			t.Errorf("%s: %v", op, err)
		}
	})
}

func TestOpenInvalid(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	for _, cfg := range []dynamodb.Config{{}, {Table: "a b c"}, {Table: "abc", StateTable: "abc"}, {Table: "abc", Endpoint: "localhost:8000"}, {Table: "abc"}} {
		if _, err := dynamodb.Open(t.Context(), cfg); !errors.Is(err, feature.ErrInvalid) {
			t.Errorf("open %+v: %v", cfg, err)
		}
	}
}

func rawClient(endpoint string) *ddb.Client {
	return ddb.New(ddb.Options{Region: "us-east-1", BaseEndpoint: &endpoint, Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")})
}

// A table of somebody else is left alone, and both schemas are named.
func TestWrongSchema(t *testing.T) {
	cfg := config(testservers.Dynoxide(t, testservers.DynamoDBOptions{}).Endpoint())
	_, err := rawClient(cfg.Endpoint).CreateTable(t.Context(), &ddb.CreateTableInput{
		TableName: &cfg.Table, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeN}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg)
	for name, f := range map[string]func() ([]backing.Action, error){
		"plan":  func() ([]backing.Action, error) { return s.Plan(t.Context()) },
		"apply": func() ([]backing.Action, error) { return s.Apply(t.Context()) },
	} {
		actions, err := f()
		if !errors.Is(err, feature.ErrInvalid) || len(actions) != 0 || !strings.Contains(err.Error(), "id (N)") || !strings.Contains(err.Error(), "partition key e (S), sort key v (S)") {
			t.Errorf("%s: %v, %v", name, actions, err)
		}
	}
	recs, refs := records(3, 1, 1)
	results, err := s.Put(t.Context(), recs)
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	if err == nil || !strings.Contains(err.Error(), "hearth apply --dry-run") {
		t.Errorf("put: %v", err)
	}
	if _, err := s.Get(t.Context(), refs); err == nil || !strings.Contains(err.Error(), "hearth apply --dry-run") {
		t.Errorf("get: %v", err)
	}
}

// Items that are no values of Hearth are skipped, counted, and never overwritten.
func TestForeignItems(t *testing.T) {
	cfg := config(testservers.Dynoxide(t, testservers.DynamoDBOptions{}).Endpoint())
	s := applied(t, cfg)
	recs, _ := records(5, 1, 1)
	mustPut(t, s, recs)
	client := rawClient(cfg.Endpoint)
	for i, item := range []map[string]types.AttributeValue{
		{"v": &types.AttributeValueMemberS{Value: "no view!"}, "p": &types.AttributeValueMemberB{Value: []byte{1}}},
		{"v": &types.AttributeValueMemberS{Value: "driver_stats@1"}, "note": &types.AttributeValueMemberS{Value: "no value"}},
	} {
		item["e"] = &types.AttributeValueMemberS{Value: fmt.Sprintf("id=foreign%d", i)}
		if _, err := client.PutItem(t.Context(), &ddb.PutItemInput{TableName: &cfg.Table, Item: item}); err != nil {
			t.Fatal(err)
		}
	}
	var page feature.ScanPage
	if err := s.Scan(t.Context(), feature.ScanRequest{Segments: 1}, &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Records) != 5 || s.Stats().ForeignItems != 2 {
		t.Errorf("%d records, %+v", len(page.Records), s.Stats())
	}
	clash := record(0, feature.Version{Event: 9, Run: 1}, "x")
	clash.Key = "id=foreign1"
	results, err := s.Put(t.Context(), []feature.Record{clash})
	if err != nil || results[0].Outcome != feature.Failed || !errors.Is(results[0].Err, feature.ErrCorrupt) {
		t.Errorf("put over a foreign item: %+v, %v", results, err)
	}
	got, err := s.Get(t.Context(), []feature.Ref{clash.Ref})
	if err != nil || !errors.Is(got[0].Err, feature.ErrCorrupt) {
		t.Errorf("get of a foreign item: %+v, %v", got, err)
	}
}
