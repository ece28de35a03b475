package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Handler handles a request, or returns why it cannot. It should return an error before
// it begins the response. A later error breaks the connection, so that no client mistakes
// half a response for a whole one.
type Handler func(w http.ResponseWriter, r *http.Request) error

// ErrorWriter writes an error as a response, in the format of an API.
type ErrorWriter func(w http.ResponseWriter, err error)

// Wrap makes an [http.Handler] of a handler. It writes the handler's errors with write and
// turns a panic into a 500. It logs every response of 500 or above with its cause. A nil
// log discards.
func Wrap(log *slog.Logger, write ErrorWriter, h Handler) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &errorHandler{h, write, log}
}

// errorHandler is an API's handler that [Wrap] made.
type errorHandler struct {
	// set once
	handle Handler
	write  ErrorWriter
	log    *slog.Logger
}

func (h *errorHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	res := &response{ResponseWriter: w, write: h.write}
	defer func() {
		if p := recover(); p != nil {
			handlePanic(h.log, res, r, p)
		}
	}()
	if err := h.handle(res, detachWrite(r)); err != nil {
		handleError(h.log, res, r, err)
	}
}

// detachWrite returns a write whose context does not end when its client leaves. A client that
// closes its sending side after the request seems to leave, and still reads the answer; and a
// write that has begun is completed, so that its outcome is known. A request with a Prefer
// header may wait for long, which ends with its client.
func detachWrite(r *http.Request) *http.Request {
	if r.Method == http.MethodGet || r.Method == http.MethodHead || len(r.Header["Prefer"]) > 0 {
		return r
	}
	return r.WithContext(context.WithoutCancel(r.Context()))
}

// WriteError writes an error in the format of the handler's API.
func (h *errorHandler) WriteError(w http.ResponseWriter, err error) { h.write(w, err) }

// ErrorWriterOf returns the ErrorWriter of a handler that has a method WriteError, such as
// one that [Wrap] made; for any other handler [WriteProblem].
func ErrorWriterOf(h http.Handler) ErrorWriter {
	if api, ok := h.(interface {
		WriteError(w http.ResponseWriter, err error)
	}); ok {
		return api.WriteError
	}
	return WriteProblem
}

// handleError writes and logs a handler's error. A response of 500 refers to the log, so
// its cause must be in the log.
func handleError(log *slog.Logger, res *response, r *http.Request, err error) {
	aborted := r.Context().Err() != nil
	cancelled := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if aborted && (cancelled || job.CodeOf(err) == job.Internal) {
		if !cancelled {
			log.Error("a request failed", attributes(res, r, "error", err)...)
		}
		err = RequestAborted(err)
	}
	p := ProblemOf(err)
	switch {
	case aborted: // the client has left, which is no fault of the server
	case p.Status == http.StatusInternalServerError:
		log.Error("a request failed", attributes(res, r, "error", err)...)
	case p.Status > http.StatusInternalServerError:
		log.Warn("a request was refused", attributes(res, r, "code", p.Code, "error", err)...)
	}
	// An overloaded server does not spend its time on the bodies of requests that it refuses.
	if !res.begun && !res.hijacked && p.Status < http.StatusInternalServerError && p.Status != http.StatusTooManyRequests {
		drainBody(r)
	}
	res.end(err)
}

// RequestAborted returns the error of a request whose context ended before its outcome was
// known. Its client has left, or has closed its sending side. That is no fault of the server,
// so the status is no 5xx.
func RequestAborted(cause error) error {
	return job.Wrapf(Aborted, cause, "the request was aborted before its outcome was known: it may or may not have taken effect")
}

// maxDrained is how many bytes of a refused body are read: the length of the longest body
// that a call accepts.
const maxDrained = job.LargestInput + job.MaxEnvelope

// drainBody reads the rest of a refused body. Many clients send the whole body before they
// read the response. Without this, such a client would meet a closed connection and never
// learn why. A client with an Expect header has not sent its body yet. A client that sends
// far more than any call accepts may meet the closed connection.
func drainBody(r *http.Request) {
	if r.Body == nil || r.ContentLength > maxDrained || Header(r, "Expect") != "" {
		return
	}
	_, _ = io.CopyN(io.Discard, r.Body, maxDrained)
}

// handlePanic writes and logs a panic as a 500. It passes [http.ErrAbortHandler] on.
func handlePanic(log *slog.Logger, res *response, r *http.Request, p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	log.Error("a request panicked", attributes(res, r, "panic", p, "stack", string(debug.Stack()))...)
	res.end(errors.New("panic"))
}

func attributes(res *response, r *http.Request, more ...any) []any {
	return append([]any{"method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "request_id", res.Header().Get("X-Request-ID")}, more...)
}

// response records whether the handler has begun its response.
type response struct {
	http.ResponseWriter
	write    ErrorWriter
	begun    bool
	hijacked bool
}

// end writes an error if the response has not begun. Else it breaks the connection.
func (w *response) end(err error) {
	switch {
	case w.hijacked:
	case w.begun:
		panic(http.ErrAbortHandler)
	default:
		w.write(w.ResponseWriter, err)
	}
}

func (w *response) WriteHeader(status int) {
	w.begun = w.begun || status >= http.StatusOK // 1xx comes before the response
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets an [http.ResponseController] reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// FlushError sends what was written. It begins the response.
func (w *response) FlushError() error {
	w.begun = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack takes the connection over. Nothing is written by Wrap from then on.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.hijacked = err == nil
	return conn, rw, err
}
