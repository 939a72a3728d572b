package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// hearth serve --jobs runs the schedule in the same process: what it materializes is served
// without another command, also for a key that was read before and that the cache remembers as absent.
// Spans reach the collector, and the last of them after the signal to end. Seen red with the
// tracer not shut down, and with the scheduler's run not told to the reader.
func TestServeRunsTheSchedule(t *testing.T) {
	t.Parallel()
	traces := make(chan string, 1000)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		traces <- r.URL.Path + " " + string(body)
	}))
	t.Cleanup(collector.Close)
	r := newRepo(t, "{embedded: {}}", "{sqlite: {path: .hearth/backing.db}}")
	r.edit(func(s string) string {
		s, _, _ = strings.Cut(s, "\njobs:")
		s = replaceLine(t, s, "server:", `server: {tracing: {otlp_endpoint: "`+collector.URL+`"}}`)
		return s + "\nreader: {negative_ttl: 1h}\njobs:\n  - {name: fill, schedule: \"@every 1s\", materialize: {feature_views: [credit_history]}}\n"
	})
	server := r.serve("--jobs")
	const read = `{"features": ["credit_history:hard_pulls"], "entities": [{"dob_ssn": "19530219_5179"}]}`
	ask := func() string {
		t.Helper()
		resp, err := http.Post(server.url+"/v1/features", "application/json", strings.NewReader(read)) //nolint:noctx // of a test's own server
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if cerr := resp.Body.Close(); err != nil || cerr != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%d %s: %v %v", resp.StatusCode, body, err, cerr)
		}
		return string(body)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(ask(), `"statuses":[[1]]`) { // until the job has run
		<-tick.C
	}
	server.stop(t)
	collector.Close() // waits for what is being sent
	close(traces)
	sent := ""
	for s := range traces {
		sent += s
	}
	if !strings.Contains(sent, "/v1/traces") || !strings.Contains(sent, "POST /v1/features") || !strings.Contains(sent, "backing get") {
		t.Errorf("the collector got %d bytes without the spans of a read", len(sent))
	}
	if strings.Contains(sent, "19530219") {
		t.Error("a span holds an entity key")
	}
}
