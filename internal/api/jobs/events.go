package jobs

import (
	"context"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// events streams a job as server-sent events. Every event's id is a cursor to come back
// with; a client that comes back from done gets 204, which tells an EventSource to stop.
func (f *API) events(w http.ResponseWriter, r *http.Request) error {
	ctx, leave := f.untilStop(r)
	defer leave()
	owner, id, err := subject(r)
	if err != nil {
		return err
	}
	q, err := query(r, "after")
	if err != nil {
		return err
	}
	from, err := stream.ResumeAt(r, q.Get("after"))
	if err != nil {
		return err
	}
	feed, first, err := f.follow(ctx, owner, id, from.Seq)
	if err != nil {
		return err
	}
	if from.IsLast(first.Job) {
		feed.Close()
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	// It outlasts the stop of the server: the end of a job is sent still.
	full := func() (engine.Snapshot, error) {
		return f.engine.Get(context.WithoutCancel(f.stopping), owner, id)
	}
	f.sse.Serve(ctx, w, r, feed, first, func(out *stream.EventWriter) stream.EventSink {
		return &encoder{out, full}
	})
	return nil
}

// follow begins to follow a job behind an entry, and waits for the first update.
func (f *API) follow(ctx context.Context, owner job.Owner, id job.ID, after int64) (*stream.Feed, watch.Update, error) {
	w, err := f.engine.Watch(ctx, owner, id, after)
	if err != nil {
		return nil, watch.Update{}, err
	}
	feed := stream.NewFeed(id, w, after)
	first, err := feed.First(ctx)
	if err == nil {
		err = pastEnd(after, first.Job)
	}
	if err != nil {
		feed.Close()
		return nil, watch.Update{}, err
	}
	return feed, first, nil
}

// pastEnd refuses a cursor that the job's output has not reached: it was never
// handed out.
func pastEnd(after int64, j *job.Job) error {
	if after <= j.Cursor {
		return nil
	}
	return job.Errorf(job.Invalid, "the cursor %d is past the end of the job's output, which is %d", after, j.Cursor)
}

// eventSink takes the events of this API, for a stream or a socket. Its errors are
// [stream.ErrGone].
type eventOutput interface {
	// Event takes one event, whose data is JSON.
	Event(name string, id stream.EventID, data func([]byte) []byte) error
	// Flush sends what was gathered.
	Flush() error
	// Idle is called after a silent while.
	Idle() error
}

// encoder writes the events of a job as this API has them.
type encoder struct {
	to eventOutput
	// full reads the job with all that is known around it.
	full func() (engine.Snapshot, error)
}

// Snapshot writes the event snapshot.
func (e *encoder) Snapshot(at int64, j *job.Job) error {
	return e.to.Event("snapshot", stream.EventID{Seq: at}, func(b []byte) []byte { return appendJob(b, j, nil, "") })
}

// Entries writes the events output, progress and attempt.
func (e *encoder) Entries(entries []job.Entry) error {
	for i := range entries {
		entry := &entries[i]
		if err := e.to.Event(eventName(entry.Kind), stream.EventID{Seq: entry.Seq}, func(b []byte) []byte { return appendEntry(b, entry) }); err != nil {
			return err
		}
	}
	return nil
}

// eventName is the event that an entry of the kind makes.
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

// Updated sends what was written. The last of it is sent together with the end.
func (e *encoder) EndUpdate(_ *job.Job, ended bool) error {
	if ended {
		return nil
	}
	return e.to.Flush()
}

// End writes the event done, with the job and its result. If the job is another by now
// (deleted, or queued again), it is shown as the feed saw it end.
func (e *encoder) End(at int64, j *job.Job) (send func() error) {
	snap, err := e.full()
	ended := err == nil && snap.State.Ended() && snap.FinishedAt.Equal(j.FinishedAt)
	return func() error {
		return e.to.Event("done", stream.EventID{Seq: at, Done: true}, func(b []byte) []byte {
			if ended {
				return appendJob(b, &snap.Job, &snap, "")
			}
			return appendJob(b, j, nil, "")
		})
	}
}

// Idle sends a sign of life.
func (e *encoder) Idle() error { return e.to.Idle() }
