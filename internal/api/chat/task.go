package chat

import (
	"context"
	"net/http"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func (a *API) getStatus(w http.ResponseWriter, r *http.Request) error {
	snap, err := a.findTask(r.Context(), gate.CallerFrom(r).Owner(), r.PathValue("task"))
	if err != nil {
		return err
	}
	view, err := a.viewTask(r, snap)
	if err != nil {
		return err
	}
	api.WriteJSON(w, http.StatusOK, view)
	return nil
}

// maxCancelHold is the longest time for which a cancel waits for the end of its task.
const maxCancelHold = 30 * time.Second

// postCancel cancels a task, and waits for the moment that its worker takes to stop. The status
// in the response is the outcome of the task, so that a client that cancels it gets
// "cancelled". For a task that has ended it changes nothing.
func (a *API) postCancel(w http.ResponseWriter, r *http.Request) error {
	if err := requireEmpty(r); err != nil {
		return err
	}
	owner := gate.CallerFrom(r).Owner()
	snap, err := a.cancel(r.Context(), owner, r.PathValue("task"))
	if err != nil {
		return err
	}
	if !snap.State.Ended() {
		// The slot is taken from a worker that ignores the cancel for CancelGrace. The sweep that
		// does so may come a little later.
		hold := min(snap.Policy.Timeouts.CancelGrace+2*time.Second, a.cancelHold)
		// The cancel is on disk, so the response is a success even when the wait fails.
		if ended, err := a.engine.Wait(r.Context(), owner, snap.ID, hold); err == nil {
			snap = ended
		}
	}
	view, err := a.viewTask(r, snap)
	if err != nil {
		view = a.viewSnapshot(r, snap)
	}
	status := http.StatusAccepted // the worker has not stopped yet
	if snap.State.Ended() {
		status, view.Status = http.StatusOK, view.Outcome
	}
	api.WriteJSON(w, status, view)
	return nil
}

// findTask returns one of the owner's tasks. A job that answers no question is not found.
func (a *API) findTask(ctx context.Context, owner job.Owner, text string) (engine.Snapshot, error) {
	id, err := job.ParseID(text)
	if err != nil {
		return engine.Snapshot{}, taskNotFound(text)
	}
	snap, err := a.engine.Get(ctx, owner, id)
	if job.CodeOf(err) == job.NotFound || err == nil && !isTask(&snap.Job) {
		return engine.Snapshot{}, taskNotFound(text)
	}
	return snap, err
}

func (a *API) cancel(ctx context.Context, owner job.Owner, text string) (engine.Snapshot, error) {
	snap, err := a.findTask(ctx, owner, text)
	if err != nil {
		return engine.Snapshot{}, err
	}
	return a.engine.Cancel(ctx, owner, snap.ID)
}

// isTask reports whether a job answers a question.
func isTask(j *job.Job) bool {
	_, ok := conversation.AnswerIDOf(j)
	return ok
}

func taskNotFound(text string) *job.Error {
	return job.Errorf(job.NotFound, "there is no task %s", job.Quote(text))
}

func (a *API) viewTask(r *http.Request, snap engine.Snapshot) (taskView, error) {
	v := a.viewSnapshot(r, snap)
	if !snap.State.Ended() {
		return v, nil
	}
	m, err := a.answerMessage(r.Context(), &snap.Job)
	if err != nil {
		return v, err
	}
	v.setAnswer(m)
	return v, nil
}

// viewSnapshot is viewTask without a read of the store. The answer of an ended task comes from
// the snapshot and may be cut.
func (a *API) viewSnapshot(r *http.Request, snap engine.Snapshot) taskView {
	state := conversation.StatusOf(snap.State)
	v := taskView{
		TaskID: snap.ID.String(), ConversationID: conversation.PublicIDOf(&snap.Job),
		Status: statusOf(state), Outcome: outcomeOf(state), Progress: progressOf(&snap.Job),
		Content: validText(snap.Text), Estimate: estimateSeconds(snap), URLs: a.newLinks(r, &snap.Job),
	}
	if snap.State.Ended() {
		m, _ := conversation.AnswerOf(&snap.Job, snap.Result, func(int) string { return snap.Text })
		v.setAnswer(m)
		return v
	}
	v.CancelRequested = !snap.CancelRequestedAt.IsZero()
	if snap.State == job.Queued {
		v.Position = &snap.Position
	}
	return v
}

// setAnswer adds the answer of an ended task.
func (v *taskView) setAnswer(m conversation.Message) {
	v.Content, v.Error = m.Content, m.Error
	if m.Status == conversation.Completed {
		v.Result = &resultView{m.Content, v.ConversationID, m.Truncated}
	}
}

// answerMessage returns the answer of an ended task from its conversation. Where the
// conversation was deleted, or the task was retried since, it builds the answer from the
// task's output.
func (a *API) answerMessage(ctx context.Context, j *job.Job) (conversation.Message, error) {
	id, _ := conversation.AnswerIDOf(j)
	m, err := a.conversations.Message(ctx, j.Owner, id)
	if err == nil && m.Status == conversation.StatusOf(j.State) || err != nil && job.CodeOf(err) != job.NotFound {
		return m, err
	}
	u, err := a.engine.Output(ctx, j.Owner, j.ID, 0, 0)
	if err != nil {
		return m, err
	}
	text, cursor := attemptText(u)
	m, _ = conversation.AnswerOf(j, nil, func(int) string { return text })
	m.Truncated = m.Truncated || cursor < u.Job.Cursor
	return m, nil
}
