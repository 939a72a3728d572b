package offline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/hearthstore/hearth/feature"
)

const (
	// footerTail is what is asked for first: most footers fit. Objects that are no bigger
	// are not worth a request of their own.
	footerTail   = 64 << 10
	footerSuffix = ".footer"
	parquetMagic = "PAR1"
	footerTrail  = 8 // the footer's length and the magic
)

// footers makes, for each remote file, a local file in dir that holds the footer and nothing
// else: schema and statistics can be read from it, rows cannot. It costs a request of at most
// 64 KiB for most objects, and none for those whose footer is in the staging folder. What it
// returns has the files' order; those that are local, small, or no Parquet are as they were.
func (s *stage) footers(ctx context.Context, files []located, dir string) ([]located, error) {
	out := make([]located, len(files))
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(downloads)
	for i, f := range files {
		out[i] = f
		if !isRemote(f.Path) || f.Size <= footerTail {
			continue
		}
		group.Go(func() error {
			footer, err := s.footer(inner, f)
			if err != nil {
				return fmt.Errorf("read footer of %s: %w", f.Path, err)
			}
			if footer == nil {
				return nil
			}
			rel, err := filepath.Rel(s.folder(f), f.local) // partition folders, whose values are columns
			if err != nil {
				return err
			}
			out[i].local, out[i].footer = filepath.Join(dir, strconv.Itoa(i), rel), true
			return writeFooter(out[i].local, footer)
		})
	}
	return out, group.Wait()
}

// writeFooter writes a Parquet file without rows: places in the footer point nowhere.
func writeFooter(path string, footer []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, append([]byte(parquetMagic), footer...), 0o600)
}

// footer returns an object's footer with its length and magic, from the staging folder if it
// is there; nil when the object is no Parquet.
func (s *stage) footer(ctx context.Context, f located) ([]byte, error) {
	folder := s.folder(f)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	// Shared, so that nobody trims the folder away meanwhile. Who downloads the whole object
	// holds the lock alone: then the footer is fetched, and not kept.
	lock, err := lockShared(folder + ".lock")
	if err != nil && !errors.Is(err, feature.ErrLeaseHeld) {
		return nil, fmt.Errorf("lock staged object: %w", err)
	}
	kept := filepath.Join(folder, filepath.Base(f.local)+footerSuffix)
	if lock != nil {
		defer func() { _ = lock.drop() }()
		if b, err := os.ReadFile(kept); err == nil && footerLength(b) == len(b) {
			now := s.clock.Now()
			return b, os.Chtimes(folder, now, now)
		}
	}
	b, err := s.tail(ctx, f, footerTail)
	if err != nil {
		return nil, err
	}
	n := footerLength(b)
	switch {
	case n == 0 || int64(n) > f.Size:
		return nil, nil
	case n > len(b):
		if b, err = s.tail(ctx, f, int64(n)); err != nil {
			return nil, err
		}
	}
	b = b[len(b)-n:]
	if lock == nil {
		return b, nil
	}
	if err := os.MkdirAll(folder, 0o700); err != nil { // trimmed between its making and the lock
		return nil, err
	}
	return b, writeWhole(kept, b)
}

// writeWhole makes a file appear whole, whoever else writes it at the same time.
func writeWhole(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// footerLength reads from a file's last bytes how long its footer is, trail included; 0 when
// they are no Parquet's.
func footerLength(tail []byte) int {
	if len(tail) < footerTrail || string(tail[len(tail)-4:]) != parquetMagic {
		return 0
	}
	return int(binary.LittleEndian.Uint32(tail[len(tail)-footerTrail:])) + footerTrail
}

// tail downloads an object's last n bytes.
func (s *stage) tail(ctx context.Context, f located, n int64) ([]byte, error) {
	var b []byte
	err := s.ranged(ctx, f, f.Size-n, f.Size-1, func(body io.Reader) (int64, error) {
		var err error
		b, err = io.ReadAll(body)
		return int64(len(b)), err
	})
	return b, err
}
