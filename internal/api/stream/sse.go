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

// SSE answers the requests of an API with server-sent events (HTML standard, section 9.2).
type SSE struct {
	// set once
	stopping context.Context
	log      *slog.Logger
	buffers  *api.BufferPool
	detached DetachedResponses
}

// NewSSE makes the server-sent events of an API. stopping is over when the server begins
// to stop: streams then end so that their clients reconnect.
func NewSSE(stopping context.Context, log *slog.Logger, buffers *api.BufferPool) *SSE {
	return &SSE{stopping: stopping, log: log, buffers: buffers, detached: DetachedResponses{Stopping: stopping, Log: log}}
}

// Wait starts no stream that outlasts its handler any more, and returns when every one is
// over. Call it after stopping is over.
func (s *SSE) Wait() { s.detached.Wait() }

// Serve answers a request with the events of a feed, whose first update was taken, and
// closes the feed. events makes what carries them; nothing of the request is to be kept
// in it, for there are thousands.
//
// The handler sends what is known already. What is still to come is sent by a detached
// response, where the answer may become one: Serve then returns before its end.
func (s *SSE) Serve(ctx context.Context, w http.ResponseWriter, r *http.Request, f *Feed, first watch.Update, events func(*EventWriter) EventSink) {
	detach := !first.Job.State.Ended() && s.detached.PrepareDetach(w, r)
	out := s.newEventWriter(w)
	f.events, f.idle = events(out), true
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
	over, err := f.begin(first)
	if detach && !over && err == nil {
		if detached = s.detach(w, r, f, out); detached {
			return
		}
	}
	if !over && err == nil {
		err = f.goOn(ctx)
	}
	if s.end(ctx, f, out, err) == nil {
		_ = out.Flush() // a client that is gone needs no answer
	}
}

// detach has the rest sent by a detached response, if there is one to be had.
func (s *SSE) detach(w http.ResponseWriter, r *http.Request, f *Feed, out *EventWriter) bool {
	res, ok := s.detached.Detach(w, r)
	if !ok {
		return false
	}
	out.to = res
	res.Go(func() error {
		defer f.Close()
		defer out.release()
		if err := s.end(res.Context(), f, out, f.goOn(res.Context())); err != nil {
			return err
		}
		return out.write() // and the end of the response sends it
	})
	return true
}

// end gathers the last words for a client that is still there, where the stream ends
// before its job. Its error is [ErrGone].
func (s *SSE) end(ctx context.Context, f *Feed, out *EventWriter, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrClientGone), ctx.Err() != nil && s.stopping.Err() == nil:
		return ErrClientGone
	}
	if s.stopping.Err() == nil && job.CodeOf(err) != job.NotFound {
		s.log.Warn("a stream was cut", "job", f.job.String(), "error", err)
	}
	f.Close() // before the client hears that it may come back
	out.comeBack()
	return nil
}

// maxGathered is from how many bytes on an [EventWriter] sends what it has.
const maxGathered = 64 << 10

// EventWriter writes server-sent events to one client. It is used by one goroutine.
type EventWriter struct {
	to      flusher
	buffers *api.BufferPool
	pooled  *[]byte // nil while there is nothing to send
	buf     []byte  // what is not sent yet
}

// flusher takes what is written to the client: net/http, or a detached response.
type flusher interface {
	io.Writer
	Flush() error
}

// handlerWriter is what net/http takes while a handler runs.
type handlerWriter struct {
	http.ResponseWriter
	*http.ResponseController
}

// newEventWriter begins the answer.
func (s *SSE) newEventWriter(w http.ResponseWriter) *EventWriter {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8") // some clients take other text for Latin-1
	h.Set("X-Accel-Buffering", "no")                          // or nginx would keep the events until its buffer is full
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return &EventWriter{to: handlerWriter{w, http.NewResponseController(w)}, buffers: s.buffers}
}

// Event gathers one event. Its data is JSON, in which a line break can only be
// space between tokens, so it may be put on one line.
func (e *EventWriter) Event(name string, id EventID, data func([]byte) []byte) error {
	e.begin()
	b := append(append(e.buf, "event: "...), name...)
	b = id.Append(append(b, "\nid: "...))
	b = append(b, "\ndata: "...)
	start := len(b)
	b = data(b)
	oneLine(b[start:])
	e.buf = append(b, "\n\n"...)
	if len(e.buf) < maxGathered {
		return nil
	}
	return e.Flush()
}

func oneLine(b []byte) {
	for _, end := range []byte("\n\r") {
		for i := bytes.IndexByte(b, end); i >= 0; i = bytes.IndexByte(b, end) {
			b[i] = ' '
		}
	}
}

// Idle sends a comment, which says that the stream lives.
func (e *EventWriter) Idle() error {
	e.begin()
	e.buf = append(e.buf, ":\n\n"...)
	return e.Flush()
}

// comeBack gathers the wish that the client comes back soon.
func (e *EventWriter) comeBack() {
	e.begin()
	e.buf = append(e.buf[:0], "retry: 1000\n: the stream ends here; it goes on where you come back to\n\n"...)
}

// Flush sends what is gathered.
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

// begin borrows a buffer, unless there is one. An idle stream holds none.
func (e *EventWriter) begin() {
	if e.pooled == nil {
		e.pooled = e.buffers.Get()
		e.buf = *e.pooled
	}
}

// release gives the buffer back.
func (e *EventWriter) release() {
	if e.pooled != nil {
		e.buffers.Put(e.pooled, e.buf)
		e.pooled, e.buf = nil, nil
	}
}
