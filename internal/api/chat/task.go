package chat

import (
	"context"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

func (f *API) getStatus(w http.ResponseWriter, r *http.Request) error {
	snap, err := f.task(r.Context(), gate.Owner(r), r.PathValue("task"))
	if err != nil {
		return err
	}
	view, err := f.viewTask(r, snap)
	if err != nil {
		return err
	}
	api.WriteJSON(w, http.StatusOK, view)
	return nil
}

// postCancel is idempotent: a task that has ended is answered as it ended.
func (f *API) postCancel(w http.ResponseWriter, r *http.Request) error {
	if err := noBody(r); err != nil {
		return err
	}
	snap, err := f.cancel(r.Context(), gate.Owner(r), r.PathValue("task"))
	if err != nil {
		return err
	}
	view, err := f.viewTask(r, snap)
	if err != nil { // the cancel is on disk, so its answer is a success
		view = f.viewSnapshot(r, snap)
	}
	status := http.StatusOK
	if !snap.State.Ended() {
		status = http.StatusAccepted // on disk, and the worker is being told
	}
	api.WriteJSON(w, status, view)
	return nil
}

// task finds one of the owner's tasks. A job of another kind is none.
func (f *API) task(ctx context.Context, owner job.Owner, text string) (engine.Snapshot, error) {
	id, err := job.ParseID(text)
	if err != nil {
		return engine.Snapshot{}, noTask(text)
	}
	snap, err := f.engine.Get(ctx, owner, id)
	if job.CodeOf(err) == job.NotFound || err == nil && !isTask(&snap.Job) {
		return engine.Snapshot{}, noTask(text)
	}
	return snap, err
}

func (f *API) cancel(ctx context.Context, owner job.Owner, text string) (engine.Snapshot, error) {
	snap, err := f.task(ctx, owner, text)
	if err != nil {
		return engine.Snapshot{}, err
	}
	return f.engine.Cancel(ctx, owner, snap.ID)
}

// isTask says whether the job answers a question.
func isTask(j *job.Job) bool {
	_, ok := conversation.AnswerIDOf(j)
	return ok
}

func noTask(text string) *job.Error {
	return job.Errorf(job.NotFound, "there is no task %s", job.Quote(text))
}

func (f *API) viewTask(r *http.Request, snap engine.Snapshot) (taskView, error) {
	v := f.viewSnapshot(r, snap)
	if !snap.State.Ended() {
		return v, nil
	}
	m, err := f.answer(r.Context(), &snap.Job)
	if err != nil {
		return v, err
	}
	v.show(m)
	return v, nil
}

// viewSnapshot is viewTask without a read: what an ended task said is what the snapshot
// holds of it.
func (f *API) viewSnapshot(r *http.Request, snap engine.Snapshot) taskView {
	id, _ := conversation.AnswerIDOf(&snap.Job)
	v := taskView{
		TaskID: snap.ID.String(), ConversationID: id.Conversation.String(),
		Status: conversation.StatusOf(snap.State), Progress: progressOf(&snap.Job),
		Content: whole(snap.Text), Estimate: estimate(snap), URLs: f.linksOf(r, &snap.Job),
	}
	if snap.State.Ended() {
		m, _ := conversation.AnswerOf(&snap.Job, snap.Result, func(int) string { return snap.Text })
		v.show(m)
		return v
	}
	v.CancelRequested = !snap.CancelRequestedAt.IsZero()
	if snap.State == job.Queued {
		v.Position = &snap.Position
	}
	return v
}

// show adds the answer of an ended task.
func (v *taskView) show(m conversation.Message) {
	v.Content, v.Error = m.Content, m.Error
	if m.Status == conversation.Completed {
		v.Result = &resultView{m.Content, v.ConversationID, m.Truncated}
	}
}

// answer is the message that an ended task left in its conversation; where the
// conversation was deleted, or the task retried since, the one that it would have left.
func (f *API) answer(ctx context.Context, j *job.Job) (conversation.Message, error) {
	id, _ := conversation.AnswerIDOf(j)
	m, err := f.conversations.Message(ctx, j.Owner, id)
	if err == nil && m.Status == conversation.StatusOf(j.State) || err != nil && job.CodeOf(err) != job.NotFound {
		return m, err
	}
	u, err := f.engine.Output(ctx, j.Owner, j.ID, 0, 0)
	if err != nil {
		return m, err
	}
	text, cursor := saidSoFar(u)
	m, _ = conversation.AnswerOf(j, nil, func(int) string { return text })
	m.Truncated = m.Truncated || cursor < u.Job.Cursor
	return m, nil
}
