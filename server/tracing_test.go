package server_test

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
	"github.com/hearthstore/hearth/server"
)

// A request is a span under its caller's, and a call of a tier one under the request's.
// Spans hold no key and no value. Seen red without Extract, and with the request's context
// from before the span.
func TestSpans(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := trace.NewTracerProvider(trace.WithSpanProcessor(recorder))
	b := newTracedBundle(t, provider, func(c *server.Config) { c.Tracer = provider })
	b.store(b.online, 0, 424242, start, feature.Float64Value(0.987654), feature.IntValue(1), feature.Null, feature.Null, feature.Null)
	b.call(post, "/v1/features", `{"entities": [{"driver_id": 424242}], "feature_service": "v1"}`,
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	b.call(get, "/livez", "")
	spans := recorder.Ended()
	if len(spans) != 2 || spans[0].Name() != "online get" || spans[1].Name() != "POST /v1/features" {
		t.Fatalf("spans: %v", spans)
	}
	tier, request := spans[0], spans[1]
	if got := request.Parent().SpanID().String(); got != "b7ad6b7169203331" || request.SpanContext().TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("the request's parent is %s", got)
	}
	if tier.Parent().SpanID() != request.SpanContext().SpanID() {
		t.Errorf("the tier's parent is %s", tier.Parent().SpanID())
	}
	told := map[string]string{}
	for _, s := range spans {
		for _, a := range s.Attributes() {
			told[string(a.Key)] = a.Value.String()
		}
	}
	for key, want := range map[string]string{"http.response.status_code": "200", "hearth.feature_service": "v1", "hearth.entities": "1", "hearth.features": "5", "hearth.keys": "1"} {
		if told[key] != want {
			t.Errorf("%s: %q, want %q", key, told[key], want)
		}
	}
	for key, value := range told {
		if strings.Contains(value, "424242") || strings.Contains(value, "0.987") {
			t.Errorf("%s holds a key or a value", key)
		}
	}
}

// isolating and attempting tiers are what the reader asks for by type.
type isolating struct{ *store }

func (isolating) Nodes() []reader.NodeStats { return []reader.NodeStats{{Addr: "a:1"}} }

type attempting struct{ *store }

func (a attempting) Attempt(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	return a.Get(ctx, refs)
}

// A traced tier can all that it could: a reader that traces still isolates servers and
// still counts repetitions against its cap. Seen red without Nodes, and without Attempt.
func TestTracedTiersKeepWhatTheyCan(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := trace.NewTracerProvider(trace.WithSpanProcessor(recorder))
	if iso, ok := server.TraceOnline(isolating{&store{}}, provider).(reader.Isolating); !ok || len(iso.Nodes()) != 1 {
		t.Error("the online tier does not isolate any more")
	}
	if iso, ok := server.TraceOnline(&store{}, provider).(reader.Isolating); ok && iso.Nodes() != nil {
		t.Error("an online tier without servers of its own names some")
	}
	if _, ok := server.TraceBacking(&store{}, provider).(reader.Attempter); ok {
		t.Error("a backing tier that cannot be asked once says it can")
	}
	a, ok := server.TraceBacking(attempting{&store{}}, provider).(reader.Attempter)
	if !ok {
		t.Fatal("the backing tier cannot be asked once any more")
	}
	if _, err := a.Attempt(t.Context(), []feature.Ref{{}}); err != nil || len(recorder.Ended()) != 1 {
		t.Errorf("%v, %d spans", err, len(recorder.Ended()))
	}
}
