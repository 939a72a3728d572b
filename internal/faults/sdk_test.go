package faults

import (
	"errors"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

// TestTheSDKUnderstandsTheFaults: injected answers must look real to the
// client that the program uses, down to checksums and error types.
func TestTheSDKUnderstandsTheFaults(t *testing.T) {
	t.Parallel()
	f := newFakeDynamoDB(t, func(string, []byte) (int, string) {
		return http.StatusOK, `{"Responses":{"t":[{"e":{"S":"1"}}]}}`
	})
	d := NewDynamoDBTransport(nil, 1, always(Partial))
	client := dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(f.URL), Region: "us-east-1", HTTPClient: d, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""),
	})
	key := func(s string) map[string]types.AttributeValue {
		return map[string]types.AttributeValue{"e": &types.AttributeValueMemberS{Value: s}}
	}
	get := &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
		"t": {Keys: []map[string]types.AttributeValue{key("1"), key("2"), key("3"), key("4"), key("5"), key("6")}},
	}}
	out, err := client.BatchGetItem(t.Context(), get)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(out.UnprocessedKeys["t"].Keys); n == 0 || n == 6 || len(out.Responses["t"]) != 1 {
		t.Errorf("answer = %+v", out)
	}
	d.Set(always(Exceeded))
	var exceeded *types.ProvisionedThroughputExceededException
	if _, err := client.BatchGetItem(t.Context(), get); !errors.As(err, &exceeded) {
		t.Errorf("error = %v", err)
	}
	d.Set(always(Throttled))
	var api smithy.APIError
	if _, err := client.BatchGetItem(t.Context(), get); !errors.As(err, &api) || api.ErrorCode() != "ThrottlingException" {
		t.Errorf("error = %v", err)
	}
	d.Set(always(ServerError))
	var internal *types.InternalServerError
	if _, err := client.BatchGetItem(t.Context(), get); !errors.As(err, &internal) {
		t.Errorf("error = %v", err)
	}
	d.Set(always(Nothing))
	statements := &dynamodb.BatchExecuteStatementInput{Statements: []types.BatchStatementRequest{{Statement: aws.String("x")}}}
	got, err := client.BatchExecuteStatement(t.Context(), statements)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Responses) != 1 || got.Responses[0].Error == nil || got.Responses[0].Error.Code != types.BatchStatementErrorCodeEnumThrottlingError {
		t.Errorf("statements = %+v", got.Responses)
	}
}
