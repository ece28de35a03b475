package obs

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

// Front stands before all handlers of a server and sees every request: it counts and
// times it, begins its span, and logs it where debug is logged.
type Front struct {
	// set once
	metrics *Metrics
	traces  *Traces // nil without tracing
	log     *slog.Logger
	answers sync.Pool // of *answer
}

// NewFront makes a front. Without traces no request has a span.
func NewFront(m *Metrics, t *Traces, log *slog.Logger) *Front {
	return &Front{metrics: m, traces: t, log: log, answers: sync.Pool{New: func() any { return new(answer) }}}
}

// Around is next with the front before it.
func (f *Front) Around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := f.begin(w)
		r = f.traces.begin(a, r)
		defer f.done(a, r)
		next.ServeHTTP(a, r)
		a.whole = true
	})
}

func (f *Front) begin(w http.ResponseWriter) *answer {
	a := f.answers.Get().(*answer)
	*a = answer{ResponseWriter: w, began: time.Now()}
	return a
}

// done is called when the handler has returned. With it the answer is over, unless its
// connection was taken over: then it is when that is closed.
func (f *Front) done(a *answer, r *http.Request) {
	f.note(a, r)
	a.ResponseWriter = nil // whoever kept it holds nothing
	if a.taken != nil {
		a.taken.returned(func() { f.tell(a) })
		return
	}
	f.tell(a)
	*a = answer{}
	f.answers.Put(a)
}

// note keeps what will be told of an answer.
func (f *Front) note(a *answer, r *http.Request) {
	a.method, a.path, a.lasts = r.Method, r.URL.Path, a.lasting()
	if f.log.Enabled(r.Context(), slog.LevelDebug) {
		a.requestID, a.trace = a.Header().Get("X-Request-Id"), a.traceID(r)
	}
}

// tell tells of an answer that is over.
func (f *Front) tell(a *answer) {
	took := time.Since(a.began)
	f.metrics.requests.count(a, took)
	a.endSpan()
	if f.log.Enabled(context.Background(), slog.LevelDebug) {
		f.log.Debug("a request was answered", "method", a.method, "path", a.path, "route", a.route(), "status", a.code(),
			"took", took.String(), "request_id", a.requestID, "trace_id", a.trace)
	}
}

// answer is a response writer that remembers what it was told. It is used by one
// request at a time.
type answer struct {
	http.ResponseWriter
	began   time.Time
	status  int    // 0 before the answer has begun
	pattern string // of the mux, which took the request; "" while nobody has
	whole   bool   // its handler has returned
	span    span   // none without tracing
	taken   *taken // its connection, if that was taken over

	// noted when its handler has returned
	method, path     string
	lasts            bool
	requestID, trace string // where they are logged
}

// WriteHeader notes the status.
func (a *answer) WriteHeader(status int) {
	if a.status < http.StatusOK {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap lets an [http.ResponseController] reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Hijack hands the connection over.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	a.taken = newTaken(conn)
	return a.taken, rw, nil
}

// RecordRoute records which pattern of the mux matched the request.
func (a *answer) RecordRoute(pattern string) { a.pattern = pattern }

// code is the status that the client was sent; 0 when the answer was cut off before.
func (a *answer) code() int {
	if a.status == 0 && a.whole {
		return http.StatusOK // as net/http has it
	}
	return a.status
}

// route is the path of the pattern, without its method.
func (a *answer) route() string {
	if i := strings.IndexByte(a.pattern, '/'); i >= 0 && a.pattern != "/" {
		return a.pattern[i:]
	}
	return "unknown"
}

// lasting says that the answer took as long as it did because that was asked for: a
// stream, a socket, or a held request.
func (a *answer) lasting() bool {
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
