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

// Handler answers a request, or returns why it cannot. It returns an error before
// it has begun to answer; an error after that cuts the connection, so that nobody
// takes half an answer for a whole one.
type Handler func(w http.ResponseWriter, r *http.Request) error

// ErrorWriter answers with an error, in the shape that errors have in an API.
type ErrorWriter func(w http.ResponseWriter, err error)

// Wrap makes a handler an http.Handler: write answers its errors, a panic becomes a
// 500, and both are logged with their cause where they are our fault.
func Wrap(log *slog.Logger, write ErrorWriter, h Handler) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &wrapped{h, write, log}
}

// wrapped is a handler of an API.
type wrapped struct {
	// set once
	handle Handler
	write  ErrorWriter
	log    *slog.Logger
}

func (h *wrapped) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	res := &response{ResponseWriter: w, write: h.write}
	defer func() {
		if p := recover(); p != nil {
			recovered(h.log, res, r, p)
		}
	}()
	if err := h.handle(res, r); err != nil {
		failed(h.log, res, r, err)
	}
}

// WriteError answers with an error in the handler's place, in the shape of its API.
func (h *wrapped) WriteError(w http.ResponseWriter, err error) { h.write(w, err) }

// ErrorWriterOf is how a handler's API answers with errors: the native way for a handler
// that [Wrap] has not made.
func ErrorWriterOf(h http.Handler) ErrorWriter {
	if own, ok := h.(interface {
		WriteError(w http.ResponseWriter, err error)
	}); ok {
		return own.WriteError
	}
	return WriteProblem
}

// failed answers a handler's error. Where it answers 500, which refers to the log, there
// is a line in the log.
func failed(log *slog.Logger, res *response, r *http.Request, err error) {
	over := r.Context().Err() != nil
	if over && job.CodeOf(err) == job.Internal {
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			log.Error("a request failed", attributes(res, r, "error", err)...)
		}
		err = RequestAborted(err)
	}
	p := ProblemOf(err)
	switch {
	case over: // the client left: that is its right
	case p.Status == http.StatusInternalServerError:
		log.Error("a request failed", attributes(res, r, "error", err)...)
	case p.Status > http.StatusInternalServerError:
		log.Warn("a request was refused", attributes(res, r, "code", p.Code, "error", err)...)
	}
	if !res.begun && !res.hijacked && p.Status < http.StatusInternalServerError && p.Status != http.StatusTooManyRequests {
		readOut(r)
	}
	res.end(err)
}

// BrokenOff is the refusal of a request whose context ended before its answer was known.
// Its client has most likely left; where it has not, this is not a defect to look for.
func RequestAborted(cause error) error {
	return job.Because(job.Unavailable, cause, "the request was broken off before its answer was known: what it asked for may have been done or not")
}

// mostReadOut is how much of a refused body is read for nothing: as much as the
// longest body that is taken has.
const mostReadOut = job.MaxBatchBody

// readOut reads what is left of a body that is refused. A client that sends all of it
// before it listens would meet a closed connection else, and never hear why. One that
// asked before it sent has not sent any; one that sends far too much may meet it; and
// a server that has too much to do does not do this too.
func readOut(r *http.Request) {
	if r.Body == nil || r.ContentLength > mostReadOut || Header(r, "Expect") != "" {
		return
	}
	_, _ = io.CopyN(io.Discard, r.Body, mostReadOut)
}

// recovered answers a panic.
func recovered(log *slog.Logger, res *response, r *http.Request, p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	log.Error("a request met a defect", attributes(res, r, "panic", p, "stack", string(debug.Stack()))...)
	res.end(errors.New("panic"))
}

func attributes(res *response, r *http.Request, more ...any) []any {
	return append([]any{"method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "request_id", res.Header().Get("X-Request-ID")}, more...)
}

// response remembers whether an answer has begun.
type response struct {
	http.ResponseWriter
	write    ErrorWriter
	begun    bool
	hijacked bool
}

// end answers with an error if nothing was answered yet, and cuts the connection
// if something was.
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
	w.begun = w.begun || status >= http.StatusOK
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets an [http.ResponseController] reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// FlushError begins the answer if nothing did.
func (w *response) FlushError() error {
	w.begun = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack hands the connection over; nothing is answered by us from then on.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.hijacked = err == nil
	return conn, rw, err
}
