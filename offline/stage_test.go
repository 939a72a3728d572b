package offline

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/internal/telemetry"
)

// bucket is an S3 server in this process that counts downloads and can fail.
type bucket struct {
	*httptest.Server
	backend   *s3mem.Backend
	downloads atomic.Int64
	bytes     sync.Map     // key -> *atomic.Int64: bytes of it that were served
	fail      atomic.Int64 // so many downloads from now on fail
	cut       atomic.Int64 // so many downloads from now on break off after a megabyte
	denied    atomic.Bool
}

func newBucket(t *testing.T) *bucket {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	b := &bucket{backend: s3mem.New()}
	if err := b.backend.CreateBucket("lake"); err != nil {
		t.Fatal(err)
	}
	server := gofakes3.New(b.backend).Server()
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.denied.Load() {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`<Error><Code>AccessDenied</Code><Message>no</Message></Error>`))
			return
		}
		if r.Method == http.MethodGet && r.Header.Get("Range") != "" {
			b.downloads.Add(1)
			if b.fail.Add(-1) >= 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
		}
		n, _ := b.bytes.LoadOrStore(strings.TrimPrefix(r.URL.Path, "/lake/"), &atomic.Int64{})
		out := &counted{w, n.(*atomic.Int64), 1 << 60}
		if b.cut.Add(-1) >= 0 {
			out.left = 1 << 20
		}
		server.ServeHTTP(out, r)
	}))
	t.Cleanup(b.Close)
	return b
}

// counted counts what is written through it, and breaks the connection at its limit.
type counted struct {
	http.ResponseWriter
	n    *atomic.Int64
	left int
}

func (c *counted) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		panic(http.ErrAbortHandler)
	}
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// served returns how many bytes of an object went out since the last call.
func (b *bucket) served(key string) int64 {
	if n, ok := b.bytes.Load(key); ok {
		return n.(*atomic.Int64).Swap(0)
	}
	return 0
}

func (b *bucket) put(t *testing.T, key string, body []byte) {
	t.Helper()
	if _, err := b.backend.PutObject("lake", key, map[string]string{}, bytes.NewReader(body), int64(len(body)), nil); err != nil {
		t.Fatal(err)
	}
}

func (b *bucket) putFile(t *testing.T, key, path string) {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b.put(t, key, body)
}

func (b *bucket) config(c *Config) {
	c.S3 = S3Config{Endpoint: b.URL, Region: "us-east-1", PathStyle: true, StagingDir: filepath.Join(filepath.Dir(c.TempDir), "staging")}
}

// A training set from s3:// is the one from files; objects are downloaded once per ETag.
func TestS3Sources(t *testing.T) {
	s := newSetting(t, 2_000, 500)
	b := newBucket(t)
	b.putFile(t, "labels/spine.parquet", s.req.Spine.Path)
	half := len(s.facts) / 2
	for i, rows := range [][]factRow{s.facts[:half], s.facts[half:]} {
		path := filepath.Join(s.dir, "half.parquet")
		writeParquet(t, path, rows)
		b.putFile(t, fmt.Sprintf("facts/day=2021-01-0%d/p.parquet", i+1), path)
	}
	b.put(t, "facts/_temporary/p.parquet", []byte("half written"))
	e := openEngine(t, b.config)
	want := s.build(t, openEngine(t))
	s.view.Source.Path = "s3://lake/facts"
	s.req.Selection = selectionOf(t, []*feature.View{s.view}, ref(t, "facts:*"))
	s.req.Spine.Path = "s3://lake/labels/spine.parquet"
	if problems := e.CheckDataset(t.Context(), s.req); len(problems) > 0 {
		t.Fatal(problems)
	}
	b.fail.Store(1) // a busy store is asked again
	if m := s.build(t, e); m.Digest != want.Digest || m.Views[0].Files[0].ETag == "" {
		t.Errorf("digest %s, want %s; %+v", m.Digest, want.Digest, m.Views[0].Files)
	}
	before := b.downloads.Load()
	s.build(t, e)
	if n := b.downloads.Load(); n != before || n != 3 {
		t.Errorf("%d downloads, then %d: want 3 and none", before, n-before)
	}
	for _, path := range []string{"s3://lake/facts/**/*.parquet", "s3://lake/facts/day=2021-01-0?/p.parquet"} {
		s.view.Source.Path = path
		if files, err := e.Files(t.Context(), s.view); err != nil || len(files) < 2 {
			t.Errorf("%s: %v, %v", path, files, err)
		}
	}
	s.view.Source.Path = "s3://lake/facts"
	got, err := latestOf(t, e, s.view)
	if err != nil || len(got.rows) == 0 || got.stats.RowsRead != 2_000 {
		t.Errorf("latest: %+v, %v", got.stats, err)
	}
	// Replaced between listing and reading.
	files, err := e.Files(t.Context(), s.view)
	if err != nil {
		t.Fatal(err)
	}
	b.putFile(t, "facts/day=2021-01-02/p.parquet", filepath.Join(s.dir, "labels.parquet"))
	_, err = e.Latest(t.Context(), feature.LatestRequest{View: s.view, Files: files, Start: feature.NoTime, End: feature.NoTime}, func([]feature.Row) error { return nil })
	if !errors.Is(err, errChanged) {
		t.Errorf("replaced object: %v", err)
	}
	for path, wants := range map[string]error{"s3://lake/nothing": feature.ErrNotFound, "s3://absent/x": feature.ErrNotFound, "s3://": feature.ErrInvalid} {
		s.view.Source.Path = path
		if _, err := e.Files(t.Context(), s.view); !errors.Is(err, wants) {
			t.Errorf("%s: %v, want %v", path, err, wants)
		}
	}
	b.denied.Store(true)
	s.view.Source.Path = "s3://lake/facts"
	if _, err := e.Files(t.Context(), s.view); !errors.Is(err, feature.ErrDenied) || !strings.Contains(err.Error(), "s3:ListBucket") {
		t.Errorf("denied: %v", err)
	}
}

// A download that fails half way keeps its parts, and the next one fetches the rest only.
// Seen red with the record of finished parts not asked (5 downloads instead of 1); its progress
// with all of the object in the total, and with the bytes of a broken part kept.
func TestS3Resumes(t *testing.T) {
	b := newBucket(t)
	body := bytes.Repeat([]byte("hearth"), 5*downloadPart/6)
	b.put(t, "big.parquet", body)
	fake := clock.NewFake(time.Unix(0, 0))
	st := newStage(S3Config{Endpoint: b.URL, Region: "us-east-1", PathStyle: true, StagingDir: t.TempDir(), StagingBytes: 1 << 40}, fake)
	files, err := st.list(t.Context(), "s3://lake/big.parquet")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	parts := (int64(len(body)) + downloadPart - 1) / downloadPart
	release, err := st.fetch(t.Context(), files, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if n := b.downloads.Load(); n != parts {
		t.Errorf("%d downloads, want %d", n, parts)
	}
	// As if the process had died with all parts but one.
	if err := os.Rename(files[0].local, files[0].local+partialName); err != nil {
		t.Fatal(err)
	}
	p := openProgress(files[0].local + partialName + ".parts")
	for from := int64(0); from < int64(len(body)); from += downloadPart {
		if from != downloadPart {
			if err := p.add(from); err != nil {
				t.Fatal(err)
			}
		}
	}
	f, err := os.OpenFile(files[0].local+partialName, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(make([]byte, downloadPart), downloadPart)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	// What is told counts what was missing only, and not twice what came twice.
	var reports [][2]int64
	b.cut.Store(1)
	go func() {
		if fake.WaitForWaiters(t.Context(), 1) == nil {
			fake.Advance(time.Second)
		}
	}()
	if release, err = st.fetch(t.Context(), files, func(done, total int64) { reports = append(reports, [2]int64{done, total}) }); err != nil {
		t.Fatal(err)
	}
	backwards := 0
	for i, r := range reports {
		if r[1] != downloadPart || r[0] < 0 || r[0] > r[1] || i == len(reports)-1 && r[0] != r[1] {
			t.Errorf("report %d: %d of %d bytes", i, r[0], r[1])
		}
		if i > 0 && r[0] < reports[i-1][0] {
			backwards++
		}
	}
	if len(reports) < 8 || backwards != 1 {
		t.Errorf("%d reports, %d of them went back: want one, for the part that broke off", len(reports), backwards)
	}
	if n := b.downloads.Load() - parts; n != 2 {
		t.Errorf("%d downloads to resume, want one that breaks off and one that does not", n)
	}
	got, err := os.ReadFile(files[0].local)
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("the resumed copy differs (%v)", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}

// An object larger than the whole cache is read all the same, with the progress of its download,
// and does not stay: by a build and for the newest rows. Seen red without the trim at the end of
// the operation, and with Latest not telling of its download.
func TestS3LargerThanCache(t *testing.T) {
	s := newSetting(t, 2_000, 500)
	b := newBucket(t)
	path := filepath.Join(s.dir, "all.parquet")
	writeParquet(t, path, s.facts)
	b.putFile(t, "facts.parquet", path)
	e := openEngine(t, b.config, func(c *Config) { c.S3.StagingBytes = 1_000 })
	s.view.Source.Path = "s3://lake/facts.parquet"
	s.req.Selection = selectionOf(t, []*feature.View{s.view}, ref(t, "facts:*"))
	var last telemetry.Progress
	m := s.build(t, e, func(r *DatasetRequest) {
		r.Progress = func(p telemetry.Progress) {
			if p.Unit == "bytes" {
				last = p
			}
		}
	})
	size := m.Views[0].Files[0].Size
	if m.Views[0].Matched == 0 || size <= 1_000 {
		t.Errorf("%d matched from %d bytes", m.Views[0].Matched, size)
	}
	if want := (telemetry.Progress{Stage: "view 1 of 1, facts: open (download)", Unit: "bytes", Done: size, Total: size}); last != want {
		t.Errorf("progress %+v, want %+v", last, want)
	}
	files, err := e.Files(t.Context(), s.view)
	if err != nil {
		t.Fatal(err)
	}
	var told [2]int64
	rows := 0
	_, err = e.Latest(t.Context(), feature.LatestRequest{View: s.view, Files: files, Start: feature.NoTime, End: feature.NoTime,
		Downloaded: func(done, total int64) {
			if told = [2]int64{done, total}; rows > 0 {
				t.Error("a row came before the download was through")
			}
		},
	}, func(batch []feature.Row) error { rows += len(batch); return nil })
	if err != nil || rows == 0 || told != [2]int64{size, size} {
		t.Errorf("latest: %d rows, %d bytes told of, want %d (%v)", rows, told, size, err)
	}
	err = filepath.WalkDir(e.config.S3.StagingDir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".parquet") {
			t.Errorf("%s is still here", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The cache is bounded, the least recently used copy goes first, and a copy in use stays.
func TestS3Trim(t *testing.T) {
	b := newBucket(t)
	fake := clock.NewFake(time.Unix(1_000_000, 0))
	st := newStage(S3Config{Endpoint: b.URL, Region: "us-east-1", PathStyle: true, StagingDir: t.TempDir(), StagingBytes: 2_500}, fake)
	var held []func() error
	local := map[string]string{}
	for i, name := range []string{"a", "b", "c", "d"} {
		b.put(t, name+".parquet", bytes.Repeat([]byte(name), 1_000))
		files, err := st.list(t.Context(), "s3://lake/"+name+".parquet")
		if err != nil {
			t.Fatal(err)
		}
		fake.Advance(time.Minute)
		release, err := st.fetch(t.Context(), files, nil)
		if err != nil {
			t.Fatal(err)
		}
		local[name] = files[0].local
		if i == 0 {
			held = append(held, release)
		} else if err := release(); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"a": true, "b": false, "c": false, "d": true} {
		if _, err := os.Stat(local[name]); (err == nil) != want {
			t.Errorf("%s is here: %t, want %t", name, err == nil, want)
		}
	}
	for _, release := range held {
		if err := release(); err != nil {
			t.Fatal(err)
		}
	}
}
