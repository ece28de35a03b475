package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/conversation"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/watch"
)

// header begins every message to a client.
type header struct {
	Type string `json:"type"`
	Task string `json:"task_id,omitempty"` // missing only in an error that is about no task
}

// eventHeader begins every message that is an event of a task. Seq is the number of the last
// output entry that this message and those before it include. A watch from there misses
// nothing and repeats nothing.
type eventHeader struct {
	header
	Seq int64 `json:"seq"`
}

// The messages to a client. The events of a task end with a chat_response, or with an error
// that has a status. An error without a status ends only the watch, or replies to a message
// of the client.
type (
	acceptedFrame struct {
		header
		Seq            *int64 `json:"seq,omitempty"` // 0 before the events; nil if they are sent already
		ClientID       string `json:"client_id,omitempty"`
		ConversationID string `json:"conversation_id"`
		Estimate       *int64 `json:"estimated_time_seconds"`
		Position       int    `json:"queue_position"`
	}
	progressFrame struct {
		eventHeader
		job.Progress
	}
	deltaFrame struct {
		eventHeader
		Text string `json:"text"`
	}
	// resetFrame begins a new attempt of the task: the client drops all deltas before it.
	resetFrame struct {
		eventHeader
		Attempt int `json:"attempt"`
	}
	responseFrame struct {
		eventHeader
		Answer         string `json:"answer"`
		ConversationID string `json:"conversation_id"`
		Truncated      bool   `json:"truncated,omitempty"` // the answer is cut; the deltas have all of it
	}
	errorFrame struct {
		header
		Seq        *int64              `json:"seq,omitempty"` // nil in a reply, which is not an event
		ClientID   string              `json:"client_id,omitempty"`
		Code       string              `json:"code"`
		Message    string              `json:"message"`
		Field      string              `json:"field,omitempty"`
		RetryAfter float64             `json:"retry_after_s,omitempty"`
		Error      string              `json:"error"`             // the message again; see [problemView]
		Status     conversation.Status `json:"status,omitempty"`  // failed at the end of the task; else ""
		Outcome    conversation.Status `json:"outcome,omitempty"` // how the task ended, with a status
	}
)

// maxDelta is the length of a delta in bytes. A client that watches late gets the text so far
// in pieces of this size.
const maxDelta = 32 << 10

// encoder turns the updates of a task into messages. It reads no clock and no store, so the
// same log always gives the same messages.
type encoder struct {
	task         string
	conversation string // its public id; set before the end
	seq          int64  // of the last entry that was encoded
	// lastProgress is the last progress that was encoded. Its percent never falls within an
	// attempt.
	lastProgress job.Progress
}

// update returns the messages of one update.
func (e *encoder) update(u watch.Update) []any {
	var out []any
	var text []byte
	flush := func() {
		if len(text) > 0 {
			out = append(out, deltaFrame{e.header("delta"), string(text)})
			text = nil
		}
	}
	for _, entry := range u.Entries {
		if entry.Kind != job.KindText || len(text)+len(entry.Data) > maxDelta {
			flush()
		}
		e.seq = entry.Seq
		switch entry.Kind {
		case job.KindText:
			text = append(text, entry.Data...)
		case job.KindAttempt:
			e.lastProgress = job.Progress{}
			out = append(out, resetFrame{e.header("reset"), entry.Attempt})
		case job.KindProgress:
			var p job.Progress
			if json.Unmarshal(entry.Data, &p) == nil {
				out = e.progress(out, p)
			}
		}
	}
	flush()
	if e.seq < u.Job.Cursor {
		return out // the job's progress may come from entries that are still to come
	}
	p := progressOf(u.Job)
	if u.Job.State.Waiting() && p.Percent < e.lastProgress.Percent {
		e.lastProgress = job.Progress{} // a new attempt starts over
	}
	return e.progress(out, p)
}

// progress appends a progress that has changed.
func (e *encoder) progress(out []any, p job.Progress) []any {
	if p == e.lastProgress || p.Percent < e.lastProgress.Percent {
		return out
	}
	e.lastProgress = p
	return append(out, progressFrame{e.header("progress"), p})
}

// end returns the last message of a watch.
func (e *encoder) end(answer conversation.Message) any {
	if answer.Status == conversation.Completed {
		return responseFrame{e.header("chat_response"), answer.Content, e.conversation, answer.Truncated}
	}
	frame := errorFrame{header: header{"error", e.task}, Seq: &e.seq, Status: statusOf(answer.Status), Outcome: outcomeOf(answer.Status)}
	if answer.Error != nil {
		frame.Code, frame.Message, frame.Error = answer.Error.Code, answer.Error.Message, answer.Error.Message
	}
	return frame
}

func (e *encoder) header(kind string) eventHeader { return eventHeader{header{kind, e.task}, e.seq} }

// newErrorFrame returns the reply to a message that was refused.
func newErrorFrame(in clientMessage, err error) errorFrame {
	p := api.ProblemOf(err)
	e := errorFrame{
		header: header{Type: "error", Task: in.TaskID}, ClientID: in.ClientID,
		Code: string(p.Code), Message: p.Detail, Error: p.Detail, Field: p.Field,
	}
	if b, ok := errors.AsType[*busyError](err); ok {
		e.Task = b.task.String()
	}
	if refused, ok := errors.AsType[*job.Error](err); ok {
		e.RetryAfter = math.Ceil(refused.RetryAfter.Seconds())
	}
	return e
}

// encodeFrame encodes a message as JSON. Every value of the frame types has JSON, so it
// never panics.
func encodeFrame(frame any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(frame); err != nil {
		panic("chat: " + err.Error())
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
