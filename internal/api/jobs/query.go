package jobs

import (
	"net/http"
	"net/url"

	"github.com/meanwhile-run/meanwhile/internal/api"
)

// parseQuery is [api.ParseQuery].
func parseQuery(r *http.Request, allowed ...string) (url.Values, error) {
	return api.ParseQuery(r, allowed...)
}
