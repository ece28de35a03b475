package chat

import (
	"context"

	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// obey does what a message asks for.
func (s *session) obey(in incoming) error {
	switch in.Type {
	case "chat_query":
		return s.query(in)
	case "watch":
		task, err := job.ParseID(in.TaskID)
		if err != nil {
			return noTask(in.TaskID)
		}
		s.Unfollow(task)
		return s.watch(task, in.After)
	case "cancel":
		return s.cancel(in)
	default:
		s.face.engine.MarkPresent(s.owner)
		return nil
	}
}

// query asks a question and watches its answer.
func (s *session) query(in incoming) error {
	if err := s.CheckCapacity(); err != nil {
		return err
	}
	a, err := s.askFollowed(question{Query: in.Query, ConversationID: in.ConversationID, Model: in.Model}, in.ClientID)
	if err != nil {
		return err
	}
	accepted := acceptedFrame{
		about:    about{"accepted", a.ID.String()},
		ClientID: in.ClientID, ConversationID: a.conversation.String(),
		Estimate: estimate(a.Snapshot), Position: a.Position,
	}
	if s.SendBeforeEnd(a.ID, encodeFrame(accepted)) {
		return nil // the same question sent again
	}
	accepted.Seq = new(int64)
	s.send(accepted)
	return s.watch(a.ID, 0)
}

// cancel asks for a task's end, and watches it to tell of it.
func (s *session) cancel(in incoming) error {
	if task, err := job.ParseID(in.TaskID); err == nil && !s.IsFollowing(task) {
		if err := s.CheckCapacity(); err != nil {
			return err
		}
	}
	snap, err := s.face.cancel(s.Context(), s.owner, in.TaskID)
	if err != nil || s.IsFollowing(snap.ID) {
		return err
	}
	return s.watch(snap.ID, snap.Cursor)
}

// watch follows a task from behind an entry.
func (s *session) watch(task job.ID, after int64) error {
	if err := s.CheckCapacity(); err != nil {
		return err
	}
	events := &taskEvents{encoder: encoder{task: task.String(), seq: after}, send: s.send}
	err := s.Follow(task, events, func(ctx context.Context) (*stream.Feed, watch.Update, error) {
		events.answer = func(j *job.Job) (conversation.Message, error) { return s.face.answer(ctx, j) }
		events.cut = func(err error) error {
			if ctx.Err() == nil {
				s.Send(s.cut(task, err))
			}
			return nil
		}
		return s.follow(ctx, task, after)
	})
	if err != nil {
		s.Send(s.cut(task, err)) // no answer to the message, which was obeyed
	}
	return nil
}

// follow begins to follow a task, and waits for the first update.
func (s *session) follow(ctx context.Context, task job.ID, after int64) (*stream.Feed, watch.Update, error) {
	w, err := s.face.engine.Watch(ctx, s.owner, task, after)
	if err != nil {
		return nil, watch.Update{}, err
	}
	feed := stream.NewFeed(task, w, after)
	first, err := feed.First(ctx)
	if err == nil {
		err = mayFollow(first.Job, after)
	}
	if err != nil {
		feed.Close()
		return nil, watch.Update{}, err
	}
	return feed, first, nil
}

func mayFollow(j *job.Job, after int64) error {
	if !isTask(j) {
		return noTask(j.ID.String())
	}
	if after > j.Cursor {
		return invalid("/after", "the task has said %d things so far, and after is %d", j.Cursor, after)
	}
	return nil
}

// taskEvents sends the events of a task as the messages of this API.
type taskEvents struct {
	encoder
	entries []job.Entry // of the update that is being taken
	// set once
	send   func(frame any) bool
	answer func(j *job.Job) (conversation.Message, error) // of an ended task
	cut    func(err error) error                          // ends the events without an answer
}

// Snapshot does nothing: what is news of a task is its progress.
func (e *taskEvents) Snapshot(int64, *job.Job) error { return nil }

// Entries keeps the entries for the end of the update.
func (e *taskEvents) Entries(entries []job.Entry) error {
	e.entries = entries
	return nil
}

// Updated sends the messages of one update.
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

// End reads how the task ended, and sends that.
func (e *taskEvents) End(_ int64, j *job.Job) (send func() error) {
	answer, err := e.answer(j)
	if err != nil {
		return func() error { return e.cut(err) }
	}
	last := e.end(answer)
	return func() error {
		if !e.send(last) {
			return stream.ErrClientGone
		}
		return nil
	}
}

// Idle does nothing: sockets are pinged.
func (e *taskEvents) Idle() error { return nil }
