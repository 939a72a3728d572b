package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Listen opens the address. An address that is not loopback needs a read token, or the
// word of the configuration that none is wanted: features are often personal data.
func (s *Server) Listen(ctx context.Context, address string) (net.Listener, error) {
	if err := s.mayListen(address); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// Serve answers on l until ctx ends, and then drains: /readyz says no, for DrainDelay
// requests are taken as before, then those under way are finished, and asynchronous runs
// are told to stop and waited for, both within DrainTimeout. A clean end is nil.
//
// It speaks HTTP/1.1 and HTTP/2: over TLS by negotiation, and without TLS to clients that
// begin with HTTP/2 (h2c, prior knowledge).
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	h := &http.Server{
		Handler: s.handler, Protocols: &protocols, TLSConfig: s.cfg.TLS,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: s.cfg.BodyTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() {
		if s.cfg.TLS != nil {
			ended <- h.ServeTLS(l, "", "")
			return
		}
		ended <- h.Serve(l)
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	ctx = context.WithoutCancel(ctx)
	if s.cfg.DrainDelay > 0 {
		select {
		case err := <-ended:
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		case <-s.cfg.Clock.After(s.cfg.DrainDelay):
		}
	}
	drain, cancel := context.WithTimeout(ctx, s.cfg.DrainTimeout)
	defer cancel()
	err := h.Shutdown(drain)
	if err != nil {
		err = errors.Join(fmt.Errorf("drain %s: requests did not end in %s: %w", l.Addr(), s.cfg.DrainTimeout, err), h.Close())
	}
	if closed := <-ended; !errors.Is(closed, http.ErrServerClosed) {
		err = errors.Join(err, closed)
	}
	return errors.Join(err, s.stopRuns(drain))
}

// stopRuns tells asynchronous runs to stop and waits for them.
func (s *Server) stopRuns(ctx context.Context) error {
	s.mu.Lock()
	for _, run := range s.under {
		run.stop()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.runs.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain: a run did not stop in %s; it resumes where it was", s.cfg.DrainTimeout)
	}
}
