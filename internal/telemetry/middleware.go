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

// Middleware stands before all handlers of a server and sees every request: it counts and
// times it, begins its span, and logs it where debug is logged.
type Middleware struct {
	// set once
	metrics *Metrics
	traces  *Traces // nil without tracing
	log     *slog.Logger
	pool    sync.Pool // of *answer
}

// NewMiddleware makes a front. Without traces no request has a span.
func NewMiddleware(m *Metrics, t *Traces, log *slog.Logger) *Middleware {
	return &Middleware{metrics: m, traces: t, log: log, pool: sync.Pool{New: func() any { return new(response) }}}
}

// Wrap is next with the front before it.
func (f *Middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := f.begin(w)
		r = f.traces.startSpan(a, r)
		defer f.finish(a, r)
		next.ServeHTTP(a, r)
		a.complete = true
	})
}

func (f *Middleware) begin(w http.ResponseWriter) *response {
	a := f.pool.Get().(*response)
	*a = response{ResponseWriter: w, began: time.Now()}
	return a
}

// finish is called when the handler has returned. With it the answer is over, unless its
// connection was taken over: then it is when that is closed.
func (f *Middleware) finish(a *response, r *http.Request) {
	f.capture(a, r)
	a.ResponseWriter = nil // whoever kept it holds nothing
	if a.hijacked != nil {
		a.hijacked.handlerReturned(func() { f.record(a) })
		return
	}
	f.record(a)
	*a = response{}
	f.pool.Put(a)
}

// capture keeps what will be told of an answer.
func (f *Middleware) capture(a *response, r *http.Request) {
	a.method, a.path, a.longLived = r.Method, r.URL.Path, a.isLongLived()
	if f.log.Enabled(r.Context(), slog.LevelDebug) {
		a.requestID, a.trace = a.Header().Get("X-Request-Id"), a.traceID(r)
	}
}

// record tells of an answer that is over.
func (f *Middleware) record(a *response) {
	took := time.Since(a.began)
	f.metrics.requests.count(a, took)
	a.endSpan()
	if f.log.Enabled(context.Background(), slog.LevelDebug) {
		f.log.Debug("a request was answered", "method", a.method, "path", a.path, "route", a.route(), "status", a.code(),
			"took", took.String(), "request_id", a.requestID, "trace_id", a.trace)
	}
}

// response is a response writer that remembers what it was told. It is used by one
// request at a time.
type response struct {
	http.ResponseWriter
	began    time.Time
	status   int           // 0 before the answer has begun
	pattern  string        // of the mux, which took the request; "" while nobody has
	complete bool          // its handler has returned
	span     span          // none without tracing
	hijacked *hijackedConn // its connection, if that was taken over

	// noted when its handler has returned
	method, path     string
	longLived        bool
	requestID, trace string // where they are logged
}

// WriteHeader notes the status.
func (a *response) WriteHeader(status int) {
	if a.status < http.StatusOK {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap lets an [http.ResponseController] reach the connection.
func (a *response) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Hijack hands the connection over.
func (a *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	a.hijacked = newHijackedConn(conn)
	return a.hijacked, rw, nil
}

// RecordRoute records which pattern of the mux matched the request.
func (a *response) RecordRoute(pattern string) { a.pattern = pattern }

// code is the status that the client was sent; 0 when the answer was cut off before.
func (a *response) code() int {
	if a.status == 0 && a.complete {
		return http.StatusOK // as net/http has it
	}
	return a.status
}

// route is the path of the pattern, without its method.
func (a *response) route() string {
	if i := strings.IndexByte(a.pattern, '/'); i >= 0 && a.pattern != "/" {
		return a.pattern[i:]
	}
	return "unknown"
}

// isLongLived says that the answer took as long as it did because that was asked for: a
// stream, a socket, or a held request.
func (a *response) isLongLived() bool {
	if a.status == http.StatusSwitchingProtocols {
		return true
	}
	h := a.Header()
	if kind := h["Content-Type"]; len(kind) > 0 && strings.HasPrefix(kind[0], "text/event-stream") {
		return true
	}
	held := h["Preference-Applied"]
	return len(held) > 0 && strings.Contains(held[0], "wait=")
}
