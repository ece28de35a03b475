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

// acceptedView is the response to an accepted question.
type acceptedView struct {
	TaskID         string              `json:"task_id"`
	Status         conversation.Status `json:"status"`
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
	l := listView[T]{Object: "list", Data: data}
	if next != "" {
		l.Next = &next
	}
	return l
}

type conversationView struct {
	ID        string    `json:"id"`
	Title     string    `json:"title"`
	CreatedAt time.Time `json:"created_at"`
}

func viewConversation(c conversation.Conversation) conversationView {
	return conversationView{c.ID.String(), c.Title, c.ID.Time().UTC()}
}

type messageView struct {
	ID        string              `json:"id"`
	Role      conversation.Role   `json:"role"`
	Content   string              `json:"content"`
	Status    conversation.Status `json:"status,omitempty"` // of an answer
	TaskID    string              `json:"task_id"`
	Cursor    *int64              `json:"cursor,omitempty"` // while it is processing: watch after this one
	Error     *conversation.Error `json:"error,omitempty"`
	Truncated bool                `json:"truncated,omitempty"`
	CreatedAt time.Time           `json:"created_at"`
}

func viewMessage(m conversation.Message) messageView {
	return messageView{
		ID: m.ID.String(), Role: m.Role, Content: m.Content, Status: m.Status, TaskID: m.Task.String(),
		Error: m.Error, Truncated: m.Truncated, CreatedAt: m.Task.Time().UTC(),
	}
}

// busyView is the problem of a [busyError].
type busyView struct {
	api.Problem
	TaskID string `json:"task_id"`
}

// writeError is the [api.ErrorWriter] of this API. It writes a problem; that of a [busyError]
// also names the task.
func writeError(w http.ResponseWriter, err error) {
	b, ok := errors.AsType[*busyError](err)
	if !ok {
		api.WriteProblem(w, err)
		return
	}
	p := api.ProblemOf(err)
	api.WriteProblemAs(w, err, p.Status, busyView{p, b.task.String()})
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
		return job.Progress{Status: "Waiting to try again"}
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

// validText removes half a character, which a length limit may have left at the end of text.
func validText(text string) string { return strings.ToValidUTF8(text, "") }
