package server

import (
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// embedded handles requests that a program passes to the server embedded in it. They wait
// until the server runs. stop waits for active requests, so that no component is closed
// under one.
type embedded struct {
	log    *slog.Logger
	begun  chan struct{} // closed by begin
	ready  chan struct{} // closed by start
	closed chan struct{} // closed by stop

	mu sync.Mutex
	// guarded by mu
	handler  http.Handler
	onDemand func() // begins the run when the first request comes; nil for none
	active   int
	drained  chan struct{} // closed when active falls to 0; nil until stop waits for that
}

const (
	// beginTimeout is how long a request waits for Server.Run to be called. A program that
	// starts it in a goroutine may make its first request a moment earlier.
	beginTimeout = time.Second
	// readyTimeout is how long a request waits for the server to run once Run was called.
	readyTimeout = 10 * time.Second
)

func newEmbedded(log *slog.Logger) *embedded {
	return &embedded{log: log, begun: make(chan struct{}), ready: make(chan struct{}), closed: make(chan struct{})}
}

// begin says that the server has begun to run.
func (e *embedded) begin() { close(e.begun) }

// start passes requests to h from now on.
func (e *embedded) start(h http.Handler) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.handler = h
	close(e.ready)
}

// stop refuses further requests and waits for the active ones. It returns false when they
// have not ended within the timeout.
func (e *embedded) stop(timeout time.Duration) bool {
	e.mu.Lock()
	close(e.closed)
	drained := make(chan struct{})
	if e.drained = drained; e.active == 0 {
		close(drained)
	}
	e.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-drained:
		return true
	case <-timer.C:
		return false
	}
}

func (e *embedded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler, err := e.acquire(r)
	if err != nil {
		api.WriteProblem(w, err)
		return
	}
	defer e.release()
	handler.ServeHTTP(w, r)
}

func (e *embedded) acquire(r *http.Request) (http.Handler, error) {
	if err := e.waitReady(r); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.closed:
		return nil, errStopped
	default:
	}
	e.active++
	return e.handler, nil
}

var (
	errStopped = job.Errorf(job.ShuttingDown, "the server has stopped")
	errNoRun   = &job.Error{Code: job.Unavailable, RetryAfter: time.Second,
		Message: "Server.Run has not been called, so no job can run; call it before the first request, as in: go s.Run(ctx)"}
	errNotStarted = &job.Error{Code: job.Unavailable, Message: "the server does not run yet", RetryAfter: time.Second}
)

// waitReady waits until the server runs.
func (e *embedded) waitReady(r *http.Request) error {
	select {
	case <-e.ready:
		return nil
	case <-e.closed:
		return errStopped
	default:
	}
	if begin := e.takeOnDemand(); begin != nil {
		begin()
	}
	err := e.waitFor(r, e.begun, beginTimeout, errNoRun)
	if errors.Is(err, errNoRun) {
		e.log.Error(errNoRun.Message, "method", r.Method, "path", r.URL.Path)
	}
	if err != nil {
		return err
	}
	return e.waitFor(r, e.ready, readyTimeout, errNotStarted)
}

// waitFor waits for a channel to be closed. After the timeout it returns late.
func (e *embedded) waitFor(r *http.Request, event <-chan struct{}, timeout time.Duration, late error) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-event:
		return nil
	case <-e.closed:
		return errStopped
	case <-timer.C:
		return late
	case <-r.Context().Done():
		return api.RequestAborted(r.Context().Err())
	}
}

// takeOnDemand returns the function that begins the run, once.
func (e *embedded) takeOnDemand() func() {
	e.mu.Lock()
	defer e.mu.Unlock()
	begin := e.onDemand
	e.onDemand = nil
	return begin
}

func (e *embedded) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.active--
	if e.active == 0 && e.drained != nil {
		close(e.drained)
	}
}
