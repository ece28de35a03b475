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

// EventType says what an [Event] tells.
type EventType string

// The types of event.
const (
	SnapshotEvent EventType = "snapshot" // the job as it is: at the start, after each return of the connection, and when its status changes
	OutputEvent   EventType = "output"   // an entry of kind [KindText], [KindJSON] or [KindLog]
	ProgressEvent EventType = "progress" // an entry of kind [KindProgress]
	AttemptEvent  EventType = "attempt"  // an entry of kind [KindAttempt]
	DoneEvent     EventType = "done"     // the job as it ended; nothing follows
)

// Event is something that a watched job did.
type Event struct {
	Type EventType `json:"event"`
	// Cursor is where to go on after this event: the number of the last entry that
	// was seen.
	Cursor int64  `json:"cursor"`
	Job    *Job   `json:"job,omitempty"`   // of SnapshotEvent and DoneEvent
	Entry  *Entry `json:"entry,omitempty"` // of the others
}

const (
	// streamTimeout is how long a stream may say nothing before it counts as dead; the
	// server sends a comment every 15 seconds.
	streamTimeout = 45 * time.Second
	// maxBadStreams bounds how often in a row a stream may bring what no server says
	// without bringing anything new.
	maxBadStreams = 8
)

var errSilent = fmt.Errorf("the stream went silent: %w", errNoAnswer)

// Watch follows a job from after an entry's number, 0 for all it ever said, until
// it has ended: first a [SnapshotEvent], then what it says, last [DoneEvent]. No entry comes
// twice and none is missed.
//
// A connection that is lost is made again from the cursor, for as long as ctx
// lives, with pauses of up to 5 seconds; only until the server has answered once is
// that bounded by the client's retries. After an error nothing follows; whoever
// kept the last Cursor can go on from there later. Breaking out of the loop lets go
// of the job and does not cancel it.
func (c *Client) Watch(ctx context.Context, id string, after int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		w := watch{c: c, id: id, cursor: after, yield: yield}
		if err := w.run(ctx); err != nil {
			yield(Event{}, err)
		}
	}
}

// watch is one run of a Watch loop.
type watch struct {
	c     *Client
	id    string
	yield func(Event, error) bool

	cursor int64
	reached  bool // the server has answered once
	finished   bool // the last event was delivered, or nobody wants more
	failures int  // connections in a row that were short and brought nothing new
	badStreams int  // of those, how many brought what no server says
}

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

// endure waits before the next connection, or returns why there is none.
func (w *watch) waitToReconnect(ctx context.Context, err error) error {
	w.failures++
	switch {
	case !w.reached && (w.failures > w.c.retries || !safeToRetry(&call{}, err)):
		return err
	case unavailable(err):
	case CodeOf(err) == CodeBadAnswer && w.badStreams < maxBadStreams:
		w.badStreams++
	default:
		return err
	}
	return w.c.waitToRetry(ctx, w.failures, err)
}

// connect follows the job over one connection and returns why that ended.
func (w *watch) connect(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	idle := time.AfterFunc(streamTimeout, func() { cancel(errSilent) })
	defer idle.Stop()

	k := w.call()
	res, err := w.c.open(ctx, k)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if t, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); t != "text/event-stream" {
		return badAnswer(res.StatusCode, fmt.Errorf("a stream of events was asked for, %q came", t))
	}
	w.reached = true
	events := newSSEReader(res.Body, func() { idle.Reset(streamTimeout) })
	return w.streamError(ctx, k, w.follow(events))
}

// lost makes an error of the stream one of the client's: ctx's end, or a server
// that is away for now.
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

// follow delivers the events of one stream until it breaks or is over.
func (w *watch) follow(events *sseReader) error {
	start := time.Now()
	for {
		raw, err := events.next()
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

// read makes an event of what came over the wire; nil for what was seen already,
// and for types that this package does not know.
func (w *watch) read(raw sseEvent) (*Event, error) {
	e := &Event{Type: EventType(raw.event)}
	switch e.Type {
	case SnapshotEvent, DoneEvent:
		e.Job = new(Job)
		if err := json.Unmarshal(raw.data, e.Job); err != nil {
			return nil, err
		}
		if e.Type == DoneEvent && w.cursor < e.Job.Cursor {
			return nil, fmt.Errorf("the job ended at entry %d, after %d nothing came", e.Job.Cursor, w.cursor)
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
