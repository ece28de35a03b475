package chat

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/access"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// handle does what a message asks for.
func (s *session) handle(in clientMessage) error {
	if in.Type == "token" {
		return s.renew(in.Token)
	}
	if err := s.caller.Check(); err != nil {
		return err
	}
	switch in.Type {
	case "chat_query":
		return s.query(in)
	case "watch":
		task, err := job.ParseID(in.TaskID)
		if err != nil {
			return taskNotFound(in.TaskID)
		}
		s.Unfollow(task)
		return s.watch(task, in.After)
	case "cancel":
		return s.cancel(in)
	default:
		s.api.engine.MarkPresent(s.caller.Owner())
		return nil
	}
}

// query asks a question and watches its answer.
func (s *session) query(in clientMessage) error {
	if err := s.caller.Require(access.Submit); err != nil {
		return err
	}
	if err := s.CheckCapacity(); err != nil {
		return err
	}
	a, err := s.askTraced(question{Query: in.Query, ConversationID: in.ConversationID, Model: in.Model}, in.ClientID)
	if err != nil {
		return err
	}
	accepted := acceptedFrame{
		header:   header{"accepted", a.ID.String()},
		ClientID: in.ClientID, ConversationID: a.conversation,
		Estimate: estimateSeconds(a.Snapshot), Position: a.Position,
	}
	if s.SendBeforeEnd(a.ID, encodeFrame(accepted)) {
		return nil // a repeated question, whose task the session follows already
	}
	accepted.Seq = new(int64)
	s.send(accepted)
	return s.watch(a.ID, 0)
}

// cancel requests the end of a task, and watches the task so that the client learns of it.
func (s *session) cancel(in clientMessage) error {
	if err := s.caller.Require(access.Cancel); err != nil {
		return err
	}
	// Checked before the cancel, which cannot be taken back.
	if task, err := job.ParseID(in.TaskID); err == nil && !s.IsFollowing(task) {
		if err := s.CheckCapacity(); err != nil {
			return err
		}
	}
	snap, err := s.api.cancel(s.Context(), s.caller.Owner(), in.TaskID)
	if err != nil || s.IsFollowing(snap.ID) {
		return err
	}
	return s.watch(snap.ID, snap.Cursor)
}

// watch follows a task after the entry after.
func (s *session) watch(task job.ID, after int64) error {
	if err := s.CheckCapacity(); err != nil {
		return err
	}
	events := &taskEvents{encoder: encoder{task: task.String(), seq: after}, send: s.send}
	err := s.Follow(task, events, func(ctx context.Context) (*stream.Feed, watch.Update, error) {
		events.answer = func(j *job.Job) (conversation.Message, error) { return s.api.answerMessage(ctx, j) }
		events.abort = func(err error) error {
			if ctx.Err() == nil {
				s.Send(s.abortMessage(task, err))
			}
			return nil
		}
		feed, first, err := s.follow(ctx, task, after)
		if err == nil {
			events.conversation = conversation.PublicIDOf(first.Job)
		}
		return feed, first, err
	})
	if err != nil {
		// Not returned: the client's message itself may have been handled, such as a question.
		s.Send(s.abortMessage(task, err))
	}
	return nil
}

// follow opens the feed of a task after the entry after, and returns its first update.
func (s *session) follow(ctx context.Context, task job.ID, after int64) (*stream.Feed, watch.Update, error) {
	w, err := s.api.engine.Watch(ctx, s.caller.Owner(), task, after)
	if err != nil {
		return nil, watch.Update{}, err
	}
	feed := stream.NewFeed(task, w, after)
	budget := s.caller.Budget()
	feed.Reserve = func(bytes int) (func(), error) { return s.api.gate.ReserveResponse(budget, bytes) }
	first, err := feed.First(ctx)
	if err == nil {
		err = checkFollow(first.Job, after)
	}
	if err != nil {
		feed.Close()
		return nil, watch.Update{}, err
	}
	return feed, first, nil
}

// checkFollow refuses a job that is no task, and a cursor past its end.
func checkFollow(j *job.Job, after int64) error {
	if !isTask(j) {
		return taskNotFound(j.ID.String())
	}
	if after > j.Cursor {
		return invalid("/after", "the output of the task ends at %d, and after is %d", j.Cursor, after)
	}
	return nil
}

// taskEvents is the [stream.EventSink] of this API.
type taskEvents struct {
	encoder
	entries []job.Entry // of the current update
	// set once
	send   func(frame any) bool
	answer func(j *job.Job) (conversation.Message, error) // returns the answer of an ended task
	abort  func(err error) error                          // the error when the answer cannot be read
}

// Snapshot does nothing: EndUpdate sends the progress of the task.
func (e *taskEvents) Snapshot(int64, *job.Job) error { return nil }

// Entries keeps the entries for EndUpdate.
func (e *taskEvents) Entries(entries []job.Entry) error {
	e.entries = entries
	return nil
}

// EndUpdate sends the messages of one update.
func (e *taskEvents) EndUpdate(j *job.Job, _ bool) error {
	frames := e.update(watch.Update{Job: j, Entries: e.entries})
	e.entries = nil
	for _, frame := range frames {
		if !e.send(frame) {
			return stream.ErrClientGone
		}
	}
	return nil
}

// End reads the answer of the task and sends it as the last message.
func (e *taskEvents) End(_ int64, j *job.Job) (send func() error) {
	answer, err := e.answer(j)
	if err != nil {
		return func() error { return e.abort(err) }
	}
	last := e.end(answer)
	return func() error {
		if !e.send(last) {
			return stream.ErrClientGone
		}
		return nil
	}
}

// Idle does nothing, because the socket sends pings.
func (e *taskEvents) Idle() error { return nil }
