package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
)

// bucketServer is an S3 in this process, whose answers can break off.
type bucketServer struct {
	*httptest.Server
	backend *s3mem.Backend
	cut     atomic.Int64 // so many answers with a data file end after half of it
	denied  atomic.Bool
	ranged  atomic.Int64 // requests that went on where an answer broke off
	before  func(r *http.Request)
}

func newBucketServer(t *testing.T, files fstest.MapFS) *bucketServer {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	b := &bucketServer{backend: s3mem.New()}
	if err := b.backend.CreateBucket("exports"); err != nil {
		t.Fatal(err)
	}
	for name, file := range files {
		b.put(t, name, file.Data)
	}
	server := gofakes3.New(b.backend).Server()
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.denied.Load() {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`<Error><Code>AccessDenied</Code><Message>no</Message></Error>`))
			return
		}
		if b.before != nil {
			b.before(r)
		}
		if r.Header.Get("Range") != "" {
			b.ranged.Add(1)
		}
		if strings.Contains(r.URL.Path, "/data/") && b.cut.Add(-1) >= 0 {
			rec := httptest.NewRecorder()
			server.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.WriteHeader(rec.Code)
			_, _ = w.Write(body[:len(body)/2])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *bucketServer) put(t *testing.T, name string, body []byte) {
	t.Helper()
	if _, err := b.backend.PutObject("exports", "some/prefix/AWSDynamoDB/0123/"+name, map[string]string{}, bytes.NewReader(body), int64(len(body)), nil); err != nil {
		t.Fatal(err)
	}
}

func (b *bucketServer) open(t *testing.T, url string) *Bucket {
	t.Helper()
	fake := clock.NewFake(clock.System.Now())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // pauses pass at once
		defer close(done)
		for fake.WaitForWaiters(ctx, 1) == nil {
			fake.Advance(1e9)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	files, err := OpenBucket(t.Context(), BucketConfig{URL: url, Endpoint: b.URL, Region: "us-east-1", PathStyle: true, Clock: fake})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = files.Close() })
	return files
}

const exportURL = "s3://exports/some/prefix/AWSDynamoDB/0123"

// An export in S3 reads as one in a folder, also when every answer breaks off half-way: the
// next request goes on where the last one ended.
// Seen red with: connect without Range (bytes twice: the MD5 is wrong); Read giving up.
func TestBucket(t *testing.T) {
	files := folder(t, 300, 3)
	for _, url := range []string{exportURL, exportURL + "/", exportURL + "/manifest-summary.json"} {
		for _, cuts := range []int64{0, 7} {
			b := newBucketServer(t, files)
			b.cut.Store(cuts)
			e, err := Open(b.open(t, url))
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			for s := range 3 {
				var page feature.ScanPage
				req := feature.ScanRequest{Segment: s, Segments: 3, Limit: 40}
				for {
					if err := e.Scan(t.Context(), req, &page); err != nil {
						t.Fatalf("%s, %d cuts: %v", url, cuts, err)
					}
					got += len(page.Records)
					if page.Next == nil {
						break
					}
					req.Cursor = bytes.Clone(page.Next)
				}
			}
			if got != 300 || e.Table() != "scoring" {
				t.Errorf("%s, %d cuts: %d items of table %q, want 300 of scoring", url, cuts, got, e.Table())
			}
			if cuts > 0 && b.ranged.Load() == 0 {
				t.Errorf("%s: nothing was taken up where it broke", url)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// Trouble on the way is not damage of the export, and damage is not trouble on the way.
// Seen red with: damage calling everything corrupt. (A replaced object is also told by
// its MD5.)
func TestBucketTrouble(t *testing.T) {
	files := folder(t, 300, 1)
	scan := func(b *bucketServer) error {
		e, err := Open(b.open(t, exportURL))
		if err != nil {
			return err
		}
		var page feature.ScanPage
		req := feature.ScanRequest{Segments: 1}
		for {
			if err := e.Scan(t.Context(), req, &page); err != nil || page.Next == nil {
				return errors.Join(err, e.Close())
			}
			req.Cursor = bytes.Clone(page.Next)
		}
	}
	b := newBucketServer(t, files)
	b.denied.Store(true)
	if err := scan(b); !errors.Is(err, feature.ErrDenied) {
		t.Errorf("denied: %v", err)
	}
	b = newBucketServer(t, fstest.MapFS{})
	if err := scan(b); !errors.Is(err, feature.ErrNotFound) {
		t.Errorf("empty: %v", err)
	}
	b = newBucketServer(t, files)
	b.cut.Store(1 << 40)
	if err := scan(b); !errors.Is(err, feature.ErrUnreachable) || errors.Is(err, feature.ErrCorrupt) {
		t.Errorf("broken for good: %v", err)
	}
	b = newBucketServer(t, files)
	b.cut.Store(1)
	b.before = func(r *http.Request) {
		if r.Header.Get("Range") != "" { // replaced while it was read
			b.before = nil
			b.put(t, "data/file00.json.gz", folder(t, 200, 1)["data/file00.json.gz"].Data)
		}
	}
	if err := scan(b); !errors.Is(err, feature.ErrCorrupt) {
		t.Errorf("replaced: %v", err)
	}
	b = newBucketServer(t, files)
	b.put(t, "data/file00.json.gz", files["data/file00.json.gz"].Data[:500])
	if err := scan(b); !errors.Is(err, feature.ErrCorrupt) {
		t.Errorf("cut in the bucket: %v", err)
	}
	if _, err := OpenBucket(t.Context(), BucketConfig{URL: "http://x"}); !errors.Is(err, feature.ErrInvalid) {
		t.Errorf("no S3 URL: %v", err)
	}
	bucket := newBucketServer(t, files).open(t, exportURL)
	if _, err := bucket.Open("../x"); err == nil {
		t.Error("a name outside was opened")
	}
	file, err := bucket.Open("data/file00.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(file)
	if info, _ := file.Stat(); err != nil || info.Size() != int64(len(all)) || info.Name() != "file00.json.gz" || info.IsDir() || info.Mode() != 0o444 {
		t.Errorf("%v %+v", err, info)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}
