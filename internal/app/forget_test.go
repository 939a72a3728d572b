package app

import "testing"

// TestReplaceKey: a key is replaced where it stands alone, and not where it begins or ends
// another one. Red without the look at either side.
func TestReplaceKey(t *testing.T) {
	for text, want := range map[string]string{
		"id=5":                              "#",
		"put v@1/id=5: full. id=5.":         "put v@1/#: full. #.",
		"id=57 and id=5.5 and id=5-a":       "id=57 and id=5.5 and id=5-a",
		"user_id=5 a=1&id=5 id=5&z=1 %id=5": "user_id=5 a=1&id=5 id=5&z=1 %id=5",
		"\"id=5\", id=5\nid=55, id=5":       "\"#\", #\nid=55, #",
		"nothing":                           "nothing",
	} {
		if got := replaceKey(text, "id=5", "#"); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
