// Package openapitest holds what a server answers against what its description says
// that it answers. Tests put [Handler] before their handler, or [Transport] behind
// their client, and give messages of sockets to [Message]; an answer that is not as
// described fails them.
//
// Looked at are: that the call has an answer of this status, the answer's headers, its
// content type, every character of its body where the description has a schema for
// it, each event of a stream, and that a request that was taken is one that the
// description allows.
package openapitest

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// T is the test: a [testing.TB], or a *rapid.T.
type T interface {
	Helper()
	Errorf(format string, args ...any)
}

// Handler is next, with every answer held against the description. A benchmark gets
// next alone.
func CheckHandler(t T, next http.Handler) http.Handler {
	if _, bench := t.(*testing.B); bench {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := newExchange(r)
		rec := &recorder{w, seen}
		next.ServeHTTP(rec, seen.hear(r)) // one that panics was cut off, and is not looked at
		if seen.status == 0 {
			rec.begin(http.StatusOK)
		}
		seen.whole = r.Context().Err() == nil
		seen.hold(t)
	})
}

// recorder keeps what is answered, as far as it is looked at.
type recorder struct {
	http.ResponseWriter
	*exchange
}

// Unwrap lets an [http.ResponseController] reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	r.begin(status)
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.begin(http.StatusOK)
	r.answered.keep(p)
	return r.ResponseWriter.Write(p)
}

// begin notes the status and headers of the answer, once they stand.
func (r *recorder) begin(status int) {
	if r.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		r.status, r.header = status, r.Header().Clone()
	}
}

// Transport asks over the network, and holds every answer against the description,
// when its body was read or closed.
func CheckTransport(t T) http.RoundTripper { return transport{t} }

type transport struct{ t T }

func (tr transport) RoundTrip(r *http.Request) (*http.Response, error) {
	seen := newExchange(r)
	res, err := http.DefaultTransport.RoundTrip(seen.hear(r))
	if err != nil || res.StatusCode == http.StatusSwitchingProtocols {
		return res, err
	}
	seen.status, seen.header = res.StatusCode, res.Header
	res.Body = &body{ReadCloser: res.Body, seen: seen, t: tr.t}
	return res, nil
}

// body is an answer's body, on its way to whoever asked.
type body struct {
	io.ReadCloser
	seen *exchange
	t    T
	held bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.seen.answered.keep(p[:n])
	if err == io.EOF {
		b.seen.whole = true
		b.hold()
	}
	return n, err
}

func (b *body) Close() error {
	b.hold()
	return b.ReadCloser.Close()
}

func (b *body) hold() {
	if !b.held {
		b.held = true
		b.seen.hold(b.t)
	}
}

// heard is a request's body, on its way to the server.
type heard struct {
	io.ReadCloser
	kept *kept
}

func (h heard) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	h.kept.keep(p[:n])
	return n, err
}

// kept is the beginning of a body: all of it, where it is not enormous.
type kept struct {
	bytes.Buffer
	more bool // there was more
}

const mostKept = 4 << 20

func (k *kept) keep(p []byte) {
	room := min(len(p), mostKept-k.Len())
	k.more = k.more || room < len(p)
	k.Write(p[:room])
}

// exchange is a request and its answer.
type exchange struct {
	request  *http.Request // but for its body
	asked    kept
	status   int
	header   http.Header
	answered kept
	whole    bool // nothing broke off
}

func newExchange(r *http.Request) *exchange {
	return &exchange{request: r.Clone(r.Context())} // what is behind may change it
}

// hear is the request with a body that is kept as it is read, but for one that may be
// of any size.
func (x *exchange) hear(r *http.Request) *http.Request {
	if r.Body == nil || strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") {
		return r
	}
	r = r.WithContext(r.Context())
	r.Body = heard{r.Body, &x.asked}
	return r
}

// hold fails the test with what is not as described.
func (x *exchange) hold(t T) {
	t.Helper()
	if strings.HasPrefix(x.request.URL.Path, "/debug/pprof/") {
		return // is described by Go
	}
	if err := description().check(x); err != nil {
		t.Errorf("%s %s was answered with %d, not as /openapi.json says: %v\n%s",
			x.request.Method, x.request.URL.Path, x.status, err, shown(x.answered.Bytes()))
	}
}

// Message holds a socket's message against a schema of the description, such as
// WatchMessage.
func CheckMessage(t T, schema string, text []byte) {
	t.Helper()
	if err := description().validate("/components/schemas/"+schema, text); err != nil {
		t.Errorf("a message is not as /openapi.json says: %v\n%s", err, shown(text))
	}
}

func shown(text []byte) []byte { return text[:min(len(text), 2000)] }
