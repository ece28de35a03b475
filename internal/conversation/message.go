package conversation

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// Role is the author of a message, with the names of the chat completions API.
type Role string

// The roles.
const (
	User      Role = "user"
	Assistant Role = "assistant"
)

// Status is the status of an answer. The chat API has the same statuses for tasks.
type Status string

// The statuses. Processing covers every state before the end.
const (
	Processing Status = "processing"
	Completed  Status = "completed"
	Failed     Status = "failed"
	Cancelled  Status = "cancelled"
	Expired    Status = "expired"
)

// StatusOf is the status of an answer whose job is in the state.
func StatusOf(s job.State) Status {
	switch s {
	case job.Succeeded:
		return Completed
	case job.Failed:
		return Failed
	case job.Cancelled:
		return Cancelled
	case job.Expired:
		return Expired
	default:
		return Processing
	}
}

// MessageID identifies a message: its conversation and its number there, from 1.
type MessageID struct {
	Conversation ID
	Number       int
}

// String is the id's public form: "msg_", the conversation's 26 characters, and six digits, so
// that the ids of a conversation sort in the order of its messages.
func (id MessageID) String() string {
	return fmt.Sprintf("%s_%06d", job.UUID(id.Conversation).Text("msg_"), id.Number)
}

// ParseMessageID parses the text of [MessageID.String]. ok is false for any other text.
func ParseMessageID(text string) (MessageID, bool) {
	head, digits, _ := strings.Cut(strings.TrimPrefix(text, "msg_"), "_")
	u, ok := job.ParseUUID("", head)
	n, err := strconv.Atoi(digits)
	id := MessageID{ID(u), n}
	if !ok || err != nil || n < 1 || id.String() != text {
		return MessageID{}, false
	}
	return id, true
}

// Message is a question or an answer. A question never changes. An answer is stored with its
// question, empty and processing. The end of its job sets its content and status. A retry of
// the job empties it again until the next end.
type Message struct {
	ID   MessageID
	Role Role
	Task job.ID // the job that answers
	// Content is the text of the message. An incomplete answer has the text up to its end.
	Content   string
	Status    Status // of an answer; "" for a question
	Error     *Error // why an answer is incomplete; nil otherwise
	Truncated bool   // the answer was longer than MaxAnswer
}

// Error is why an answer is incomplete: a stable code and a sentence.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// kindMessage is the kind of message rows. Their parent is the conversation.
const kindMessage = "message"

// messageRow is the body of a message row.
type messageRow struct {
	Role      Role   `json:"role"`
	Task      string `json:"task"`
	Content   string `json:"content,omitempty"`
	Status    Status `json:"status,omitempty"`
	Error     *Error `json:"error,omitempty"`
	Truncated bool   `json:"truncated,omitempty"`
}

func (m Message) row(owner job.Owner, do store.Action) store.Row {
	return store.Row{
		Owner: owner, Kind: kindMessage, Parent: m.ID.Conversation.String(), ID: m.ID.String(), Action: do,
		Body: encode(messageRow{m.Role, m.Task.String(), m.Content, m.Status, m.Error, m.Truncated}),
	}
}

func decodeMessage(r store.Row) (Message, error) {
	id, ok := ParseMessageID(r.ID)
	if !ok {
		return Message{}, damaged(r, nil)
	}
	var body messageRow
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return Message{}, damaged(r, err)
	}
	task, err := job.ParseID(body.Task)
	if err != nil {
		return Message{}, damaged(r, err)
	}
	return Message{id, body.Role, task, body.Content, body.Status, body.Error, body.Truncated}, nil
}

// kindAnswering is the kind of answering rows, which mark pending answers. Their parent is the
// conversation, their id is the id of the answer. A row exists from the question, or from a
// retry of the answer's job, until that job ends. A conversation has several when older answers
// were retried.
const kindAnswering = "answering"

// answeringRow is the body of an answering row; [TaskOf] reads it.
type answeringRow struct {
	Task string `json:"task"`
}

// answering is the answering row of the message.
func (m Message) answering(owner job.Owner, do store.Action) store.Row {
	return store.Row{
		Owner: owner, Kind: kindAnswering, Parent: m.ID.Conversation.String(), ID: m.ID.String(), Action: do,
		Body: encode(answeringRow{m.Task.String()}),
	}
}

// messagesOf is the set of a conversation's message rows.
func messagesOf(owner job.Owner, id ID) store.RowSet {
	return store.RowSet{Owner: owner, Kind: kindMessage, Parent: id.String()}
}

// pendingAnswer is an answer that a job will write.
func pendingAnswer(id MessageID, task job.ID) Message {
	return Message{ID: id, Role: Assistant, Task: task, Status: Processing}
}

// isPending reports whether the message is an answer whose job has not ended.
func (m Message) isPending() bool { return m.Status == Processing }

// isQuestion reports whether the message is a question.
func (m Message) isQuestion() bool { return m.Role == User }
