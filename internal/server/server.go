// Package server starts and stops a server. It creates all components in one order and stops
// them in the reverse order.
//
// The start: lock the data directory, open the store, listen, then run the engine, the
// runners and the HTTP APIs. The stop: /readyz answers 503 first; submits are refused and
// no job starts; running work gets its grace and is handed back; watchers are told to
// reconnect; requests under way are answered; the last commit is made; the data directory
// is released.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Server is a server that was opened. Queues may be added until it runs. It runs once.
type Server struct {
	components *components   // set once
	unserved   *time.Timer   // set once; logs that nothing is served; nil without an address
	done       chan struct{} // closed when everything has stopped
	err        error         // why it stopped; valid once done is closed

	mu    sync.Mutex
	begun bool // it runs, ran or was closed; guarded by mu
}

// unservedTimeout is how long a server that listens may wait for Run before the log says so.
const unservedTimeout = 5 * time.Second

// Open locks the data directory, opens the store, and listens if there is an address.
// Nothing runs before Run. The caller must call Run or Close.
func Open(ctx context.Context, cfg config.Config, log *slog.Logger) (*Server, error) {
	c, err := open(ctx, cfg, log)
	if err != nil {
		return nil, explainFullDisk(cfg, err)
	}
	s := &Server{components: c, done: make(chan struct{})}
	if c.listener != nil {
		s.unserved = time.AfterFunc(unservedTimeout, func() {
			log.Error("the server listens and does not run: its clients wait until Server.Run is called", "url", c.url())
		})
	}
	return s, nil
}

// Run opens and runs the server of a stand-alone process, until ctx ends or a component
// fails. It returns when everything has stopped.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	s, err := Open(ctx, cfg, log)
	if err != nil {
		return err
	}
	n := newNotifier(os.Getenv, log)
	defer n.close()
	s.components.notifier = n
	commands := guardCommands(cfg, log)
	memory := startTask(tuneGC)
	return errors.Join(s.Run(ctx), memory.stop(), commands.stop())
}

// Run runs the server until ctx ends or a component fails. It returns when everything has
// stopped: nil when ctx ended.
func (s *Server) Run(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	return s.Wait()
}

// start starts the server, and returns when it is ready.
func (s *Server) start(ctx context.Context) error {
	if !s.begin() {
		return errors.New("this server runs already, or has been closed")
	}
	s.components.embedded.begin()
	// If ctx ends during the start, the server is stopped later, in the usual order.
	if err := s.components.assemble(ctx); err != nil {
		return s.abandon(explainFullDisk(s.components.cfg, err))
	}
	started := make(chan struct{})
	go func() {
		defer close(s.done)
		s.err = s.components.run(ctx, started)
	}()
	<-started
	return nil
}

// begin reports whether this is the first call: only one caller may run or close the
// components.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.begun
	s.begun = true
	if s.unserved != nil {
		s.unserved.Stop()
	}
	return first
}

// Close releases what Open acquired, for a server that never ran. Otherwise it does
// nothing.
func (s *Server) Close() error {
	if !s.begin() {
		return nil
	}
	return s.abandon(nil)
}

// abandon closes the components of a server that never ran, because of err.
func (s *Server) abandon(err error) error {
	defer close(s.done)
	s.components.embedded.stop(0)
	s.err = errors.Join(err, s.components.close())
	return s.err
}

// URL returns the address on which the server listens; "" for none.
func (s *Server) URL() string { return s.components.url() }

func (c *components) url() string {
	if c.listener == nil {
		return ""
	}
	if c.certificate != nil {
		return "https://" + c.listener.Addr().String()
	}
	return "http://" + c.listener.Addr().String()
}

// Handler returns the handler of all APIs, for a program that embeds the server. user
// returns the user who makes a request; nil believes X-User-ID as the gate does. Requests
// wait up to 10 s for the server to run.
func (s *Server) Handler(user func(*http.Request) string) http.Handler {
	if user == nil {
		return s.components.embedded
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.components.embedded.ServeHTTP(w, gate.WithUser(r, user(r)))
	})
}

// RunOnDemand makes the first request of the program call begin, which must call Run in a
// goroutine. Call it before Run.
func (s *Server) RunOnDemand(begin func()) {
	e := s.components.embedded
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onDemand = begin
}

// Wait returns when everything has stopped, with the result of Run.
func (s *Server) Wait() error {
	<-s.done
	return s.err
}

// BeforeRun calls change, unless the server runs or was closed: then it returns an error.
func (s *Server) BeforeRun(change func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		return errors.New("queues and kinds must be added before Run and before Close")
	}
	return change()
}

// Add adds a queue with the caller's executor. It fails once the server runs.
func (s *Server) Add(name string, q config.Queue, e exec.Executor) error {
	err := s.BeforeRun(func() error { return s.components.addQueue(name, q, e) })
	if err != nil {
		return fmt.Errorf("the queue %s: %w", job.Quote(name), err)
	}
	return nil
}

func (c *components) addQueue(name string, q config.Queue, e exec.Executor) error {
	if _, known := c.executors[name]; known {
		return errors.New("there is a queue of that name already")
	}
	if err := config.CheckQueue(name, q); err != nil {
		return err
	}
	c.cfg.Queues = maps.Clone(c.cfg.Queues) // the map belongs to the caller of Open
	if c.cfg.Queues == nil {
		c.cfg.Queues = map[string]config.Queue{}
	}
	c.cfg.Queues[name], c.executors[name] = q, e
	return nil
}

// run starts all components, waits for ctx or a failure, and stops them. It closes started
// once requests are served.
func (c *components) run(ctx context.Context, started chan<- struct{}) error {
	began := time.Now()
	engine := startTask(c.engine.Run)
	runners := startTask(c.runRunners)
	apis := startTask(c.serve)
	metrics := startTask(c.instruments.run)
	keys := startTask(c.keys.follow)
	registry := startTask(c.registry.follow)
	commandLine := startTask(c.serveAdmin)
	purger := startTask(c.purger.run)
	files := startTask(c.removeStaleFiles)
	inbox := startTask(c.runInbox)
	callbacks := startTask(c.callbacks.Run)
	certificate := startTask(c.certificate.follow)
	reseal := startTask(c.reseal)
	c.health.set(ready)
	c.log.Info("ready", "url", c.url(), "data", c.data.path)
	c.notifier.ready(c.url())
	alive := startTask(func(ctx context.Context) error { return c.notifier.keepAlive(ctx, c.checkAlive) })
	close(started)

	var err error
	select {
	case <-ctx.Done():
		c.log.Info("stopping: running work may finish", "grace", c.cfg.ShutdownGrace.String())
	case <-engine.done:
		err = fmt.Errorf("the engine stopped: %w", engine.err)
	case <-apis.done:
		err = fmt.Errorf("the listener failed: %w", apis.err)
	}

	c.health.set(stopping)
	c.notifier.stopping()
	resealed := reseal.stop()
	taken := inbox.stop()
	c.engine.StopSubmits()
	worked := runners.stop()
	reported := callbacks.stop()
	c.endStreams() // or the HTTP server would wait for long-polls and streams
	served := errors.Join(apis.stop(), commandLine.stop())
	purged := purger.stop()
	c.withdrawLimits()
	committed := engine.stop()
	err = errors.Join(err, resealed, taken, worked, reported, served, purged, committed, metrics.stop(), keys.stop(), registry.stop(), files.stop(), alive.stop(), certificate.stop(), c.close())
	c.log.Info("stopped", "after", time.Since(began).Round(time.Millisecond).String())
	return err
}

// task is a component that runs in a goroutine.
type task struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when its function has returned
	err    error         // what it returned; valid once done is closed
}

// startTask runs a function in a goroutine, with a context that stop ends.
func startTask(run func(context.Context) error) *task {
	ctx, cancel := context.WithCancel(context.Background())
	t := &task{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		t.err = run(ctx)
	}()
	return t
}

// stop ends the task and waits for it.
func (t *task) stop() error {
	t.cancel()
	<-t.done
	if errors.Is(t.err, context.Canceled) {
		return nil
	}
	return t.err
}
