package stream

import (
	"context"
	"errors"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// Heartbeat is the longest time without bytes on a stream of server-sent events. Many
// proxies close a connection that is idle for a minute.
const Heartbeat = 15 * time.Second

// ErrClientGone means that the client has left or does not read.
var ErrClientGone = errors.New("stream: the client is gone")

// Watcher follows one job. The first Next returns at once; each later one returns when the
// job has changed. The entries of successive updates follow each other without a gap. Close
// releases the watcher.
type Watcher interface {
	Next(ctx context.Context) (watch.Update, error)
	Close()
}

// EventSink sends a job's events to one client, in the format of an API. One goroutine at a
// time calls it. An error of any method ends the feed; it is [ErrClientGone] where the client
// has left.
type EventSink interface {
	// Snapshot sends the job. It is the first call, and comes again when the state, the
	// attempt or a request to cancel changes. at is the last entry that the sink has
	// received. The job's own cursor may be ahead of it: those entries are still to come.
	Snapshot(at int64, j *job.Job) error
	// Entries sends output entries, in order.
	Entries(entries []job.Entry) error
	// EndUpdate follows the calls for one update of the job. The sink may send what it has
	// buffered. ended means that End follows.
	EndUpdate(j *job.Job, ended bool) error
	// End prepares the last event of a job that has ended and returns a function that sends
	// it. No entry follows at. The feed is closed between the two, so that a client that has
	// the last event may follow another job at once.
	End(at int64, j *job.Job) (send func() error)
	// Idle shows the client that the connection works. Feeds of server-sent events call it
	// about every [Heartbeat]; other feeds do not call it.
	Idle() error
}

// Feed sends the events of one job after a cursor to one client: a snapshot, the entries
// after the cursor, a snapshot for each change of the job, and the end. One goroutine at a
// time uses it.
type Feed struct {
	// Reserve counts the bytes of an update's entries while the client reads them, or refuses
	// them, which ends the feed. Set it before the first call of another method; nil counts
	// nothing.
	Reserve func(bytes int) (release func(), err error)

	// OnEnd registers a function that cuts a stream whose caller may no longer read. Set it before
	// the first call of another method; nil never cuts.
	OnEnd func(cut func()) (release func())

	job    job.ID
	watch  Watcher
	events EventSink
	cursor int64    // the last entry that was sent
	sent   snapshot // the last one that was sent
	closed bool     // the watcher is closed
	// last closes the feed and sends the last event. A [Session] replaces it.
	last func(send func() error) error

	heartbeats bool            // whether EventSink.Idle is called
	beat       context.Context // ends when the next heartbeat is due; nil: it starts with the next wait
	stopBeat   context.CancelFunc
}

// snapshot holds the fields of a job whose change sends a new snapshot. Output and progress
// are not among them: they are events of their own.
type snapshot struct {
	state     job.State
	attempt   int
	cancelled bool // a cancel was requested
}

func snapshotOf(j *job.Job) snapshot {
	return snapshot{j.State, j.Attempt, !j.CancelRequestedAt.IsZero()}
}

// NewFeed returns a feed of the job that w watches from the cursor after. It owns w.
func NewFeed(id job.ID, w Watcher, after int64) *Feed {
	f := &Feed{job: id, watch: w, cursor: after}
	f.last = func(send func() error) error {
		f.Close()
		return send()
	}
	return f
}

// First returns the first update of the watcher.
func (f *Feed) First(ctx context.Context) (watch.Update, error) { return f.watch.Next(ctx) }

// Close closes the watcher. Closing it again does nothing.
func (f *Feed) Close() {
	if !f.closed {
		f.closed = true
		f.watch.Close()
	}
}

// run sends all events, from the first update to the end of the job. It returns early with
// the error of the watcher or the sink.
func (f *Feed) run(ctx context.Context, first watch.Update) error {
	over, err := f.sendFirst(first)
	if over || err != nil {
		return err
	}
	return f.sendRest(ctx)
}

// sendFirst sends the events of the first update. over means that the job has ended and all
// its events are sent.
func (f *Feed) sendFirst(first watch.Update) (over bool, err error) {
	if err := f.sendSnapshot(first.Job); err != nil {
		return false, err
	}
	return f.sendUpdate(first)
}

// sendRest sends the events of the later updates.
func (f *Feed) sendRest(ctx context.Context) error {
	defer f.endBeat()
	for {
		up, err := f.next(ctx)
		if err != nil {
			return err
		}
		if over, err := f.sendUpdate(up); over || err != nil {
			return err
		}
	}
}

// reserve counts the bytes of entries until release is called.
func (f *Feed) reserve(entries []job.Entry) (release func(), err error) {
	if f.Reserve == nil {
		return func() {}, nil
	}
	size := 0
	for i := range entries {
		size += len(entries[i].Data)
	}
	return f.Reserve(size)
}

func (f *Feed) sendUpdate(up watch.Update) (over bool, err error) {
	if n := len(up.Entries); n > 0 {
		release, err := f.reserve(up.Entries)
		if err != nil {
			return false, err
		}
		defer release()
		f.cursor = up.Entries[n-1].Seq
		if err := f.events.Entries(up.Entries); err != nil {
			return false, err
		}
	}
	// A job may have ended before all of its output is read. Its end is the last event.
	over = up.Job.State.Ended() && f.cursor >= up.Job.Cursor
	if !over && snapshotOf(up.Job) != f.sent {
		if err := f.sendSnapshot(up.Job); err != nil {
			return false, err
		}
	}
	if err := f.events.EndUpdate(up.Job, over); err != nil || !over {
		return false, err
	}
	return true, f.last(f.events.End(f.cursor, up.Job))
}

func (f *Feed) sendSnapshot(j *job.Job) error {
	f.sent = snapshotOf(j)
	return f.events.Snapshot(f.cursor, j)
}

// next waits for the next update and sends heartbeats meanwhile.
func (f *Feed) next(ctx context.Context) (watch.Update, error) {
	for f.heartbeats {
		if f.beat == nil {
			f.beat, f.stopBeat = context.WithTimeout(ctx, Heartbeat)
		}
		up, err := f.watch.Next(f.beat)
		if err == nil || f.beat.Err() == nil || ctx.Err() != nil {
			// The beat goes on. One timer for each Heartbeat costs less than one for each
			// update, and a heartbeat that comes early does no harm.
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
