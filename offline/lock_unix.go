//go:build unix

package offline

import (
	"fmt"
	"os"
	"syscall"

	"github.com/hearthstore/hearth/feature"
)

// fileLock is an exclusive lock that ends with the process, however it ends.
type fileLock struct{ f *os.File }

// lockFile takes the lock or fails at once with feature.ErrLeaseHeld. The file is removed
// by release, so a lock is held only by who holds the file that stands at path now.
func lockFile(path string) (*fileLock, error) { return lockAs(path, syscall.LOCK_EX) }

// lockShared takes the lock beside others that share it. It is given back with drop.
func lockShared(path string) (*fileLock, error) { return lockAs(path, syscall.LOCK_SH) }

func lockAs(path string, how int) (*fileLock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, feature.ErrLeaseHeld)
		}
		mine, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return &fileLock{f: f}, nil
		}
		_ = f.Close() // the one before removed the file between our open and our lock
	}
}

func (l *fileLock) release() error {
	if l == nil || l.f == nil {
		return nil
	}
	if err := os.Remove(l.f.Name()); err != nil && !os.IsNotExist(err) {
		_ = l.f.Close()
		return err
	}
	return l.f.Close()
}

// share lets others share a lock that was exclusive.
func (l *fileLock) share() error {
	return syscall.Flock(int(l.f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
}

// drop gives the lock back and leaves its file, which others may share.
func (l *fileLock) drop() error { return l.f.Close() }
