package telemetry

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Middleware counts, times and traces every request of a server, and logs it at level
// debug. It wraps all other handlers.
type Middleware struct {
	// set once
	metrics *Metrics
	traces  *Traces // nil without tracing
	log     *slog.Logger
	pool    sync.Pool // of *response: a request allocates nothing
}

// NewMiddleware returns a middleware. Without traces no request has a span.
func NewMiddleware(m *Metrics, t *Traces, log *slog.Logger) *Middleware {
	return &Middleware{metrics: m, traces: t, log: log, pool: sync.Pool{New: func() any { return new(response) }}}
}

// Wrap returns a handler that records the requests of next.
func (m *Middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := m.pool.Get().(*response)
		*a = response{ResponseWriter: w, began: time.Now()}
		r = m.traces.startSpan(a, r)
		defer m.finish(a, r)
		next.ServeHTTP(a, r)
		a.complete = true
	})
}

// finish is called when the handler has returned. It records the response. If the handler
// hijacked the connection, the response is recorded when the connection is closed.
func (m *Middleware) finish(a *response, r *http.Request) {
	m.capture(a, r)
	a.ResponseWriter = nil // a handler that keeps the response must not keep memory of net/http
	if a.hijacked != nil {
		a.hijacked.handlerReturned(func() { m.record(a) })
		return
	}
	m.record(a)
	// A hijacked response is not reused: its connection still refers to it.
	*a = response{}
	m.pool.Put(a)
}

// capture copies the data for record, because the request and its headers may only be used
// until the handler returns.
func (m *Middleware) capture(a *response, r *http.Request) {
	a.method, a.path, a.longLived = r.Method, r.URL.Path, a.isLongLived()
	if m.log.Enabled(r.Context(), slog.LevelDebug) {
		a.requestID, a.trace = a.Header().Get("X-Request-Id"), a.traceID(r)
	}
}

// record counts, traces and logs a response that has ended.
func (m *Middleware) record(a *response) {
	took := time.Since(a.began)
	m.metrics.requests.count(a, took)
	a.endSpan()
	if m.log.Enabled(context.Background(), slog.LevelDebug) {
		m.log.Debug("a request was answered", "method", a.method, "path", a.path, "route", a.route(), "status", a.code(),
			"took", took.String(), "request_id", a.requestID, "trace_id", a.trace)
	}
}

// response is a response writer that notes the handler's status, route and result. It
// belongs to one request at a time.
type response struct {
	http.ResponseWriter
	began    time.Time
	status   int           // 0 until the header is written
	pattern  string        // pattern of the mux that matched the request; "" for none
	complete bool          // the handler returned without a panic
	span     span          // zero without tracing
	hijacked *hijackedConn // the connection, if the handler hijacked it; else nil

	// set by capture
	method, path     string
	longLived        bool
	requestID, trace string // only at level debug
}

// WriteHeader records the final status.
func (a *response) WriteHeader(status int) {
	if a.status < http.StatusOK { // no status so far, or only an informational one
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap lets an [http.ResponseController] reach the connection.
func (a *response) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Hijack hijacks the connection. The response ends when the connection is closed.
func (a *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	a.hijacked = newHijackedConn(conn)
	return a.hijacked, rw, nil
}

// RecordRoute records the pattern of the mux that matched the request.
func (a *response) RecordRoute(pattern string) { a.pattern = pattern }

// code returns the status that the client got; 0 when the response was cut off before.
func (a *response) code() int {
	if a.status == 0 && a.complete {
		return http.StatusOK // net/http writes it after the handler
	}
	return a.status
}

// route returns the pattern without its method.
func (a *response) route() string {
	if i := strings.IndexByte(a.pattern, '/'); i >= 0 && a.pattern != "/" {
		return a.pattern[i:]
	}
	return "unknown"
}

// isLongLived reports whether the client asked for a long response: a stream, a socket or
// a long-poll. Their durations would hide those of other requests.
func (a *response) isLongLived() bool {
	if a.status == http.StatusSwitchingProtocols {
		return true
	}
	h := a.Header()
	if kind := h["Content-Type"]; len(kind) > 0 && strings.HasPrefix(kind[0], "text/event-stream") {
		return true
	}
	applied := h["Preference-Applied"]
	return len(applied) > 0 && strings.Contains(applied[0], "wait=")
}
