package api

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// minUploaded is how many bytes of an upload must arrive within [Timeouts.Body]. An upload
// with fewer has stalled.
const minUploaded = 30 << 10 // 1 KiB/s

// Upload reads the body of a request that uploads files. It may take longer than
// [Timeouts.BoundBodies] allows, for as long as the client sends at 1 KiB/s or faster.
// Only the time inside Read counts, not the time that the reader spends between reads: a
// disk that is slow to sync costs the client nothing. One goroutine uses an Upload, and
// calls Close at the end.
type Upload struct {
	// set once
	body    io.Reader
	ctrl    *http.ResponseController
	timeout time.Duration

	left     time.Duration // time to wait for the next minUploaded bytes
	received int           // how many of these bytes have arrived
	err      error         // how the body ended; from then on net/http owns the deadline
}

// Upload returns the request's body as an upload.
func (t Timeouts) Upload(w http.ResponseWriter, r *http.Request) *Upload {
	u := &Upload{body: r.Body, ctrl: http.NewResponseController(w), timeout: t.body(), left: t.body()}
	if r.Body == http.NoBody {
		u.err = io.EOF // no read may set a deadline, because no end of a body would clear it
	}
	return u
}

// Read reads the body. Its error is a *[job.Error] or io.EOF. A stalled upload is
// [RequestTimeout].
func (u *Upload) Read(p []byte) (int, error) {
	if u.err != nil { // a deadline set after the end of the body would break the response
		return 0, u.err
	}
	began := time.Now()
	u.setDeadline(began.Add(u.left))
	n, err := u.body.Read(p)
	u.left -= time.Since(began)
	if u.received += n; u.received >= minUploaded {
		u.received, u.left = 0, u.timeout
	}
	switch {
	case err == nil || err == io.EOF:
		u.err = err
	case errors.Is(err, os.ErrDeadlineExceeded):
		u.err = job.Wrapf(RequestTimeout, err, "the upload has all but stopped: fewer than %d bytes arrived within %v", minUploaded, u.timeout)
	default:
		u.err = incompleteBody(err)
	}
	return n, u.err
}

// Close sets a deadline for the rest of the body, which the server skips. The server skips it
// so that the client can read why its upload was refused.
func (u *Upload) Close() {
	if u.err == nil {
		u.setDeadline(time.Now().Add(u.timeout))
	}
}

// setDeadline ignores the error of a connection without deadlines (one inside this program).
func (u *Upload) setDeadline(t time.Time) { _ = u.ctrl.SetReadDeadline(t) }
