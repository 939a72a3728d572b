package reader_test

import (
	"testing"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// TestOlderSchema: a value that was written before features were added at the end of its view
// is read, with the default for those; one of any other schema is passed over. Seen red with
// the fingerprints compared only (every old value is lost on the day of the change), and with
// OlderSchemas telling lengths that are one off.
func TestOlderSchema(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	full := stats(t, b.project, 1, start, 7, 0.5)
	v := b.project.View(full.View)
	if v == nil || len(v.Features) < 2 {
		t.Fatal("the view has too few features for this test")
	}
	old := v.Fields()[:1]
	values := []feature.Value{feature.Float64Value(0.5)}
	body, err := feature.AppendFeatures(nil, old, values)
	if err != nil {
		t.Fatal(err)
	}
	older := full
	older.Payload = feature.AppendPayload(nil, feature.Header{Fingerprint: feature.Fingerprint(old), Version: full.Version}, body)
	b.online.set(older)
	resp, err := b.reader.Get(t.Context(), reader.Request{Features: []string{"stats:rate", "stats:city"}, Entities: []map[string]string{{"driver_id": "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, resp.Row(0), "stats:rate", feature.Float64Value(0.5), feature.Present, feature.TierOnline, start)
	want(t, resp.Row(0), "stats:city", feature.StringValue("nowhere"), feature.NullValue, feature.TierOnline, start)
	if s := b.reader.Stats(); s.Online.Foreign != 0 {
		t.Errorf("counted %d as foreign", s.Online.Foreign)
	}
}
