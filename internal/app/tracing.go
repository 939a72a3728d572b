package app

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/hearthstore/hearth/feature"
)

// tracer sends spans where server.tracing says; nil without it. A collector that is away
// costs spans, never requests.
func (a *App) tracer(ctx context.Context, version string) (*sdktrace.TracerProvider, error) {
	t := a.cfg.Server.Tracing
	if t == nil {
		return nil, nil //nolint:nilnil // no tracing is no fault
	}
	endpoint, err := url.Parse(t.OTLPEndpoint)
	if err != nil {
		return nil, fmt.Errorf("server.tracing.otlp_endpoint: %w: %w", feature.ErrInvalid, err)
	}
	if endpoint.Path == "" || endpoint.Path == "/" {
		endpoint.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint.String()))
	if err != nil {
		return nil, fmt.Errorf("server.tracing: %w", err)
	}
	return sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "hearth"), attribute.String("service.version", version),
		attribute.String("hearth.project", a.cfg.Project.Name)))), nil
}

// stopTracer sends the last spans. That the collector is away is no failure of serving.
func (a *App) stopTracer(ctx context.Context, p *sdktrace.TracerProvider) error {
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := p.Shutdown(ctx); err != nil {
		a.log.Warn("the last spans were not sent", "error", err)
	}
	return nil
}
