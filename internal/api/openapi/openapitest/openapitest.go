// Package openapitest checks the responses of a server against its OpenAPI description.
// Tests wrap their handler with [CheckHandler], or give [CheckTransport] to their client, and
// pass the messages of sockets to [CheckMessage]. A response that differs from the
// description fails the test.
//
// The checks are: the call has a response with this status; the headers and the content type
// are right; the body and each event of a stream match their schemas; and the description
// allows each request that the server accepted.
package openapitest

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// T is a [testing.TB] or a *rapid.T.
type T interface {
	Helper()
	Errorf(format string, args ...any)
}

// CheckHandler wraps next and checks every response. In a benchmark it returns next.
func CheckHandler(t T, next http.Handler) http.Handler {
	if _, bench := t.(*testing.B); bench {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := newExchange(r)
		rec := &recorder{w, x}
		next.ServeHTTP(rec, x.recordBody(r)) // a panic breaks the response off, so it is not checked
		if x.status == 0 {
			rec.begin(http.StatusOK)
		}
		x.complete = r.Context().Err() == nil
		x.check(t)
	})
}

// recorder records a response for the checks.
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
	r.responseBody.record(p)
	return r.ResponseWriter.Write(p)
}

// begin records the status and the headers, which cannot change any more.
func (r *recorder) begin(status int) {
	if r.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		r.status, r.header = status, r.Header().Clone()
	}
}

// CheckTransport returns a transport over the network that checks every response once its
// body is read or closed.
func CheckTransport(t T) http.RoundTripper { return transport{t} }

type transport struct{ t T }

func (tr transport) RoundTrip(r *http.Request) (*http.Response, error) {
	x := newExchange(r)
	res, err := http.DefaultTransport.RoundTrip(x.recordBody(r))
	if err != nil || res.StatusCode == http.StatusSwitchingProtocols {
		return res, err
	}
	x.status, x.header = res.StatusCode, res.Header
	res.Body = &responseReader{ReadCloser: res.Body, exchange: x, t: tr.t}
	return res, nil
}

// responseReader records a response's body while the client reads it.
type responseReader struct {
	io.ReadCloser
	exchange *exchange
	t        T
	checked  bool
}

func (b *responseReader) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.exchange.responseBody.record(p[:n])
	if err == io.EOF {
		b.exchange.complete = true
		b.check()
	}
	return n, err
}

func (b *responseReader) Close() error {
	b.check()
	return b.ReadCloser.Close()
}

func (b *responseReader) check() {
	if !b.checked {
		b.checked = true
		b.exchange.check(b.t)
	}
}

// requestReader records a request's body while the server reads it.
type requestReader struct {
	io.ReadCloser
	prefix *prefix
}

func (h requestReader) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	h.prefix.record(p[:n])
	return n, err
}

// prefix is the beginning of a body: up to 4 MiB.
type prefix struct {
	bytes.Buffer
	truncated bool // the body is longer
}

const maxPrefix = 4 << 20

func (k *prefix) record(p []byte) {
	n := min(len(p), maxPrefix-k.Len())
	k.truncated = k.truncated || n < len(p)
	k.Write(p[:n])
}

// exchange is a request and its response.
type exchange struct {
	request      *http.Request // without its body
	requestBody  prefix
	status       int
	header       http.Header
	responseBody prefix
	complete     bool // neither side broke off
}

func newExchange(r *http.Request) *exchange {
	return &exchange{request: r.Clone(r.Context())} // the handler may change its own
}

// recordBody returns the request with a body that is recorded as it is read. Uploads are not
// recorded: they may have any size.
func (x *exchange) recordBody(r *http.Request) *http.Request {
	if r.Body == nil || strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") {
		return r
	}
	r = r.WithContext(r.Context())
	r.Body = requestReader{r.Body, &x.requestBody}
	return r
}

// check fails the test where the exchange differs from the description.
func (x *exchange) check(t T) {
	t.Helper()
	if strings.HasPrefix(x.request.URL.Path, "/debug/pprof/") {
		return // not described: these are paths of the Go library
	}
	if err := loadSpec().check(x); err != nil {
		t.Errorf("%s %s was answered with %d, not as /openapi.json describes: %v\n%s",
			x.request.Method, x.request.URL.Path, x.status, err, truncate(x.responseBody.Bytes()))
	}
}

// CheckMessage checks a socket's message against a schema of the description, such as
// WatchMessage.
func CheckMessage(t T, schema string, text []byte) {
	t.Helper()
	if err := loadSpec().validate("/components/schemas/"+schema, text); err != nil {
		t.Errorf("a message is not as /openapi.json describes: %v\n%s", err, truncate(text))
	}
}

func truncate(text []byte) []byte { return text[:min(len(text), 2000)] }
