package api

import (
	"net/http"
	"time"
)

// Timeouts are how long the server waits for a client. Whoever waits sets the deadline,
// and only while it waits: a deadline that is left behind would end what comes next on
// the connection. A zero duration is [usualTimeout].
type Timeouts struct {
	Body  time.Duration // for the whole body of a request; of an [Upload], for each piece
	Write time.Duration // for the client to take a piece of an answer
}

const usualTimeout = 30 * time.Second

func (t Timeouts) body() time.Duration  { return orUsual(t.Body) }
func (t Timeouts) write() time.Duration { return orUsual(t.Write) }

func orUsual(d time.Duration) time.Duration {
	if d <= 0 {
		return usualTimeout
	}
	return d
}

// BoundBodies gives a request's body a time by which it must be here. It holds for
// whoever reads the body, and for the server, which skips what nobody read. The
// server clears it at the end of the body, when it begins to listen for the client
// to leave; so it bounds no answer. An [Upload] sets its own.
func (t Timeouts) BoundBodies(next http.Handler) http.Handler {
	wait := t.body()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(wait))
		}
		next.ServeHTTP(w, r)
	})
}
