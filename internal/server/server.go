// Package server is the boot: it puts the rooms together, in one order, and takes
// them apart in the reverse one. Everything that a server is made of is named here
// once, and nothing is decided here but the order.
//
// The life of a server: it takes the data directory, opens the store, listens,
// and lets the engine, the runners and the HTTP faces run. When it is to stop,
// /readyz says so first; then no new job is taken or begun, running work gets its
// grace and is handed back, watchers are told to reconnect, requests under way are
// answered, the last commit is made, and the directory is let go.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// Server is a server that runs.
type Server struct {
	house *house        // set once
	gone  chan struct{} // closed when all is gone
	err   error         // why it stopped; to be read after gone
}

// Run runs a server until ctx ends, or until something fails that it cannot live
// without. It returns when all is gone.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	s, err := Start(ctx, cfg, log)
	if err != nil {
		return err
	}
	return s.Wait()
}

// Start starts a server that runs until ctx ends, and returns when it is ready.
func Start(ctx context.Context, cfg config.Config, log *slog.Logger) (*Server, error) {
	h, err := build(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	s := &Server{house: h, gone: make(chan struct{})}
	started := make(chan struct{})
	go func() {
		defer close(s.gone)
		s.err = h.live(ctx, started)
	}()
	<-started
	return s, nil
}

// URL is where the server listens.
func (s *Server) URL() string { return "http://" + s.house.listener.Addr().String() }

// Wait returns when all is gone: nil when the server was told to stop.
func (s *Server) Wait() error {
	<-s.gone
	return s.err
}

// live is a server's life, from its first request to its last.
func (h *house) live(ctx context.Context, started chan<- struct{}) error {
	began := time.Now()
	engine := launch(h.engine.Run)
	work := launch(h.work)
	faces := launch(h.serve)
	memory := launch(paceCollector)
	h.health.set(ready)
	h.log.Info("ready", "url", "http://"+h.listener.Addr().String(), "data", h.data.path)
	close(started)

	var err error
	select {
	case <-ctx.Done():
		h.log.Info("stopping: running work may finish", "grace", h.cfg.ShutdownGrace.String())
	case <-engine.gone:
		err = fmt.Errorf("the engine stopped: %w", engine.err)
	case <-faces.gone:
		err = fmt.Errorf("the listener failed: %w", faces.err)
	}

	h.health.set(stopping)
	h.engine.Stop()
	worked := work.stop()
	h.leave() // held requests and streams end
	served := faces.stop()
	committed := engine.stop()
	err = errors.Join(err, worked, served, committed, memory.stop(), h.close())
	h.log.Info("stopped", "after", time.Since(began).Round(time.Millisecond).String())
	return err
}

// running is a part of the server that runs.
type running struct {
	cancel context.CancelFunc
	gone   chan struct{} // closed when run has returned
	err    error         // what it returned; to be read after gone
}

// launch runs a part in a goroutine of its own, until stop.
func launch(run func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, gone: make(chan struct{})}
	go func() {
		defer close(r.gone)
		r.err = run(ctx)
	}()
	return r
}

// stop ends the part and waits for it.
func (r *running) stop() error {
	r.cancel()
	<-r.gone
	if errors.Is(r.err, context.Canceled) {
		return nil
	}
	return r.err
}
