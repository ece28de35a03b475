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
// each once; one that ends in a star stands for all that begin like it.
func query(r *http.Request, known ...string) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, job.Wrapf(job.Invalid, err, "the query of the address is malformed")
	}
	for name, given := range values {
		switch {
		case len(known) == 0:
			return nil, job.Errorf(job.Invalid, "there is no parameter %s; this call takes none", job.Quote(name))
		case !isKnown(known, name):
			return nil, job.Errorf(job.Invalid, "there is no parameter %s; there are %s", job.Quote(name), strings.Join(known, ", "))
		case len(given) > 1:
			return nil, job.Errorf(job.Invalid, "the parameter %s is given twice", job.Quote(name))
		case !isText(name) || !isText(given[0]):
			return nil, job.Errorf(job.Invalid, "the parameter %s is not valid UTF-8 text", job.Quote(name))
		}
	}
	return values, nil
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func isKnown(known []string, name string) bool {
	return slices.ContainsFunc(known, func(k string) bool {
		prefix, open := strings.CutSuffix(k, "*")
		return k == name || open && len(name) > len(prefix) && strings.HasPrefix(name, prefix)
	})
}
