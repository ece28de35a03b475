package gate

import (
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

var errForeignWrite = job.Errorf(job.Forbidden, "a web page of another site may not change anything here; allowed_origins in the configuration names those that may follow jobs, with a token")

// isForeignWrite reports whether a browser made a request for a page of another site, and
// the request may change something. Browsers say so in Sec-Fetch-Site (Fetch Metadata),
// also where they send no Origin, and where a page of http and this server of https have
// one name. Programs do not send the header.
func isForeignWrite(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	switch api.Header(r, "Sec-Fetch-Site") {
	case "", "same-origin", "none": // none: the user's own doing, such as a bookmark
		return false
	}
	return true
}
