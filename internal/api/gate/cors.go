package gate

import (
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
)

// What a page of an allowed origin may send and read (Fetch standard, CORS
// protocol). Cookies and other credentials of the browser are never among it: a
// watch token is all that counts.
var (
	corsMethods = []string{"GET, HEAD, POST"}
	corsHeaders = []string{"Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer"}
	corsExposed = []string{"Idempotent-Replay, Location, Preference-Applied, Retry-After, X-Request-ID"}
	corsMaxAge  = []string{"600"} // seconds
)

// allowOrigin lets the page behind a request read the answer, whatever it will be.
func allowOrigin(h http.Header, r *http.Request) {
	h["Access-Control-Allow-Origin"] = r.Header["Origin"]
	h["Access-Control-Expose-Headers"] = corsExposed
}

// isPreflight says whether a browser asks what a page may ask.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && api.Header(r, "Access-Control-Request-Method") != ""
}

// answerPreflight says what a page may ask. Whether it has the token for it shows
// when it does.
func answerPreflight(w http.ResponseWriter) {
	h := w.Header()
	h["Access-Control-Allow-Methods"] = corsMethods
	h["Access-Control-Allow-Headers"] = corsHeaders
	h["Access-Control-Max-Age"] = corsMaxAge
	w.WriteHeader(http.StatusNoContent)
}
