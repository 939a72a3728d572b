package offline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/feature"
)

const (
	downloadPart  = 8 << 20 // bytes per ranged request
	downloads     = 8       // requests at once, over all objects of an operation
	rangeAttempts = 4
	partialName   = ".partial"
)

// fetch makes the local copies of the remote ones among files, and holds them until
// release is called, so that nobody trims them away. Whole objects are never held in
// memory; what a killed download had is kept and completed. report, which may be nil, is told
// how many bytes are here of those that were missing, from one goroutine at a time.
func (s *stage) fetch(ctx context.Context, files []located, report func(done, total int64)) (release func() error, err error) {
	var held []*fileLock
	release = func() error {
		var errs []error
		for _, l := range held {
			errs = append(errs, l.drop())
		}
		held = nil
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, release())
		}
	}()
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(downloads)
	missing := map[int]*fileLock{}
	t := &transfer{report: report}
	absent := make([]int64, len(files)) // bytes to download
	for i, f := range files {
		absent[i] = bytesMissing(f)
		t.total += absent[i]
	}
	now := s.clock.Now()
	for i, f := range files { // in order of path, so that two operations cannot wait for each other
		if !isRemote(f.Path) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(f.local), 0o700); err != nil {
			return nil, fmt.Errorf("make staging folder: %w", err)
		}
		lock, here, err := s.hold(ctx, f)
		if err != nil {
			return nil, errors.Join(err, group.Wait())
		}
		held = append(held, lock)
		if err := os.Chtimes(s.folder(f), now, now); err != nil {
			return nil, errors.Join(fmt.Errorf("stage %s: %w", f.Path, err), group.Wait())
		}
		if here {
			t.add(absent[i]) // or another operation downloaded it
			continue
		}
		missing[i] = lock
		if err := s.download(inner, group, f, t); err != nil {
			return nil, errors.Join(fmt.Errorf("stage %s: %w", f.Path, err), group.Wait())
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, lock := range missing {
		if err := errors.Join(finish(files[i]), lock.share()); err != nil {
			return nil, fmt.Errorf("stage %s: %w", files[i].Path, err)
		}
	}
	if len(missing) == 0 {
		return release, nil
	}
	return release, s.trim()
}

// folder is the copy's own folder: the unit that is locked and trimmed.
func (s *stage) folder(f located) string {
	rel, err := filepath.Rel(s.config.StagingDir, f.local)
	if err != nil {
		return filepath.Dir(f.local)
	}
	for filepath.Dir(rel) != "." {
		rel = filepath.Dir(rel)
	}
	return filepath.Join(s.config.StagingDir, rel)
}

// hold takes the lock of a copy: shared when the copy is here, else alone, to download it.
// It waits while another operation downloads the same object.
func (s *stage) hold(ctx context.Context, f located) (lock *fileLock, here bool, err error) {
	path := s.folder(f) + ".lock"
	for {
		lock, err := lockShared(path)
		if err == nil {
			if info, err := os.Stat(f.local); err == nil && info.Size() == f.Size {
				return lock, true, nil
			}
			if err := lock.drop(); err != nil {
				return nil, false, fmt.Errorf("unlock staged object: %w", err)
			}
			if lock, err = lockFile(path); err == nil {
				return lock, false, nil
			}
		}
		if !errors.Is(err, feature.ErrLeaseHeld) {
			return nil, false, fmt.Errorf("lock staged object: %w", err)
		}
		if err := s.clock.Sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, false, context.Cause(ctx)
		}
	}
}

// progress says which parts of a partial download are on disk.
type progress struct {
	mu   sync.Mutex
	path string
	done map[int64]bool
}

func openProgress(path string) *progress {
	p := &progress{path: path, done: map[int64]bool{}}
	var parts []int64
	if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &parts) == nil {
		for _, n := range parts {
			p.done[n] = true
		}
	}
	return p
}

func (p *progress) has(n int64) bool { p.mu.Lock(); defer p.mu.Unlock(); return p.done[n] }

// add records a part whose bytes are synced.
func (p *progress) add(n int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[n] = true
	parts := make([]int64, 0, len(p.done))
	for n := range p.done {
		parts = append(parts, n)
	}
	b, err := json.Marshal(parts)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(p.path+".new", p.path)
}

// bytesMissing is how much of a remote file is not on disk.
func bytesMissing(f located) int64 {
	if !isRemote(f.Path) {
		return 0
	}
	if info, err := os.Stat(f.local); err == nil && info.Size() == f.Size {
		return 0
	}
	missing := f.Size
	for from := range openProgress(f.local + partialName + ".parts").done {
		missing -= min(from+downloadPart, f.Size) - from
	}
	return max(missing, 0)
}

// transfer adds up what all downloads of an operation have.
type transfer struct {
	mu                 sync.Mutex
	report             func(done, total int64)
	done, total, shown int64
}

const reportBytes = 256 << 10 // reading tells of every few kilobytes

func (t *transfer) add(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done += n
	if t.report != nil && n != 0 && (t.done >= t.shown+reportBytes || t.done == t.total || n < 0) {
		t.shown = t.done
		t.report(t.done, t.total)
	}
}

// counting reads through to a transfer, and remembers what to take back if the part fails.
type counting struct {
	io.Reader
	t *transfer
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	c.t.add(int64(n))
	return n, err
}

// download adds the missing parts of an object to the group.
func (s *stage) download(ctx context.Context, group *errgroup.Group, f located, t *transfer) error {
	if info, err := os.Stat(f.local); err == nil && info.Size() == f.Size {
		return nil
	}
	partial := f.local + partialName
	out, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(out.Truncate(f.Size), out.Close()); err != nil {
		return err
	}
	p := openProgress(partial + ".parts")
	for from := int64(0); from < f.Size; from += downloadPart {
		if p.has(from) {
			continue
		}
		group.Go(func() error {
			err := s.part(ctx, f, partial, from, min(from+downloadPart, f.Size)-1, t)
			if err == nil {
				err = p.add(from)
			}
			if err != nil {
				return fmt.Errorf("stage %s: %w", f.Path, err)
			}
			return nil
		})
	}
	return nil
}

// part downloads one range into a partial copy.
func (s *stage) part(ctx context.Context, f located, partial string, from, to int64, t *transfer) error {
	return s.ranged(ctx, f, from, to, func(body io.Reader) (n int64, err error) {
		out, err := os.OpenFile(partial, os.O_WRONLY, 0o600)
		if err != nil {
			return 0, err
		}
		counted := &counting{body, t, 0}
		defer func() {
			if err = errors.Join(err, out.Close()); err != nil || n != to-from+1 {
				t.add(-counted.n) // the part comes again, or never
			}
		}()
		if n, err = io.Copy(io.NewOffsetWriter(out, from), counted); err != nil {
			return n, err
		}
		return n, out.Sync()
	})
}

// ranged downloads the bytes from and to, both inclusive, of exactly the listed version of an
// object, and hands them to write, which returns how many there were: again from the first
// byte when the download breaks.
func (s *stage) ranged(ctx context.Context, f located, from, to int64, write func(io.Reader) (int64, error)) error {
	client, err := s.connect(ctx)
	if err != nil {
		return err
	}
	bucket, key := splitS3(f.Path)
	in := &s3.GetObjectInput{Bucket: &bucket, Key: &key, IfMatch: aws.String(`"` + f.ETag + `"`), Range: aws.String(fmt.Sprintf("bytes=%d-%d", from, to))}
	var last error
	for attempt := range rangeAttempts {
		if attempt > 0 {
			if err := s.clock.Sleep(ctx, 100*time.Millisecond<<attempt); err != nil {
				return context.Cause(ctx)
			}
		}
		last = s.tryRange(ctx, client, in, f, to-from+1, write)
		if last == nil || ctx.Err() != nil || errors.Is(last, errChanged) || errors.Is(last, feature.ErrDenied) || errors.Is(last, feature.ErrNotFound) {
			break
		}
	}
	return last
}

func (s *stage) tryRange(ctx context.Context, client *s3.Client, in *s3.GetObjectInput, f located, size int64, write func(io.Reader) (int64, error)) (err error) {
	got, err := client.GetObject(ctx, in)
	if err != nil {
		return s3Error(err)
	}
	defer func() { err = errors.Join(err, got.Body.Close()) }()
	// Not every S3-compatible store honours If-Match.
	if tag := aws.ToString(got.ETag); tag != "" && tag != `"`+f.ETag+`"` {
		return fmt.Errorf("%w: the object was replaced; run again", errChanged)
	}
	n, err := write(io.LimitReader(got.Body, size))
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%s: %w", *in.Range, io.ErrUnexpectedEOF)
	}
	return nil
}

func splitS3(path string) (bucket, key string) {
	path = path[len("s3://"):]
	for i := range path {
		if path[i] == '/' {
			return path[:i], path[i+1:]
		}
	}
	return path, ""
}

// finish moves a complete download into place.
func finish(f located) error {
	if info, err := os.Stat(f.local); err == nil && info.Size() == f.Size {
		return nil
	}
	if err := os.Rename(f.local+partialName, f.local); err != nil {
		return err
	}
	if err := os.Remove(f.local + partialName + ".parts"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
