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

const (
	// The clients of the application that this API comes from know no pages: without a limit
	// they get as much as a page may have.
	defaultPage     = job.MaxListPage
	defaultMessages = 50 // of the call that has only messages
)

func (a *API) getConversations(w http.ResponseWriter, r *http.Request) error {
	limit, err := parseLimit(r, defaultPage)
	if err != nil {
		return err
	}
	page, next, err := a.conversations.List(r.Context(), gate.CallerFrom(r).Owner(), r.URL.Query().Get("after"), limit)
	if err != nil {
		return err
	}
	views := make([]conversationView, len(page))
	for i, c := range page {
		views[i] = viewConversation(c)
	}
	api.WriteJSON(w, http.StatusOK, conversationsView{views, nextOf(next)})
	return nil
}

func (a *API) postConversation(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Title string `json:"title"`
	}
	if err := optionalJSON(r, &in); err != nil {
		return err
	}
	if len(in.Title) > conversation.MaxTitle {
		return invalid("/title", "the title has %d bytes; at most %d are taken", len(in.Title), conversation.MaxTitle)
	}
	made, err := a.conversations.Create(r.Context(), gate.CallerFrom(r).Owner(), in.Title)
	if err != nil {
		return err
	}
	api.WriteJSON(w, http.StatusCreated, viewConversation(made))
	return nil
}

// getConversation returns a conversation with its newest messages.
func (a *API) getConversation(w http.ResponseWriter, r *http.Request) error {
	id, err := a.conversations.Resolve(r.Context(), gate.CallerFrom(r).Owner(), r.PathValue("id"))
	if err != nil {
		return err
	}
	c, err := a.conversations.Get(r.Context(), gate.CallerFrom(r).Owner(), id)
	if err != nil {
		return err
	}
	messages, next, err := a.readMessages(r, id, defaultPage)
	if err != nil {
		return err
	}
	return a.writeMessages(w, r, messages, wholeView{viewConversation(c), messages, nextOf(next)})
}

func (a *API) getMessages(w http.ResponseWriter, r *http.Request) error {
	id, err := a.conversations.Resolve(r.Context(), gate.CallerFrom(r).Owner(), r.PathValue("id"))
	if err != nil {
		return err
	}
	messages, next, err := a.readMessages(r, id, defaultMessages)
	if err != nil {
		return err
	}
	return a.writeMessages(w, r, messages, newListView(messages, next))
}

// writeMessages writes a page of messages, which count for the caller while its client reads
// them.
func (a *API) writeMessages(w http.ResponseWriter, r *http.Request, messages []messageView, body any) error {
	size := 0
	for i := range messages {
		size += len(messages[i].Content)
	}
	release, err := a.gate.ReserveResponse(gate.BudgetOf(r), size)
	if err != nil {
		return err
	}
	defer release()
	api.WriteJSON(w, http.StatusOK, body)
	return nil
}

// readMessages returns the page of messages that a request asks for, and the cursor of the page
// before it.
func (a *API) readMessages(r *http.Request, id conversation.ID, defaultLimit int) (views []messageView, next string, err error) {
	limit, err := parseLimit(r, defaultLimit)
	if err != nil {
		return nil, "", err
	}
	before, err := parseBefore(r, id)
	if err != nil {
		return nil, "", err
	}
	page, more, err := a.conversations.Messages(r.Context(), gate.CallerFrom(r).Owner(), id, before, limit)
	if err != nil {
		return nil, "", err
	}
	views = make([]messageView, len(page))
	for i, m := range page {
		if views[i], err = a.viewWithOutput(r.Context(), gate.CallerFrom(r).Owner(), m); err != nil {
			return nil, "", err
		}
	}
	if more {
		next = views[0].ID
	}
	return views, next, nil
}

// parseBefore returns the cursor of a page of messages, which must be of this conversation.
func parseBefore(r *http.Request, id conversation.ID) (conversation.MessageID, error) {
	text := r.URL.Query().Get("before")
	if text == "" {
		return conversation.MessageID{}, nil
	}
	before, ok := conversation.ParseMessageID(text)
	if !ok || before.Conversation != id {
		return before, job.Errorf(job.Invalid, "before must be the next of an earlier page, not %s", job.Quote(text))
	}
	return before, nil
}

// viewWithOutput returns the JSON of a message. A pending answer has the text so far and the
// cursor from which to watch; both come from the same read, so they fit together.
func (a *API) viewWithOutput(ctx context.Context, owner job.Owner, m conversation.Message) (messageView, error) {
	if m.Status != conversation.Processing {
		return viewMessage(m), nil
	}
	u, err := a.engine.Output(ctx, owner, m.Task, 0, 0)
	switch {
	case job.CodeOf(err) == job.NotFound: // the job was deleted and is being stopped
		m.Status = conversation.Cancelled
		return viewMessage(m), nil
	case err != nil:
		return messageView{}, err
	case u.Job.State.Ended(): // it has ended since the message was read
		m, err = a.answerMessage(ctx, u.Job)
		return viewMessage(m), err
	}
	v := viewMessage(m)
	var cursor int64
	v.Content, cursor = attemptText(u)
	v.Cursor = &cursor
	return v, nil
}

// attemptText returns the text of the newest attempt and the number of the last entry.
func attemptText(u engine.Update) (text string, cursor int64) {
	var all []byte
	for _, e := range u.Entries {
		switch e.Kind {
		case job.KindText:
			all = append(all, e.Data...)
		case job.KindAttempt:
			all = all[:0] // a new attempt starts over
		}
		cursor = e.Seq
	}
	return validText(string(all)), cursor
}

// deleteConversation deletes a conversation with all its messages and their jobs. It cancels
// the jobs that still run.
func (a *API) deleteConversation(w http.ResponseWriter, r *http.Request) error {
	owner := gate.CallerFrom(r).Owner()
	id, err := a.conversations.Resolve(r.Context(), owner, r.PathValue("id"))
	if err != nil {
		return err
	}
	err = a.conversations.Delete(r.Context(), owner, id, func(tasks []job.ID) error {
		return a.engine.DeleteJobs(r.Context(), owner, tasks)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
