package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/clock"
	"github.com/hearthstore/hearth/reader"
	"github.com/hearthstore/hearth/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// store is a tier in memory.
type store struct {
	mu     sync.Mutex
	values map[feature.Ref][]byte
	down   bool
}

func (s *store) Get(_ context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, fmt.Errorf("%w: connection refused", feature.ErrUnreachable)
	}
	out := make([]feature.GetResult, len(refs))
	for i, r := range refs {
		out[i].Payload = s.values[r]
	}
	return out, nil
}

func (s *store) Put(_ context.Context, recs []feature.Record) ([]feature.PutResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]feature.PutResult, len(recs))
	for i, r := range recs {
		s.values[r.Ref] = r.Payload
		out[i].Outcome = feature.Written
	}
	return out, nil
}

func (s *store) setDown(down bool) { s.mu.Lock(); defer s.mu.Unlock(); s.down = down }

// work records what was asked of it.
type work struct {
	mu     sync.Mutex
	pushed map[string]string
	asked  []server.MaterializeRequest
	result server.WriteResult
	end    server.MaterializeResult
	err    error
	block  chan struct{} // when set, Materialize waits for it or for its context
	ended  chan error
}

func (w *work) Push(_ context.Context, view string, rows io.Reader) (server.WriteResult, error) {
	b, err := io.ReadAll(rows)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pushed[view] = string(b)
	return w.result, errors.Join(err, w.err)
}

func (w *work) Materialize(ctx context.Context, req server.MaterializeRequest) (server.MaterializeResult, error) {
	w.mu.Lock()
	w.asked = append(w.asked, req)
	block, end, err := w.block, w.end, w.err
	w.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			err = ctx.Err()
		}
		w.ended <- err
	}
	return end, err
}

// bundle is a server over tiers in memory; its calls bring the admin token.
type bundle struct {
	t       testing.TB
	project *feature.Project
	online  *store
	backing *store
	work    *work
	server  *server.Server
	token   string
}

func newBundle(t testing.TB, change ...func(*server.Config)) *bundle {
	t.Helper()
	return newTracedBundle(t, nil, change...)
}

// newTracedBundle also makes spans of the calls of the tiers.
func newTracedBundle(t testing.TB, tracer trace.TracerProvider, change ...func(*server.Config)) *bundle {
	t.Helper()
	field := func(name string, typ feature.Type, def feature.Value) feature.Feature {
		return feature.Feature{Field: feature.Field{Name: name, Type: typ}, Default: def}
	}
	keys := []feature.JoinKey{{Name: "driver_id", Type: feature.Int64}}
	ref := func(view string, version int) feature.FeatureRef {
		return feature.FeatureRef{View: feature.ViewID{Name: view, Version: version}, Feature: "*"}
	}
	b := &bundle{t: t, work: &work{pushed: map[string]string{}, ended: make(chan error, 1)}, project: &feature.Project{
		Name: "taxis",
		Views: []feature.View{
			{Name: "stats", Version: 1, JoinKeys: keys, TTL: time.Hour, Features: []feature.Feature{
				field("conv_rate", feature.Float64, feature.Null), field("trips", feature.Int64, feature.IntValue(0)),
				field("seen", feature.Timestamp, feature.Null), field("tags", feature.ListOf(feature.String), feature.Null), field("raw", feature.Bytes, feature.Null),
			}},
			{Name: "stats", Version: 2, JoinKeys: keys, Features: []feature.Feature{field("conv_rate", feature.Float32, feature.Null)}},
		},
		Services: []feature.Service{{Name: "v1", Features: []feature.FeatureRef{ref("stats", 1)}}, {Name: "both", Features: []feature.FeatureRef{ref("stats", 1), ref("stats", 2)}}},
	}}
	b.online, b.backing = &store{values: map[feature.Ref][]byte{}}, &store{values: map[feature.Ref][]byte{}}
	rc := reader.Config{Project: b.project, Online: b.online, Backing: b.backing, Clock: clock.NewFake(start), OnlineTimeout: time.Minute, BackingTimeout: time.Minute}
	if tracer != nil {
		rc.Online, rc.Backing = server.TraceOnline(b.online, tracer), server.TraceBacking(b.backing, tracer)
	}
	r, err := reader.New(rc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := server.Config{Project: b.project, Features: r, Jobs: b.work, Clock: clock.NewFake(start), AdminToken: "adm1n"}
	for _, c := range change {
		c(&cfg)
	}
	b.token = cfg.AdminToken
	if b.server, err = server.New(cfg); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bundle) store(to *store, view int, id int, at time.Time, values ...feature.Value) {
	b.t.Helper()
	v := &b.project.Views[view]
	features, err := feature.AppendFeatures(nil, v.Fields(), values)
	if err != nil {
		b.t.Fatal(err)
	}
	h := feature.Header{Fingerprint: v.Fingerprint(), Version: feature.Version{Event: feature.MicrosOf(at), Created: feature.NoTime, Run: 1}}
	to.mu.Lock()
	defer to.mu.Unlock()
	to.values[feature.Ref{View: v.ID(), Key: feature.Key(fmt.Sprintf("driver_id=%d", id))}] = feature.AppendPayload(nil, h, features)
}

// with is the same server for a part of a test.
func (b *bundle) with(t testing.TB) *bundle { c := *b; c.t = t; return &c }

func itoa(n int) string { return fmt.Sprint(n) }

// waitAsked waits until that many runs were asked for.
func (w *work) waitAsked(n int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		w.mu.Lock()
		asked := len(w.asked)
		w.mu.Unlock()
		if asked >= n {
			return
		}
	}
}

// call makes one request, from loopback.
func (b *bundle) call(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	req := httptest.NewRequestWithContext(b.t.Context(), method, "http://127.0.0.1:6566"+path, strings.NewReader(body))
	if b.token != "" {
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	for i := 0; i < len(headers); i += 2 {
		if req.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	w := httptest.NewRecorder()
	b.server.Handler().ServeHTTP(w, req)
	return w
}

func (b *bundle) want(w *httptest.ResponseRecorder, code int, body string) {
	b.t.Helper()
	if w.Code != code || body != "" && strings.TrimSpace(w.Body.String()) != body {
		b.t.Errorf("got %d %s\nwant %d %s", w.Code, w.Body, code, body)
	}
}

func (b *bundle) wantSays(w *httptest.ResponseRecorder, code int, says string) {
	b.t.Helper()
	if w.Code != code || !strings.Contains(w.Body.String(), says) {
		b.t.Errorf("got %d %s\nwant %d with %q", w.Code, w.Body, code, says)
	}
}

const (
	get  = http.MethodGet
	post = http.MethodPost
)
