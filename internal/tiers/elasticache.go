package tiers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/config"
)

const (
	// tokenLife is what ElastiCache accepts at most.
	tokenLife = 15 * time.Minute
	// tokenReuse leaves a token that is handed out time to reach the server.
	tokenReuse = 10 * time.Minute
)

// elastiCacheCredentials makes the credentials callback of ElastiCache's IAM
// authentication: the user name, and as password a request that AWS credentials signed.
// A token is reused for some minutes, because every new connection asks for one.
func elastiCacheCredentials(ctx context.Context, r *config.Redis, c clock.Clock) (func(context.Context) (string, string, error), error) {
	if r.Username == "" {
		return nil, fmt.Errorf("%w: IAM authentication needs online.redis.username", feature.ErrInvalid)
	}
	if r.TLS == nil || !r.TLS.Enabled {
		return nil, fmt.Errorf("%w: IAM authentication needs online.redis.tls", feature.ErrInvalid)
	}
	var opts []func(*awsconfig.LoadOptions) error
	if r.IAMAuth.Region != "" {
		opts = append(opts, awsconfig.WithRegion(r.IAMAuth.Region))
	}
	ac, err := awsconfig.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("load AWS configuration: %w", err)
	}
	if ac.Region == "" {
		return nil, fmt.Errorf("%w: no AWS region; set iam_auth.region or AWS_REGION", feature.ErrInvalid)
	}
	t := &elastiCacheToken{
		user: r.Username, cache: r.IAMAuth.CacheName, serverless: r.IAMAuth.Serverless,
		region: ac.Region, credentials: ac.Credentials, clock: c,
	}
	return t.get, nil
}

type elastiCacheToken struct {
	user, cache, region string
	serverless          bool
	credentials         aws.CredentialsProvider
	clock               clock.Clock

	mu    sync.Mutex
	token string
	until time.Time
}

func (t *elastiCacheToken) get(ctx context.Context) (username, password string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	if t.token != "" && now.Before(t.until) {
		return t.user, t.token, nil
	}
	token, err := t.sign(ctx, now)
	if err != nil {
		return "", "", fmt.Errorf("sign ElastiCache token for %s: %w: %w", t.cache, feature.ErrDenied, err)
	}
	t.token, t.until = token, now.Add(tokenReuse)
	return t.user, token, nil
}

func (t *elastiCacheToken) sign(ctx context.Context, now time.Time) (string, error) {
	creds, err := t.credentials.Retrieve(ctx)
	if err != nil {
		return "", err
	}
	q := url.Values{"Action": {"connect"}, "User": {t.user}, "X-Amz-Expires": {strconv.Itoa(int(tokenLife.Seconds()))}}
	if t.serverless {
		q.Set("ResourceType", "ServerlessCache")
	}
	u := url.URL{Scheme: "http", Host: t.cache, Path: "/", RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	empty := sha256.Sum256(nil)
	signed, _, err := v4.NewSigner().PresignHTTP(ctx, creds, req, hex.EncodeToString(empty[:]), "elasticache", t.region, now)
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(signed, "http://"), nil
}
