package chat

import (
	"context"
	"errors"
	"io"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// watch is a task that a session follows.
type watch struct {
	stop context.CancelFunc
	gone chan struct{} // closed by the watch's goroutine when it has told its last
}

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
		s.unwatch(task)
		return s.watch(task, in.After)
	case "cancel":
		return s.cancel(in)
	default:
		s.face.engine.Present(s.owner)
		return nil
	}
}

// query asks a question and watches its answer.
func (s *session) query(in incoming) error {
	if err := s.room(); err != nil {
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
	if s.amid(a.ID, accepted) {
		return nil // the same question sent again
	}
	accepted.Seq = new(int64)
	s.send(accepted)
	return s.watch(a.ID, 0)
}

// amid sends a message into the story of a task, before its last; false, and
// nothing is sent, when no story of it is being told.
func (s *session) amid(task job.ID, frame any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches[task] == nil {
		return false
	}
	s.send(frame)
	return true
}

// cancel asks for a task's end, and watches it to tell of it.
func (s *session) cancel(in incoming) error {
	if task, err := job.ParseID(in.TaskID); err == nil && !s.watching(task) {
		if err := s.room(); err != nil {
			return err
		}
	}
	snap, err := s.face.cancel(s.Context(), s.owner, in.TaskID)
	if err != nil || s.watching(snap.ID) {
		return err
	}
	return s.watch(snap.ID, snap.Cursor)
}

func (s *session) watching(task job.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watches[task] != nil
}

// room refuses one watch too many.
func (s *session) room() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.watches) >= maxWatches {
		return job.Errorf(job.TooLarge, "this socket follows %d tasks and takes no more: wait for one to end, or open another", maxWatches)
	}
	return nil
}

// watch follows a task from behind an entry. Only the reader calls it.
func (s *session) watch(task job.ID, after int64) error {
	if err := s.room(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(s.Context())
	w := &watch{stop, make(chan struct{})}
	s.mu.Lock()
	s.watches[task] = w
	s.mu.Unlock()
	s.Go(func() {
		defer stop()
		s.end(ctx, task, s.follow(ctx, task, after))
		close(w.gone)
	})
	return nil
}

// end tells the last of a watch and lets go of it, in one step: whoever has heard
// the last may ask anew, and whoever finds the watch here will hear the last.
func (s *session) end(ctx context.Context, task job.ID, last any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watches, task)
	if last != nil && ctx.Err() == nil {
		s.send(last)
	}
}

// unwatch lets go of a task, if it is followed, and returns when nothing more is
// said of it.
func (s *session) unwatch(task job.ID) {
	s.mu.Lock()
	w := s.watches[task]
	s.mu.Unlock()
	if w != nil {
		w.stop()
		<-w.gone
	}
}

// follow tells a task's story from behind an entry, and returns its last message;
// nil when there is nobody to tell.
func (s *session) follow(ctx context.Context, task job.ID, after int64) (last any) {
	w, err := s.face.engine.Watch(ctx, s.owner, task, after)
	if err != nil {
		return s.fault(ctx, task, err)
	}
	defer w.Close()
	n := narrator{task: task.String(), seq: after}
	var j *job.Job
	for {
		u, err := w.Next(ctx)
		if errors.Is(err, io.EOF) {
			return s.conclusion(ctx, &n, j)
		}
		if err == nil {
			err = mayFollow(u.Job, after)
		}
		if err != nil {
			return s.fault(ctx, task, err)
		}
		j = u.Job
		for _, frame := range n.tell(u) {
			if !s.send(frame) {
				return nil
			}
		}
	}
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

// fault is the last message of a watch that cannot go on; nil when it was ended.
func (s *session) fault(ctx context.Context, task job.ID, err error) any {
	if ctx.Err() != nil {
		return nil
	}
	return s.refusal(incoming{Type: "watch", TaskID: task.String()}, err)
}

// conclusion tells how a task ended.
func (s *session) conclusion(ctx context.Context, n *narrator, j *job.Job) any {
	answer, err := s.face.answer(ctx, j)
	if err != nil {
		return s.fault(ctx, j.ID, err)
	}
	return n.conclude(answer)
}
