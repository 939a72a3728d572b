package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/server"
)

// The columns layout, in full: a float is one, NaN has a word, what the features of a view
// share is there once.
func TestColumns(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	at := start.Add(-time.Minute)
	b.store(b.online, 0, 1, at, feature.Float64Value(1), feature.IntValue(9007199254740993), feature.TimestampValue(feature.MicrosOf(at)),
		feature.ListValue(feature.StringValue("a\"\x01ü"), feature.StringValue("<b>")), feature.BytesValue([]byte{1, 2}))
	b.store(b.backing, 0, 2, start.Add(-2*time.Hour), feature.Float64Value(math.NaN()), feature.Null, feature.Null, feature.ListValue(), feature.Null)
	const want = `{"as_of":"2026-11-21T12:00:00Z","rows":3,"features":["stats:conv_rate","stats:trips","stats:seen","stats:tags","stats:raw"],"values":[` +
		`[1.0,"NaN",null],[9007199254740993,0,0],["2026-11-21T11:59:00Z",null,null],[["a\"\u0001ü","<b>"],[],null],["AQI=",null,null]],` +
		`"statuses":[[1,4,3],[1,4,3],[1,4,3],[1,4,3],[1,4,3]],"status_names":["INVALID","PRESENT","NULL_VALUE","NOT_FOUND","OUTSIDE_MAX_AGE","UNKNOWN"],` +
		`"views":[{"view":"stats@1","alias":"stats","features":[0,1,2,3,4],"tiers":["online","backing","default"],` +
		`"event_timestamps":["2026-11-21T11:59:00Z","2026-11-21T10:00:00Z",null],"ages_seconds":[60.0,7200.0,null],"stale":[false,false,false]}],"unreachable":[]}`
	for _, entities := range []string{`[{"driver_id": 1}, {"driver_id": "2"}, {"driver_id": 3}]`, `{"driver_id": [1, "2", 3], "other": [null, {}, []]}`} {
		w := b.call(post, "/v1/features", `{"entities": `+entities+`, "feature_service": "v1", "skip_cache": true}`)
		b.want(w, http.StatusOK, want)
	}
}

// MessagePack holds the same as JSON, with bytes, NaN and the width of floats kept.
func TestMessagePack(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.store(b.online, 0, 1, start, feature.Float64Value(math.Inf(-1)), feature.IntValue(-7), feature.TimestampValue(feature.MicrosOf(start)),
		feature.ListValue(feature.StringValue("a")), feature.BytesValue([]byte{1, 2}))
	b.store(b.online, 1, 1, start, feature.Float32Value(0.1))
	body := `{"entities": {"driver_id": [1, 2]}, "feature_service": "both", "skip_cache": true}`
	w := b.call(post, "/v1/features", body, "Accept", "text/html, application/json;q=0.5, application/msgpack")
	if got := w.Header().Get("Content-Type"); got != "application/msgpack" || w.Header().Get("Vary") != "Accept" {
		t.Fatalf("Content-Type %q: %s", got, w.Body)
	}
	packed, rest, err := msgp.ReadIntfBytes(w.Body.Bytes())
	if err != nil || len(rest) > 0 {
		t.Fatalf("%v, %d bytes left", err, len(rest))
	}
	values := packed.(map[string]any)["values"].([]any)
	for i, want := range []any{math.Inf(-1), int64(-7), "2026-11-21T12:00:00Z", []any{"a"}, []byte{1, 2}, float32(0.1)} {
		if got := values[i].([]any)[0]; !reflect.DeepEqual(got, want) {
			t.Errorf("value %d: %T %v, want %T %v", i, got, got, want, want)
		}
	}
	var plain map[string]any
	if err := json.Unmarshal(b.call(post, "/v1/features", body).Body.Bytes(), &plain); err != nil {
		t.Fatal(err)
	}
	delete(plain, "values")
	delete(packed.(map[string]any), "values")
	if got, want := fmt.Sprint(packed), fmt.Sprint(plain); got != want {
		t.Errorf("MessagePack\n%s\nJSON\n%s", got, want)
	}

	for accept, want := range map[string]string{
		"": "application/json", "*/*": "application/json", "application/msgpack;q=0, application/json": "application/json",
		"application/json, application/msgpack": "application/json", "application/x-msgpack": "application/msgpack",
		"application/msgpack;q=0.9, application/json;q=0.1": "application/msgpack", "application/msgpack;q=x": "application/json", ";;,": "application/json",
	} {
		if got := b.call(post, "/v1/features", body, "Accept", accept).Header().Get("Content-Type"); got != want {
			t.Errorf("Accept %q: %s, want %s", accept, got, want)
		}
	}
	b.wantSays(b.call(post, "/v1/features", strings.Replace(body, "{", `{"layout": "rows", `, 1), "Accept", "application/msgpack"), http.StatusNotAcceptable, "rows are sent as JSON only")
}

// What was served is counted by service; names that are not declared do not become labels.
func TestCountsByService(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.store(b.online, 0, 1, start.Add(-2*time.Hour), feature.Float64Value(1), feature.Null, feature.Null, feature.Null, feature.Null)
	b.call(post, "/v1/features", `{"entities": [{"driver_id": 1}, {"driver_id": 2}], "feature_service": "v1"}`)
	b.call(post, "/v1/features", `{"entities": [{"driver_id": 2}], "feature_service": "v1", "layout": "rows"}`)
	b.call(post, "/get-online-features", `{"entities": {"driver_id": [2]}, "features": ["stats:trips"]}`)
	b.call(post, "/get-online-features", `{"entities": {"driver_id": [2]}, "feature_service": "made up"}`)
	w := b.call(get, "/metrics", "")
	for _, line := range []string{
		`hearth_service_lookups_total{service="v1"} 3`, `hearth_service_outside_max_age_total{service="v1"} 1`, `hearth_service_defaults_total{service="v1"} 2`,
		`hearth_service_lookups_total{service=""} 1`, `hearth_service_stale_total{service="v1"} 0`, `hearth_service_fallback_total{service="v1"} 0`,
		`hearth_service_unknown_total{service="v1"} 0`, `hearth_repair_queue 0`, `hearth_cache_entries{kind="value"} 1`, `hearth_cache_entries{kind="absence"} 1`,
	} {
		b.wantSays(w, http.StatusOK, line)
	}
	if strings.Contains(w.Body.String(), "made up") {
		t.Error("a name from a request is a label")
	}
}

// Whatever a body holds: an answer, no panic, nothing but the documented forms.
func FuzzBodies(f *testing.F) {
	for _, seed := range []string{
		`{"entities": {"driver_id": [1, "2"]}, "feature_service": "v1"}`, `{"entities": [{"driver_id": 1}], "features": ["stats:*"], "layout": "rows"}`,
		`{"entities": {"driver_id": [1]}, "features": ["stats@v2:conv_rate", "stats:conv_rate"], "full_feature_names": true, "include_feature_view_version_metadata": true}`,
		`{"push_source_name": "stats", "feature_view_name": "stats@v2", "df": {"driver_id": [1], "seen": [1700000000, null], "event_timestamp": ["2026-01-01"]}}`,
		`{"start_ts": "2026-11-20T00:00:00", "end_ts": null, "feature_views": ["stats"], "version": "v2", "disable_event_timestamp": true}`,
		`{"entities": {"driver_id": [1e400, -0, 1.5, true, null, {}, [[]]]}, "features": [":", "a:b:c", "@:"]}`, `[]`, `null`, `{`, "\xff", `{"entities": null}`,
		`{"max_age_seconds": -1e308, "on_stale": "default", "skip_cache": true, "entities": [{"driver_id": "ü"}], "features": ["stats:tags"]}`,
	} {
		for path := range uint8(6) {
			f.Add(path, []byte(seed))
		}
	}
	b := newBundle(f, func(c *server.Config) { c.MaxEntities, c.MaxBody = 50, 1<<16 })
	b.work.end.Status = "done"
	b.store(b.online, 0, 1, start, feature.Float64Value(math.NaN()), feature.IntValue(1), feature.Null, feature.ListValue(), feature.BytesValue(nil))
	paths := []string{"/get-online-features", "/v1/features", "/push", "/write-to-online-store", "/materialize", "/materialize-incremental"}
	f.Fuzz(func(t *testing.T, path uint8, body []byte) {
		p := paths[int(path)%len(paths)]
		w := b.with(t).call(post, p, string(body))
		switch w.Code {
		case http.StatusOK, http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		default:
			t.Fatalf("%s %q: %d %s", p, body, w.Code, w.Body)
		}
		dec := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
		var doc any
		if err := dec.Decode(&doc); err != nil || dec.More() {
			t.Fatalf("%s %q: the answer is no JSON document: %v\n%s", p, body, err, w.Body)
		}
	})
}
