package api

import (
	"math"
	"net/http"
	"path"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// RouteRecorder is an [http.ResponseWriter] that learns which pattern of the mux matched
// its request. A middleware in front of the gate cannot read the pattern from its own
// request, because the gate may pass a copy on, without the headers that it does not trust.
type RouteRecorder interface{ RecordRoute(pattern string) }

// Dispatch serves the request with the mux. Where w is a [RouteRecorder], it records the
// pattern.
//
// It answers 404 to a path that the mux would clean and redirect. If a client leaves a
// job's id empty, /v1/jobs//cancel must not become the call that cancels many jobs.
func Dispatch(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	if !isClean(r.URL.EscapedPath()) {
		WriteNotFound(w, r)
		return
	}
	if to, ok := w.(RouteRecorder); ok {
		defer func() { to.RecordRoute(r.Pattern) }()
	}
	mux.ServeHTTP(w, r)
}

// isClean reports whether a path has no empty segment, "." or "..".
func isClean(p string) bool {
	return !strings.Contains(p, "//") && (!strings.Contains(p, "/.") || path.Clean(p) == strings.TrimSuffix(p, "/"))
}

// HandleUnknown registers "/" on the mux, for the requests that match no other pattern. The
// response is 405 with Allow where the path has other methods, in the format of the API that
// has them. Else it is 404, as a problem.
func HandleUnknown(mux *http.ServeMux) {
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		allowed, handler := methodsOf(mux, r)
		if len(allowed) == 0 {
			WriteNotFound(w, r)
			return
		}
		ErrorWriterOf(handler)(w, NotAllowed(w, r, allowed...))
	})
}

// NotAllowed sets the header Allow and returns a 405 error.
func NotAllowed(w http.ResponseWriter, r *http.Request, allowed ...string) error {
	all := strings.Join(allowed, ", ")
	w.Header().Set("Allow", all)
	return job.Errorf(MethodNotAllowed, "%s is not a method of %s; it has %s", job.Quote(r.Method), job.Quote(r.URL.Path), all)
}

// WriteNotFound writes a 404 problem with a hint at what may be wrong with the path.
func WriteNotFound(w http.ResponseWriter, r *http.Request) {
	hint := ""
	switch p := r.URL.Path; {
	case strings.Contains(p, "//"):
		hint = ": a part of it is empty, where the id of a job may be meant"
	case !strings.HasPrefix(p, "/v1/"):
		hint = ": /docs has what there is"
	}
	WriteProblem(w, job.Errorf(job.NotFound, "there is nothing at %s%s", job.Quote(r.URL.Path), hint))
}

// methodsOf returns the methods that the mux has for the request's path, and the handler of
// the first. It counts only the patterns with the fewest wildcards: /v1/jobs/batch matches
// GET /v1/jobs/{id} too, but it is the name of a call, not an id.
func methodsOf(mux *http.ServeMux, r *http.Request) (allowed []string, first http.Handler) {
	fewest := math.MaxInt
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		handler, pattern := mux.Handler(probe)
		// The page at / is for browsers. To other clients there is nothing.
		if pattern == "/" || pattern == "" || strings.HasSuffix(pattern, " /{$}") {
			continue
		}
		wildcards := strings.Count(pattern, "{")
		if wildcards < fewest {
			allowed, fewest = nil, wildcards
		}
		if wildcards == fewest {
			if allowed == nil {
				first = handler
			}
			allowed = append(allowed, method)
		}
	}
	return allowed, first
}
