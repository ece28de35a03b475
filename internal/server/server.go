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
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Server is a server: first it is opened, then it may be given queues, then it runs,
// once.
type Server struct {
	house *house        // set once
	gone  chan struct{} // closed when all is gone
	err   error         // why it stopped; to be read after gone

	mu    sync.Mutex
	begun bool // guarded by mu: it runs, ran, or was closed
}

// Open takes the data directory, opens the store, and listens when there is an
// address. Nothing runs yet: call Run, or Close.
func Open(ctx context.Context, cfg config.Config, log *slog.Logger) (*Server, error) {
	h, err := open(ctx, cfg, log)
	if err != nil {
		return nil, noRoom(cfg, err)
	}
	return &Server{house: h, gone: make(chan struct{})}, nil
}

// Run is the whole life of a server that is a process of its own: it runs until ctx
// ends, or until something fails that it cannot live without. It returns when all is
// gone.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	s, err := Open(ctx, cfg, log)
	if err != nil {
		return err
	}
	memory := launch(paceCollector)
	return errors.Join(s.Run(ctx), memory.stop())
}

// Run runs the server until ctx ends, or until something fails that it cannot live
// without. It returns when all is gone: nil when the server was told to stop.
func (s *Server) Run(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	return s.Wait()
}

// start has the server live, and returns when it is ready.
func (s *Server) start(ctx context.Context) error {
	if !s.begin() {
		return errors.New("this server runs already, or has been closed")
	}
	// A stop that comes this early is an orderly one, too.
	if err := s.house.furnish(context.WithoutCancel(ctx)); err != nil {
		return errors.Join(noRoom(s.house.cfg, err), s.abandon())
	}
	started := make(chan struct{})
	go func() {
		defer close(s.gone)
		s.err = s.house.live(ctx, started)
	}()
	<-started
	return nil
}

// begin makes the caller the one who has the house; false when there was one.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.begun
	s.begun = true
	return first
}

// Close lets go of what Open took, for a server that was never run. It does nothing
// to another.
func (s *Server) Close() error {
	if !s.begin() {
		return nil
	}
	return s.abandon()
}

// abandon takes down a house in which nobody lived.
func (s *Server) abandon() error {
	defer close(s.gone)
	s.house.door.shut(0)
	return s.house.close()
}

// URL is where the server listens; "" when it does not.
func (s *Server) URL() string { return s.house.url() }

func (h *house) url() string {
	if h.listener == nil {
		return ""
	}
	return "http://" + h.listener.Addr().String()
}

// Handler is all faces, for the program that the server lives in. Requests wait, for
// a while, until the server runs.
func (s *Server) Handler() http.Handler { return s.house.door }

// Wait returns when all is gone: nil when the server was told to stop.
func (s *Server) Wait() error {
	<-s.gone
	return s.err
}

// Add gives a server that does not run yet a queue whose executor the caller made.
func (s *Server) Add(name string, q config.Queue, e exec.Executor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.house
	_, known := h.executors[name]
	switch {
	case s.begun:
		return fmt.Errorf("the queue %s comes too late: the server runs already, or has been closed", job.Quote(name))
	case known:
		return fmt.Errorf("there is a queue %s already", job.Quote(name))
	}
	if err := config.CheckQueue(name, q); err != nil {
		return err
	}
	h.cfg.Queues = maps.Clone(h.cfg.Queues) // it is the caller's
	if h.cfg.Queues == nil {
		h.cfg.Queues = map[string]config.Queue{}
	}
	h.cfg.Queues[name], h.executors[name] = q, e
	return nil
}

// live is a server's life, from its first request to its last.
func (h *house) live(ctx context.Context, started chan<- struct{}) error {
	began := time.Now()
	engine := launch(h.engine.Run)
	work := launch(h.work)
	faces := launch(h.serve)
	numbers := launch(h.seen.run)
	h.health.set(ready)
	h.log.Info("ready", "url", h.url(), "data", h.data.path)
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
	h.engine.StopSubmits()
	worked := work.stop()
	h.leave() // held requests and streams end
	served := faces.stop()
	committed := engine.stop()
	err = errors.Join(err, worked, served, committed, numbers.stop(), h.close())
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
