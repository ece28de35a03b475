package conversation

import (
	"encoding/json"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/store"
)

// mostResult bounds the results that are parsed for their answer. Past it the
// answer is taken from the job's output, which says the same.
const mostResult = 2 << 20

// RowsAtEnd is the [store.RowsAtEnd] of conversations: a job that was asked in one
// leaves its answer there. Jobs with another Ref, or none, leave nothing; nor does
// one whose conversation was deleted meanwhile.
func RowsAtEnd(end store.End) []store.Row {
	id, ok := ParseMessageID(end.Job.Ref)
	if !ok {
		return nil
	}
	text := answerOf(end)
	m := Message{
		ID: id, Role: Assistant, Task: end.Job.ID,
		Content:   cut(text, MaxAnswer),
		Status:    StatusOf(end.Job.State),
		Error:     ErrorOf(&end.Job),
		Truncated: len(text) > MaxAnswer,
	}
	return []store.Row{m.row(end.Job.Owner, store.Update)}
}

// answerOf is all that the job answered, or a little more than a message keeps.
func answerOf(end store.End) string {
	if end.Result != nil {
		if text, ok := Answer(end.Result.Body); ok {
			return text
		}
	}
	return strings.ToValidUTF8(end.Text(MaxAnswer+1), "\uFFFD")
}

// Answer is the text of a chat completion: the content of its first choice.
// Not ok when the body is no such thing, or too long to look at.
func Answer(completion []byte) (text string, ok bool) {
	var c struct {
		Choices []struct {
			Message struct {
				Content *string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if len(completion) > mostResult || json.Unmarshal(completion, &c) != nil || len(c.Choices) == 0 {
		return "", false
	}
	content := c.Choices[0].Message.Content
	if content == nil {
		return "", true
	}
	return *content, true
}

// ErrorOf is why a job's answer did not complete; nil when it did, or still may.
func ErrorOf(j *job.Job) *Error {
	switch j.State {
	case job.Cancelled:
		return &Error{"cancelled", "the answer was cancelled before it was complete"}
	case job.Expired:
		return &Error{"expired", "the question waited longer than it may; ask again"}
	case job.Failed:
		if j.Failure != nil {
			return &Error{j.Failure.Code, j.Failure.Message}
		}
		return &Error{string(job.Internal), "the answer failed, and nobody said why"}
	default:
		return nil
	}
}
