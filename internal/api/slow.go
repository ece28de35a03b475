package api

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// bodyWait is how long a whole body may take to arrive.
const bodyWait = 30 * time.Second

// BoundBodies gives a request's body a time by which it must be here. It holds for
// whoever reads the body, and for the server, which skips what nobody read. A body
// that the call has no use for is skipped at once, or a stream would end when its
// time is up.
func BoundBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWait))
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				skipBody(w, r)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// skipBody reads a small body to its end. The time of a large one stays, and with
// it the connection ends.
func skipBody(w http.ResponseWriter, r *http.Request) {
	if _, err := io.CopyN(io.Discard, r.Body, firstRead); errors.Is(err, io.EOF) {
		bodyDone(w, r)
	}
}

// bodyDone ends the time of a body that was read to its end: from then on the
// server listens for the client to leave, for as long as the answer takes.
func bodyDone(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
}
