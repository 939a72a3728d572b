package server_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/server"
)

// Feast's shape: join keys first, a column per name, three arrays of the same length, the
// real statuses, seconds for timestamps, null for what Feast's client cannot take.
func TestGetOnlineFeatures(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	at := start.Add(-time.Minute)
	b.store(b.online, 0, 1001, at, feature.Float64Value(0.5), feature.IntValue(9007199254740993), feature.TimestampValue(feature.MicrosOf(at)),
		feature.ListValue(feature.StringValue("a")), feature.BytesValue([]byte{1, 2}))
	b.store(b.backing, 0, 1002, start.Add(-2*time.Hour), feature.Float64Value(math.NaN()), feature.Null, feature.Null, feature.ListValue(), feature.Null)
	w := b.call(post, "/get-online-features", `{"entities": {"unused": [1, 2, 3], "driver_id": [1001, "1002", 7]}, "feature_service": "v1"}`)
	b.want(w, http.StatusOK, `{"metadata":{"feature_names":["driver_id","conv_rate","trips","seen","tags","raw"]},"results":[`+
		`{"values":[1001,"1002",7],"statuses":["PRESENT","PRESENT","PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z","1970-01-01T00:00:00Z","1970-01-01T00:00:00Z"]},`+
		`{"values":[0.5,null,null],"statuses":["PRESENT","OUTSIDE_MAX_AGE","NOT_FOUND"],"event_timestamps":["2026-11-21T11:59:00Z","2026-11-21T10:00:00Z","1970-01-01T00:00:00Z"]},`+
		`{"values":[9007199254740993,0,0],"statuses":["PRESENT","OUTSIDE_MAX_AGE","NOT_FOUND"],"event_timestamps":["2026-11-21T11:59:00Z","2026-11-21T10:00:00Z","1970-01-01T00:00:00Z"]},`+
		`{"values":[1795262340,null,null],"statuses":["PRESENT","OUTSIDE_MAX_AGE","NOT_FOUND"],"event_timestamps":["2026-11-21T11:59:00Z","2026-11-21T10:00:00Z","1970-01-01T00:00:00Z"]},`+
		`{"values":[["a"],null,null],"statuses":["PRESENT","OUTSIDE_MAX_AGE","NOT_FOUND"],"event_timestamps":["2026-11-21T11:59:00Z","2026-11-21T10:00:00Z","1970-01-01T00:00:00Z"]},`+
		`{"values":["AQI=",null,null],"statuses":["PRESENT","OUTSIDE_MAX_AGE","NOT_FOUND"],"event_timestamps":["2026-11-21T11:59:00Z","2026-11-21T10:00:00Z","1970-01-01T00:00:00Z"]}]}`)
}

// References with Feast's version notation, full names, and the collision that short names
// would hide.
func TestFeastNames(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.store(b.online, 0, 1, start, feature.Float64Value(0.5), feature.IntValue(1), feature.Null, feature.Null, feature.Null)
	b.store(b.online, 1, 1, start, feature.Float32Value(0.1))
	b.wantSays(b.call(post, "/get-online-features", `{"entities": {"driver_id": [1]}, "features": ["stats:conv_rate", "stats@v2:conv_rate"], "full_feature_names": true}`),
		http.StatusOK, `"feature_names":["driver_id","stats__conv_rate","stats@2__conv_rate"]},"results":[{"values":[1],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]},{"values":[0.5]`)
	b.wantSays(b.call(post, "/get-online-features", `{"entities": {"driver_id": [1]}, "features": ["stats:conv_rate", "stats@2:conv_rate"]}`),
		http.StatusUnprocessableEntity, "full_feature_names")
}

// An outage in Feast's shape is NOT_FOUND, as its clients know no better word, and the
// tier is named beside it; the own shape says UNKNOWN.
func TestOutage(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.online.setDown(true)
	b.backing.setDown(true)
	w := b.call(post, "/get-online-features", `{"entities": {"driver_id": [1]}, "features": ["stats:trips"]}`)
	b.want(w, http.StatusOK, `{"metadata":{"feature_names":["driver_id","trips"],"unreachable":["online","backing"]},"results":[`+
		`{"values":[1],"statuses":["PRESENT"],"event_timestamps":["1970-01-01T00:00:00Z"]},{"values":[0],"statuses":["NOT_FOUND"],"event_timestamps":["1970-01-01T00:00:00Z"]}]}`)
	if got := w.Header().Values("Hearth-Unreachable"); strings.Join(got, ",") != "online,backing" {
		t.Errorf("Hearth-Unreachable: %v", got)
	}
	b.want(b.call(post, "/v1/features", `{"entities": [{"driver_id": 1}], "features": ["stats:trips"], "layout": "rows"}`), http.StatusOK,
		`{"results":[{"entity":{"driver_id":"1"},"features":[{"name":"stats:trips","value":0,"status":"UNKNOWN","tier":"default","event_timestamp":null,"age_seconds":null}]}],`+
			`"unreachable":["online","backing"],"outages":[{"tier":"online","reason":"error"},{"tier":"backing","reason":"error"}]}`)

	b.want(b.call(get, "/readyz", ""), http.StatusOK, "")
	for range 5 { // the breakers open
		b.call(post, "/v1/features", `{"entities": [{"driver_id": 1}], "features": ["stats:trips"]}`)
	}
	b.wantSays(b.call(get, "/readyz", ""), http.StatusServiceUnavailable, "no tier answers")
	b.want(b.call(get, "/livez", ""), http.StatusOK, "")
	b.want(b.call(get, "/health", ""), http.StatusOK, "")
}

// A request that can never succeed is 4xx, which Feast's client does not repeat, with a
// JSON string that holds JSON.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *server.Config) { c.MaxEntities, c.MaxFeatures, c.MaxValues, c.MaxBody = 3, 2, 14, 2000 })
	for _, c := range []struct {
		path, body string
		code       int
		says       string
	}{
		{"/get-online-features", `{`, 400, `\"hearth\":\"BadRequest\"`},
		{"/get-online-features", `{} {}`, 400, "something follows"},
		{"/get-online-features", `{"entities": [1], "features": ["stats:trips"]}`, 400, "object of columns"},
		{"/get-online-features", `{"entities": {"driver_id": [1], "driver_id": [2]}, "features": ["stats:trips"]}`, 400, "twice"},
		{"/get-online-features", `{"features": ["stats:trips"]}`, 422, "no column"},
		{"/get-online-features", `{"entities": {"driver_id": [1, 2], "x": [1]}, "features": ["stats:trips"]}`, 422, "has 1 values"},
		{"/get-online-features", `{"entities": {"driver_id": [1, 2, 3, 4]}, "features": ["stats:trips"]}`, 422, "the limit is 3"},
		{"/get-online-features", `{"entities": {"driver_id": [null]}, "features": ["stats:trips"]}`, 422, "is missing"},
		{"/get-online-features", `{"entities": {"driver_id": [1.5]}, "features": ["stats:trips"]}`, 422, "is no int64"},
		{"/get-online-features", `{"entities": {"driver_id": [1]}, "feature_service": "v9"}`, 404, "v1, both"},
		{"/get-online-features", `{"entities": {"driver_id": [1]}, "features": ["stats:trips", "stats:seen", "stats:tags"]}`, 422, "features: invalid: 3 of them, the limit is 2"},
		{"/get-online-features", `{"entities": {"driver_id": [1]}, "features": ["stats:*"]}`, 422, "features: invalid: 5 of them, the limit is 2"},
		{"/get-online-features", `{"entities": {"driver_id": [1, 2, 3]}, "feature_service": "v1"}`, 422, "3 entities × 5 features"},
		{"/get-online-features", `{"entities": {"driver_id": 1}, "features": ["stats:trips"]}`, 400, "want a list"},
		{"/get-online-features", `{"entities": {"driver_id": [1]}, "features": ["state:trips"]}`, 404, `\"class\":\"FeatureViewNotFoundException\"`},
		{"/get-online-features", `{"entities": {"driver_id": ["` + strings.Repeat("1", 3000) + `"]}}`, 413, "larger"},
		{"/v1/features", `{"entities": [{"driver_id": {}}], "features": ["stats:trips"]}`, 422, "a join key is"},
		{"/v1/features", `{"entities": [{"driver_id": 1}], "features": ["stats:trips"], "on_stale": "yes"}`, 422, "value or default"},
		{"/v1/features", `{"entities": [{},{},{},{}], "features": ["stats:trips"]}`, 422, "the limit is 3"},
		{"/v1/features", `{"entities": [{"driver_id": 1}], "features": ["stats:trips"], "max_age": 5}`, 400, "unknown field"},
		{"/v1/features", `{"entities": [{"driver_id": 1}], "features": ["stats:trips"], "max_age_seconds": -1}`, 422, "out of range"},
		{"/v1/features", `{"entities": [{"driver_id": 1}], "features": ["stats:trips"], "max_age_seconds": 1e300}`, 422, "out of range"},
		{"/v1/features", `{"entities": [{"driver_id": 1}], "features": ["stats:trips"], "layout": "table"}`, 422, "columns or rows"},
		{"/push", `{"push_source_name": "stats", "df": {"driver_id": [1]}, "to": "offline"}`, 422, "only"},
		{"/push", `{"push_source_name": "state", "df": {"driver_id": [1]}}`, 422, `\"class\":\"PushSourceNotFoundException\"`},
		{"/write-to-online-store", `{"feature_view_name": "state", "df": {"driver_id": [1]}}`, 404, "declared are: stats@1, stats@2"},
		{"/write-to-online-store", `{"feature_view_name": "stats", "df": {}}`, 422, "no column"},
		{"/materialize", `{"start_ts": "yesterday"}`, 422, "start_ts"},
		{"/materialize", `{"feature_views": ["state"]}`, 404, "no feature view"},
		{"/materialize", `{"version": "v2"}`, 422, "exactly one"},
		{"/materialize", `{"feature_views": ["stats"], "version": "v3"}`, 404, "no feature view"},
	} {
		w := b.call(post, c.path, c.body)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s: got %d %s, want %d with %q", c.path, c.body, w.Code, w.Body, c.code, c.says)
		}
		form := `"{` // Feast's: a JSON string that holds an object
		if strings.HasPrefix(c.path, "/v1/") {
			form = `{"class":`
		}
		if !strings.HasPrefix(w.Body.String(), form) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: the error does not begin with %s: %s", c.body, form, w.Body)
		}
	}
	b.want(b.call(get, "/get-online-features", ""), http.StatusMethodNotAllowed, "")
	b.want(b.call(get, "/nothing", ""), http.StatusNotFound, "")
}

// Rows reach the job as lines of `hearth push`, with Feast's name for the created time.
func TestWrites(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.work.result = server.WriteResult{Written: 1, Behind: 1}
	body := `"df": {"driver_id": [1, 2], "trips": [9007199254740993, null], "event_timestamp": ["2026-11-21T10:00:00", "2026-11-21T11:00:00"], "created": ["2026-11-21T10:00:01", null]}}`
	const lines = `{"created_timestamp":"2026-11-21T10:00:01","driver_id":1,"event_timestamp":"2026-11-21T10:00:00","trips":9007199254740993}` + "\n" +
		`{"driver_id":2,"event_timestamp":"2026-11-21T11:00:00","trips":null}` + "\n"
	b.want(b.call(post, "/write-to-online-store", `{"feature_view_name": "stats", "allow_registry_cache": false, `+body), http.StatusOK,
		`{"written":1,"unchanged":0,"older":0,"failed":0,"behind":1}`)
	b.want(b.call(post, "/push", `{"push_source_name": "stats@2", "to": "online", `+body), http.StatusOK, "")
	if b.work.pushed["stats@1"] != lines || b.work.pushed["stats@2"] != lines {
		t.Errorf("pushed %q", b.work.pushed)
	}
	b.work.result = server.WriteResult{Written: 1, Failed: 1}
	b.wantSays(b.call(post, "/push", `{"push_source_name": "stats", `+body), http.StatusServiceUnavailable, "1 rows are not stored")
	b.work.err = errors.Join(feature.ErrThrottled)
	b.want(b.call(post, "/push", `{"push_source_name": "stats", `+body), http.StatusTooManyRequests, "")

	// What was written is read next, also from behind the cache. Seen red with forget empty.
	written := newBundle(t)
	const read = `{"entities": {"driver_id": [1]}, "features": ["stats:trips"]}`
	trips := func(n int64) {
		written.store(written.online, 0, 1, start, feature.Null, feature.IntValue(n), feature.Null, feature.Null, feature.Null)
	}
	trips(5)
	written.wantSays(written.call(post, "/v1/features", read), http.StatusOK, "[[5]]")
	trips(6)
	written.wantSays(written.call(post, "/v1/features", read), http.StatusOK, "[[5]]")
	written.call(post, "/write-to-online-store", `{"feature_view_name": "stats", `+body)
	written.wantSays(written.call(post, "/v1/features", read), http.StatusOK, "[[6]]")

	only := newBundle(t, func(c *server.Config) { c.Jobs = nil })
	only.want(only.call(post, "/push", `{"push_source_name": "stats", `+body), http.StatusNotImplemented, "")
	only.want(only.call(post, "/materialize", `{}`), http.StatusNotImplemented, "")
}

// A run answers 200 only when it is done: partial is never success. Seen red with the case
// for partial removed.
func TestMaterialize(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.work.end = server.MaterializeResult{Run: 7, Status: "done"}
	b.want(b.call(post, "/materialize", `{"start_ts": "2026-11-20T00:00:00", "end_ts": "2026-11-21T00:00:00Z", "feature_views": ["stats"]}`), http.StatusOK, "null")
	b.want(b.call(post, "/materialize-incremental", `{"end_ts": "2026-11-21T00:00:00Z"}`), http.StatusOK, "null")
	if r := b.work.asked[0]; !r.Start.Equal(start.Add(-36*time.Hour)) || !r.End.Equal(start.Add(-12*time.Hour)) || len(r.Views) != 1 {
		t.Errorf("asked for %+v", r)
	}
	for _, status := range []string{"partial", "failed"} {
		b.work.end.Status = status
		b.wantSays(b.call(post, "/materialize", `{}`), http.StatusUnprocessableEntity, "run 7 ended "+status)
	}
	b.work.err = feature.ErrLeaseHeld
	b.want(b.call(post, "/materialize", `{}`), http.StatusConflict, `{"error":"lease held by another run","feature_views":["stats","stats@v2"]}`)
}

// What a run wrote is read next, from behind the cache: keys that were old and keys that were
// not there, after a run that was waited for, one that failed half-way, and an asynchronous one.
// Seen red with the call of ForgetViews removed, and with it after a run without error alone.
func TestMaterializedIsReadNext(t *testing.T) {
	t.Parallel()
	forgotten := make(chan feature.ViewID, 10)
	b := newBundle(t, func(c *server.Config) { c.Features = toldFeatures{c.Features, forgotten} })
	const read = `{"entities": {"driver_id": [1, 2]}, "features": ["stats:trips"]}`
	trips := func(id int, n int64) {
		b.store(b.online, 0, id, start, feature.Null, feature.IntValue(n), feature.Null, feature.Null, feature.Null)
	}
	trips(1, 5)
	b.wantSays(b.call(post, "/v1/features", read), http.StatusOK, "[[5,0]]")
	trips(1, 6)
	trips(2, 6)
	b.work.end = server.MaterializeResult{Run: 7, Status: "done"}
	b.want(b.call(post, "/materialize", `{"feature_views": ["stats@v2"]}`), http.StatusOK, "null")
	b.wantSays(b.call(post, "/v1/features", read), http.StatusOK, "[[5,0]]") // another view's run
	b.want(b.call(post, "/materialize", `{"feature_views": ["stats"]}`), http.StatusOK, "null")
	b.wantSays(b.call(post, "/v1/features", read), http.StatusOK, "[[6,6]]")
	trips(1, 7)
	b.work.err = feature.ErrThrottled
	b.want(b.call(post, "/materialize-incremental", `{}`), http.StatusTooManyRequests, "")
	b.wantSays(b.call(post, "/v1/features", read), http.StatusOK, "[[7,6]]")
	trips(1, 8)
	b.work.err = nil
	for len(forgotten) > 0 {
		<-forgotten
	}
	b.want(b.call(post, "/materialize?async=true", `{"feature_views": ["stats"]}`), http.StatusAccepted, "")
	if t.Failed() {
		return
	}
	select {
	case id := <-forgotten:
		if id.String() != "stats@1" {
			t.Errorf("%s was forgotten", id)
		}
	case <-time.After(time.Minute):
		t.Error("the asynchronous run ended without a word to the reader")
	}
	b.wantSays(b.call(post, "/v1/features", read), http.StatusOK, "[[8,6]]")
}

// toldFeatures say which views they were told to forget.
type toldFeatures struct {
	server.Features
	views chan feature.ViewID
}

func (f toldFeatures) ForgetViews(views ...feature.ViewID) {
	f.Features.ForgetViews(views...)
	for _, v := range views {
		f.views <- v
	}
}

// Tokens: reading and writing are two, the admin's also reads, health needs none.
func TestTokens(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *server.Config) { c.ReadToken, c.AdminToken = "r3ad", "adm1n" })
	read := `{"entities": [{"driver_id": 1}], "features": ["stats:trips"]}`
	for _, c := range []struct {
		token              string
		read, admin, probe int
	}{
		{"", 401, 401, 200}, {"wrong", 401, 401, 200}, {"r3ad", 200, 403, 200}, {"adm1n", 200, 200, 200}, {"r3adx", 401, 401, 200},
	} {
		b.token = c.token
		b.want(b.call(post, "/v1/features", read), c.read, "")
		b.want(b.call(get, "/metrics", ""), c.read, "")
		b.want(b.call(get, "/", ""), c.admin, "")
		b.want(b.call(post, "/materialize", `{}`), c.admin, "")
		b.want(b.call(get, "/livez", ""), c.probe, "")
	}
	b.token = "wrong"
	if w := b.call(get, "/", ""); strings.Contains(w.Body.String(), "wrong") || w.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("401: %s", w.Body)
	}
}

// Without tokens the server is for this machine alone: it does not listen elsewhere, and
// answers neither foreign web pages nor foreign names.
func TestLoopbackOnly(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *server.Config) { c.AdminToken = "" })
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0"} {
		if _, err := b.server.Listen(t.Context(), address); !errors.Is(err, feature.ErrInvalid) {
			t.Errorf("listen on %s: %v", address, err)
		}
	}
	b.want(b.call(get, "/metrics", "", "Host", "evil.example"), http.StatusForbidden, "")
	b.want(b.call(get, "/metrics", "", "Origin", "https://evil.example"), http.StatusForbidden, "")
	b.want(b.call(get, "/metrics", "", "Origin", "http://127.0.0.1:6566"), http.StatusOK, "")
	b.want(b.call(get, "/metrics", "", "Host", "localhost:6566"), http.StatusOK, "")
	b.want(b.call(get, "/metrics", "", "Host", "[::1]:6566"), http.StatusOK, "")
}

// Over its limit of requests the server says so at once; probes are still answered.
func TestInFlightLimit(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *server.Config) { c.MaxInFlight = 1 })
	b.work.block = make(chan struct{})
	b.work.end.Status = "done"
	first := make(chan int, 1)
	go func() { first <- b.call(post, "/materialize", `{}`).Code }()
	b.work.waitAsked(1)
	w := b.call(get, "/metrics", "")
	b.want(w, http.StatusTooManyRequests, "")
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	b.want(b.call(get, "/readyz", ""), http.StatusOK, "")
	close(b.work.block)
	if code := <-first; code != http.StatusOK {
		t.Errorf("the first request: %d", code)
	}
}

// The end: an asynchronous run is told to stop and waited for, and Serve returns nil.
func TestServeDrains(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.work.block = make(chan struct{})
	l, err := b.server.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.server.Serve(ctx, l) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), post, "http://"+l.Addr().String()+"/materialize?async=true", strings.NewReader(`{"feature_views": ["stats"]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+b.token)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	if resp.StatusCode != http.StatusAccepted || strings.TrimSpace(string(body)) != `{"feature_views":["stats"],"status":"accepted"}` {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	b.want(b.call(post, "/materialize?async=true", `{}`), http.StatusConflict, `{"error":"these feature views are being materialized","feature_views":["stats"]}`)
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if t.Failed() {
		return // nothing runs: do not wait for its end
	}
	if err := <-b.work.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the run ended with %v, want to be told to stop", err)
	}
	b.want(b.call(get, "/readyz", ""), http.StatusServiceUnavailable, "")
	b.want(b.call(post, "/materialize?async=true", `{}`), http.StatusServiceUnavailable, "")
}

// Metrics hold the reader's counts and the paths, and no feature value or key. I15.
func TestMetricsAndStatus(t *testing.T) {
	t.Parallel()
	newest := start.Add(-3 * time.Hour)
	loads := 0
	b := newBundle(t, func(c *server.Config) {
		c.Version = "1.2.3"
		c.Status = func(context.Context) (server.Status, error) {
			loads++
			return server.Status{
				Views:  []server.ViewStatus{{View: feature.ViewID{Name: "stats", Version: 1}, NewestEvent: &newest, Entities: 1234567, LastRun: 9, LastStatus: "partial", OnlineBehind: 12}},
				Online: server.TierStatus{Kind: "redis", Reachable: true, Cold: true, ColdShards: []string{"10.0.0.1:6379"}}, Backing: server.TierStatus{Kind: "dynamodb", Error: "denied <b>"},
				Runs: []server.Run{{Number: 9, Job: "hourly", Status: "partial", Holder: "host/1", Started: &newest}},
			}, nil
		}
	})
	b.store(b.online, 0, 424242, start, feature.Float64Value(0.987654), feature.IntValue(1), feature.Null, feature.Null, feature.Null)
	b.call(post, "/v1/features", `{"entities": [{"driver_id": 424242}, {"driver_id": 5}], "features": ["stats:conv_rate"]}`)
	w := b.call(get, "/metrics", "")
	for _, line := range []string{
		`hearth_lookups_total{verdict="found"} 1`, `hearth_lookups_total{verdict="not_found"} 1`, `hearth_tier_hits_total{tier="online"} 1`,
		`hearth_http_requests_total{code="200",path="/v1/features"} 1`, `hearth_breaker_open{tier="backing"} 0`, `hearth_cache_total{result="miss"} 2`,
		`hearth_view_freshness_seconds{view="stats@1"} 10800`, `hearth_view_online_behind{view="stats@1"} 12`, `hearth_online_cold 1`,
	} {
		b.wantSays(w, http.StatusOK, line)
	}
	page := b.call(get, "/", "")
	for _, text := range []string{"taxis", "1.2.3", "1,234,567", "3 h", "cold", "10.0.0.1:6379", "denied &lt;b&gt;", "hourly", "50.0 %"} {
		b.wantSays(page, http.StatusOK, text)
	}
	for _, secret := range []string{"424242", "0.987654"} {
		if strings.Contains(w.Body.String()+page.Body.String(), secret) {
			t.Errorf("%s is shown in metrics or on the page", secret)
		}
	}
	if strings.Contains(page.Body.String(), "http://") || strings.Contains(page.Body.String(), "https://") || strings.Contains(page.Body.String(), "<script") {
		t.Error("the page loads something")
	}
	b.wantSays(b.call(get, "/v1/status", ""), http.StatusOK, `"project":"taxis"`)
	if loads != 1 {
		t.Errorf("the status was loaded %d times within its TTL", loads)
	}
}
