package api

import (
	"encoding/hex"
	"math/rand/v2"
	"net/http"
)

const (
	requestIDHeader = "X-Request-Id" // as net/http spells X-Request-ID
	maxRequestID    = 128
)

// RequestID gives every response an X-Request-ID: the request's own where it is valid, else
// a new one.
func RequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := Header(r, requestIDHeader)
		if !validRequestID(id) {
			id = newRequestID()
		}
		w.Header()[requestIDHeader] = []string{id}
		next.ServeHTTP(w, r)
	})
}

func validRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// newRequestID returns an id that may be guessable: it only finds a line in a log.
func newRequestID() string {
	var raw [8]byte
	n := rand.Uint64()
	for i := range raw {
		raw[i] = byte(n >> (8 * i))
	}
	return hex.EncodeToString(raw[:])
}
