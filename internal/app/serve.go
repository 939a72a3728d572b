package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hearthstore/hearth/backing"
	"github.com/hearthstore/hearth/feature"
	"github.com/hearthstore/hearth/internal/hotkeys"
	"github.com/hearthstore/hearth/internal/tiers"
	"github.com/hearthstore/hearth/materializer"
	"github.com/hearthstore/hearth/reader"
	"github.com/hearthstore/hearth/server"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// ServeOptions are the flags of `hearth serve`.
type ServeOptions struct {
	Listen   string // "" for the configuration's
	Insecure bool   // as server.insecure
	Jobs     bool   // run the schedule too
	Version  string
	// Ready is called with the URL once the server listens. Defaults to nothing.
	Ready func(url string)
}

// Serve answers HTTP until ctx ends, and then drains. Open the App with Options.Serving.
func (a *App) Serve(ctx context.Context, o ServeOptions) (err error) {
	on, err := a.onlineTier(ctx)
	if err != nil {
		return err
	}
	back, err := a.backingTier(ctx)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	tracer, err := a.tracer(ctx, o.Version)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stopTracer(ctx, tracer)) }()
	hot := hotkeys.Start(ctx, hotkeys.Config{State: back, Clock: a.clock, Logger: a.log})
	defer hot.Close()
	rc := tiers.ReaderConfig(a.cfg, on, back, a.deps())
	rc.Asked = hot.Record
	if rc.Observe, err = server.TierObserver(registry); err != nil {
		return err
	}
	if tracer != nil {
		rc.Online, rc.Backing = server.TraceOnline(rc.Online, tracer), server.TraceBacking(rc.Backing, tracer)
	}
	features, err := reader.New(rc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, features.Close()) }()
	cfg, err := a.serverConfig(o)
	if err != nil {
		return err
	}
	cfg.Features, cfg.Registry = features, registry
	if tracer != nil {
		cfg.Tracer = tracer
	}
	s, err := server.New(cfg)
	if err != nil {
		return err
	}
	address := o.Listen
	if address == "" {
		address = a.cfg.Server.Listen
	}
	l, err := s.Listen(ctx, address)
	if err != nil {
		return err
	}
	if o.Ready != nil {
		scheme := "http"
		if cfg.TLS != nil {
			scheme = "https"
		}
		o.Ready(scheme + "://" + l.Addr().String())
	}
	if a.cfg.Online.Embedded != nil || a.cfg.Online.Redis == nil {
		defer a.warmEmbedded(ctx)()
	}
	if !o.Jobs {
		return s.Serve(ctx, l)
	}
	return a.serveWithJobs(ctx, func(ids []feature.ViewID) { features.ForgetViews(ids...) }, func(ctx context.Context) error { return s.Serve(ctx, l) })
}

// serverConfig is what the configuration and the flags say of the server.
func (a *App) serverConfig(o ServeOptions) (cfg server.Config, err error) {
	c := &a.cfg.Server
	cfg = server.Config{
		Project: &a.cfg.Project, Jobs: serverJobs{a}, Status: a.serverStatus, Version: o.Version, Logger: a.log, Clock: a.clock,
		Insecure: c.Insecure || o.Insecure,
		MaxBody:  c.Limits.Body, MaxEntities: c.Limits.Entities, MaxFeatures: c.Limits.Features, MaxValues: c.Limits.Values,
		MaxInFlight: c.Limits.Requests, ReadTimeout: c.Limits.ReadTime,
		DrainDelay: c.Drain.Delay, DrainTimeout: c.Drain.Timeout,
	}
	if cfg.ReadToken, err = c.Auth.ReadToken.Reveal(); err != nil {
		return cfg, fmt.Errorf("server.auth.read_token: %w", err)
	}
	if cfg.AdminToken, err = c.Auth.AdminToken.Reveal(); err != nil {
		return cfg, fmt.Errorf("server.auth.admin_token: %w", err)
	}
	if t := c.TLS; t != nil {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return cfg, fmt.Errorf("server.tls: %w: %w", feature.ErrInvalid, err)
		}
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	}
	return cfg, nil
}

// warmEmbedded fills the online tier that lives in this process, which begins empty, in
// the background: until it is full, reads fall back. The function it returns waits for it.
func (a *App) warmEmbedded(ctx context.Context) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := a.Rewarm(ctx, RewarmOptions{IfCold: true}); err != nil && ctx.Err() == nil {
			a.log.Warn("the embedded online tier was not filled; reads fall back", "error", err)
		}
	}()
	return func() { <-done }
}

// serveWithJobs runs server and schedule side by side; the end of one is the end of both.
// materialized has the server read what the schedule wrote.
func (a *App) serveWithJobs(ctx context.Context, materialized func([]feature.ViewID), serve func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	scheduled := make(chan error, 1)
	go func() {
		defer stop()
		scheduled <- a.startJobs(ctx, materialized)
	}()
	err := serve(ctx)
	stop()
	return errors.Join(err, <-scheduled)
}

// serverJobs does what requests may ask for.
type serverJobs struct{ app *App }

// Push writes NDJSON rows to both tiers.
func (j serverJobs) Push(ctx context.Context, view string, rows io.Reader) (server.WriteResult, error) {
	body, err := io.ReadAll(rows)
	if err != nil {
		return server.WriteResult{}, fmt.Errorf("read rows: %w", err)
	}
	report, err := j.app.Push(ctx, PushOptions{View: view, Lines: bytes.NewReader(body)})
	if report == nil {
		return server.WriteResult{}, err
	}
	out := server.WriteResult{
		Written: report.Backing.Written, Unchanged: report.Backing.Unchanged, Older: report.Backing.Older,
		Failed: report.Backing.Failed + report.Rejected, Behind: report.Online.Behind,
	}
	// A push that the durable tier took is done; Redis being behind is in the counts.
	var partial *feature.PartialError
	if out.Failed == 0 && errors.As(err, &partial) {
		err = nil
	}
	return out, err
}

// Materialize runs as the command does.
func (j serverJobs) Materialize(ctx context.Context, req server.MaterializeRequest) (server.MaterializeResult, error) {
	report, err := j.app.Materialize(ctx, MaterializeOptions{Views: req.Views, Start: bound(req.Start), End: bound(req.End)})
	if report == nil {
		return server.MaterializeResult{}, err
	}
	out := server.MaterializeResult{Run: report.Run, Status: report.Status, Report: report}
	if report.Status == materializer.StatusPartial {
		err = nil // the status says it
	}
	return out, err
}

func bound(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// serverStatus is Status as the page shows it.
func (a *App) serverStatus(ctx context.Context) (server.Status, error) {
	r, err := a.Status(ctx)
	if err != nil {
		return server.Status{}, err
	}
	out := server.Status{
		Online:  server.TierStatus{Kind: r.Online.Kind, Reachable: r.Online.Reachable, Cold: r.Online.Cold, ColdShards: r.Online.ColdShards, Items: r.Online.Keys, Error: r.Online.Error},
		Backing: server.TierStatus{Kind: strings.TrimSpace(r.Backing.Kind + " " + r.Backing.Name), Reachable: r.Backing.Reachable, Items: r.Backing.Items, Error: r.Backing.Error},
	}
	for _, v := range r.Views {
		out.Views = append(out.Views, server.ViewStatus{
			View: v.View, NewestEvent: v.NewestEvent, Watermark: v.Watermark, Entities: v.Entities,
			LastRun: v.LastRun, LastStatus: v.LastStatus, OnlineBehind: v.OnlineBehind,
		})
	}
	for _, run := range r.Runs {
		out.Runs = append(out.Runs, serverRun(run))
	}
	return out, nil
}

func serverRun(r backing.Run) server.Run {
	return server.Run{Number: r.Number, Job: r.Job, Status: r.Status, Holder: r.Holder, Started: r.Started, Finished: r.Finished, Error: r.Error}
}
