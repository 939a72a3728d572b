//go:build !unix

package offline

import (
	"errors"
	"fmt"
	"os"

	"github.com/hearthstore/hearth/feature"
)

// fileLock is an exclusive lock. Without flock, a process that dies leaves the file.
type fileLock struct{ path string }

func lockFile(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("lock %s: %w; if no other build runs, remove the file", path, feature.ErrLeaseHeld)
	}
	if err != nil {
		return nil, err
	}
	return &fileLock{path: path}, f.Close()
}

func (l *fileLock) release() error {
	if l == nil {
		return nil
	}
	return os.Remove(l.path)
}

// lockShared, share and drop do nothing here: without flock, one process at a time may
// use a staging folder.
func lockShared(path string) (*fileLock, error) { return &fileLock{path: path}, nil }

func (l *fileLock) share() error { return os.Remove(l.path) }

func (l *fileLock) drop() error { return nil }
