package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// events streams a job as server-sent events: its [story]. Every event's id is a
// cursor to come back with; who comes back from done gets 204, which tells an
// EventSource to stop.
func (f *Face) events(w http.ResponseWriter, r *http.Request) error {
	l, err := f.listen(r)
	if err != nil {
		return err
	}
	defer l.close()
	if l.from.sawAll(l.first.Job) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	out := f.newStream(w)
	defer out.close()
	if r.Method == http.MethodHead {
		return nil
	}
	s := &story{out: out, cursor: l.from.seq, full: l.full}
	return l.cut(out, s.follow(l.ctx, l.watch, l.first))
}

// listener is a request that follows a job. What it needs is kept out of the stack of
// the goroutine that waits with it: there are thousands.
type listener struct {
	face  *Face
	r     *http.Request
	owner job.Owner
	id    job.ID
	from  eventID
	ctx   context.Context // ends with the request, or when the server stops
	leave context.CancelFunc
	watch Watcher
	first engine.Update
}

// listen begins to follow the job that a request names.
func (f *Face) listen(r *http.Request) (_ *listener, err error) {
	l := &listener{face: f, r: r}
	if l.owner, l.id, err = subject(r); err != nil {
		return nil, err
	}
	if l.from, err = eventIDOf(r); err != nil {
		return nil, err
	}
	l.ctx, l.leave = f.untilStop(r)
	if l.watch, err = f.engine.Watch(l.ctx, l.owner, l.id, l.from.seq); err != nil {
		l.leave()
		return nil, err
	}
	if l.first, err = l.watch.Next(l.ctx); err == nil {
		err = pastEnd(l.from.seq, l.first.Job)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *listener) close() {
	l.watch.Close()
	l.leave()
}

func (l *listener) full() (engine.Snapshot, error) {
	return l.face.engine.Get(l.r.Context(), l.owner, l.id)
}

// cut tells a reader who is still there that the stream ends before the job has.
func (l *listener) cut(out *stream, err error) error {
	if err != nil && !errors.Is(err, errGone) && l.r.Context().Err() == nil {
		out.farewell()
		l.face.logCut(l.r, err)
	}
	return nil
}

// logCut says why a stream ended before its job did, where that is our doing.
func (f *Face) logCut(r *http.Request, err error) {
	if f.stopping.Err() == nil && job.CodeOf(err) != job.NotFound {
		f.log.Warn("a stream was cut", "path", r.URL.Path, "error", err)
	}
}

// stream tells one watcher by server-sent events. It is used by one goroutine.
type stream struct {
	out    *patient
	face   *Face
	pooled *[]byte // nil while there is nothing to send
	buf    []byte  // what is not sent yet
}

// newStream begins the answer.
func (f *Face) newStream(w http.ResponseWriter) *stream {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8") // some clients take other text for Latin-1
	h.Set("X-Accel-Buffering", "no")                          // or nginx would keep the events until its buffer is full
	dontStore(w)
	w.WriteHeader(http.StatusOK)
	return &stream{out: patience(w), face: f}
}

func (s *stream) close() {
	s.out.release()
	s.rest()
}

// begin borrows a buffer, unless there is one. Who is silent holds none.
func (s *stream) begin() {
	if s.pooled == nil {
		s.pooled = s.face.buffers.Get().(*[]byte)
		s.buf = (*s.pooled)[:0]
	}
}

// rest gives the buffer back.
func (s *stream) rest() {
	if s.pooled != nil {
		s.face.giveBack(s.pooled, s.buf)
		s.pooled, s.buf = nil, nil
	}
}

// tell appends one event. Its data is JSON, in which a line break can only be
// space between tokens, so it may be put on one line.
func (s *stream) tell(name string, at eventID, data func([]byte) []byte) error {
	s.begin()
	b := append(append(s.buf, "event: "...), name...)
	b = at.append(append(b, "\nid: "...))
	b = append(b, "\ndata: "...)
	start := len(b)
	b = data(b)
	oneLine(b[start:])
	s.buf = append(b, "\n\n"...)
	if len(s.buf) < writePiece {
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
func (s *stream) quiet() error {
	s.begin()
	s.buf = append(s.buf, ":\n\n"...)
	return s.send()
}

// farewell tells the reader to come back soon.
func (s *stream) farewell() {
	s.begin()
	s.buf = append(s.buf[:0], "retry: 1000\n: the stream ends here; it goes on where you come back to\n\n"...)
	_ = s.send()
}

// send writes what is gathered and flushes it.
func (s *stream) send() error {
	_, err := s.out.Write(s.buf)
	if err == nil {
		err = s.out.flush()
	}
	s.rest()
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}
