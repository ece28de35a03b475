package api

import (
	"net/http"
	"path"
	"strings"
)

// Routed is a [http.ResponseWriter] that wants to know which pattern of the mux took
// its request. Whoever stands before [Site.Front] cannot see that from the request:
// the mux may be asked with another, in which only what is believed is left.
type Routed interface{ Routed(pattern string) }

// route has the mux answer, and tells who wants to know by which pattern.
//
// A path that the mux would tidy up and redirect is answered here: where a client
// left a job's id empty, /v1/jobs//cancel is not to become a call that cancels many.
func route(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	if untidy(r.URL.EscapedPath()) {
		nothingAt(w, r)
		return
	}
	if to, ok := w.(Routed); ok {
		defer func() { to.Routed(r.Pattern) }()
	}
	mux.ServeHTTP(w, r)
}

// untidy says that a path has an empty part, or goes up or nowhere.
func untidy(p string) bool {
	return strings.Contains(p, "//") || strings.Contains(p, "/.") && path.Clean(p) != strings.TrimSuffix(p, "/")
}
