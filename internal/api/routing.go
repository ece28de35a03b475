package api

import (
	"math"
	"net/http"
	"path"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Mux is where an API registers what it answers: a [http.ServeMux], or a test that lists
// the routes.
type Mux interface {
	Handle(pattern string, handler http.Handler)
}

// Routed is a [http.ResponseWriter] that is told which pattern of the mux took its
// request. A middleware in front of the gate cannot read that from the request: the gate
// may pass on another one, in which only what is believed is left.
type RouteRecorder interface{ RecordRoute(pattern string) }

// Route has the mux answer, and tells w by which pattern where it is a [Routed].
//
// A path that the mux would tidy up and redirect is answered here: where a client
// left a job's id empty, /v1/jobs//cancel is not to become a call that cancels many.
func Dispatch(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	if untidy(r.URL.EscapedPath()) {
		nothingAt(w, r)
		return
	}
	if to, ok := w.(RouteRecorder); ok {
		defer func() { to.RecordRoute(r.Pattern) }()
	}
	mux.ServeHTTP(w, r)
}

// untidy says that a path has an empty part, or goes up or nowhere.
func untidy(p string) bool {
	return strings.Contains(p, "//") || strings.Contains(p, "/.") && path.Clean(p) != strings.TrimSuffix(p, "/")
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
		WriteProblem(w, NotAllowed(w, r, allowed...))
	})
}

// NotAllowed sets the header Allow and returns a 405 error.
func NotAllowed(w http.ResponseWriter, r *http.Request, allowed ...string) error {
	all := strings.Join(allowed, ", ")
	w.Header().Set("Allow", all)
	return job.Errorf(MethodNotAllowed, "%s is not a method of %s; it has %s", job.Quote(r.Method), job.Quote(r.URL.Path), all)
}

// nothingAt answers 404, with a hint at what may be wrong with the path.
func nothingAt(w http.ResponseWriter, r *http.Request) {
	hint := ""
	switch p := r.URL.Path; {
	case strings.Contains(p, "//"):
		hint = ": a part of it is empty, where the id of a job may be meant"
	case !strings.HasPrefix(p, "/v1/"):
		hint = ": /docs has what there is"
	}
	WriteProblem(w, job.Errorf(job.NotFound, "there is nothing at %s%s", job.Quote(r.URL.Path), hint))
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
