// Package export reads a DynamoDB export, in S3 or copied to a folder, as if it were the
// table: a rewarm from it costs no read units and does not touch the table at all. The
// export is a full one in DYNAMODB_JSON format:
//
//	AWSDynamoDB/<id>/manifest-summary.json   what was exported, and when
//	AWSDynamoDB/<id>/manifest-files.json     one line per data file: key, items, MD5
//	AWSDynamoDB/<id>/data/<name>.json.gz     one line per item: {"Item": {...}}
//
// It says what the table held at one moment. What was deleted since would come back, so a
// rewarm from an export never marks the online tier warm: a rewarm from the table, or
// `hearth verify --repair`, has the last word.
package export

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the checksum that the manifest names, against damage in transit
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"compress/gzip"

	"github.com/hearthstore/hearth/feature"
)

// Export is one export. It is safe for concurrent use.
type Export struct {
	files   fs.FS
	summary summary
	data    []dataFile

	mu   sync.Mutex
	open map[int]*stream // by data file: where a scan stands, so that the next page goes on
}

type summary struct {
	TableArn     string    `json:"tableArn"`
	ExportTime   time.Time `json:"exportTime"`
	ItemCount    int64     `json:"itemCount"`
	Billed       int64     `json:"billedSizeBytes"`
	OutputFormat string    `json:"outputFormat"`
	ExportType   string    `json:"exportType"`
	FilesKey     string    `json:"manifestFilesS3Key"`
}

type dataFile struct {
	Items int64  `json:"itemCount"`
	MD5   string `json:"md5Checksum"`
	Key   string `json:"dataFileS3Key"`
	name  string // in the file system
}

const (
	summaryName = "manifest-summary.json"
	maxLine     = 2 << 20 // an item has at most 400 KB, which base64 and names enlarge
	pageRecords = 2_000
)

// Open reads the manifests. files is the folder of one export, the one that holds
// manifest-summary.json: os.DirFS for a local copy, or a [Bucket].
func Open(files fs.FS) (*Export, error) {
	e := &Export{files: files, open: map[int]*stream{}}
	text, err := fs.ReadFile(files, summaryName)
	if err != nil {
		return nil, fmt.Errorf("open export: %w: give the folder that holds %s", err, summaryName)
	}
	if err := json.Unmarshal(text, &e.summary); err != nil {
		return nil, fmt.Errorf("open export: %s: %w: %v", summaryName, feature.ErrCorrupt, err)
	}
	if f := e.summary.OutputFormat; f != "DYNAMODB_JSON" {
		return nil, fmt.Errorf("open export: %w: its format is %q; export in DYNAMODB_JSON", feature.ErrInvalid, f)
	}
	if t := e.summary.ExportType; t != "" && t != "FULL_EXPORT" {
		return nil, fmt.Errorf("open export: %w: it is a %s; a full export is needed", feature.ErrInvalid, t)
	}
	list := path.Base(e.summary.FilesKey)
	text, err = fs.ReadFile(files, list)
	if err != nil {
		return nil, fmt.Errorf("open export: %w", err)
	}
	for n, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var f dataFile
		if err := json.Unmarshal(line, &f); err != nil || f.Key == "" {
			return nil, fmt.Errorf("open export: %s, line %d: %w", list, n+1, feature.ErrCorrupt)
		}
		// The key is that of the bucket; the folder may have been copied anywhere.
		f.name = path.Join("data", path.Base(f.Key))
		e.data = append(e.data, f)
	}
	slices.SortFunc(e.data, func(a, b dataFile) int { return strings.Compare(a.name, b.name) })
	return e, nil
}

// Name says which table was exported and when; it tells exports apart.
func (e *Export) Name() string { return e.Table() + " at " + e.Time().Format(time.RFC3339) }

// Table is the name of the table that was exported.
func (e *Export) Table() string {
	return e.summary.TableArn[strings.LastIndexByte(e.summary.TableArn, '/')+1:]
}

// Time is the moment that the export shows; DynamoDB is exact to a minute.
func (e *Export) Time() time.Time { return e.summary.ExportTime.UTC() }

// Size says how many items and bytes the export holds.
func (e *Export) Size() (items, size int64) { return e.summary.ItemCount, e.summary.Billed }

// Close ends open scans, and the files' own connections where they have some.
func (e *Export) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for i, s := range e.open {
		errs = append(errs, s.close())
		delete(e.open, i)
	}
	if c, ok := e.files.(io.Closer); ok {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Scan reads a page. A segment is every Segments-th data file; its cursor is the data file
// and the line. One scan at a time goes on where it stands; a cursor from elsewhere (a
// resumed run) makes it unpack the file up to there. A file that is damaged, or shorter
// than the manifest says, is an error that matches feature.ErrCorrupt.
func (e *Export) Scan(ctx context.Context, req feature.ScanRequest, page *feature.ScanPage) error {
	page.Records, page.Next, page.ReadUnits = page.Records[:0], nil, 0
	if req.Segments < 1 || req.Segment < 0 || req.Segment >= req.Segments {
		return fmt.Errorf("scan export: %w: segment %d of %d", feature.ErrInvalid, req.Segment, req.Segments)
	}
	file, line, err := parseCursor(req.Cursor, req.Segment)
	if err != nil {
		return err
	}
	if file >= len(e.data) {
		return nil
	}
	s, err := e.at(ctx, file, line)
	if err != nil {
		return err
	}
	limit := pageRecords
	if req.Limit > 0 {
		limit = min(limit, req.Limit)
	}
	ended := false
	for seen := 0; seen < limit; seen++ {
		rec, ok, err := s.next()
		if err != nil {
			return errors.Join(err, s.close())
		}
		if ended = !ok; ended {
			break
		}
		if rec.Key != "" && (len(req.Views) == 0 || slices.Contains(req.Views, rec.View)) {
			page.Records = append(page.Records, rec)
		}
		if seen%256 == 0 && ctx.Err() != nil {
			return errors.Join(ctx.Err(), s.close())
		}
	}
	if !ended {
		page.Next = appendCursor(file, s.line)
		e.keep(file, s)
		return nil
	}
	if err := s.close(); err != nil {
		return fmt.Errorf("scan export: close %s: %w", e.data[file].name, err)
	}
	if next := file + req.Segments; next < len(e.data) {
		page.Next = appendCursor(next, 0)
	}
	return nil
}

func appendCursor(file, line int) []byte {
	return []byte(strconv.Itoa(file) + ":" + strconv.Itoa(line))
}

func parseCursor(cursor []byte, segment int) (file, line int, err error) {
	if len(cursor) == 0 {
		return segment, 0, nil
	}
	a, b, ok := strings.Cut(string(cursor), ":")
	if file, err = strconv.Atoi(a); err == nil {
		line, err = strconv.Atoi(b)
	}
	if !ok || err != nil || file < 0 || line < 0 {
		return 0, 0, fmt.Errorf("scan export: %w: cursor %q", feature.ErrInvalid, cursor)
	}
	return file, line, nil
}

// at returns a stream that stands before the given line.
func (e *Export) at(ctx context.Context, file, line int) (*stream, error) {
	e.mu.Lock()
	s := e.open[file]
	delete(e.open, file)
	e.mu.Unlock()
	if s != nil && s.line == line {
		return s, nil
	}
	if s != nil {
		if err := s.close(); err != nil {
			return nil, fmt.Errorf("scan export: %w", err)
		}
	}
	s, err := e.stream(file)
	if err != nil {
		return nil, err
	}
	for s.line < line {
		if !s.lines.Scan() {
			return nil, errors.Join(s.end(), s.close())
		}
		if s.line++; s.line%1024 == 0 && ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), s.close())
		}
	}
	return s, nil
}

func (e *Export) keep(file int, s *stream) {
	e.mu.Lock()
	old := e.open[file]
	e.open[file] = s
	e.mu.Unlock()
	if old != nil {
		_ = old.close() // only read from
	}
}

// stream is one data file on its way from the first line to the last.
type stream struct {
	info  dataFile
	raw   io.ReadCloser
	sum   hash.Hash
	tee   io.Reader
	unzip *gzip.Reader
	lines *bufio.Scanner
	line  int
}

func (e *Export) stream(file int) (*stream, error) {
	info := e.data[file]
	raw, err := e.files.Open(info.name)
	if err != nil {
		return nil, fmt.Errorf("scan export: %w", err)
	}
	s := &stream{info: info, raw: raw, sum: md5.New()} //nolint:gosec // see the import
	s.tee = bufio.NewReaderSize(io.TeeReader(raw, s.sum), 256<<10)
	if s.unzip, err = gzip.NewReader(s.tee); err != nil {
		return nil, errors.Join(fmt.Errorf("scan export: %s: %w", info.name, damage(err)), raw.Close())
	}
	s.lines = bufio.NewScanner(s.unzip)
	s.lines.Buffer(make([]byte, 64<<10), maxLine)
	return s, nil
}

func (s *stream) close() error { return s.raw.Close() }

// next reads an item. ok is false at the end of a whole and undamaged file. An item that
// is no value of Hearth has no key.
func (s *stream) next() (rec feature.Record, ok bool, err error) {
	if !s.lines.Scan() {
		return rec, false, s.end()
	}
	s.line++
	var in struct {
		Item struct {
			E, V struct{ S string }
			P    struct{ B []byte }
		}
	}
	if err := json.Unmarshal(s.lines.Bytes(), &in); err != nil {
		return rec, false, fmt.Errorf("scan export: %s, line %d: %w", s.info.name, s.line, feature.ErrCorrupt)
	}
	rec = feature.Record{Online: feature.NoTime, Retain: feature.NoTime}
	view, err := feature.ParseViewID(in.Item.V.S)
	if err != nil || in.Item.E.S == "" || in.Item.P.B == nil {
		return rec, true, nil //nolint:nilerr // a foreign item is no record; the caller counts it
	}
	rec.Ref = feature.Ref{View: view, Key: feature.Key(in.Item.E.S)}
	rec.Payload = in.Item.P.B
	if h, _, err := feature.ParsePayload(rec.Payload); err == nil {
		rec.Version = h.Version
	}
	return rec, true, nil
}

// end checks that the file was whole.
func (s *stream) end() error {
	if err := s.lines.Err(); err != nil {
		return fmt.Errorf("scan export: %s after line %d: %w", s.info.name, s.line, damage(err))
	}
	if int64(s.line) != s.info.Items {
		return fmt.Errorf("scan export: %s: %w: %d items, the manifest says %d", s.info.name, feature.ErrCorrupt, s.line, s.info.Items)
	}
	if _, err := io.Copy(io.Discard, s.tee); err != nil {
		return fmt.Errorf("scan export: %s: %w", s.info.name, err)
	}
	if got := base64.StdEncoding.EncodeToString(s.sum.Sum(nil)); s.info.MD5 != "" && got != s.info.MD5 {
		return fmt.Errorf("scan export: %s: %w: its MD5 is %s, the manifest says %s; copy it again", s.info.name, feature.ErrCorrupt, got, s.info.MD5)
	}
	return nil
}

// damage says of an error while unpacking whether the file is to blame, or the way to it.
func damage(err error) error {
	for _, kind := range []error{feature.ErrUnreachable, feature.ErrDenied, feature.ErrNotFound, feature.ErrCorrupt, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, kind) {
			return err
		}
	}
	return fmt.Errorf("%w: %v", feature.ErrCorrupt, err)
}

// Get looks single values up by reading the whole export, once per call: for the few
// questions that a rewarm has, not for serving.
func (e *Export) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	results := make([]feature.GetResult, len(refs))
	wanted := make(map[feature.Ref][]int, len(refs))
	for i, ref := range refs {
		wanted[ref] = append(wanted[ref], i)
	}
	for file := range e.data {
		if err := e.find(ctx, file, wanted, results); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func (e *Export) find(ctx context.Context, file int, wanted map[feature.Ref][]int, results []feature.GetResult) error {
	s, err := e.stream(file)
	if err != nil {
		return err
	}
	for {
		rec, ok, err := s.next()
		if err != nil || !ok {
			return errors.Join(err, s.close())
		}
		for _, i := range wanted[rec.Ref] {
			results[i].Payload = rec.Payload
		}
		if s.line%1024 == 0 && ctx.Err() != nil {
			return errors.Join(ctx.Err(), s.close())
		}
	}
}
