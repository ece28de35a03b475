package server

import (
	"net/http"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// door is where requests come in that the program hands over in which the server
// lives. They wait until it is open, and it knows who is inside, so that the house is
// not taken down around them.
type door struct {
	opened chan struct{} // closed by open
	closed chan struct{} // closed by shut

	mu sync.Mutex
	// guarded by mu
	handler http.Handler
	inside  int
	empty   chan struct{} // closed by the last to leave; nil while nobody waits for that
}

// doorWait is how long a request waits for the server to run.
const doorWait = 10 * time.Second

func newDoor() *door {
	return &door{opened: make(chan struct{}), closed: make(chan struct{})}
}

// open lets requests in.
func (d *door) open(h http.Handler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handler = h
	close(d.opened)
}

// shut lets nobody in any more, and waits for those inside; false when they stayed
// for too long.
func (d *door) shut(patience time.Duration) bool {
	d.mu.Lock()
	close(d.closed)
	left := make(chan struct{})
	if d.empty = left; d.inside == 0 {
		close(left)
	}
	d.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-left:
		return true
	case <-timer.C:
		return false
	}
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler, err := d.enter(r)
	if err != nil {
		api.WriteProblem(w, err)
		return
	}
	defer d.leave()
	handler.ServeHTTP(w, r)
}

func (d *door) enter(r *http.Request) (http.Handler, error) {
	if err := d.await(r); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.closed:
		return nil, errStopped
	default:
	}
	d.inside++
	return d.handler, nil
}

var (
	errStopped    = job.Errorf(job.ShuttingDown, "the server has stopped")
	errNotStarted = &job.Error{Code: job.Unavailable, Message: "the server does not run yet", RetryAfter: time.Second}
)

// await waits until the door is open.
func (d *door) await(r *http.Request) error {
	select {
	case <-d.opened:
		return nil
	default:
	}
	timer := time.NewTimer(doorWait)
	defer timer.Stop()
	select {
	case <-d.opened:
		return nil
	case <-d.closed:
		return errStopped
	case <-timer.C:
		return errNotStarted
	case <-r.Context().Done():
		return api.RequestAborted(r.Context().Err())
	}
}

func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside--
	if d.inside == 0 && d.empty != nil {
		close(d.empty)
	}
}
