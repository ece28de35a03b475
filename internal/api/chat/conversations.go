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
	conversationPage = 20 // when nobody said
	messagePage      = 50
)

func (f *API) getConversations(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r, conversationPage)
	if err != nil {
		return err
	}
	var after conversation.ID
	if text := r.URL.Query().Get("after"); text != "" {
		if after, err = conversation.ParseID(text); err != nil {
			return badCursor("after", text)
		}
	}
	page, more, err := f.conversations.List(r.Context(), gate.Owner(r), after, limit)
	if err != nil {
		return err
	}
	views := make([]conversationView, len(page))
	for i, c := range page {
		views[i] = viewConversation(c)
	}
	next := ""
	if more {
		next = views[len(views)-1].ID
	}
	api.WriteJSON(w, http.StatusOK, pageOf(views, next))
	return nil
}

func (f *API) postConversation(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Title string `json:"title"`
	}
	if err := optionalJSON(r, &in); err != nil {
		return err
	}
	if len(in.Title) > conversation.MaxTitle {
		return invalid("/title", "the title has %d bytes; at most %d are taken", len(in.Title), conversation.MaxTitle)
	}
	made, err := f.conversations.Create(r.Context(), gate.Owner(r), in.Title)
	if err != nil {
		return err
	}
	api.WriteJSON(w, http.StatusCreated, viewConversation(made))
	return nil
}

func (f *API) getMessages(w http.ResponseWriter, r *http.Request) error {
	id, err := conversation.ParseID(r.PathValue("id"))
	if err != nil {
		return err
	}
	limit, err := limitOf(r, messagePage)
	if err != nil {
		return err
	}
	before, err := beforeOf(r, id)
	if err != nil {
		return err
	}
	page, more, err := f.conversations.Messages(r.Context(), gate.Owner(r), id, before, limit)
	if err != nil {
		return err
	}
	views := make([]messageView, len(page))
	for i, m := range page {
		if views[i], err = f.message(r.Context(), gate.Owner(r), m); err != nil {
			return err
		}
	}
	next := ""
	if more {
		next = views[0].ID
	}
	api.WriteJSON(w, http.StatusOK, pageOf(views, next))
	return nil
}

// beforeOf is the cursor of a page of messages: one of this conversation's.
func beforeOf(r *http.Request, id conversation.ID) (conversation.MessageID, error) {
	text := r.URL.Query().Get("before")
	if text == "" {
		return conversation.MessageID{}, nil
	}
	before, ok := conversation.ParseMessageID(text)
	if !ok || before.Conversation != id {
		return before, badCursor("before", text)
	}
	return before, nil
}

// message is a message as it is shown. A pending answer is shown with what has
// been said so far, and the number to watch on from: both of one moment.
func (f *API) message(ctx context.Context, owner job.Owner, m conversation.Message) (messageView, error) {
	if m.Status != conversation.Processing {
		return viewMessage(m), nil
	}
	u, err := f.engine.Output(ctx, owner, m.Task, 0, 0)
	switch {
	case job.CodeOf(err) == job.NotFound: // deleted as a job: it is being stopped
		m.Status = conversation.Cancelled
		return viewMessage(m), nil
	case err != nil:
		return messageView{}, err
	case u.Job.State.Ended(): // since the message was read
		m, err = f.answer(ctx, u.Job)
		return viewMessage(m), err
	}
	v := viewMessage(m)
	var cursor int64
	v.Content, cursor = saidSoFar(u)
	v.Cursor = &cursor
	return v, nil
}

// saidSoFar joins the text of the newest attempt, and says up to which entry.
func saidSoFar(u engine.Update) (text string, cursor int64) {
	var said []byte
	for _, e := range u.Entries {
		switch e.Kind {
		case job.KindText:
			said = append(said, e.Data...)
		case job.KindAttempt:
			said = said[:0]
		}
		cursor = e.Seq
	}
	return whole(string(said)), cursor
}

// deleteConversation removes the conversation with all its messages and their jobs.
// Answers that are still being written are cancelled.
func (f *API) deleteConversation(w http.ResponseWriter, r *http.Request) error {
	id, err := conversation.ParseID(r.PathValue("id"))
	if err != nil {
		return err
	}
	owner := gate.Owner(r)
	err = f.conversations.Delete(r.Context(), owner, id, func(tasks []job.ID) error {
		return f.engine.DeleteJobs(r.Context(), owner, tasks)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
