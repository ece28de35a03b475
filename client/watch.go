package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// EventType is the type of an [Event].
type EventType string

// The types of an event. The type says which field of the event is set.
const (
	SnapshotEvent EventType = "snapshot" // Job is the current job: first, after each reconnect, and when the status changes
	OutputEvent   EventType = "output"   // Entry is a [KindText], [KindJSON] or [KindLog]
	ProgressEvent EventType = "progress" // Entry is a [KindProgress]
	AttemptEvent  EventType = "attempt"  // Entry is a [KindAttempt]: a new attempt begins
	DoneEvent     EventType = "done"     // Job is the ended job; no event follows
)

// Event is one event of a watched job.
type Event struct {
	Type EventType `json:"event"`
	// Cursor is the number of the last delivered entry. A later [Client.Watch] continues
	// after it.
	Cursor int64  `json:"cursor"`
	Job    *Job   `json:"job,omitempty"`   // set in SnapshotEvent and DoneEvent; nil otherwise
	Entry  *Entry `json:"entry,omitempty"` // set in the other events; nil otherwise
}

const (
	// streamTimeout is the longest silence of a stream. The server sends a comment every
	// 15 seconds, so that after three missing comments the connection is dead.
	streamTimeout = 45 * time.Second
	// maxBadStreams is how many streams in a row may hold invalid data and no new entry.
	maxBadStreams = 8
)

var errSilent = fmt.Errorf("the stream went silent: %w", errNoAnswer)

// Watch iterates over the events of a job until it has ended: first a [SnapshotEvent],
// then one event for each output entry, last a [DoneEvent]. It begins after entry number
// after; 0 begins with the first entry. It delivers every entry exactly once.
//
// When the connection is lost, Watch connects again and continues from the cursor, until
// ctx ends, with pauses of up to 5 seconds. The limit of [WithRetries] applies only until
// the server has answered once. Watch ends after an error; a later Watch can continue from
// the last Cursor. Breaking out of the loop ends the watch and does not cancel the job.
func (c *Client) Watch(ctx context.Context, id string, after int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		w := watch{c: c, id: id, cursor: after, yield: yield}
		if err := w.run(ctx); err != nil {
			yield(Event{}, err)
		}
	}
}

// watch is one iteration of [Client.Watch]. The goroutine of the loop owns it.
type watch struct {
	c     *Client
	id    string
	yield func(Event, error) bool

	cursor     int64
	reached    bool // the server has answered once
	finished   bool // the last event was delivered, or the caller left the loop
	failures   int  // short connections in a row without a new entry
	badStreams int  // how many of these held invalid data
}

// run connects again and again until the watch is finished or an error is final.
func (w *watch) run(ctx context.Context) error {
	for {
		err := w.connect(ctx)
		if w.finished {
			return nil
		}
		if err := w.waitToReconnect(ctx, err); err != nil {
			return err
		}
	}
}

// waitToReconnect waits before the next connection. It returns err when the watch must
// not connect again, and the cause when ctx ends.
func (w *watch) waitToReconnect(ctx context.Context, err error) error {
	w.failures++
	switch {
	case !w.reached && (w.failures > w.c.retries || !safeToRetry(&call{}, err)):
		return err
	case unavailable(err):
		// Once the server has answered, the job exists: wait for the server to return.
	case CodeOf(err) == CodeBadAnswer && w.badStreams < maxBadStreams:
		w.badStreams++
	default:
		return err
	}
	return w.c.waitToRetry(ctx, w.failures, err)
}

// connect delivers the events of one connection and returns why the connection ended.
func (w *watch) connect(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	// A dead connection gives no error by itself: the server would only seem silent.
	idle := time.AfterFunc(streamTimeout, func() { cancel(errSilent) })
	defer idle.Stop()

	k := w.call()
	res, err := w.c.open(ctx, k)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if t, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); t != "text/event-stream" {
		return badAnswer(res.StatusCode, fmt.Errorf("it is %q, not an event stream", t))
	}
	w.reached = true
	events := newSSEReader(res.Body, func() { idle.Reset(streamTimeout) })
	return w.streamError(ctx, k, w.follow(events))
}

// streamError converts an error of the stream to one of the client; see [Client.noAnswer].
func (w *watch) streamError(ctx context.Context, k *call, err error) error {
	var e *Error
	switch {
	case err == nil || errors.As(err, &e):
		return err
	case errors.Is(err, io.EOF):
		err = errors.New("the stream was cut")
	}
	return w.c.noAnswer(ctx, k, err)
}

func (w *watch) call() *call {
	k := &call{method: http.MethodGet, path: jobPath(w.id, "/events"), accept: "text/event-stream"}
	if w.cursor > 0 {
		k.lastEventID = strconv.FormatInt(w.cursor, 10)
	}
	return k
}

// follow delivers the events of one stream until the stream ends or the watch is finished.
func (w *watch) follow(events *sseReader) error {
	start := time.Now()
	for {
		raw, err := events.next()
		// A long stream was healthy, also when the job wrote nothing. So the next pause is
		// short again.
		if time.Since(start) > maxPause {
			w.failures = 0
		}
		if err != nil {
			return err
		}
		e, err := w.read(raw)
		if err != nil {
			return badAnswer(http.StatusOK, err)
		}
		if e == nil {
			continue
		}
		if e.Entry != nil {
			w.failures, w.badStreams = 0, 0
		}
		if !w.yield(*e, nil) || e.Type == DoneEvent {
			w.finished = true
			return nil
		}
	}
}

// read decodes an event. It returns nil for an entry that was delivered before, and for a
// type of a newer server.
func (w *watch) read(raw sseEvent) (*Event, error) {
	e := &Event{Type: EventType(raw.event)}
	switch e.Type {
	case SnapshotEvent, DoneEvent:
		e.Job = new(Job)
		if err := json.Unmarshal(raw.data, e.Job); err != nil {
			return nil, err
		}
		if e.Type == DoneEvent && w.cursor < e.Job.Cursor {
			// Entries are missing. The error makes the watch connect again and read them.
			return nil, fmt.Errorf("the job ended at entry %d, but the stream ended at entry %d", e.Job.Cursor, w.cursor)
		}
	case OutputEvent, ProgressEvent, AttemptEvent:
		e.Entry = new(Entry)
		if err := json.Unmarshal(raw.data, e.Entry); err != nil {
			return nil, err
		}
		if e.Entry.Seq <= w.cursor {
			return nil, nil
		}
		if e.Entry.Seq != w.cursor+1 {
			return nil, fmt.Errorf("entry %d came after entry %d", e.Entry.Seq, w.cursor)
		}
		w.cursor = e.Entry.Seq
	default:
		return nil, nil
	}
	e.Cursor = w.cursor
	return e, nil
}
