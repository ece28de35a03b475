package stream

import (
	"context"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// Heartbeat is how long a client of server-sent events hears nothing before a sign of
// life: less than the minute after which proxies cut idle connections.
const Heartbeat = 15 * time.Second

// ErrGone says that the client left, or does not read.
var ErrClientGone = errors.New("stream: the client is gone")

// Watcher follows one job. Next returns at once the first time, and from then on when
// there is something new; the entries of its updates follow each other without a gap.
type Watcher interface {
	Next(ctx context.Context) (watch.Update, error)
	Close()
}

// Events carries a job's events to one client, in the form of an API. A feed calls it by
// one goroutine. An error ends the feed: [ErrGone] where the client is gone.
type EventSink interface {
	// Snapshot takes the job as it is, first of all and where its state, its attempt or a
	// request to cancel it is news. at is the last entry that was taken, not the job's
	// cursor: the entries between the two are still to come.
	Snapshot(at int64, j *job.Job) error
	// Entries takes output, in order.
	Entries(entries []job.Entry) error
	// Updated takes the job as it is when all of one update was taken, so that what was
	// gathered can be sent. ended says that End follows.
	EndUpdate(j *job.Job, ended bool) error
	// End prepares the last event of a job that has ended, with no entry after at, and
	// returns what sends it. Between the two the client's place is freed: a client that
	// has the last event may follow another job at once.
	End(at int64, j *job.Job) (send func() error)
	// Idle is called after a [Heartbeat] without an update, where the feed has one.
	Idle() error
}

// Feed is the events of one job behind a cursor, for one client: a snapshot, the entries
// after the cursor, a snapshot for each change of the job, and its end. It is used by one
// goroutine.
type Feed struct {
	job    job.ID
	watch  Watcher
	events EventSink
	cursor int64 // of the last entry that was taken
	shown  shown // in the last snapshot
	closed bool  // the watch
	// last sends the last event once the client's place is free.
	last func(send func() error) error

	idle     bool            // whether Events.Idle is called
	beat     context.Context // ends when a sign of life is due; nil when it is to begin anew
	stopBeat context.CancelFunc
}

// shown is what a client is sent the whole job for: entries and progress are events of
// their own.
type shown struct {
	state     job.State
	attempt   int
	cancelled bool // a cancel was requested
}

func shownOf(j *job.Job) shown { return shown{j.State, j.Attempt, !j.CancelRequestedAt.IsZero()} }

// NewFeed makes a feed of a job that is watched from after a cursor.
func NewFeed(id job.ID, w Watcher, after int64) *Feed {
	f := &Feed{job: id, watch: w, cursor: after}
	f.last = func(send func() error) error {
		f.Close()
		return send()
	}
	return f
}

// First waits for the first update, which [Watcher.Next] gives at once.
func (f *Feed) First(ctx context.Context) (watch.Update, error) { return f.watch.Next(ctx) }

// Close closes the watch. To close it again does nothing.
func (f *Feed) Close() {
	if !f.closed {
		f.closed = true
		f.watch.Close()
	}
}

// run sends all events from the first update to the end of the job, or until the watch or
// the client is gone.
func (f *Feed) run(ctx context.Context, first watch.Update) error {
	over, err := f.begin(first)
	if over || err != nil {
		return err
	}
	return f.goOn(ctx)
}

// begin sends the events of the first update. It is over when the job has ended and all
// of it was sent.
func (f *Feed) begin(first watch.Update) (over bool, err error) {
	if err := f.snapshot(first.Job); err != nil {
		return false, err
	}
	return f.update(first)
}

// goOn sends the events of the updates that follow.
func (f *Feed) goOn(ctx context.Context) error {
	defer f.endBeat()
	for {
		up, err := f.next(ctx)
		if err != nil {
			return err
		}
		if over, err := f.update(up); over || err != nil {
			return err
		}
	}
}

func (f *Feed) update(up watch.Update) (over bool, err error) {
	if n := len(up.Entries); n > 0 {
		f.cursor = up.Entries[n-1].Seq
		if err := f.events.Entries(up.Entries); err != nil {
			return false, err
		}
	}
	over = up.Job.State.Ended() && f.cursor >= up.Job.Cursor
	if !over && shownOf(up.Job) != f.shown {
		if err := f.snapshot(up.Job); err != nil {
			return false, err
		}
	}
	if err := f.events.EndUpdate(up.Job, over); err != nil || !over {
		return false, err
	}
	return true, f.last(f.events.End(f.cursor, up.Job))
}

func (f *Feed) snapshot(j *job.Job) error {
	f.shown = shownOf(j)
	return f.events.Snapshot(f.cursor, j)
}

// next waits for the next update, with a sign of life where the feed has one.
func (f *Feed) next(ctx context.Context) (watch.Update, error) {
	for f.idle {
		if f.beat == nil {
			f.beat, f.stopBeat = context.WithTimeout(ctx, Heartbeat)
		}
		up, err := f.watch.Next(f.beat)
		if err == nil || f.beat.Err() == nil || ctx.Err() != nil {
			return up, err
		}
		f.endBeat()
		if err := f.events.Idle(); err != nil {
			return watch.Update{}, err
		}
	}
	return f.watch.Next(ctx)
}

func (f *Feed) endBeat() {
	if f.beat != nil {
		f.stopBeat()
		f.beat = nil
	}
}
