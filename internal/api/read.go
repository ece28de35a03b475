package api

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// ReadJSON reads a request's body strictly into v; see [DecodeJSON]. A body over
// the limit is refused by its declared length before any of it is read, and by
// its count where none was declared.
func ReadJSON(r *http.Request, limit int64, v any) error {
	body, err := ReadBody(r, limit)
	if err != nil {
		return err
	}
	return DecodeJSON(body, v)
}

// firstRead is how much memory a declared length is believed for: more is taken
// only as the bytes arrive.
const firstRead = 64 << 10

// ReadBody reads the whole body, at most limit bytes, in the time that
// [Timeouts.BoundBodies] has set.
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	if r.ContentLength >= 0 && r.ContentLength <= firstRead {
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil && len(body) > 0 {
			return nil, cutOff(err)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, cutOff(err)
	}
	if int64(len(body)) > limit {
		return nil, tooLarge(limit)
	}
	return body, nil
}

func tooLarge(limit int64) *job.Error {
	return job.Errorf(job.TooLarge, "the body is larger than the %d bytes that this call takes", limit)
}

func cutOff(err error) *job.Error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return job.Because(RequestTimeout, err, "the body did not arrive within %v", usualTimeout)
	}
	return job.Because(job.Invalid, err, "the body ended before all of it had arrived")
}

// Header is the first value of a header whose name is spelled as net/http does.
func Header(r *http.Request, name string) string {
	if v := r.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// RequireJSON refuses a body that says it is anything but JSON, or is packed. A
// request that says nothing is taken at its word.
func RequireJSON(r *http.Request) error {
	if packed := Header(r, "Content-Encoding"); packed != "" && packed != "identity" {
		return job.Errorf(UnsupportedMediaType, "the body is said to be packed, as %s; send it as it is", job.Quote(packed))
	}
	text := Header(r, "Content-Type")
	if text == "" || text == "application/json" {
		return nil
	}
	kind, _, err := mime.ParseMediaType(text)
	if err == nil && (kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")) {
		return nil
	}
	return job.Errorf(UnsupportedMediaType, "the body is said to be %s; send it with Content-Type: application/json", job.Quote(text))
}
