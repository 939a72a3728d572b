package server

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/reader"
)

// tracing makes the spans of requests. Without a provider it costs nothing. No span holds a
// feature value or an entity key.
type tracing struct{ tracer trace.Tracer }

const tracerName = "github.com/hearthstore/hearth"

func newTracing(p trace.TracerProvider) tracing {
	if p == nil {
		return tracing{}
	}
	return tracing{p.Tracer(tracerName)}
}

var w3c = propagation.TraceContext{}

// start begins the span of a request, under the caller's if there is one, and returns what
// ends it. Probes are not traced.
func (t tracing) start(rt *route, r *http.Request) (*http.Request, func(code int, err error)) {
	if t.tracer == nil || rt.access == anyone {
		return r, func(int, error) {}
	}
	ctx := w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := t.tracer.Start(ctx, rt.method+" "+rt.path, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", rt.method), attribute.String("http.route", rt.path)))
	return r.WithContext(ctx), func(code int, err error) {
		span.SetAttributes(attribute.Int("http.response.status_code", code))
		if code >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, classify(err).class)
		}
		span.End()
	}
}

// read says on the span of a request what was read.
func (t tracing) read(ctx context.Context, service string, entities, features int) {
	if t.tracer == nil {
		return
	}
	trace.SpanFromContext(ctx).SetAttributes(attribute.String("hearth.feature_service", service),
		attribute.Int("hearth.entities", entities), attribute.Int("hearth.features", features))
}

// TraceOnline makes a span per read of the online tier. What else the tier can do
// (reader.Isolating) it still can.
func TraceOnline(tier reader.Online, p trace.TracerProvider) reader.Online {
	return tracedOnline{tier, p.Tracer(tracerName)}
}

type tracedOnline struct {
	reader.Online
	tracer trace.Tracer
}

// Get reads within a span.
func (t tracedOnline) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	return traced(ctx, t.tracer, feature.TierOnline, refs, t.Online.Get)
}

// Nodes lists the servers, if the tier isolates them.
func (t tracedOnline) Nodes() []reader.NodeStats {
	if tier, ok := t.Online.(reader.Isolating); ok {
		return tier.Nodes()
	}
	return nil
}

// TraceBacking makes a span per call of the backing tier. Requests share those calls, so
// its span has a parent only where the reader hands one on. A reader.Attempter stays one.
func TraceBacking(tier reader.Backing, p trace.TracerProvider) reader.Backing {
	t := tracedBacking{tier, p.Tracer(tracerName)}
	if a, ok := tier.(reader.Attempter); ok {
		return tracedAttempter{t, a}
	}
	return t
}

type tracedBacking struct {
	reader.Backing
	tracer trace.Tracer
}

// Get reads within a span.
func (t tracedBacking) Get(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	return traced(ctx, t.tracer, feature.TierBacking, refs, t.Backing.Get)
}

type tracedAttempter struct {
	tracedBacking
	attempter reader.Attempter
}

// Attempt sends one request within a span.
func (t tracedAttempter) Attempt(ctx context.Context, refs []feature.Ref) ([]feature.GetResult, error) {
	return traced(ctx, t.tracer, feature.TierBacking, refs, t.attempter.Attempt)
}

func traced(ctx context.Context, tracer trace.Tracer, tier feature.Tier, refs []feature.Ref,
	get func(context.Context, []feature.Ref) ([]feature.GetResult, error),
) ([]feature.GetResult, error) {
	ctx, span := tracer.Start(ctx, string(tier)+" get", trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.Int("hearth.keys", len(refs))))
	defer span.End()
	out, err := get(ctx, refs)
	failed := 0
	for i := range out {
		if out[i].Err != nil {
			failed++
		}
	}
	span.SetAttributes(attribute.Int("hearth.keys_failed", failed))
	if err != nil || failed > 0 && failed == len(refs) {
		span.SetStatus(codes.Error, "the tier did not answer")
	}
	return out, err
}
