package conversation

import (
	"encoding/json"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// maxParsedResult bounds the results that are parsed for their answer. Past it the
// answer is taken from the job's output, which says the same.
const maxParsedResult = 2 << 20

// AtEnd is the [store.AtEnd] of conversations: a job that was asked in one leaves its
// answer there, and a retry makes that answer pending again; the conversation is then
// answering, as after a question. Jobs without a reference of ours leave nothing; nor
// does one whose conversation was deleted meanwhile.
func AtEnd(end store.End) store.FollowUp {
	owner := end.Job.Owner
	if id, ok := AnswerIDOf(&end.Job); ok && !end.Job.State.Ended() {
		m := pendingAnswer(id, end.Job.ID)
		return store.FollowUp{Rows: []store.Row{
			Conversation{ID: id.Conversation}.row(owner, store.Require),
			m.row(owner, store.Update),
			m.answering(owner, store.Put),
		}}
	}
	m, ok := AnswerOf(&end.Job, end.Result, end.Text)
	if !ok {
		return store.FollowUp{}
	}
	return store.FollowUp{Rows: []store.Row{m.row(owner, store.Update), m.answering(owner, store.Remove)}}
}

// AnswerIDOf finds the message that a job writes; not ok when it was asked in no
// conversation.
func AnswerIDOf(j *job.Job) (id MessageID, ok bool) {
	for _, ref := range j.Refs {
		if id, ok := ParseMessageID(ref); ok {
			return id, true
		}
	}
	return MessageID{}, false
}

// AnswerOf is the answer that an ended job leaves; not ok when it was asked in no
// conversation. Result may be nil, text reads what the last attempt said, up to a
// limit.
func AnswerOf(j *job.Job, result *job.Result, text func(limit int) string) (Message, bool) {
	id, ok := AnswerIDOf(j)
	if !ok {
		return Message{}, false
	}
	said, ok := "", false
	if result != nil {
		said, ok = completion(result.Body)
	}
	if !ok {
		said = strings.ToValidUTF8(text(MaxAnswer+1), "")
	}
	return Message{
		ID: id, Role: Assistant, Task: j.ID,
		Content:   cut(said, MaxAnswer),
		Status:    StatusOf(j.State),
		Error:     errorOf(j),
		Truncated: len(said) > MaxAnswer,
	}, true
}

// completion is the text of a chat completion: the content of its first choice.
// Not ok when the body is no such thing, or too long to look at.
func completion(body []byte) (text string, ok bool) {
	var c struct {
		Choices []struct {
			Message struct {
				Content *string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if len(body) > maxParsedResult || json.Unmarshal(body, &c) != nil || len(c.Choices) == 0 {
		return "", false
	}
	content := c.Choices[0].Message.Content
	if content == nil {
		return "", true
	}
	return *content, true
}

// errorOf is why a job's answer did not complete; nil when it did, or still may.
func errorOf(j *job.Job) *Error {
	switch {
	case !j.State.Ended() || j.State == job.Succeeded:
		return nil
	case j.State == job.Cancelled:
		return &Error{"cancelled", "the answer was cancelled before it was complete"}
	case j.Failure != nil:
		return &Error{j.Failure.Code, j.Failure.Message}
	case j.State == job.Expired:
		return &Error{"expired", "the question waited longer than it may; ask again"}
	default:
		return &Error{string(job.Internal), "the answer failed, and nobody said why"}
	}
}
