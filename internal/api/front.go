package api

import (
	"encoding/hex"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	requestIDHeader = "X-Request-Id" // as net/http spells X-Request-ID
	maxRequestID    = 128
)

// Identify gives every answer an X-Request-ID, the caller's own where it sent a
// usable one.
func Identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := header(r, requestIDHeader)
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

// newRequestID need not be unguessable: it names a line in a log.
func newRequestID() string {
	var raw [8]byte
	n := rand.Uint64()
	for i := range raw {
		raw[i] = byte(n >> (8 * i))
	}
	return hex.EncodeToString(raw[:])
}

// HandleUnknown answers what no other pattern of the mux takes with a problem: 405
// with Allow where the path has other methods, 404 elsewhere.
func HandleUnknown(mux *http.ServeMux) {
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		allowed := methodsOf(mux, r)
		if len(allowed) == 0 {
			nothingAt(w, r)
			return
		}
		WriteError(w, NotAllowed(w, r, allowed...))
	})
}

// NotAllowed is the refusal of a request's method, for an answer that it gives Allow.
func NotAllowed(w http.ResponseWriter, r *http.Request, allowed ...string) error {
	all := strings.Join(allowed, ", ")
	w.Header().Set("Allow", all)
	return job.Errorf(MethodNotAllowed, "%s is not a method of %s; it has %s", job.Quote(r.Method), job.Quote(r.URL.Path), all)
}

// nothingAt says what may be wrong with a path that nobody serves.
func nothingAt(w http.ResponseWriter, r *http.Request) {
	hint := ""
	switch p := r.URL.Path; {
	case strings.Contains(p, "//"):
		hint = ": a part of it is empty, where the id of a job may be meant"
	case !strings.HasPrefix(p, "/v1/"):
		hint = ": /docs has what there is"
	}
	WriteError(w, job.Errorf(job.NotFound, "there is nothing at %s%s", job.Quote(r.URL.Path), hint))
}

// methodsOf asks the mux which methods the request's path has. Where it is the name of
// a call to some, it is nothing's id to the others.
func methodsOf(mux *http.ServeMux, r *http.Request) []string {
	var allowed []string
	fewest := math.MaxInt // wildcards
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		_, pattern := mux.Handler(probe)
		if pattern == "/" || pattern == "" {
			continue
		}
		wild := strings.Count(pattern, "{")
		if wild < fewest {
			allowed, fewest = nil, wild
		}
		if wild == fewest {
			allowed = append(allowed, method)
		}
	}
	return allowed
}
