package conversation

import (
	"encoding/json"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// maxParsedResult is the largest result that is parsed for the answer, in bytes. For a larger one
// the answer is taken from the job's output, which has the same text.
const maxParsedResult = 2 << 20

// AtEnd is the [store.AtEnd] of conversations. The end of a job writes the answer. A retry makes
// the answer pending again, and the conversation answering, as after a question. A job without
// a reference to a message, or whose conversation was deleted, writes nothing.
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
	// Update writes only an existing message, so that a deleted conversation stays deleted.
	moves := rowsOfMove(owner, m.ID.Conversation, end.Job.ID.Time(), end.Job.FinishedAt)
	return store.FollowUp{Rows: append(moves, m.row(owner, store.Update), m.answering(owner, store.Remove))}
}

// AnswerIDOf returns the id of the answer that a job writes. ok is false for a job that belongs
// to no conversation.
func AnswerIDOf(j *job.Job) (id MessageID, ok bool) {
	for _, ref := range j.Refs {
		if id, ok := ParseMessageID(ref); ok {
			return id, true
		}
	}
	return MessageID{}, false
}

// AnswerOf returns the answer of an ended job. ok is false for a job that belongs to no
// conversation. result may be nil; text reads the text of the last attempt, up to a limit.
func AnswerOf(j *job.Job, result *job.Result, text func(limit int) string) (Message, bool) {
	id, ok := AnswerIDOf(j)
	if !ok {
		return Message{}, false
	}
	content, ok := "", false
	if result != nil {
		content, ok = completion(result.Body)
	}
	if !ok {
		content = strings.ToValidUTF8(text(MaxAnswer+1), "")
	}
	return Message{
		ID: id, Role: Assistant, Task: j.ID,
		Content:   cut(content, MaxAnswer),
		Status:    StatusOf(j.State),
		Error:     errorOf(j),
		Truncated: len(content) > MaxAnswer,
	}, true
}

// completion returns the text of a chat completion: the content of its first choice. ok is false
// when the body is not a chat completion or is too long to parse.
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

// errorOf returns why the answer of a job is incomplete; nil when it is complete or still
// pending.
func errorOf(j *job.Job) *Error {
	switch {
	case !j.State.Ended() || j.State == job.Succeeded:
		return nil
	case j.State == job.Cancelled:
		return &Error{"cancelled", "the answer was cancelled before it was complete"}
	case j.Failure != nil:
		return &Error{j.Failure.Code, j.Failure.Message}
	case j.State == job.Expired:
		return &Error{"expired", "the question waited too long; ask again"}
	default:
		return &Error{string(job.Internal), "the answer failed for an unknown reason"}
	}
}
