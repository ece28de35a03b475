package chat

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// maxSmallBody is the size limit, in bytes, of bodies that have at most a title.
const maxSmallBody = 4 << 10

// onlyParams wraps a call. It refuses query parameters that the call does not have or that
// are given twice.
func onlyParams(known []string, h api.Handler) api.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.URL.RawQuery == "" {
			return h(w, r)
		}
		given, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return job.Wrapf(job.Invalid, err, "the query parameters cannot be read")
		}
		for name, values := range given {
			if !slices.Contains(known, name) {
				return job.Errorf(job.Invalid, "there is no query parameter %s here", job.Quote(name))
			}
			if len(values) > 1 {
				return job.Errorf(job.Invalid, "the query parameter %s is given twice", name)
			}
		}
		return h(w, r)
	}
}

// parseLimit returns the length of a page.
func parseLimit(r *http.Request, defaultLimit int) (int, error) {
	text, given := r.URL.Query().Get("limit"), r.URL.Query().Has("limit")
	if !given {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > job.MaxListPage {
		return 0, job.Errorf(job.Invalid, "limit must be a number from 1 to %d", job.MaxListPage)
	}
	return n, nil
}

// optionalJSON decodes a small body into v. An empty body leaves v as it is.
func optionalJSON(r *http.Request, v any) error {
	body, err := api.ReadBody(r, maxSmallBody)
	if err != nil || len(body) == 0 {
		return err
	}
	return api.DecodeJSON(body, v)
}

// requireEmpty refuses a body other than an empty object.
func requireEmpty(r *http.Request) error {
	var nothing struct{}
	return optionalJSON(r, &nothing)
}
