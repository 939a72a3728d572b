package tiers

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/config"
)

const repository = `
project: taxis
entities: [{name: driver, join_keys: [{name: driver_id, type: int64}]}]
feature_views:
  - name: trips
    entities: [driver]
    source: {path: trips.parquet, timestamp_field: ts}
    features: [{name: rating, type: float64}]
feature_services: [{name: dispatch, features: ["trips:*"], on_stale: default}]
`

func load(t *testing.T, more string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hearth.yaml")
	if err := os.WriteFile(path, []byte(repository+more), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// In hearth.yaml 0 turns a thing off; the reader's own zero is its default.
func TestReaderConfigZeros(t *testing.T) {
	t.Parallel()
	off := ReaderConfig(load(t, "reader: {cache: {max_entries: 0}, negative_ttl: 0s, serve_stale: 0s, max_backing_rps: 7}\n"), nil, nil, Deps{})
	if off.Cache.MaxEntries >= 0 || off.Cache.NegativeEntries >= 0 || off.Cache.ServeStale >= 0 || off.MaxBackingRPS != 7 {
		t.Errorf("%+v", off)
	}
	on := ReaderConfig(load(t, ""), nil, nil, Deps{})
	if on.Cache.MaxEntries != 100_000 || on.Cache.TTL != 5*time.Second || on.OnlineTimeout != 20*time.Millisecond || on.Cache.ServeStale != time.Minute {
		t.Errorf("%+v", on.Cache)
	}
	if !on.StaleDefaults["dispatch"] {
		t.Error("on_stale of the service is lost")
	}
}

// The tiers of the defaults open without a server and without a file.
func TestOpenDefaults(t *testing.T) {
	t.Parallel()
	cfg := load(t, "")
	on, err := OpenOnline(t.Context(), cfg, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	back, err := OpenBacking(t.Context(), cfg, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(on.Close(), back.Close()); err != nil {
		t.Fatal(err)
	}
}

// What is wrong with a secret or a certificate is said with its place, and the secret is not.
func TestOpenOnlineMistakes(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ yaml, says string }{
		"password not set": {"online: {redis: {addrs: ['127.0.0.1:1'], password_env: HEARTH_TEST_NOT_SET}}\n", "HEARTH_TEST_NOT_SET"},
		"no such CA":       {"online: {redis: {addrs: ['127.0.0.1:1'], tls: {ca_file: /does/not/exist}}}\n", "ca_file"},
		"CA without PEM":   {"online: {redis: {addrs: ['127.0.0.1:1'], tls: {ca_file: " + empty + "}}}\n", "no PEM certificate"},
	} {
		_, err := OpenOnline(t.Context(), load(t, c.yaml), Deps{})
		if !errors.Is(err, feature.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoTLS(t *testing.T) {
	t.Parallel()
	for _, c := range []*config.TLS{nil, {}} {
		if got, err := clientTLS(c); got != nil || err != nil {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	got, err := clientTLS(&config.TLS{Enabled: true, ServerName: "redis.internal"})
	if err != nil || got.ServerName != "redis.internal" || got.InsecureSkipVerify {
		t.Errorf("%+v, %v", got, err)
	}
}

// A token is a signed request for the cache and user, is reused for ten minutes, and is
// signed anew before ElastiCache would refuse it.
func TestElastiCacheToken(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	asked := 0
	tok := &elastiCacheToken{user: "app", cache: "features", region: "eu-central-1", serverless: true, clock: c,
		credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			asked++
			return aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "very-secret"}, nil
		})}
	user, first, err := tok.get(t.Context())
	if err != nil || user != "app" {
		t.Fatal(user, err)
	}
	u, err := url.Parse("http://" + first)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if u.Host != "features" || q.Get("Action") != "connect" || q.Get("User") != "app" || q.Get("ResourceType") != "ServerlessCache" || q.Get("X-Amz-Expires") != "900" ||
		!strings.HasSuffix(q.Get("X-Amz-Credential"), "/20261121/eu-central-1/elasticache/aws4_request") || q.Get("X-Amz-Date") != "20261121T120000Z" || len(q.Get("X-Amz-Signature")) != 64 {
		t.Errorf("token %s", first)
	}
	if strings.Contains(first, "very-secret") || strings.HasPrefix(first, "http") {
		t.Errorf("token %s", first)
	}
	c.Advance(9 * time.Minute)
	if _, again, err := tok.get(t.Context()); err != nil || again != first || asked != 1 {
		t.Errorf("signed again after 9 min (%v)", err)
	}
	c.Advance(time.Minute)
	if _, again, err := tok.get(t.Context()); err != nil || again == first {
		t.Errorf("not signed again after 10 min (%v)", err)
	}
	tok.credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, errors.New("no role") })
	c.Advance(time.Hour)
	if _, _, err := tok.get(t.Context()); !errors.Is(err, feature.ErrDenied) {
		t.Errorf("without credentials: %v", err)
	}
}

func TestIAMNeedsUserAndTLS(t *testing.T) {
	t.Parallel()
	for _, r := range []*config.Redis{
		{IAMAuth: &config.IAMAuth{CacheName: "c", Region: "r"}, TLS: &config.TLS{Enabled: true}},
		{IAMAuth: &config.IAMAuth{CacheName: "c", Region: "r"}, Username: "app"},
	} {
		if _, err := elastiCacheCredentials(t.Context(), r, clock.System); !errors.Is(err, feature.ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}
