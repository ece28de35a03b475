package jobs

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// query reads a request's query, in which only the given parameters may stand,
// each once.
func query(r *http.Request, known ...string) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, job.Because(job.Invalid, err, "the query of the address is malformed")
	}
	for name, given := range values {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return nil, job.Errorf(job.Invalid, "there is no parameter %s; this call takes none", job.Quote(name))
		case !slices.Contains(known, name):
			return nil, job.Errorf(job.Invalid, "there is no parameter %s; there are %s", job.Quote(name), strings.Join(known, ", "))
		case len(given) > 1:
			return nil, job.Errorf(job.Invalid, "the parameter %s is given twice", job.Quote(name))
		case !utf8.ValidString(given[0]) || strings.ContainsRune(given[0], 0):
			return nil, job.Errorf(job.Invalid, "the parameter %s is not valid UTF-8 text", job.Quote(name))
		}
	}
	return values, nil
}
