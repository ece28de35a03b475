package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// SSE serves the server-sent events of an API (HTML standard, section 9.2).
type SSE struct {
	// set once
	stopping context.Context
	log      *slog.Logger
	buffers  *api.BufferPool
	detached DetachedResponses
}

// NewSSE returns the SSE of an API. stopping ends when the server begins to stop: streams
// then end, so that their clients reconnect.
func NewSSE(stopping context.Context, log *slog.Logger, buffers *api.BufferPool) *SSE {
	return &SSE{stopping: stopping, log: log, buffers: buffers, detached: DetachedResponses{Stopping: stopping, Log: log}}
}

// Wait refuses to detach more streams, and returns when all detached streams have ended. Call
// it after stopping has ended.
func (s *SSE) Wait() { s.detached.Wait() }

// Serve responds to a request with the events of a feed, and closes the feed. first is the
// feed's first update. newSink returns the sink that encodes the events. The sink should
// not keep the request: there may be thousands of streams.
//
// Serve sends the events of the first update itself. Where the response can be detached, it
// then returns, and the detached response sends the rest. Else it returns at the end of the
// stream or of ctx.
func (s *SSE) Serve(ctx context.Context, w http.ResponseWriter, r *http.Request, f *Feed, first watch.Update, newSink func(*EventWriter) EventSink) {
	detach := !first.Job.State.Ended() && s.detached.PrepareDetach(w, r)
	out := s.newEventWriter(w)
	f.events, f.heartbeats = newSink(out), true
	detached := false
	defer func() {
		if !detached {
			out.release()
			f.Close()
		}
	}()
	if r.Method == http.MethodHead {
		return
	}
	over, err := f.sendFirst(first)
	if detach && !over && err == nil {
		if detached = s.detach(w, r, f, out); detached {
			return
		}
	}
	if !over && err == nil {
		err = f.sendRest(ctx)
	}
	if s.writeEnd(ctx, f, out, err) == nil {
		_ = out.Flush() // the client has left
	}
}

// detach lets a detached response send the rest. It returns false where that is not possible.
func (s *SSE) detach(w http.ResponseWriter, r *http.Request, f *Feed, out *EventWriter) bool {
	res, ok := s.detached.Detach(w, r)
	if !ok {
		return false
	}
	out.to = res
	release := func() {}
	if f.OnEnd != nil {
		release = f.OnEnd(res.disconnect)
	}
	res.Go(func() error {
		defer release()
		defer f.Close()
		defer out.release()
		if err := s.writeEnd(res.Context(), f, out, f.sendRest(res.Context())); err != nil {
			return err
		}
		return out.write() // sendEnd flushes it
	})
	return true
}

// writeEnd writes the end of a stream whose feed ended with err. A client that is still
// connected is asked to reconnect where the job has not ended. Its only error is
// [ErrClientGone].
func (s *SSE) writeEnd(ctx context.Context, f *Feed, out *EventWriter, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrClientGone), ctx.Err() != nil && s.stopping.Err() == nil:
		return ErrClientGone
	}
	// NotFound means that the job was deleted, which is no fault to log.
	if s.stopping.Err() == nil && job.CodeOf(err) != job.NotFound {
		s.log.Warn("a stream was cut", "job", f.job.String(), "error", err)
	}
	f.Close() // before the client reconnects
	out.begin()
	// The client reconnects after a second. Events of an incomplete update are dropped: it
	// receives them then.
	out.buf = append(out.buf[:0], "retry: 1000\n: the stream was interrupted; reconnect to continue it\n\n"...)
	return nil
}

// maxBuffered is how many bytes an [EventWriter] buffers before it sends them.
const maxBuffered = 64 << 10

// EventWriter writes server-sent events to one client. One goroutine at a time uses it.
type EventWriter struct {
	to      flusher
	buffers *api.BufferPool
	pooled  *[]byte // nil while buf is empty
	buf     []byte  // what is not sent yet
}

// flusher is a response: of net/http, or a detached one.
type flusher interface {
	io.Writer
	Flush() error
}

// handlerWriter is a response of net/http.
type handlerWriter struct {
	http.ResponseWriter
	*http.ResponseController
}

// newEventWriter begins the response.
func (s *SSE) newEventWriter(w http.ResponseWriter) *EventWriter {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8") // without a charset some clients read Latin-1
	h.Set("X-Accel-Buffering", "no")                          // else nginx buffers the events
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return &EventWriter{to: handlerWriter{w, http.NewResponseController(w)}, buffers: s.buffers}
}

// Event buffers one event, and sends the buffer when that holds 64 KiB. data appends the
// event's JSON.
func (e *EventWriter) Event(name string, id EventID, data func([]byte) []byte) error {
	e.begin()
	b := append(append(e.buf, "event: "...), name...)
	b = id.Append(append(b, "\nid: "...))
	b = append(b, "\ndata: "...)
	start := len(b)
	b = data(b)
	replaceLineBreaks(b[start:])
	e.buf = append(b, "\n\n"...)
	if len(e.buf) < maxBuffered {
		return nil
	}
	return e.Flush()
}

// replaceLineBreaks turns line breaks into spaces, because the format ends a field at a line
// break. In JSON an unescaped line break can only be space between tokens.
func replaceLineBreaks(b []byte) {
	for _, end := range []byte("\n\r") {
		for i := bytes.IndexByte(b, end); i >= 0; i = bytes.IndexByte(b, end) {
			b[i] = ' '
		}
	}
}

// Idle sends a comment, so that neither the client nor a proxy takes the connection for dead.
func (e *EventWriter) Idle() error {
	e.begin()
	e.buf = append(e.buf, ":\n\n"...)
	return e.Flush()
}

// Flush sends the buffered events. Its error wraps [ErrClientGone].
func (e *EventWriter) Flush() error {
	if err := e.write(); err != nil {
		return err
	}
	if err := e.to.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("%w: %w", ErrClientGone, err)
	}
	return nil
}

func (e *EventWriter) write() error {
	_, err := e.to.Write(e.buf)
	e.release()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrClientGone, err)
	}
	return nil
}

// begin borrows a buffer from the pool where out has none. An idle stream has none.
func (e *EventWriter) begin() {
	if e.pooled == nil {
		e.pooled = e.buffers.Get()
		e.buf = *e.pooled
	}
}

// release gives the buffer back to the pool.
func (e *EventWriter) release() {
	if e.pooled != nil {
		e.buffers.Put(e.pooled, e.buf)
		e.pooled, e.buf = nil, nil
	}
}
