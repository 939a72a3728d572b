package dynamodb_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/hearthstore/hearth/backing/dynamodb"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/faults"
)

// An attempt is one request whatever comes back, with the client's own retries turned on
// for everything else: a reader's cap on requests holds. What was refused says that asking
// again may help and is not absent. Seen red without the NopRetryer (3 requests).
func TestAttemptSendsOneRequest(t *testing.T) {
	t.Parallel()
	s, tr := broken(t, func(c *dynamodb.Config) { c.RetryMaxAttempts = 3 })
	recs, refs := records(100, 1, 1)
	mustPut(t, s, recs[:99])
	for _, c := range []struct {
		kind  faults.Kind
		whole error // the error of the call
		some  bool  // some keys are answered
	}{
		{faults.None, nil, true}, {faults.Partial, nil, true}, {faults.Nothing, nil, false},
		{faults.Throttled, feature.ErrThrottled, false}, {faults.ServerError, feature.ErrUnreachable, false}, {faults.Reset, feature.ErrUnreachable, false},
	} {
		var requests atomic.Int64
		tr.Set(faults.DynamoDBFaults{Decide: func(call faults.Call) faults.Kind {
			if call.Operation != opGet {
				return faults.None
			}
			requests.Add(1)
			return c.kind
		}})
		results, err := s.Attempt(t.Context(), refs)
		if n := requests.Load(); n != 1 {
			t.Errorf("%s: %d requests", c.kind, n)
		}
		if !errors.Is(err, c.whole) || (err == nil) != (c.whole == nil) {
			t.Errorf("%s: %v, want %v", c.kind, err, c.whole)
		}
		found := 0
		for i, r := range results {
			switch {
			case r.Payload != nil:
				found++
			case r.Err == nil && i != 99:
				t.Errorf("%s: %s is absent", c.kind, refs[i])
			case r.Err != nil && !errors.Is(r.Err, feature.ErrThrottled):
				t.Errorf("%s: %v", c.kind, r.Err)
			}
		}
		if (found > 0) != c.some || c.kind == faults.None && found != 99 || c.kind == faults.Partial && found > 98 {
			t.Errorf("%s: %d found", c.kind, found)
		}
	}
	tr.Set(faults.DynamoDBFaults{})
	if _, err := s.Attempt(t.Context(), append(refs, refs[0])); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("101 refs: %v", err)
	}
	if _, err := s.Attempt(t.Context(), []feature.Ref{refs[0], refs[0]}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("a ref twice: %v", err)
	}
}
