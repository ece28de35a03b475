package api

import (
	"net/http"
	"time"
)

// bodyWait is how long a whole body may take to arrive.
const bodyWait = 30 * time.Second

// BoundBodies gives a request's body a time by which it must be here. It holds for
// whoever reads the body, and for the server, which skips what nobody read. The
// server clears it at the end of the body, when it begins to listen for the client
// to leave; so it bounds no answer.
func BoundBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWait))
		}
		next.ServeHTTP(w, r)
	})
}
