package rewarm

import (
	"context"
	"fmt"
	"sync"

	"github.com/hearthstore/hearth/feature"
)

// Volatile is a State for a run that nobody resumes. Its zero value is empty.
type Volatile struct {
	mu   sync.Mutex
	next int64
	docs map[string]document
}

type document struct {
	value    []byte
	revision int64
}

// Load returns a document.
func (v *Volatile) Load(_ context.Context, name string) ([]byte, int64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, ok := v.docs[name]
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w", name, feature.ErrNotFound)
	}
	return d.value, d.revision, nil
}

// Save replaces the document of the given revision.
func (v *Volatile) Save(_ context.Context, name string, value []byte, revision int64) (int64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.docs[name].revision != revision {
		return 0, fmt.Errorf("%s: %w", name, feature.ErrConflict)
	}
	if v.docs == nil {
		v.docs = map[string]document{}
	}
	v.next++
	v.docs[name] = document{value, v.next}
	return v.next, nil
}

// Delete removes the document of the given revision.
func (v *Volatile) Delete(_ context.Context, name string, revision int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if d, ok := v.docs[name]; ok && d.revision != revision {
		return fmt.Errorf("%s: %w", name, feature.ErrConflict)
	}
	delete(v.docs, name)
	return nil
}
