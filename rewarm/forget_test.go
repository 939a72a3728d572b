package rewarm

import (
	"encoding/json"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

// TestForgetKey: a checkpoint names an erased entity nowhere any more, and counts right. Seen
// red without each of the three.
func TestForgetKey(t *testing.T) {
	t.Parallel()
	view := feature.ViewID{Name: "v", Version: 1}
	cp := checkpoint{Attempt: "1.0", Segment: 2, Cursor: []byte("\x02\x00\x03v@1id=5"), Counts: Counts{Failed: 2},
		Failed:    []failedRef{{view, "id=5", "full"}, {view, "id=57", "full"}},
		Witnesses: []witness{{view, "id=4", 9}, {view, "id=5", 9}}}
	doc, err := json.Marshal(cp)
	if err != nil {
		t.Fatal(err)
	}
	out, changed, err := ForgetKey(segmentName(2), doc, "id=5")
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	var got checkpoint
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if got.Counts.Failed != 1 || len(got.Failed) != 1 || got.Failed[0].Key != "id=57" || len(got.Witnesses) != 1 || got.Cursor != nil || got.Segment != 2 {
		t.Errorf("%+v", got)
	}
	for name, key := range map[string]feature.Key{segmentName(2): "id=6", "attempt": "id=5"} {
		if _, changed, err := ForgetKey(name, doc, key); changed || err != nil {
			t.Errorf("%s %s: %v %v", name, key, changed, err)
		}
	}
}
