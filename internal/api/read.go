package api

import (
	"errors"
	"mime"
	"net/http"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// ReadJSON reads the request's body with [ReadBody] and decodes it with [DecodeJSON].
func ReadJSON(r *http.Request, limit int64, v any) error {
	body, err := ReadBody(r, limit)
	if err != nil {
		return err
	}
	return DecodeJSON(body, v)
}

// ReadBody reads the whole body, at most limit bytes, within the deadline of
// [Timeouts.BoundBodies] and the request's [Allowance]. A body over the limit is
// [job.TooLarge]: where its length is declared, before any of it is read.
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	body, err := AllowanceOf(r).ReadAll(r.Body, r.ContentLength, limit)
	if err != nil {
		return nil, incompleteBody(err)
	}
	return body, nil
}

func tooLarge(limit int64) *job.Error {
	return job.Errorf(job.TooLarge, "the body is larger than the %d bytes that this call takes", limit)
}

// incompleteBody returns the error of a body that could not be read to its end. The error of
// a passed deadline comes from a [boundBody], and is returned unchanged.
func incompleteBody(err error) *job.Error {
	if e, ok := errors.AsType[*job.Error](err); ok {
		return e
	}
	return job.Wrapf(job.Invalid, err, "the body ended before all of it had arrived")
}

// Header returns the first value of a header, or "". The name must be spelled as net/http
// spells it. It is faster than [http.Header.Get], which first checks the spelling.
func Header(r *http.Request, name string) string {
	if v := r.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// RequireJSON refuses a request whose Content-Type is not JSON or whose body is compressed.
// A missing Content-Type counts as JSON.
func RequireJSON(r *http.Request) error {
	if encoding := strings.Join(r.Header["Content-Encoding"], ", "); encoding != "" && encoding != "identity" {
		return job.Errorf(UnsupportedMediaType, "the body has the Content-Encoding %s; send it uncompressed", job.Quote(encoding))
	}
	text := Header(r, "Content-Type")
	if text == "" || text == "application/json" {
		return nil
	}
	kind, _, err := mime.ParseMediaType(text)
	if err == nil && (kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")) {
		return nil
	}
	return job.Errorf(UnsupportedMediaType, "the body has the Content-Type %s; send it with Content-Type: application/json", job.Quote(text))
}
