package api

import "net/http"

// Routed is a [http.ResponseWriter] that wants to know which pattern of the mux took
// its request. Whoever stands before [Site.Front] cannot see that from the request:
// the mux may be asked with another, in which only what is believed is left.
type Routed interface{ Routed(pattern string) }

// route has the mux answer, and tells who wants to know by which pattern.
func route(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	if to, ok := w.(Routed); ok {
		defer func() { to.Routed(r.Pattern) }()
	}
	mux.ServeHTTP(w, r)
}
