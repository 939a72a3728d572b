package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	smithy "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/hearthstore/hearth/feature"
)

// Error codes that DynamoDB and its front door send. Statements of a batch have shorter
// names for some of them.
var (
	throttleCodes = []string{"ProvisionedThroughputExceededException", "ProvisionedThroughputExceeded", "ThrottlingException", "ThrottlingError",
		"Throttling", "RequestLimitExceeded", "RequestThrottledException", "TooManyRequestsException", "SlowDown", "TransactionInProgressException"}
	retryCodes  = []string{"InternalServerError", "InternalFailure", "ServiceUnavailable", "ServiceUnavailableException", "TransactionConflict", "TransactionConflictException", "ReplicatedWriteConflictException"}
	deniedCodes = []string{"AccessDeniedException", "AccessDenied", "UnrecognizedClientException", "InvalidSignatureException", "IncompleteSignatureException",
		"MissingAuthenticationTokenException", "MissingAuthenticationToken", "ExpiredTokenException", "ExpiredToken", "InvalidClientTokenId", "OptInRequired"}
	missingCodes = []string{"ResourceNotFoundException", "ResourceNotFound", "TableNotFoundException"}
)

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func isThrottle(err error) bool { return slices.Contains(throttleCodes, code(err)) }

// isTransient reports whether sending the same request again may help, beyond throttles.
func isTransient(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	if c := code(err); c != "" {
		var resp *smithyhttp.ResponseError
		return slices.Contains(retryCodes, c) || errors.As(err, &resp) && resp.HTTPStatusCode() >= http.StatusInternalServerError
	}
	return !isCredentials(err)
}

// isCredentials recognises that no credentials could be found; the client has no type for it.
func isCredentials(err error) bool {
	text := err.Error()
	return strings.Contains(text, "failed to refresh cached credentials") || strings.Contains(text, "failed to retrieve credentials") ||
		strings.Contains(text, "get identity") || strings.Contains(text, "static credentials are empty")
}

// wrap says what failed where and what to do, matching the sentinel that callers decide on.
func (s *Store) wrap(op, table string, err error) error {
	if err == nil {
		return nil
	}
	at := fmt.Sprintf("dynamodb table %s (%s): %s", table, s.where(), op)
	c := code(err)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w: %w", at, feature.ErrUnreachable, err)
	case slices.Contains(missingCodes, c):
		return fmt.Errorf("%s: %w: the table does not exist; run: hearth apply", at, feature.ErrNotApplied)
	case slices.Contains(throttleCodes, c):
		return fmt.Errorf("%s: %w: %s; raise the table's capacity or lower the rate", at, feature.ErrThrottled, c)
	case slices.Contains(deniedCodes, c):
		return fmt.Errorf("%s: %w: %s: %s; check the credentials and the policy of this role", at, feature.ErrDenied, c, message(err))
	case c == "" && isCredentials(err):
		return fmt.Errorf("%s: %w: no AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run with a role: %v", at, feature.ErrDenied, err)
	case c == "ValidationException" && wrongKey(err):
		return fmt.Errorf("%s: %w: the table has another key schema (%s); run: hearth apply --dry-run", at, feature.ErrInvalid, message(err))
	case c == "" || isTransient(err):
		return fmt.Errorf("%s: %w: %w", at, feature.ErrUnreachable, err)
	}
	return fmt.Errorf("%s: %w", at, err)
}

// wrongKey recognises the complaints about keys that a table with another schema makes.
func wrongKey(err error) bool {
	text := message(err)
	return strings.Contains(text, "key element does not match the schema") || strings.Contains(text, "required keys was not given a value") ||
		strings.Contains(text, "number of conditions on the keys is invalid") || strings.Contains(text, "Missing the key")
}

func message(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorMessage()
	}
	return err.Error()
}

// Backoff: full jitter between 0 and base·2^n, at most maxPause.
const (
	basePause = 50 * time.Millisecond
	maxPause  = 5 * time.Second
)

// pause waits before attempt n+1 (n from 0). It ends early with ctx.
func (s *Store) pause(ctx context.Context, n int) error {
	top := maxPause
	if n < 7 {
		top = min(maxPause, basePause<<n)
	}
	return s.clock.Sleep(ctx, rand.N(top)+time.Millisecond)
}

// retry calls f until it succeeds, fails for good, or RetryFor has passed. It is for single
// requests; batches keep their own account of progress.
func (s *Store) retry(ctx context.Context, f func() error) error {
	start := s.clock.Now()
	for n := 0; ; n++ {
		err := f()
		if err == nil || ctx.Err() != nil || !(isThrottle(err) || isTransient(err)) {
			return err
		}
		if isThrottle(err) {
			s.stats.throttles.Add(1)
		}
		if s.clock.Now().Sub(start) >= s.cfg.RetryFor {
			return err
		}
		if s.pause(ctx, n) != nil {
			return err
		}
	}
}
