package dynamodb_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/backing/backingtest"
	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/internal/testservers"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testservers.Wrap(m)) }

var tables atomic.Int64

// config is a configuration with tables of its own.
func config(endpoint string) dynamodb.Config {
	return dynamodb.Config{Table: fmt.Sprintf("hearth-%d", tables.Add(1)), Endpoint: endpoint}
}

func open(t *testing.T, cfg dynamodb.Config) *dynamodb.Store {
	t.Helper()
	s, err := dynamodb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func applied(t *testing.T, cfg dynamodb.Config) *dynamodb.Store {
	t.Helper()
	s := open(t, cfg)
	if _, err := s.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformanceDynamoDBLocal(t *testing.T) {
	// Batches were good enough for everything. Seen red with formRepeated broken.
	if got := conform(t, testservers.SharedDynamoDB(t)); got.PutItems != 0 {
		t.Errorf("%d records needed a put of their own", got.PutItems)
	}
}

func TestConformanceDynoxide(t *testing.T) {
	conform(t, testservers.Dynoxide(t, testservers.DynamoDBOptions{}).Endpoint())
}

// conform runs the suite, and checks that the fast decoder understood every page.
func conform(t *testing.T, endpoint string) dynamodb.Stats {
	s := applied(t, config(endpoint))
	backingtest.Run(t, func(*testing.T) backing.Store { return s })
	got := s.Stats()
	if got.StockPages != 0 || got.ForeignItems != 0 || got.ChecksumErrors != 0 {
		t.Errorf("fallbacks were needed: %+v", got)
	}
	return got
}
