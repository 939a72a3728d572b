package rewarm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hearthstore/hearth/feature"
)

// ForgetKey takes an erased entity out of a stored checkpoint: the witnesses and the failed
// records that name it, and a cursor that does. Without a cursor the segment is scanned from
// its beginning, which does no harm. Documents that are no checkpoint, and those that do not
// name the key, come back as they are with changed false.
func ForgetKey(name string, doc []byte, key feature.Key) (out []byte, changed bool, err error) {
	if !strings.HasPrefix(strings.TrimPrefix(name, sourcePrefix), segmentPrefix) {
		return doc, false, nil
	}
	var cp checkpoint
	if err := json.Unmarshal(doc, &cp); err != nil {
		return doc, false, fmt.Errorf("checkpoint %s: %w: %v", name, feature.ErrCorrupt, err)
	}
	failed := slices.DeleteFunc(slices.Clone(cp.Failed), func(f failedRef) bool { return f.Key == key })
	witnesses := slices.DeleteFunc(slices.Clone(cp.Witnesses), func(w witness) bool { return w.Key == key })
	named := bytes.Contains(cp.Cursor, []byte(key))
	if len(failed) == len(cp.Failed) && len(witnesses) == len(cp.Witnesses) && !named {
		return doc, false, nil
	}
	cp.Counts.Failed -= int64(len(cp.Failed) - len(failed))
	cp.Failed, cp.Witnesses = failed, witnesses
	if named {
		cp.Cursor = nil
	}
	out, err = json.Marshal(cp)
	return out, true, err
}
