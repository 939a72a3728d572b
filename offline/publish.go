package offline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// publisher makes an output folder appear whole or not at all. The files are written to a
// scratch folder beside the output, under a lock; publish swaps the two.
type publisher struct {
	output string // absolute
	dir    string // scratch
	made   string // the topmost folder above the output that was made for it; "" when all were there
	lock   *fileLock
}

func newPublisher(output string) (*publisher, error) {
	output, err := filepath.Abs(output)
	if err != nil {
		return nil, fmt.Errorf("output %s: %w", output, err)
	}
	p := &publisher{output: output}
	parent := filepath.Dir(output)
	for dir := parent; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
		p.made = dir
	}
	for range 100 { // not for ever: in some file systems no file can be made, and they say this
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return nil, fmt.Errorf("make output folder: %w", errors.Join(err, p.unmake()))
		}
		if p.lock, err = lockFile(p.sibling("lock")); !errors.Is(err, os.ErrNotExist) {
			break // else another build, which had made the folder too, has just failed and removed it
		}
	}
	if err != nil {
		if errors.Is(err, feature.ErrLeaseHeld) {
			return nil, fmt.Errorf("output %s: %w: another build is writing it; wait for it, or choose another output", output, feature.ErrLeaseHeld)
		}
		return nil, fmt.Errorf("lock output: %w; choose an output in whose parent folder files can be made", errors.Join(err, p.unmake()))
	}
	if err := p.prepare(parent); err != nil {
		return nil, errors.Join(err, p.lock.release(), p.unmake())
	}
	return p, nil
}

// unmake removes the folders that were made for an output that did not come, unless
// somebody else has put something into them.
func (p *publisher) unmake() error {
	if p.made == "" {
		return nil
	}
	for dir := filepath.Dir(p.output); ; dir = filepath.Dir(dir) {
		if err := os.Remove(dir); err != nil {
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist) { // gone, or not empty
				return nil
			}
			return fmt.Errorf("remove folder of the output: %w", err)
		}
		if dir == p.made {
			return nil
		}
	}
}

// sibling names a file beside the output that belongs to it.
func (p *publisher) sibling(suffix string) string {
	return filepath.Join(filepath.Dir(p.output), "."+filepath.Base(p.output)+"."+suffix)
}

// prepare cleans up after builds that died, checks what stands in the output's place and
// makes the scratch folder. The lock is held.
func (p *publisher) prepare(parent string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return fmt.Errorf("read output folder: %w", err)
	}
	scratch, old := filepath.Base(p.sibling("tmp-")), filepath.Base(p.sibling("old-"))
	for _, e := range entries {
		path := filepath.Join(parent, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), old):
			// A build that died between two renames: what it had moved away is the truth.
			if _, err := os.Lstat(p.output); errors.Is(err, os.ErrNotExist) {
				if err := os.Rename(path, p.output); err != nil {
					return fmt.Errorf("restore output: %w", err)
				}
				continue
			}
			fallthrough
		case strings.HasPrefix(e.Name(), scratch):
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("remove scratch of a build that died: %w", err)
			}
		}
	}
	if err := replaceable(p.output); err != nil {
		return err
	}
	if p.dir, err = os.MkdirTemp(parent, scratch+"*"); err != nil {
		return fmt.Errorf("make scratch folder: %w", err)
	}
	return os.Chmod(p.dir, 0o755)
}

// replaceable refuses to replace what is no training set.
func replaceable(output string) error {
	info, err := os.Lstat(output)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("output %s: %w: a file is there; choose another output", output, feature.ErrInvalid)
	}
	entries, err := os.ReadDir(output)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(output, manifestName)); err != nil {
		return fmt.Errorf("output %s: %w: the folder holds something else than a training set; choose another output or empty it", output, feature.ErrInvalid)
	}
	return nil
}

// publish moves the scratch folder into place. A reader sees the old folder or the new
// one, each whole.
func (p *publisher) publish() error {
	if err := syncTree(p.dir); err != nil {
		return fmt.Errorf("sync output: %w", err)
	}
	_, err := os.Lstat(p.output)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := os.Rename(p.dir, p.output); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		p.dir = ""
	case err != nil:
		return fmt.Errorf("publish: %w", err)
	default:
		if err := p.swap(); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return syncDir(filepath.Dir(p.output))
}

// swap replaces an existing output: in one step where the system can, else in two, of
// which prepare completes the first if the process dies between them.
func (p *publisher) swap() error {
	if err := exchange(p.dir, p.output); err == nil {
		return nil // p.dir now holds the old folder, which close removes
	}
	old := p.sibling("old-") + filepath.Ext(p.dir)
	if err := os.Rename(p.output, old); err != nil {
		return err
	}
	if err := os.Rename(p.dir, p.output); err != nil {
		return errors.Join(err, os.Rename(old, p.output))
	}
	p.dir = old
	return nil
}

// close removes the scratch folder, or the output that was replaced, and the lock.
func (p *publisher) close() error {
	var err error
	if p.dir != "" {
		err = os.RemoveAll(p.dir)
	}
	err = errors.Join(err, p.lock.release())
	if _, gone := os.Lstat(p.output); errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, p.unmake())
	}
	return err
}

func syncTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
