package jobs

import (
	"bytes"
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
	owner, id, err := subject(r)
	if err != nil {
		return err
	}
	from, err := eventIDOf(r)
	if err != nil {
		return err
	}
	ctx, cancel := f.untilStop(r)
	defer cancel()
	watch, err := f.engine.Watch(ctx, owner, id, from.seq)
	if err != nil {
		return err
	}
	defer watch.Close()
	first, err := watch.Next(ctx)
	if err != nil {
		return err
	}
	if err := pastEnd(from.seq, first.Job); err != nil {
		return err
	}
	if from.sawAll(first.Job) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	out := f.newStream(w)
	defer out.close()
	if r.Method == http.MethodHead {
		return nil
	}
	s := story{out: out, cursor: from.seq, full: func() (engine.Snapshot, error) { return f.engine.Get(r.Context(), owner, id) }}
	if err := s.follow(ctx, watch, first); err != nil && !errors.Is(err, errGone) && r.Context().Err() == nil {
		out.farewell()
		f.logCut(r, err)
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
	pooled *[]byte
	buf    []byte // what is not sent yet
}

// newStream begins the answer.
func (f *Face) newStream(w http.ResponseWriter) *stream {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // or nginx would keep the events until its buffer is full
	dontStore(w)
	w.WriteHeader(http.StatusOK)
	pooled := f.buffers.Get().(*[]byte)
	return &stream{out: patience(w), face: f, pooled: pooled, buf: (*pooled)[:0]}
}

func (s *stream) close() {
	s.out.release()
	s.face.giveBack(s.pooled, s.buf)
}

// tell appends one event. Its data is JSON, in which a line break can only be
// space between tokens, so it may be put on one line.
func (s *stream) tell(name string, at eventID, data func([]byte) []byte) error {
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
	s.buf = append(s.buf, ":\n\n"...)
	return s.send()
}

// farewell tells the reader to come back soon.
func (s *stream) farewell() {
	s.buf = append(s.buf[:0], "retry: 1000\n: the stream ends here; it goes on where you come back to\n\n"...)
	_ = s.send()
}

// send writes what is gathered and flushes it.
func (s *stream) send() error {
	_, err := s.out.Write(s.buf)
	if err == nil {
		err = s.out.flush()
	}
	s.buf = s.buf[:0]
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}
