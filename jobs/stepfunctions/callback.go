// Package stepfunctions tells AWS Step Functions about a task that a state machine waits
// for. It owns that service's client.
package stepfunctions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sfn"
	"github.com/aws/aws-sdk-go-v2/service/sfn/types"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/jobs"
)

// Config configures a [Callback].
type Config struct {
	// Region defaults to what the AWS configuration says (AWS_REGION, the profile). The
	// credentials are those of the default chain; AWS_ENDPOINT_URL_SFN names another
	// endpoint than AWS.
	Region string
	// Attempts is how often one call is tried. Defaults to 5.
	Attempts int
	// MaxBackoff bounds the pauses between them. Defaults to 3s.
	MaxBackoff time.Duration
}

// Callback is a [jobs.TaskCallback]. It is safe for concurrent use.
type Callback struct{ client *sfn.Client }

var _ jobs.TaskCallback = (*Callback)(nil)

// New reads region and credentials. It contacts nobody.
func New(ctx context.Context, c Config) (*Callback, error) {
	if c.Attempts <= 0 {
		c.Attempts = 5
	}
	if c.MaxBackoff <= 0 {
		c.MaxBackoff = 3 * time.Second
	}
	opts := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = c.Attempts, c.MaxBackoff })
		}),
	}
	if c.Region != "" {
		opts = append(opts, awsconfig.WithRegion(c.Region))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("load AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		return nil, fmt.Errorf("%w: no AWS region to reach the state machine in; set AWS_REGION", feature.ErrInvalid)
	}
	return &Callback{sfn.NewFromConfig(cfg)}, nil
}

// Heartbeat says that the task is still worked on.
func (c *Callback) Heartbeat(ctx context.Context, token string) error {
	_, err := c.client.SendTaskHeartbeat(ctx, &sfn.SendTaskHeartbeatInput{TaskToken: &token})
	return judge("send heartbeat", err)
}

// Success ends the task; output is a JSON document.
func (c *Callback) Success(ctx context.Context, token string, output []byte) error {
	_, err := c.client.SendTaskSuccess(ctx, &sfn.SendTaskSuccessInput{TaskToken: &token, Output: aws.String(string(output))})
	return judge("send success", err)
}

// Failure ends the task with a code that the state machine can catch.
func (c *Callback) Failure(ctx context.Context, token, code, cause string) error {
	_, err := c.client.SendTaskFailure(ctx, &sfn.SendTaskFailureInput{TaskToken: &token, Error: &code, Cause: &cause})
	return judge("send failure", err)
}

func judge(what string, err error) error {
	var (
		unknown  *types.TaskDoesNotExist
		over     *types.TaskTimedOut
		badToken *types.InvalidToken
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown), errors.As(err, &over):
		return fmt.Errorf("%s: %w: %w", what, jobs.ErrTaskGone, err)
	case errors.As(err, &badToken):
		return fmt.Errorf("%s: %w: this is no task token of this account and region: %w", what, feature.ErrInvalid, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
