package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// fakeWatcher returns its updates one by one and then waits until its context ends.
type fakeWatcher struct {
	updates []watch.Update
	closed  int
}

func (s *fakeWatcher) Next(ctx context.Context) (watch.Update, error) {
	if len(s.updates) == 0 {
		<-ctx.Done()
		return watch.Update{}, ctx.Err()
	}
	up := s.updates[0]
	s.updates = s.updates[1:]
	return up, nil
}

func (s *fakeWatcher) Close() { s.closed++ }

// recordingSink records the calls of a feed.
type recordingSink struct {
	calls []string
	fails string       // the call that fails
	onEnd func() error // called to send the last event
}

func (r *recordingSink) call(format string, args ...any) error {
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
	if r.fails != "" && strings.HasPrefix(r.calls[len(r.calls)-1], r.fails) {
		return ErrClientGone
	}
	return nil
}

func (r *recordingSink) Snapshot(at int64, j *job.Job) error {
	return r.call("snapshot@%d:%s", at, j.State)
}

func (r *recordingSink) Entries(entries []job.Entry) error {
	return r.call("entries:%d-%d", entries[0].Seq, entries[len(entries)-1].Seq)
}

func (r *recordingSink) EndUpdate(_ *job.Job, ended bool) error { return r.call("updated:%v", ended) }

func (r *recordingSink) End(at int64, j *job.Job) func() error {
	_ = r.call("end@%d:%s", at, j.State)
	return func() error {
		if r.onEnd != nil {
			return r.onEnd()
		}
		return r.call("sent")
	}
}

func (r *recordingSink) Idle() error { return r.call("idle") }

// update returns an update of a job with the log entries from first to cursor.
func update(state job.State, first, cursor int64) watch.Update {
	up := watch.Update{Job: &job.Job{State: state, Cursor: cursor, Attempt: 1}}
	for seq := first; first > 0 && seq <= cursor; seq++ {
		up.Entries = append(up.Entries, job.Entry{Seq: seq})
	}
	return up
}

// A feed sends a snapshot first and after each change, the entries in order, and the end
// once, after all entries.
func TestFeedCallsSinkInOrder(t *testing.T) {
	t.Parallel()
	behind := update(job.Succeeded, 3, 4)
	behind.Job.Cursor = 5
	w := &fakeWatcher{updates: []watch.Update{
		update(job.Running, 2, 2), behind, update(job.Succeeded, 5, 5),
	}}
	f := NewFeed(job.NewID(), w, 1)
	events := &recordingSink{}
	f.events = events
	if err := f.run(t.Context(), update(job.Queued, 0, 1)); err != nil {
		t.Fatal(err)
	}
	want := "snapshot@1:queued updated:false " +
		"entries:2-2 snapshot@2:running updated:false " +
		"entries:3-4 snapshot@4:succeeded updated:false " +
		"entries:5-5 updated:true end@5:succeeded sent"
	if got := strings.Join(events.calls, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The entries of an update count while the client reads them. Where they are refused, the feed
// ends before it sends them.
func TestFeedReservesEntries(t *testing.T) {
	t.Parallel()
	up := update(job.Running, 2, 3)
	up.Entries[0].Data, up.Entries[1].Data = make([]byte, 70), make([]byte, 30)
	refusal := errors.New("refused")
	for _, refused := range []error{nil, refusal} {
		f := NewFeed(job.NewID(), &fakeWatcher{updates: []watch.Update{update(job.Succeeded, 0, 3)}}, 1)
		events := &recordingSink{}
		f.events = events
		reserved, most, released := 0, 0, 0
		f.Reserve = func(n int) (func(), error) {
			reserved += n
			most = max(most, reserved)
			return func() { reserved -= n; released++ }, refused
		}
		err := f.run(t.Context(), up)
		sent := strings.Contains(strings.Join(events.calls, " "), "entries")
		if !errors.Is(err, refused) || most != 100 || sent != (refused == nil) || refused == nil && (reserved != 0 || released != 1) {
			t.Errorf("refused with %v: %v, at most %d bytes, %d at the end; %v", refused, err, most, reserved, events.calls)
		}
	}
}

// When the client has left, the feed ends at once.
func TestFeedEndsWhenClientLeaves(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"snapshot", "entries", "updated", "sent"} {
		f := NewFeed(job.NewID(), &fakeWatcher{}, 0)
		events := &recordingSink{fails: at}
		f.events = events
		if err := f.run(t.Context(), update(job.Succeeded, 1, 1)); !errors.Is(err, ErrClientGone) || !strings.HasPrefix(events.calls[len(events.calls)-1], at) {
			t.Errorf("the client left at %s: %v, %v", at, err, events.calls)
		}
	}
}

// A feed with heartbeats sends one every [Heartbeat] of silence.
func TestFeedSendsHeartbeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, idle := range []bool{true, false} {
			f := NewFeed(job.NewID(), &fakeWatcher{}, 0)
			events := &recordingSink{}
			f.events, f.heartbeats = events, idle
			ctx, cancel := context.WithTimeout(t.Context(), 2*Heartbeat+time.Second)
			err := f.run(ctx, update(job.Queued, 0, 0))
			cancel()
			got := strings.Count(strings.Join(events.calls, " "), "idle")
			if want := map[bool]int{true: 2, false: 0}[idle]; !errors.Is(err, context.DeadlineExceeded) || got != want {
				t.Errorf("%d heartbeats, %v", got, err)
			}
		}
	})
}

// A client that has the last event of a job may follow another one at once: before that
// event is sent, the watcher is closed and the session has capacity.
func TestFeedClosesBeforeLastEvent(t *testing.T) {
	t.Parallel()
	w := &fakeWatcher{}
	f := NewFeed(job.NewID(), w, 0)
	sent := false
	f.events = &recordingSink{onEnd: func() error {
		if sent = true; w.closed != 1 {
			t.Error("a feed ends while its watch is open")
		}
		return nil
	}}
	if err := f.run(t.Context(), update(job.Succeeded, 0, 0)); err != nil || !sent {
		t.Errorf("%v, sent: %v", err, sent)
	}
	f.Close()
	if w.closed != 1 {
		t.Errorf("the watch was closed %d times", w.closed)
	}

	w = &fakeWatcher{}
	id := job.NewID()
	s := NewSession(nil, SessionConfig{MaxJobs: 1})
	place := &followed{id: id, feed: NewFeed(id, w, 0)}
	place.feed.last = func(send func() error) error { return s.remove(place, send) }
	s.followed[id] = place
	place.feed.events = &recordingSink{onEnd: func() error {
		if w.closed != 1 || len(s.followed) != 0 {
			t.Error("a socket sends the end while it follows the job")
		}
		return nil
	}}
	err := place.feed.run(t.Context(), update(job.Succeeded, 0, 0))
	again := &followed{id: id}
	s.followed[id] = again // the client follows the job again at once
	s.endFollow(t.Context(), place, err)
	if s.followed[id] != again {
		t.Error("the end of the first feed ended the second")
	}
	if w.closed != 1 {
		t.Errorf("the watch was closed %d times", w.closed)
	}
}

func TestSessionRefusesTooManyJobs(t *testing.T) {
	t.Parallel()
	full := job.Errorf(job.TooLarge, "full")
	s := NewSession(nil, SessionConfig{MaxJobs: 2, ErrFull: full})
	for range 2 {
		if err := s.CheckCapacity(); err != nil {
			t.Error(err)
		}
		s.followed[job.NewID()] = &followed{}
	}
	open := func(context.Context) (*Feed, watch.Update, error) {
		t.Error("it was opened")
		return nil, watch.Update{}, io.EOF
	}
	if err := s.Follow(job.NewID(), &recordingSink{}, open); err != full {
		t.Error(err)
	}
}

// SendBeforeEnd sends a message about a followed job before its last event, and none
// about another job.
func TestSendBeforeEndSendsOnlyForFollowedJob(t *testing.T) {
	t.Parallel()
	id := job.NewID()
	done := make(chan struct{})
	conn, _, wait := dialSocket(t, false, slog.New(slog.DiscardHandler), func(socket *Socket) {
		defer close(done)
		s := NewSession(socket, SessionConfig{MaxJobs: 1})
		if s.SendBeforeEnd(id, []byte("none")) || s.IsFollowing(id) {
			t.Error("sent about a job that is not followed")
		}
		err := s.Follow(id, &recordingSink{}, func(ctx context.Context) (*Feed, watch.Update, error) {
			return NewFeed(id, &fakeWatcher{}, 0), update(job.Queued, 0, 0), nil
		})
		if err != nil || !s.IsFollowing(id) || !s.SendBeforeEnd(id, []byte("one")) {
			t.Error(err)
		}
		s.Unfollow(id)
		if s.IsFollowing(id) || s.SendBeforeEnd(id, []byte("none")) {
			t.Error("followed still")
		}
	})
	_, text, err := conn.Read(t.Context())
	if err != nil || string(text) != "one" {
		t.Errorf("%q, %v", text, err)
	}
	<-done
	_ = conn.CloseNow()
	wait()
}

// A buffer from the pool is empty.
func TestEventWriterReturnsBuffer(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	e := &EventWriter{to: plainWriter{&out}, buffers: new(api.BufferPool)}
	for range 3 {
		if err := e.Event("output", EventID{Seq: 1}, func(b []byte) []byte { return append(b, "{\n}"...) }); err != nil {
			t.Fatal(err)
		}
		if err := e.Flush(); err != nil || e.pooled != nil {
			t.Fatal(err)
		}
	}
	if want := strings.Repeat("event: output\nid: 1\ndata: { }\n\n", 3); out.String() != want {
		t.Errorf("%q", out.String())
	}
}

type plainWriter struct{ io.Writer }

func (plainWriter) Flush() error { return nil }
