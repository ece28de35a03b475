package api

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Timeouts are how long the server waits for a client. Each deadline is set by the code
// that waits, and only while it waits: a deadline left behind would break the next request
// on the connection. A duration of 0 means 30 seconds.
type Timeouts struct {
	Body  time.Duration // for the whole body of a request; for each piece of an [Upload]
	Write time.Duration // for the client to accept 64 KiB of a response
}

const defaultTimeout = 30 * time.Second

func (t Timeouts) body() time.Duration  { return orDefault(t.Body) }
func (t Timeouts) write() time.Duration { return orDefault(t.Write) }

func orDefault(d time.Duration) time.Duration {
	if d <= 0 {
		return defaultTimeout
	}
	return d
}

// BoundBodies sets a read deadline for the body of each request. The deadline holds for the
// handler that reads the body and for the server, which skips the unread rest. An [Upload]
// moves it. What the handler holds of bodies is released when it returns; nil has no bound.
func (t Timeouts) BoundBodies(bodies *Bodies, next http.Handler) http.Handler {
	timeout := t.body()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			// net/http clears the deadline at the end of the body, when it begins to watch
			// for the client to leave. So it does not bound the response.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout))
			r2 := *r // the caller's request stays unchanged
			body := &boundBody{ReadCloser: r.Body, timeout: timeout, allowance: bodies.NewAllowance(Caller{Address: r.RemoteAddr})}
			defer body.allowance.Release()
			r2.Body = body
			r = &r2
		}
		next.ServeHTTP(w, r)
	})
}

// boundBody is a request's body with a read deadline. After the deadline Read returns
// [RequestTimeout].
type boundBody struct {
	io.ReadCloser
	timeout   time.Duration
	allowance Allowance
}

func (b *boundBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = job.Wrapf(RequestTimeout, err, "the body did not arrive within %v", b.timeout)
	}
	return n, err
}
