package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// events streams a job as server-sent events: its [story]. Every event's id is a
// cursor to come back with; who comes back from done gets 204, which tells an
// EventSource to stop.
//
// The handler tells what is known already. What is still to come is told on a line,
// where the answer can become one.
func (f *Face) events(w http.ResponseWriter, r *http.Request) error {
	ctx, leave := f.untilStop(r)
	defer leave()
	l, first, err := f.listen(ctx, r)
	if err != nil {
		return err
	}
	handedOver := false
	defer func() {
		if !handedOver {
			l.close()
		}
	}()
	if l.from.sawAll(first.Job) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	lasts := !first.Job.State.Ended() && f.detached.MayDetach(w, r)
	l.begin(w)
	if r.Method == http.MethodHead {
		return nil
	}
	over, err := l.story.begin(first)
	if lasts && !over && err == nil {
		if handedOver = l.takeLine(w, r); handedOver {
			return nil
		}
	}
	if !over && err == nil {
		err = l.story.goOn(ctx, l.watch)
	}
	if l.end(ctx, err) == nil {
		_ = l.out.send()
	}
	return nil // a reader who is gone needs no answer
}

// listener is a request that follows a job. Nothing of the request itself is kept:
// there are thousands.
type listener struct {
	face  *Face
	owner job.Owner
	id    job.ID
	from  eventID
	watch Watcher
	over  bool         // the watch is closed
	out   *eventStream // nil before the answer begins
	story story
}

// listen begins to follow the job that a request names, and takes the first look.
func (f *Face) listen(ctx context.Context, r *http.Request) (_ *listener, first engine.Update, err error) {
	l := &listener{face: f}
	if l.owner, l.id, err = subject(r); err != nil {
		return nil, first, err
	}
	if l.from, err = eventIDOf(r); err != nil {
		return nil, first, err
	}
	if l.watch, err = f.engine.Watch(ctx, l.owner, l.id, l.from.seq); err != nil {
		return nil, first, err
	}
	if first, err = l.watch.Next(ctx); err == nil {
		err = pastEnd(l.from.seq, first.Job)
	}
	if err != nil {
		l.close()
		return nil, first, err
	}
	return l, first, nil
}

// begin begins the answer.
func (l *listener) begin(w http.ResponseWriter) {
	l.out = l.face.newStream(w)
	l.story = story{out: l.out, cursor: l.from.seq, full: l.full, last: l.last}
}

// takeLine has the rest told on a line, if there is one to be had.
func (l *listener) takeLine(w http.ResponseWriter, r *http.Request) bool {
	line, ok := l.face.detached.Detach(w, r)
	if !ok {
		return false
	}
	l.out.out = line
	line.Go(func() error {
		defer l.close()
		if err := l.end(line.Context(), l.story.goOn(line.Context(), l.watch)); err != nil {
			return err
		}
		return l.out.write() // and the line's end sends it
	})
	return true
}

// close lets go of the job.
func (l *listener) close() {
	if l.out != nil {
		l.out.rest()
	}
	l.unwatch()
}

func (l *listener) unwatch() {
	if !l.over {
		l.over = true
		l.watch.Close()
	}
}

// last tells the end once the watch is closed.
func (l *listener) last(tell func() error) error {
	l.unwatch()
	return tell()
}

// full outlasts the stop of the server: the end of a job is told still.
func (l *listener) full() (engine.Snapshot, error) {
	return l.face.engine.Get(context.WithoutCancel(l.face.stopping), l.owner, l.id)
}

// end has a reader who is still there told, as the last words, that the stream ends
// before the job has, where it does. Its error is errGone.
func (l *listener) end(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errGone), ctx.Err() != nil && l.face.stopping.Err() == nil:
		return errGone
	}
	l.face.logCut(l.id, err)
	l.unwatch() // before the reader hears that it may come back
	l.out.farewell()
	return nil
}

// logCut says why a stream ended before its job did, where that is our doing.
func (f *Face) logCut(id job.ID, err error) {
	if f.stopping.Err() == nil && job.CodeOf(err) != job.NotFound {
		f.log.Warn("a stream was cut", "job", id.String(), "error", err)
	}
}

// mostUnsent is from how many bytes on a stream sends what it is told.
const mostUnsent = 64 << 10

// carrier takes what is written to the client: net/http, or a line.
type carrier interface {
	io.Writer
	Flush() error
}

// handlers is what net/http carries while a handler runs.
type handlers struct {
	http.ResponseWriter
	*http.ResponseController
}

// eventStream tells one watcher by server-sent events. It is used by one goroutine.
type eventStream struct {
	out    carrier
	face   *Face
	pooled *[]byte // nil while there is nothing to send
	buf    []byte  // what is not sent yet
}

// newStream begins the answer.
func (f *Face) newStream(w http.ResponseWriter) *eventStream {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8") // some clients take other text for Latin-1
	h.Set("X-Accel-Buffering", "no")                          // or nginx would keep the events until its buffer is full
	dontStore(w)
	w.WriteHeader(http.StatusOK)
	return &eventStream{out: handlers{w, http.NewResponseController(w)}, face: f}
}

// begin borrows a buffer, unless there is one. Who is silent holds none.
func (s *eventStream) begin() {
	if s.pooled == nil {
		s.pooled = s.face.buffers.Get().(*[]byte)
		s.buf = (*s.pooled)[:0]
	}
}

// rest gives the buffer back.
func (s *eventStream) rest() {
	if s.pooled != nil {
		s.face.giveBack(s.pooled, s.buf)
		s.pooled, s.buf = nil, nil
	}
}

// tell appends one event. Its data is JSON, in which a line break can only be
// space between tokens, so it may be put on one line.
func (s *eventStream) tell(name string, at eventID, data func([]byte) []byte) error {
	s.begin()
	b := append(append(s.buf, "event: "...), name...)
	b = at.append(append(b, "\nid: "...))
	b = append(b, "\ndata: "...)
	start := len(b)
	b = data(b)
	oneLine(b[start:])
	s.buf = append(b, "\n\n"...)
	if len(s.buf) < mostUnsent {
		return nil
	}
	return s.send()
}

func oneLine(b []byte) {
	for _, end := range []byte("\n\r") {
		for i := bytes.IndexByte(b, end); i >= 0; i = bytes.IndexByte(b, end) {
			b[i] = ' '
		}
	}
}

// quiet sends a comment, which says that the stream lives.
func (s *eventStream) quiet() error {
	s.begin()
	s.buf = append(s.buf, ":\n\n"...)
	return s.send()
}

// farewell gathers the wish that the reader comes back soon.
func (s *eventStream) farewell() {
	s.begin()
	s.buf = append(s.buf[:0], "retry: 1000\n: the stream ends here; it goes on where you come back to\n\n"...)
}

// send writes what is gathered and flushes it.
func (s *eventStream) send() error {
	if err := s.write(); err != nil {
		return err
	}
	if err := s.out.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

func (s *eventStream) write() error {
	_, err := s.out.Write(s.buf)
	s.rest()
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}
