package gate

import (
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
)

// The CORS headers for pages of another origin (Fetch standard, CORS protocol). They never
// allow cookies or other credentials of the browser: only a token counts. They allow every
// method and header, because a request that the server refuses has a reason that a page can
// read, while one that the browser refuses has none.
var (
	corsMethods = []string{"GET, HEAD, POST, PUT, PATCH, DELETE"}
	corsHeaders = []string{"Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, *"}
	corsExposed = []string{"Idempotent-Replay, Location, Preference-Applied, Retry-After, X-Request-ID"}
	corsMaxAge  = []string{"600"} // seconds
)

// allowOrigin lets the requesting page read the response, errors included.
func allowOrigin(h http.Header, r *http.Request) {
	h["Access-Control-Allow-Origin"] = r.Header["Origin"]
	h["Access-Control-Expose-Headers"] = corsExposed
}

// isPreflight reports whether a request is a CORS preflight.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && api.Header(r, "Access-Control-Request-Method") != ""
}

// writePreflight answers a preflight with all methods and headers that pages may send. A
// preflight carries no token, so only the request that follows is checked.
func writePreflight(w http.ResponseWriter) {
	h := w.Header()
	h["Access-Control-Allow-Methods"] = corsMethods
	h["Access-Control-Allow-Headers"] = corsHeaders
	h["Access-Control-Max-Age"] = corsMaxAge
	w.WriteHeader(http.StatusNoContent)
}
