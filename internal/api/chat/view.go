package chat

import (
	"errors"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/gate"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// links are the addresses at which a client can follow a task.
type links struct {
	Status string `json:"status"`
	Cancel string `json:"cancel"`
	Events string `json:"events"`
	Socket string `json:"ws"`
	Watch  string `json:"watch,omitempty"` // needs no other credential
}

// jobsURL begins the path of a job in the native API, which serves the events of tasks too.
const jobsURL = "/v1/jobs/"

// newLinks returns the links of a task for the client that made a request.
func (a *API) newLinks(r *http.Request, j *job.Job) links {
	id := j.ID.String()
	return links{
		"/api/chat/status/" + id, "/api/chat/cancel/" + id, jobsURL + id + "/events", "/ws",
		a.gate.WatchURL(r, gate.Grant{Owner: j.Owner, Job: j.ID}, jobsURL, "/events"),
	}
}

// statusOf is the status that clients see. The clients of the application that this API comes
// from poll until a task is completed or failed, and know no other end.
func statusOf(s conversation.Status) conversation.Status {
	if s == conversation.Cancelled || s == conversation.Expired {
		return conversation.Failed
	}
	return s
}

// outcomeOf is how a task ended, in one word; "" while it is processing.
func outcomeOf(s conversation.Status) conversation.Status {
	if s == conversation.Processing {
		return ""
	}
	return s
}

// acceptedView is the response to an accepted question.
type acceptedView struct {
	TaskID         string              `json:"task_id"`
	Status         conversation.Status `json:"status"`
	Outcome        conversation.Status `json:"outcome,omitempty"`      // of a repeated question
	Estimate       *int64              `json:"estimated_time_seconds"` // null: unknown
	ConversationID string              `json:"conversation_id"`
	Position       int                 `json:"queue_position"`
	URLs           links               `json:"urls"`
}

// taskView is the status of a task.
type taskView struct {
	TaskID          string              `json:"task_id"`
	ConversationID  string              `json:"conversation_id"`
	Status          conversation.Status `json:"status"`
	Outcome         conversation.Status `json:"outcome,omitempty"` // how it ended
	Progress        job.Progress        `json:"progress"`
	Result          *resultView         `json:"result"`
	Error           *conversation.Error `json:"error"`
	Content         string              `json:"content"` // the text so far, or until the task stopped
	Estimate        *int64              `json:"estimated_time_seconds"`
	Position        *int                `json:"queue_position,omitempty"` // while it is queued
	CancelRequested bool                `json:"cancel_requested,omitempty"`
	URLs            links               `json:"urls"`
}

type resultView struct {
	Answer         string `json:"answer"`
	ConversationID string `json:"conversation_id"`
	Truncated      bool   `json:"truncated,omitempty"`
}

// listView is the JSON of a page of a list.
type listView[T any] struct {
	Object string  `json:"object"`
	Data   []T     `json:"data"`
	Next   *string `json:"next"` // null on the last page
}

func newListView[T any](data []T, next string) listView[T] {
	return listView[T]{"list", data, nextOf(next)}
}

// nextOf is the JSON of a cursor; null on the last page.
func nextOf(next string) *string {
	if next == "" {
		return nil
	}
	return &next
}

type conversationView struct {
	ID             string    `json:"id"`
	ConversationID string    `json:"conversation_id"` // the same, by the name that it has elsewhere
	Title          string    `json:"title"`
	CreatedAt      time.Time `json:"created_at"`
	LastMessageAt  time.Time `json:"last_message_at"`
}

func viewConversation(c conversation.Conversation) conversationView {
	id := c.PublicID()
	return conversationView{id, id, c.Title, c.ID.Time().UTC(), c.LastMessage.UTC()}
}

// conversationsView is the JSON of a page of conversations.
type conversationsView struct {
	Conversations []conversationView `json:"conversations"`
	Next          *string            `json:"next"` // null on the last page
}

// wholeView is a conversation with its newest messages.
type wholeView struct {
	conversationView
	Messages []messageView `json:"messages"`
	Next     *string       `json:"next"` // null where there are no older messages
}

type messageView struct {
	ID        string              `json:"id"`
	Role      conversation.Role   `json:"role"`
	Content   string              `json:"content"`
	Status    conversation.Status `json:"status,omitempty"`  // of an answer
	Outcome   conversation.Status `json:"outcome,omitempty"` // how the answer ended
	TaskID    string              `json:"task_id"`
	Cursor    *int64              `json:"cursor,omitempty"` // while it is processing: watch after this one
	Error     *conversation.Error `json:"error,omitempty"`
	Truncated bool                `json:"truncated,omitempty"`
	CreatedAt time.Time           `json:"created_at"`
}

func viewMessage(m conversation.Message) messageView {
	return messageView{
		ID: m.ID.String(), Role: m.Role, Content: m.Content, Status: statusOf(m.Status), Outcome: outcomeOf(m.Status), TaskID: m.Task.String(),
		Error: m.Error, Truncated: m.Truncated, CreatedAt: m.Task.Time().UTC(),
	}
}

// problemView is a problem of this API. It has the sentence again as error, where the clients of
// the application that this API comes from look for it.
type problemView struct {
	api.Problem
	Error  string `json:"error"`
	TaskID string `json:"task_id,omitempty"` // of a [busyError]
}

// writeError is the [api.ErrorWriter] of this API.
func writeError(w http.ResponseWriter, err error) {
	p := api.ProblemOf(err)
	view := problemView{Problem: p, Error: p.Detail}
	if b, ok := errors.AsType[*busyError](err); ok {
		view.TaskID = b.task.String()
	}
	api.WriteProblemAs(w, err, p.Status, view)
}

// progressOf returns the progress of a task in any state.
func progressOf(j *job.Job) job.Progress {
	p := j.Progress
	switch {
	case j.State == job.Succeeded:
		return job.Progress{Percent: 100, Status: "Complete"}
	case j.State == job.Failed:
		p.Status = "Failed"
	case j.State == job.Cancelled:
		p.Status = "Cancelled"
	case j.State == job.Expired:
		p.Status = "Expired"
	case j.State.Waiting() && j.Failure != nil:
		return job.Progress{Status: "Waiting to try again: " + shorten(j.Failure.Message)}
	case j.State.Waiting():
		return job.Progress{Status: "Waiting"}
	case !j.CancelRequestedAt.IsZero():
		p.Status = "Cancelling"
	case p.Status == "":
		p.Status = "Working"
	}
	return p
}

// estimateSeconds returns the whole seconds until a task ends; nil where they are unknown.
func estimateSeconds(s engine.Snapshot) *int64 {
	if s.Estimate <= 0 || s.State.Ended() {
		return nil
	}
	n := int64(math.Ceil(s.Estimate.Seconds()))
	return &n
}

// shorten cuts a message to the length of a line or two.
func shorten(message string) string {
	const most = 200 // bytes
	if len(message) <= most {
		return message
	}
	return validText(message[:most]) + "…"
}

// validText removes half a character, which a length limit may have left at the end of text.
func validText(text string) string { return strings.ToValidUTF8(text, "") }
