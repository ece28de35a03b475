package api

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// An upload that brings fewer bytes than this within [bodyWait] has all but stopped.
const leastUploaded = 30 << 10 // 1 KiB/s

// Upload is the body of a request that brings files. It may take longer than
// [BoundBodies] gives a body, for as long as it goes on arriving at 1 KiB/s or
// faster. An error of its Read is a *[job.Error], or io.EOF.
func Upload(w http.ResponseWriter, r *http.Request) io.Reader {
	u := &uploading{body: r.Body, ctrl: http.NewResponseController(w)}
	u.goOn()
	return u
}

type uploading struct {
	// Set once.
	body io.Reader
	ctrl *http.ResponseController

	came int // bytes since the time was set
}

func (u *uploading) Read(p []byte) (int, error) {
	n, err := u.body.Read(p)
	if u.came += n; u.came >= leastUploaded {
		u.goOn()
	}
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, job.Because(RequestTimeout, err, "the upload has all but stopped: fewer than %d bytes arrived within %v", leastUploaded, bodyWait)
	default:
		return n, cutOff(err)
	}
}

// goOn gives the upload its time anew. A connection that has no clock (one inside
// a program) needs none.
func (u *uploading) goOn() {
	u.came = 0
	_ = u.ctrl.SetReadDeadline(time.Now().Add(bodyWait))
}
