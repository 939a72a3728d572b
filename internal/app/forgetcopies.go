package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/hotkeys"
	"github.com/hearthstore/hearth/rewarm"
)

// copies takes the keys out of everything else that may name them. What cannot be cleaned
// does not keep the rest from being cleaned.
func (f *forgetting) copies(ctx context.Context, back backing.Store) error {
	var (
		c    = &f.report.Copies
		errs []error
		err  error
	)
	c.HotKeys, err = hotkeys.Forget(ctx, back, func(k feature.Key) bool { return slices.Contains(f.keys, k) })
	errs = append(errs, err)
	c.Checkpoints, err = f.checkpoints(ctx, back)
	errs = append(errs, err)
	c.LedgerEntries, err = backing.ScrubRuns(ctx, back, f.clean)
	errs = append(errs, err)
	c.RejectLines, err = f.rejects()
	return errors.Join(append(errs, err)...)
}

// checkpoints cleans those of an unfinished rewarm. One that is under way holds its
// checkpoints in memory and would be stopped by a change: it is left alone, and said.
func (f *forgetting) checkpoints(ctx context.Context, back backing.Store) (n int, err error) {
	items, err := back.ListState(ctx, kindCheckpoint, backing.ListOptions{})
	if err != nil || len(items) == 0 {
		return 0, err
	}
	lease, err := backing.NewLeases(f.app.leaseConfig(back)).Acquire(ctx, "rewarm", f.app.holder)
	if err != nil {
		return 0, fmt.Errorf("clean rewarm checkpoints: %w; they may name the key until that run ends: forget it again then", err)
	}
	defer func() { err = errors.Join(err, lease.Release(context.WithoutCancel(ctx))) }()
	for _, item := range items {
		did := false
		for _, key := range f.keys {
			out, changed, err := rewarm.ForgetKey(item.Name, item.Value, key)
			if err != nil {
				return n, err
			}
			item.Value, did = out, did || changed
		}
		if !did {
			continue
		}
		if _, err := back.PutState(ctx, item); err != nil {
			return n, fmt.Errorf("clean rewarm checkpoint %s: %w", item.Name, err)
		}
		n++
	}
	return n, nil
}

// rejects drops the lines about the keys from the rejects files of this machine.
func (f *forgetting) rejects() (dropped int, err error) {
	files, err := filepath.Glob(filepath.Join(f.app.cfg.Dir, ".hearth", "rejects", "*.ndjson"))
	if err != nil {
		return 0, err
	}
	for _, path := range files {
		n, err := f.rejectsFile(path)
		dropped += n
		if err != nil {
			return dropped, fmt.Errorf("clean rejects file %s: %w", path, err)
		}
	}
	return dropped, nil
}

func (f *forgetting) rejectsFile(path string) (dropped int, err error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var kept bytes.Buffer
	lines := bufio.NewReader(bytes.NewReader(content))
	for {
		line, rerr := lines.ReadBytes('\n')
		var r feature.Reject
		if len(line) > 0 {
			if json.Unmarshal(line, &r) == nil && f.clean(r.Key+"\n"+r.Reason) != r.Key+"\n"+r.Reason {
				dropped++
			} else {
				kept.Write(line)
			}
		}
		if rerr != nil {
			break
		}
	}
	if dropped == 0 {
		return 0, nil
	}
	temp := path + ".tmp"
	if err := os.WriteFile(temp, kept.Bytes(), 0o600); err != nil {
		return 0, err
	}
	return dropped, os.Rename(temp, path)
}

// clean replaces the keys in a text by their digests.
func (f *forgetting) clean(text string) string {
	for _, key := range f.keys {
		text = replaceKey(text, string(key), f.digest.Of(key))
	}
	return text
}

// replaceKey replaces key where it stands alone: "id=5" is not part of "id=57".
func replaceKey(text, key, by string) string {
	var b strings.Builder
	for from := 0; ; {
		i := strings.Index(text[from:], key)
		if i < 0 {
			if b.Len() == 0 {
				return text
			}
			b.WriteString(text[from:])
			return b.String()
		}
		start, end := from+i, from+i+len(key)
		if (start == 0 || !keyByte(text[start-1])) && !goesOn(text[end:]) {
			b.WriteString(text[from:start])
			b.WriteString(by)
		} else {
			b.WriteString(text[from:end])
		}
		from = end
	}
}

// goesOn reports whether a key that was found goes on in what follows it. A full stop belongs
// to it unless it ends a sentence.
func goesOn(rest string) bool {
	rest = strings.TrimLeft(rest, ".")
	return rest != "" && keyByte(rest[0])
}

// keyByte reports whether a byte, apart from the full stop, may be part of a canonical key.
func keyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_~%&=", c) >= 0
}
