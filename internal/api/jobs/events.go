package jobs

import (
	"context"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// events streams a job as server-sent events. The id of each event is a cursor from which a
// client can resume. A client that resumes after the event done gets 204, which tells an
// EventSource to stop.
func (a *API) events(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := a.contextUntilStop(r)
	defer cancel()
	id, err := job.ParseID(r.PathValue("id"))
	if err != nil {
		return err
	}
	q, err := parseQuery(r, "after")
	if err != nil {
		return err
	}
	from, err := stream.ResumeAt(r, q.Get("after"))
	if err != nil {
		return err
	}
	// Not bound to the stop of the server: an EventSource reconnects after a stream, and gives
	// up after an error.
	caller := gate.CallerFrom(r)
	feed, first, err := a.follow(r.Context(), caller, id, from.Seq)
	if err != nil {
		return err
	}
	if from.IsLast(first.Job) {
		feed.Close()
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	// Not bound to the stop of the server: a job that ends then still gets its last event.
	read := func() (engine.Snapshot, error) {
		return a.engine.Get(context.WithoutCancel(a.stopping), caller.View(), id)
	}
	a.sse.Serve(ctx, w, r, feed, first, func(out *stream.EventWriter) stream.EventSink {
		return &encoder{out, read}
	})
	return nil
}

// follow opens the feed of a job after the entry after, and returns its first update. The
// entries count for the caller while its client reads them.
func (a *API) follow(ctx context.Context, c *gate.Caller, id job.ID, after int64) (*stream.Feed, watch.Update, error) {
	w, err := a.engine.Watch(ctx, c.View(), id, after)
	if err != nil {
		return nil, watch.Update{}, err
	}
	feed := stream.NewFeed(id, w, after)
	feed.Reserve = func(bytes int) (func(), error) { return a.gate.ReserveResponse(c.Budget(), bytes) }
	feed.OnEnd = c.OnEnd
	first, err := feed.First(ctx)
	if err == nil {
		err = checkCursor(after, first.Job)
	}
	if err != nil {
		feed.Close()
		return nil, watch.Update{}, err
	}
	return feed, first, nil
}

// checkCursor refuses a cursor that is past the end of the job's output. The server has
// never given it out.
func checkCursor(after int64, j *job.Job) error {
	if after <= j.Cursor {
		return nil
	}
	return job.Errorf(job.Invalid, "the cursor %d is past the end of the job's output, which is %d", after, j.Cursor)
}

// eventOutput sends the events of this API over a stream or a socket. Its errors are
// [stream.ErrClientGone].
type eventOutput interface {
	// Event sends or buffers one event. data appends its JSON.
	Event(name string, id stream.EventID, data func([]byte) []byte) error
	// Flush sends the buffered events.
	Flush() error
	// Idle shows the client that the connection works.
	Idle() error
}

// encoder is the [stream.EventSink] of this API.
type encoder struct {
	out eventOutput
	// read returns the job with its queue position, text and result.
	read func() (engine.Snapshot, error)
}

// Snapshot sends the event snapshot.
func (e *encoder) Snapshot(at int64, j *job.Job) error {
	return e.out.Event("snapshot", stream.EventID{Seq: at}, func(b []byte) []byte { return appendJob(b, j, nil, "") })
}

// Entries sends the events output, progress and attempt.
func (e *encoder) Entries(entries []job.Entry) error {
	for i := range entries {
		entry := &entries[i]
		if err := e.out.Event(eventName(entry.Kind), stream.EventID{Seq: entry.Seq}, func(b []byte) []byte { return appendEntry(b, entry) }); err != nil {
			return err
		}
	}
	return nil
}

// eventName returns the name of the event for an entry of the kind.
func eventName(k job.Kind) string {
	switch k {
	case job.KindProgress:
		return "progress"
	case job.KindAttempt:
		return "attempt"
	default:
		return "output"
	}
}

// EndUpdate flushes the events of an update. Those of the last update go out together with
// the end.
func (e *encoder) EndUpdate(_ *job.Job, ended bool) error {
	if ended {
		return nil
	}
	return e.out.Flush()
}

// End sends the event done with the job and its result. If the job was deleted or queued
// again since, the event has the job as the feed saw it end.
func (e *encoder) End(at int64, j *job.Job) (send func() error) {
	snap, err := e.read()
	ended := err == nil && snap.State.Ended() && snap.FinishedAt.Equal(j.FinishedAt)
	return func() error {
		return e.out.Event("done", stream.EventID{Seq: at, Done: true}, func(b []byte) []byte {
			if ended {
				return appendJob(b, &snap.Job, &snap, "")
			}
			return appendJob(b, j, nil, "")
		})
	}
}

// Idle sends a comment on a stream.
func (e *encoder) Idle() error { return e.out.Idle() }
