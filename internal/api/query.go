package api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// ParseQuery parses the query of a request. It refuses parameters that are not allowed or
// are given twice. An allowed name that ends in * stands for all longer names with its
// prefix.
func ParseQuery(r *http.Request, allowed ...string) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, job.Wrapf(job.Invalid, err, "the query of the address is malformed")
	}
	for name, given := range values {
		switch {
		case len(allowed) == 0:
			return nil, job.Errorf(job.Invalid, "there is no parameter %s; this call takes none", job.Quote(name))
		case !isAllowed(allowed, name):
			return nil, job.Errorf(job.Invalid, "there is no parameter %s; there are %s", job.Quote(name), strings.Join(allowed, ", "))
		case len(given) > 1:
			return nil, job.Errorf(job.Invalid, "the parameter %s is given twice", job.Quote(name))
		case !isText(name) || !isText(given[0]):
			return nil, job.Errorf(job.Invalid, "the parameter %s is not valid UTF-8 text", job.Quote(name))
		}
	}
	return values, nil
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func isAllowed(allowed []string, name string) bool {
	return slices.ContainsFunc(allowed, func(k string) bool {
		prefix, open := strings.CutSuffix(k, "*")
		return k == name || open && len(name) > len(prefix) && strings.HasPrefix(name, prefix)
	})
}

// RequireEmpty refuses a request with parameters, or with a body other than an empty object.
func RequireEmpty(r *http.Request) error {
	if _, err := ParseQuery(r); err != nil {
		return err
	}
	if r.ContentLength == 0 {
		return nil
	}
	body, err := ReadBody(r, job.MaxBody)
	if err != nil || len(body) == 0 {
		return err
	}
	return DecodeJSON(body, &struct{}{})
}
