package online

import (
	"bytes"
	"testing"

	"github.com/hearthstore/hearth/feature"
)

// TestOlderSchema: with the hash layout, a value that was written before features were added at
// the end of its view comes back byte for byte. Seen red with fingerprints compared only.
func TestOlderSchema(t *testing.T) {
	t.Parallel()
	grown := *testView
	grown.Features = append(grown.Features[:len(grown.Features):len(grown.Features)], feature.Feature{Field: feature.Field{Name: "new", Type: feature.Bool}})
	s := mustOpen(t, Config{Project: project(t), Embedded: true, Layout: LayoutHash, Views: []*feature.View{&grown}})
	rec := record(t, key(1), feature.Version{Event: 5, Run: 1}, 3) // of testView
	put(t, s, rec)
	got := get(t, s, key(1))[0]
	if got.Err != nil || !bytes.Equal(got.Payload, rec.Payload) {
		t.Fatalf("%x %v, want %x", got.Payload, got.Err, rec.Payload)
	}
	fields, err := s.plain().HGetAll(t.Context(), s.RedisKey(rec.Ref)).Result()
	if err != nil || fields["i"] == "" || fields[fieldRaw] != "" {
		t.Errorf("not readable from other languages: %v %v", fields, err)
	}
}
