package api

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Bodies bounds the memory of all bodies of requests and messages of sockets that are in
// flight: from the arrival of their bytes until they have been handled. It counts what has
// arrived, not what a Content-Length promises. Long responses count too, while their clients
// read them. It is safe for concurrent use.
type Bodies struct {
	// set once
	max       int64 // bytes, of all callers
	perCaller int64 // bytes

	mu sync.Mutex
	// guarded by mu
	total   int64
	callers map[Caller]int64 // only those that hold something
}

// Caller is for whom a body counts: the user in whose name the request is made where the caller
// could name one, else its API key, else an address.
type Caller struct{ Tenant, User, Key, Address string }

// NewBodies returns a budget in bytes, for all callers together and for each.
func NewBodies(maximum, perCaller int64) *Bodies {
	return &Bodies{max: maximum, perCaller: perCaller, callers: map[Caller]int64{}}
}

// InFlight returns the bytes in flight and their maximum.
func (b *Bodies) InFlight() (current, maximum int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total, b.max
}

// reserve counts n more bytes of a caller, or refuses them.
func (b *Bodies) reserve(c Caller, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.callers[c]+n > b.perCaller:
		return &job.Error{Code: CallerBusy, Message: "this caller sends or receives more at once than the server holds for one: make fewer requests at a time, and read their answers", RetryAfter: time.Second}
	case b.total+n > b.max:
		return &job.Error{Code: job.Overloaded, Message: "the server holds as many bodies of requests and answers as it may: try again in a moment", RetryAfter: time.Second}
	}
	b.callers[c] += n
	b.total += n
	return nil
}

func (b *Bodies) release(c Caller, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total -= n
	if b.callers[c] -= n; b.callers[c] == 0 {
		delete(b.callers, c)
	}
}

// Allowance is what one request or socket holds of a [Bodies]. The zero value holds nothing
// and has no bound. One goroutine uses it.
type Allowance struct {
	bodies *Bodies // nil: no bound
	caller Caller
	held   int64 // bytes
}

// NewAllowance returns an empty allowance of a caller. A nil *Bodies has no bound.
func (b *Bodies) NewAllowance(c Caller) Allowance { return Allowance{bodies: b, caller: c} }

// Reserve counts n more bytes before memory for them is taken, or refuses them.
func (a *Allowance) Reserve(n int64) error {
	if a.bodies == nil || n <= 0 {
		return nil
	}
	if err := a.bodies.reserve(a.caller, n); err != nil {
		return err
	}
	a.held += n
	return nil
}

// Release gives everything back.
func (a *Allowance) Release() {
	if a.held > 0 {
		a.bodies.release(a.caller, a.held)
		a.held = 0
	}
}

// freeRead is how many bytes of a body are read without being counted: as many as net/http
// itself buffers for each connection. Most bodies are not longer.
const freeRead = 4 << 10

// ReadAll reads from to its end, at most limit bytes; more is [job.TooLarge]. size is the
// length that was declared, -1 for none. The memory grows as the bytes arrive, and is
// reserved before it is taken.
func (a *Allowance) ReadAll(from io.Reader, size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, tooLarge(limit)
	}
	end := limit + 1 // the byte past the limit tells that there is more
	if size >= 0 {
		end = size
	}
	body := make([]byte, 0, min(end, freeRead))
	for int64(len(body)) < end {
		if len(body) == cap(body) {
			next := min(2*int64(cap(body)), end)
			if err := a.Reserve(next - int64(cap(body))); err != nil {
				return nil, err
			}
			body = append(make([]byte, 0, next), body...)
		}
		n, err := from.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if errors.Is(err, io.EOF) && (size < 0 || int64(len(body)) == end) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if int64(len(body)) > limit {
		return nil, tooLarge(limit)
	}
	return body, nil
}

// AllowanceOf returns the allowance of a request behind [Timeouts.BoundBodies], which
// releases it when the handler has returned. For another request it has no bound.
func AllowanceOf(r *http.Request) *Allowance {
	if b, ok := r.Body.(*boundBody); ok {
		return &b.allowance
	}
	return new(Allowance)
}

// SetCaller sets whose bytes the request's body counts for. It is called before the body is
// read.
func SetCaller(r *http.Request, c Caller) {
	if b, ok := r.Body.(*boundBody); ok {
		b.allowance.caller = c
	}
}
