package backing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// A file set is what a run of a view has taken in, and may name any number of files, so it does not
// fit one item. It is stored as a generation of chunks and one head that names the
// generation: a save writes new chunks under names that nobody reads, then moves the head
// with one compare-and-set, then deletes the older chunks. A reader that follows the head
// therefore sees a whole set, the old or the new one; if the chunks vanish while it reads,
// the head has moved and it reads again.
const (
	kindFiles      = "files" // heads: one per set
	kindFileChunks = "files:"
	chunkBytes     = 300 << 10
	// filesReads bounds how often a reader starts over. Each time means that a whole save
	// went by between two of its reads.
	filesReads = 10
)

type filesHead struct {
	Generation uint64 `json:"generation"` // counts saves
	Token      string `json:"token"`      // tells two savers of one generation apart
	Chunks     int    `json:"chunks"`
	Files      int    `json:"files"`
}

func (h filesHead) prefix() string { return fmt.Sprintf("%020d-%s/", h.Generation, h.Token) }

// LoadFiles returns a file set as one save left it, in the order given to that save; nil
// when there is none.
func LoadFiles(ctx context.Context, s StateStore, name string) ([]feature.File, error) {
	for range filesReads {
		var head filesHead
		revision, err := LoadJSON(ctx, s, kindFiles, name, &head)
		if err != nil || revision == 0 {
			return nil, err
		}
		chunks, err := s.ListState(ctx, kindFileChunks+name, ListOptions{Prefix: head.prefix()})
		if err != nil {
			return nil, err
		}
		if len(chunks) != head.Chunks {
			continue // a save has replaced this generation meanwhile
		}
		files := make([]feature.File, 0, head.Files)
		for _, c := range chunks {
			var part []feature.File
			if err := json.Unmarshal(c.Value, &part); err != nil {
				return nil, fmt.Errorf("file set %s, chunk %s: %w: %v", name, c.Name, feature.ErrCorrupt, err)
			}
			files = append(files, part...)
		}
		if len(files) != head.Files {
			return nil, fmt.Errorf("file set %s: %w: its chunks have %d files, its head says %d", name, feature.ErrCorrupt, len(files), head.Files)
		}
		return files, nil
	}
	return nil, fmt.Errorf("file set %s: %w: its chunks are missing; run `hearth materialize --full` to write it anew", name, feature.ErrCorrupt)
}

// SaveFiles replaces a file set. If another save gets between, it is an error
// matching feature.ErrConflict and the other's set stands: the callers hold the view's
// lease, so that means that the lease was lost. A crash at any point leaves the old set or
// the new one, and at most some chunks that the next save deletes.
func SaveFiles(ctx context.Context, s StateStore, name string, files []feature.File) error {
	chunks, err := chunkFiles(files)
	if err != nil {
		return fmt.Errorf("file set %s: %w", name, err)
	}
	var old filesHead
	revision, err := LoadJSON(ctx, s, kindFiles, name, &old)
	if err != nil {
		return err
	}
	token, err := NewRevision()
	if err != nil {
		return err
	}
	head := filesHead{Generation: old.Generation + 1, Token: strconv.FormatInt(token, 36), Chunks: len(chunks), Files: len(files)}
	kind := kindFileChunks + name
	for i, c := range chunks {
		item := StateItem{Kind: kind, Name: head.prefix() + fmt.Sprintf("%06d", i), Value: c, ExpireAt: feature.NoTime}
		if _, err := s.PutState(ctx, item); err != nil {
			return err
		}
	}
	if _, err := SaveJSON(ctx, s, kindFiles, name, revision, head); err != nil {
		if errors.Is(err, feature.ErrConflict) {
			// These chunks will never be read. If this fails the next save deletes them.
			return errors.Join(err, deleteChunks(ctx, s, kind, func(name string) bool { return strings.HasPrefix(name, head.prefix()) }))
		}
		return err
	}
	// Only older generations: a saver that began after the head moved writes a later one, and
	// one that began before it will fail at its head.
	bound := fmt.Sprintf("%020d", head.Generation)
	return deleteChunks(ctx, s, kind, func(name string) bool { return name < bound })
}

func deleteChunks(ctx context.Context, s StateStore, kind string, doomed func(name string) bool) error {
	items, err := s.ListState(ctx, kind, ListOptions{})
	if err != nil {
		return err
	}
	for _, item := range items {
		if !doomed(item.Name) {
			continue
		}
		if err := s.DeleteState(ctx, kind, item.Name, item.Revision); err != nil && !errors.Is(err, feature.ErrConflict) {
			return err
		}
	}
	return nil
}

// chunkFiles encodes the files as JSON arrays of at most chunkBytes each (a single longer
// entry gets a chunk of its own).
func chunkFiles(files []feature.File) ([][]byte, error) {
	var (
		chunks [][]byte
		buf    = []byte{'['}
	)
	flush := func() {
		if len(buf) > 1 {
			chunks = append(chunks, append(buf, ']'))
			buf = []byte{'['}
		}
	}
	for _, f := range files {
		b, err := json.Marshal(f)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Path, err)
		}
		if len(buf)+len(b)+2 > chunkBytes {
			flush()
		}
		if len(buf) > 1 {
			buf = append(buf, ',')
		}
		buf = append(buf, b...)
	}
	flush()
	return chunks, nil
}

// DeleteFileSets removes every file set whose name begins with prefix. A head goes
// last: until then a repeated call finds its chunks.
func DeleteFileSets(ctx context.Context, s StateStore, prefix string) error {
	heads, err := s.ListState(ctx, kindFiles, ListOptions{Prefix: prefix})
	if err != nil {
		return err
	}
	for _, head := range heads {
		if err := deleteChunks(ctx, s, kindFileChunks+head.Name, func(string) bool { return true }); err != nil {
			return err
		}
		if err := DeleteJSON(ctx, s, kindFiles, head.Name); err != nil {
			return err
		}
	}
	return nil
}
