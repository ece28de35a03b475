package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// heartbeat is how long a stream is silent before a comment says that it lives:
// less than the minute after which proxies cut idle connections.
const heartbeat = 15 * time.Second

// events streams a job as server-sent events: its snapshot, its entries from a
// cursor, a snapshot for each change of its state, and at its end done. Every
// event's id is a cursor to come back with; who comes back from done gets 204,
// which tells an EventSource to stop.
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
	if err := pastEnd(from.seq, &first.Job); err != nil {
		return err
	}
	if from.sawAll(&first.Job) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	s := f.newStream(w, from.seq)
	defer s.close()
	if r.Method == http.MethodHead {
		return nil
	}
	s.full = func() (engine.Snapshot, error) { return f.engine.Get(r.Context(), owner, id) }
	if err := s.follow(ctx, watch, first); err != nil && !errors.Is(err, errGone) && r.Context().Err() == nil {
		s.farewell()
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

// errGone says that the reader left, or does not read.
var errGone = errors.New("jobs: the reader is gone")

// stream writes one watcher's events. It is used by one goroutine.
type stream struct {
	out    *patient
	face   *Face
	pooled *[]byte
	buf    []byte // what is not sent yet
	// full asks for the job with all that is known around it.
	full func() (engine.Snapshot, error)

	cursor int64   // of the last event
	shown  job.Job // of the last snapshot
}

// newStream begins the answer.
func (f *Face) newStream(w http.ResponseWriter, cursor int64) *stream {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // or nginx would keep the events until its buffer is full
	dontStore(w)
	w.WriteHeader(http.StatusOK)
	pooled := f.buffers.Get().(*[]byte)
	return &stream{out: patience(w), face: f, pooled: pooled, buf: (*pooled)[:0], cursor: cursor}
}

func (s *stream) close() {
	s.out.release()
	s.face.giveBack(s.pooled, s.buf)
}

// follow sends updates until the job has ended and all of it was sent, or the
// watch or the reader is gone.
func (s *stream) follow(ctx context.Context, watch Watcher, up engine.Update) error {
	s.snapshot(&up.Job)
	for {
		if err := s.entries(up.Entries); err != nil {
			return err
		}
		if up.Job.State.Ended() && s.cursor >= up.Job.Cursor {
			s.done(&up.Job)
			return s.send()
		}
		if changed(&s.shown, &up.Job) {
			s.snapshot(&up.Job)
		}
		if err := s.send(); err != nil {
			return err
		}
		var err error
		if up, err = s.next(ctx, watch); err != nil {
			return err
		}
	}
}

// next waits for the next update, with a comment for each silent while.
func (s *stream) next(ctx context.Context, watch Watcher) (engine.Update, error) {
	for {
		tick, cancel := context.WithTimeout(ctx, heartbeat)
		up, err := watch.Next(tick)
		silent := tick.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || !silent {
			return up, err
		}
		s.buf = append(s.buf, ":\n\n"...)
		if err := s.send(); err != nil {
			return engine.Update{}, err
		}
	}
}

// changed says whether a watcher should see the job anew: entries and progress are
// events of their own.
func changed(was, is *job.Job) bool {
	return was.State != is.State || was.Attempt != is.Attempt || !was.CancelRequestedAt.Equal(is.CancelRequestedAt)
}

// snapshot carries the cursor it was sent at, not the job's: the entries between
// the two are still to come.
func (s *stream) snapshot(j *job.Job) {
	s.shown = *j
	s.event("snapshot", false, func(b []byte) []byte { return appendJob(b, j, nil, "") })
}

func (s *stream) entries(entries []job.Entry) error {
	for i := range entries {
		e := &entries[i]
		s.cursor = e.Seq
		s.event(eventName(e.Kind), false, func(b []byte) []byte { return appendEntry(b, e) })
		if len(s.buf) >= writePiece {
			if err := s.send(); err != nil {
				return err
			}
		}
	}
	return nil
}

// eventName is the event that an entry of the kind makes.
func eventName(k job.Kind) string {
	switch k {
	case job.Report:
		return "progress"
	case job.Restart:
		return "attempt"
	default:
		return "output"
	}
}

// done ends the stream with the job and its result. If the job is another by now
// (deleted, or queued again), it is shown as the watch saw it end.
func (s *stream) done(j *job.Job) {
	snap, err := s.full()
	ended := err == nil && snap.State.Ended() && snap.FinishedAt.Equal(j.FinishedAt)
	s.event("done", true, func(b []byte) []byte {
		if ended {
			return appendJob(b, &snap.Job, &snap, "")
		}
		return appendJob(b, j, nil, "")
	})
}

// event appends one event. Its data is JSON, in which a line break can only be
// space between tokens, so it may be put on one line.
func (s *stream) event(name string, done bool, data func([]byte) []byte) {
	b := append(append(s.buf, "event: "...), name...)
	b = eventID{s.cursor, done}.append(append(b, "\nid: "...))
	b = append(b, "\ndata: "...)
	start := len(b)
	b = data(b)
	oneLine(b[start:])
	s.buf = append(b, "\n\n"...)
}

func oneLine(b []byte) {
	for _, end := range []byte("\n\r") {
		for i := bytes.IndexByte(b, end); i >= 0; i = bytes.IndexByte(b, end) {
			b[i] = ' '
		}
	}
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
