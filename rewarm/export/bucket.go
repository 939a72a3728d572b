package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// BucketConfig says how the bucket of an export is reached.
type BucketConfig struct {
	// URL is s3://bucket/folder of the export, or that of its manifest-summary.json.
	// Required.
	URL string
	// Region of the bucket. Defaults to what the AWS configuration says, else us-east-1.
	Region string
	// Endpoint replaces the AWS endpoint, for S3-compatible stores. Defaults to AWS.
	Endpoint string
	// PathStyle puts the bucket in the path instead of the host name. Defaults to false.
	PathStyle bool
	// Attempts is how often a read is begun again where the connection broke. Defaults to 6.
	Attempts int
	// Clock defaults to the machine's.
	Clock clock.Clock
}

// Bucket is the folder of an export in S3, as a file system for [Open]. Its files are read
// from beginning to end: a connection that breaks on the way is taken up where it broke, in
// the same version of the object.
//
// A file system has no contexts, so that it keeps the one it was opened with: when that
// ends, reads end.
type Bucket struct {
	ctx    context.Context
	cfg    BucketConfig
	client *s3.Client
	conns  *http.Transport
	bucket string
	prefix string
}

// OpenBucket prepares reading; it contacts nobody.
func OpenBucket(ctx context.Context, cfg BucketConfig) (*Bucket, error) {
	rest, ok := strings.CutPrefix(cfg.URL, "s3://")
	bucket, prefix, _ := strings.Cut(rest, "/")
	if !ok || bucket == "" {
		return nil, fmt.Errorf("open export %s: %w: write s3://bucket/folder", cfg.URL, feature.ErrInvalid)
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = 6
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	var options []func(*awsconfig.LoadOptions) error
	if cfg.Region != "" {
		options = append(options, awsconfig.WithRegion(cfg.Region))
	}
	config, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("open export %s: load AWS configuration: %w", cfg.URL, err)
	}
	if config.Region == "" {
		config.Region = "us-east-1"
	}
	b := &Bucket{ctx: ctx, cfg: cfg, bucket: bucket, prefix: strings.TrimSuffix(strings.TrimSuffix(prefix, summaryName), "/")}
	b.conns = awshttp.NewBuildableClient().GetTransport()
	b.client = s3.NewFromConfig(config, func(o *s3.Options) {
		o.HTTPClient = &http.Client{Transport: b.conns}
		o.UsePathStyle = cfg.PathStyle
		o.DisableLogOutputChecksumValidationSkipped = true // the manifest has its own
		if cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(cfg.Endpoint)
		}
	})
	return b, nil
}

// Open implements fs.FS for names of objects below the folder.
func (b *Bucket) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	o := &object{b: b, key: path.Join(b.prefix, name)}
	if err := o.connect(); err != nil {
		return nil, err
	}
	return o, nil
}

// Close gives the connections back.
func (b *Bucket) Close() error {
	b.conns.CloseIdleConnections()
	return nil
}

// object is one object on its way from the first byte to the last.
type object struct {
	b    *Bucket
	key  string
	body io.ReadCloser // nil between connections
	etag string
	size int64
	at   int64
}

func (o *object) url() string { return "s3://" + o.b.bucket + "/" + o.key }

// connect asks for the object from where the last connection ended.
func (o *object) connect() error {
	in := &s3.GetObjectInput{Bucket: &o.b.bucket, Key: &o.key}
	if o.at > 0 {
		in.Range, in.IfMatch = aws.String(fmt.Sprintf("bytes=%d-", o.at)), &o.etag
	}
	out, err := o.b.client.GetObject(o.b.ctx, in)
	if err != nil {
		return fmt.Errorf("read %s: %w", o.url(), s3Error(err))
	}
	etag := aws.ToString(out.ETag)
	if o.at == 0 {
		o.etag, o.size = etag, aws.ToInt64(out.ContentLength)
	} else if etag != o.etag { // not every store honours If-Match
		return errors.Join(fmt.Errorf("read %s: %w: the object was replaced meanwhile", o.url(), feature.ErrCorrupt), out.Body.Close())
	}
	o.body = out.Body
	return nil
}

// Read implements io.Reader.
func (o *object) Read(p []byte) (int, error) {
	for failures := 0; ; {
		if o.at >= o.size {
			return 0, io.EOF
		}
		var err error
		if o.body == nil {
			err = o.connect()
		}
		if err == nil {
			var n int
			n, err = o.body.Read(p)
			o.at += int64(n)
			if n > 0 || err == nil {
				return n, nil
			}
			err = fmt.Errorf("read %s: %w: the connection ended after %d of %d bytes: %v", o.url(), feature.ErrUnreachable, o.at, o.size, err)
			_ = o.body.Close() // broken anyway
			o.body = nil
		}
		if failures++; failures >= o.b.cfg.Attempts || !errors.Is(err, feature.ErrUnreachable) || o.b.ctx.Err() != nil {
			return 0, err
		}
		if sleeping := o.b.cfg.Clock.Sleep(o.b.ctx, 100*time.Millisecond<<failures); sleeping != nil {
			return 0, sleeping
		}
	}
}

// Close implements fs.File.
func (o *object) Close() error {
	if o.body == nil {
		return nil
	}
	err := o.body.Close()
	o.body = nil
	return err
}

// Stat implements fs.File.
func (o *object) Stat() (fs.FileInfo, error) { return objectInfo{path.Base(o.key), o.size}, nil }

type objectInfo struct {
	name string
	size int64
}

// Name and the others implement fs.FileInfo.
func (i objectInfo) Name() string     { return i.name }
func (i objectInfo) Size() int64      { return i.size }
func (objectInfo) Mode() fs.FileMode  { return 0o444 }
func (objectInfo) ModTime() time.Time { return time.Time{} }
func (objectInfo) IsDir() bool        { return false }
func (objectInfo) Sys() any           { return nil }

// s3Error gives an error of the S3 client the kind that callers ask for.
func s3Error(err error) error {
	var api smithy.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode() {
		case "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken":
			return fmt.Errorf("%w: %w", feature.ErrDenied, err)
		case "NoSuchKey", "NoSuchBucket", "NotFound":
			return fmt.Errorf("%w: %w", feature.ErrNotFound, err)
		case "PreconditionFailed":
			return fmt.Errorf("%w: the object was replaced meanwhile: %w", feature.ErrCorrupt, err)
		}
	}
	return fmt.Errorf("%w: %w", feature.ErrUnreachable, err)
}
