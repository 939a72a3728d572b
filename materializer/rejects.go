package materializer

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hearthstore/hearth/feature"
)

// rejects counts the rejected rows of one view and lists them in a file that is made when
// the first one comes. It is safe for concurrent use.
type rejects struct {
	view string
	path string // "": count only
	max  int

	mu      sync.Mutex
	count   int64
	reasons map[string]int64
	file    *os.File
	w       *bufio.Writer
	lines   int
	err     error // the first failure to write; counting goes on
}

func newRejects(dir string, run uint64, s Slot, limit int) *rejects {
	r := &rejects{view: s.View.String(), max: limit, reasons: map[string]int64{}}
	if dir != "" {
		r.path = filepath.Join(dir, fmt.Sprintf("%d-%s.ndjson", run, strings.ReplaceAll(s.String(), "/", "-")))
	}
	return r
}

// add lists a row that the source rejected. The source counts those itself.
func (r *rejects) add(x feature.Reject) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.write(x)
}

// reject counts and lists a row that this package or the backing tier rejected.
func (r *rejects) reject(key feature.Key, reason, detail string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.reasons[reason]++
	r.write(feature.Reject{View: r.view, Key: string(key), Reason: detail})
}

func (r *rejects) write(x feature.Reject) {
	if r.path == "" || r.err != nil || r.lines >= r.max {
		return
	}
	if r.file == nil {
		if err := os.MkdirAll(filepath.Dir(r.path), 0o750); err != nil {
			r.err = fmt.Errorf("rejects file: %w", err)
			return
		}
		f, err := os.OpenFile(r.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			r.err = fmt.Errorf("rejects file: %w", err)
			return
		}
		r.file, r.w = f, bufio.NewWriter(f)
	}
	line, err := json.Marshal(x)
	if err == nil {
		_, err = r.w.Write(append(line, '\n'))
	}
	if err != nil {
		r.err = fmt.Errorf("rejects file %s: %w", r.path, err)
		return
	}
	r.lines++
}

// close flushes the file and returns its path, or "" when no row was listed.
func (r *rejects) close() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return "", r.err
	}
	err := r.w.Flush()
	if cerr := r.file.Close(); err == nil {
		err = cerr
	}
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("rejects file %s: %w", r.path, err)
	}
	return r.path, r.err
}
