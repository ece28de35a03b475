package api

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// leastUploaded is how many bytes an upload must bring within [Timeouts.Body]. One that
// brings fewer has stalled.
const leastUploaded = 30 << 10 // 1 KiB/s

// Upload is the body of a request that brings files. It may take longer than
// [Timeouts.BoundBodies] gives a body, for as long as it goes on arriving at 1 KiB/s or
// faster. Only the time in which Read waits for the client counts, not what the reader
// does between: a disk that is slow to sync costs the client nothing. An Upload is used
// by one goroutine, which calls Close in the end.
type Upload struct {
	// Set once.
	body io.Reader
	ctrl *http.ResponseController
	wait time.Duration

	left time.Duration // that the next leastUploaded bytes may be waited for
	came int           // of these bytes
	err  error         // how the body ended: from then on its deadline is not ours
}

// Upload reads the request's body as an upload.
func (t Timeouts) Upload(w http.ResponseWriter, r *http.Request) *Upload {
	u := &Upload{body: r.Body, ctrl: http.NewResponseController(w), wait: t.body(), left: t.body()}
	if r.Body == http.NoBody {
		u.err = io.EOF // there is no end to wait for
	}
	return u
}

// Read reads the body. Its error is a *[job.Error], or io.EOF.
func (u *Upload) Read(p []byte) (int, error) {
	if u.err != nil { // a deadline set after the end would end the wait for the answer
		return 0, u.err
	}
	began := time.Now()
	u.deadline(began.Add(u.left))
	n, err := u.body.Read(p)
	u.left -= time.Since(began)
	if u.came += n; u.came >= leastUploaded {
		u.came, u.left = 0, u.wait
	}
	switch {
	case err == nil || err == io.EOF:
		u.err = err
	case errors.Is(err, os.ErrDeadlineExceeded):
		u.err = job.Because(RequestTimeout, err, "the upload has all but stopped: fewer than %d bytes arrived within %v", leastUploaded, u.wait)
	default:
		u.err = cutOff(err)
	}
	return n, u.err
}

// Close gives what is left of the body its time: the server is to skip it, so that the
// client hears why its upload was refused.
func (u *Upload) Close() {
	if u.err == nil {
		u.deadline(time.Now().Add(u.wait))
	}
}

// deadline sets until when a read may wait. A connection without a clock (one inside a
// program) needs none.
func (u *Upload) deadline(t time.Time) { _ = u.ctrl.SetReadDeadline(t) }
