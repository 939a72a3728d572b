package offline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// stage reads s3:// paths: it lists objects, and keeps local copies of them by ETag, so
// that an object is downloaded once however often it is read, and so that what a copy
// holds never changes under a running operation.
type stage struct {
	config S3Config
	clock  clock.Clock

	mu     sync.Mutex // guards client
	client *s3.Client
}

func newStage(config S3Config, c clock.Clock) *stage { return &stage{config: config, clock: c} }

// connect makes the client on first use, so that local work needs no credentials.
func (s *stage) connect(ctx context.Context) (*s3.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	var options []func(*awsconfig.LoadOptions) error
	if s.config.Region != "" {
		options = append(options, awsconfig.WithRegion(s.config.Region))
	}
	config, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("load AWS configuration: %w", err)
	}
	config.Region = cmp.Or(config.Region, "us-east-1")
	s.client = s3.NewFromConfig(config, func(o *s3.Options) {
		o.UsePathStyle = s.config.PathStyle
		o.DisableLogOutputChecksumValidationSkipped = true // of ranges, for which S3 has no checksum
		if s.config.Endpoint != "" {
			o.BaseEndpoint = aws.String(s.config.Endpoint)
		}
	})
	return s.client, nil
}

// list finds the objects behind an s3:// path: one object, a glob (** crosses folders), or
// a prefix with *.parquet below it. Nothing is downloaded: fetch does that.
func (s *stage) list(ctx context.Context, from string) ([]located, error) {
	client, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(from, "s3://"), "/")
	if bucket == "" {
		return nil, fmt.Errorf("list %s: %w: write s3://bucket/key", from, feature.ErrInvalid)
	}
	prefix, pattern := key, []string(nil)
	if i := strings.IndexAny(key, "*?["); i >= 0 {
		prefix, pattern = key[:i], strings.Split(key, "/")
		if pattern[len(pattern)-1] == "**" {
			pattern = append(pattern, "*.parquet")
		}
	}
	var files []located
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", from, s3Error(err))
		}
		for _, o := range page.Contents {
			if s.takes(aws.ToString(o.Key), key, pattern) {
				files = append(files, s.locate(bucket, o))
			}
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("list %s: %w: no Parquet object is there", from, feature.ErrNotFound)
	}
	slices.SortFunc(files, func(a, b located) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

// takes decides whether a listed object belongs to what was asked for.
func (s *stage) takes(key, asked string, pattern []string) bool {
	if pattern != nil {
		return matchGlob(pattern, strings.Split(key, "/"))
	}
	if key == asked {
		return true
	}
	rel, below := strings.CutPrefix(key, strings.TrimSuffix(asked, "/")+"/")
	if asked == "" {
		rel, below = key, true
	}
	if !below || !strings.HasSuffix(key, ".parquet") {
		return false
	}
	for _, part := range strings.Split(rel, "/") {
		if strings.HasPrefix(part, "_") || strings.HasPrefix(part, ".") {
			return false
		}
	}
	return true
}

// locate names the local copy of an object. Partition folders stay part of the name, as
// DuckDB reads their values from it.
func (s *stage) locate(bucket string, o types.Object) located {
	key, etag := aws.ToString(o.Key), strings.Trim(aws.ToString(o.ETag), `"`)
	f := feature.File{Path: "s3://" + bucket + "/" + key, Size: aws.ToInt64(o.Size), ETag: etag}
	if o.LastModified != nil {
		f.Modified = feature.MicrosOf(*o.LastModified)
	}
	sum := sha256.Sum256([]byte(s.config.Endpoint + "\x00" + f.Path + "\x00" + etag + "\x00" + fmt.Sprint(f.Size)))
	parts := []string{s.config.StagingDir, hex.EncodeToString(sum[:12])}
	for _, part := range strings.Split(path.Dir(key), "/") {
		if strings.Contains(part, "=") && part != ".." {
			parts = append(parts, part)
		}
	}
	return located{File: f, local: filepath.Join(append(parts, path.Base(key))...)}
}

// s3Error tells apart what a caller can do something about.
func s3Error(err error) error {
	var code interface{ ErrorCode() string }
	if errors.As(err, &code) {
		switch code.ErrorCode() {
		case "NoSuchBucket", "NoSuchKey", "NotFound":
			return fmt.Errorf("%w: %w", feature.ErrNotFound, err)
		case "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken":
			return fmt.Errorf("%w: check the credentials and the rights s3:ListBucket and s3:GetObject: %w", feature.ErrDenied, err)
		case "PreconditionFailed":
			return fmt.Errorf("%w: %w", errChanged, err)
		}
	}
	return err
}

// trim removes the least recently used copies until the cache is within its bound. Copies
// that are locked, which a running operation holds, are kept.
func (s *stage) trim() error {
	type copied struct {
		dir  string
		size int64
		used time.Time
	}
	entries, err := os.ReadDir(s.config.StagingDir)
	if err != nil {
		return fmt.Errorf("read staging folder: %w", err)
	}
	var (
		all   []copied
		total int64
	)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		c := copied{dir: filepath.Join(s.config.StagingDir, e.Name())}
		err := filepath.WalkDir(c.dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				c.size += info.Size()
			}
			return nil
		})
		info, statErr := os.Stat(c.dir)
		if err != nil || statErr != nil {
			continue // another process removed it
		}
		c.used = info.ModTime()
		total += c.size
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b copied) int { return a.used.Compare(b.used) })
	for _, c := range all {
		if total <= s.config.StagingBytes {
			break
		}
		lock, err := lockFile(c.dir + ".lock")
		if err != nil {
			continue
		}
		err = errors.Join(os.RemoveAll(c.dir), lock.release())
		if err != nil {
			return fmt.Errorf("trim staging folder: %w", err)
		}
		total -= c.size
	}
	return nil
}
