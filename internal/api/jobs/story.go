package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// heartbeat is how long a watcher hears nothing before a sign of life: less than
// the minute after which proxies cut idle connections.
const heartbeat = 15 * time.Second

// errGone says that the reader left, or does not read.
var errGone = errors.New("jobs: the reader is gone")

// teller carries events to one watcher. Its errors are errGone.
type teller interface {
	// tell carries one event, whose data is JSON, or gathers it.
	tell(event string, at eventID, data func([]byte) []byte) error
	// send sends what was gathered.
	send() error
	// quiet is told of a silent while.
	quiet() error
}

// story is what one watcher is told of a job: a snapshot, the entries after a cursor,
// a snapshot for each change of the job's state, and at its end done. It is used by
// one goroutine.
type story struct {
	out teller
	// full asks for the job with all that is known around it.
	full func() (engine.Snapshot, error)
	// last tells the end. Before that it gives up the places that the watcher takes:
	// whoever has heard of the end may take them anew.
	last func(tell func() error) error

	cursor int64    // of the last event
	shown  standing // in the last snapshot

	beat  context.Context // ends when a sign of life is due; nil when it is to begin anew
	still context.CancelFunc
}

// standing is what a watcher is shown a job anew for: entries and progress are
// events of their own.
type standing struct {
	state     job.State
	attempt   int
	cancelled bool // a cancel was requested
}

func standingOf(j *job.Job) standing {
	return standing{j.State, j.Attempt, !j.CancelRequestedAt.IsZero()}
}

// follow tells a job's story from its first update to its end.
func (s *story) follow(ctx context.Context, watch Watcher, first engine.Update) error {
	over, err := s.begin(first)
	if over || err != nil {
		return err
	}
	return s.goOn(ctx, watch)
}

// begin tells the first update. It is over when the job has ended and all of it was
// told.
func (s *story) begin(first engine.Update) (over bool, err error) {
	if err := s.snapshot(first.Job); err != nil {
		return false, err
	}
	return s.update(first)
}

// goOn tells the updates that follow until it is over, or the watch or the reader is
// gone.
func (s *story) goOn(ctx context.Context, watch Watcher) error {
	defer s.rest()
	for {
		up, err := s.next(ctx, watch)
		if err != nil {
			return err
		}
		if over, err := s.update(up); over || err != nil {
			return err
		}
	}
}

func (s *story) update(up engine.Update) (over bool, err error) {
	if err := s.entries(up.Entries); err != nil {
		return false, err
	}
	if up.Job.State.Ended() && s.cursor >= up.Job.Cursor {
		return true, s.done(up.Job)
	}
	if standingOf(up.Job) != s.shown {
		if err := s.snapshot(up.Job); err != nil {
			return false, err
		}
	}
	return false, s.out.send()
}

// next waits for the next update, with a sign of life every while.
func (s *story) next(ctx context.Context, watch Watcher) (engine.Update, error) {
	for {
		if s.beat == nil {
			s.beat, s.still = context.WithTimeout(ctx, heartbeat)
		}
		up, err := watch.Next(s.beat)
		if err == nil || s.beat.Err() == nil || ctx.Err() != nil {
			return up, err
		}
		s.rest()
		if err := s.out.quiet(); err != nil {
			return engine.Update{}, err
		}
	}
}

// rest lets go of the heartbeat. It is to be called when the story is over.
func (s *story) rest() {
	if s.beat != nil {
		s.still()
		s.beat = nil
	}
}

// snapshot carries the cursor it was sent at, not the job's: the entries between
// the two are still to come.
func (s *story) snapshot(j *job.Job) error {
	s.shown = standingOf(j)
	return s.out.tell("snapshot", eventID{seq: s.cursor}, func(b []byte) []byte { return appendJob(b, j, nil, "") })
}

func (s *story) entries(entries []job.Entry) error {
	for i := range entries {
		e := &entries[i]
		s.cursor = e.Seq
		if err := s.out.tell(eventName(e.Kind), eventID{seq: e.Seq}, func(b []byte) []byte { return appendEntry(b, e) }); err != nil {
			return err
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

// done ends the story with the job and its result. They are to be sent by whoever ends
// the stream. If the job is another by now (deleted, or queued again), it is shown as
// the watch saw it end.
func (s *story) done(j *job.Job) error {
	snap, err := s.full()
	ended := err == nil && snap.State.Ended() && snap.FinishedAt.Equal(j.FinishedAt)
	return s.last(func() error {
		return s.out.tell("done", eventID{s.cursor, true}, func(b []byte) []byte {
			if ended {
				return appendJob(b, &snap.Job, &snap, "")
			}
			return appendJob(b, j, nil, "")
		})
	})
}
