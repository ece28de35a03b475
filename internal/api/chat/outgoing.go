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

// about begins every message to a client.
type about struct {
	Type string `json:"type"`
	Task string `json:"task_id,omitempty"` // left out only of an error that is about no task
}

// numbered begins every message that is an event of a task. Seq is the number of
// the last output entry that the client has heard of once it has this message: a
// watch from there misses nothing and repeats nothing.
type numbered struct {
	about
	Seq int64 `json:"seq"`
}

// The messages to a client. The events of a task end with one chat_response, or
// with one error that has a status. An error about a task that has none ends only
// the watch, or answers what the client asked.
type (
	acceptedFrame struct {
		about
		Seq            *int64 `json:"seq,omitempty"` // 0 where the events begin with it; nil where they are being sent already
		ClientID       string `json:"client_id,omitempty"`
		ConversationID string `json:"conversation_id"`
		Estimate       *int64 `json:"estimated_time_seconds"`
		Position       int    `json:"queue_position"`
	}
	progressFrame struct {
		numbered
		job.Progress
	}
	deltaFrame struct {
		numbered
		Text string `json:"text"`
	}
	// resetFrame says that the task is tried again: all deltas before it are void.
	resetFrame struct {
		numbered
		Attempt int `json:"attempt"`
	}
	responseFrame struct {
		numbered
		Answer         string `json:"answer"`
		ConversationID string `json:"conversation_id"`
		Truncated      bool   `json:"truncated,omitempty"` // the deltas were all of it
	}
	errorFrame struct {
		about
		Seq        *int64              `json:"seq,omitempty"` // nil in a refusal, which is no event
		ClientID   string              `json:"client_id,omitempty"`
		Code       string              `json:"code"`
		Message    string              `json:"message"`
		Field      string              `json:"field,omitempty"`
		RetryAfter float64             `json:"retry_after_s,omitempty"`
		Status     conversation.Status `json:"status,omitempty"` // how the task ended, where that is the error
	}
)

// mostDelta bounds a delta: what a late watcher missed comes in pieces of this.
const mostDelta = 32 << 10

// encoder turns what a feed reads of a task into the messages of a socket. It does
// nothing else, so the same log always makes the same messages.
type encoder struct {
	task string
	seq  int64 // of the last entry that was sent
	// sent is the last progress that was sent; percent never falls within an attempt.
	sent job.Progress
}

// update makes the messages of one update.
func (n *encoder) update(u watch.Update) []any {
	var out []any
	var text []byte
	flush := func() {
		if len(text) > 0 {
			out = append(out, deltaFrame{n.numbered("delta"), string(text)})
			text = nil
		}
	}
	for _, e := range u.Entries {
		if e.Kind != job.KindText || len(text)+len(e.Data) > mostDelta {
			flush()
		}
		n.seq = e.Seq
		switch e.Kind {
		case job.KindText:
			text = append(text, e.Data...)
		case job.KindAttempt:
			n.sent = job.Progress{}
			out = append(out, resetFrame{n.numbered("reset"), e.Attempt})
		case job.KindProgress:
			var p job.Progress
			if json.Unmarshal(e.Data, &p) == nil {
				out = n.progress(out, p)
			}
		}
	}
	flush()
	if n.seq < u.Job.Cursor {
		return out // the job is further than these entries
	}
	p := progressOf(u.Job)
	if u.Job.State.Waiting() && p.Percent < n.sent.Percent {
		n.sent = job.Progress{} // the attempt is over, and what it had reached
	}
	return n.progress(out, p)
}

// progress adds a progress that is news.
func (n *encoder) progress(out []any, p job.Progress) []any {
	if p == n.sent || p.Percent < n.sent.Percent {
		return out
	}
	n.sent = p
	return append(out, progressFrame{n.numbered("progress"), p})
}

// end makes the last message of a watch.
func (n *encoder) end(answer conversation.Message) any {
	if answer.Status == conversation.Completed {
		return responseFrame{n.numbered("chat_response"), answer.Content, answer.ID.Conversation.String(), answer.Truncated}
	}
	e := errorFrame{about: about{"error", n.task}, Seq: &n.seq, Status: answer.Status}
	if answer.Error != nil {
		e.Code, e.Message = answer.Error.Code, answer.Error.Message
	}
	return e
}

func (n *encoder) numbered(kind string) numbered { return numbered{about{kind, n.task}, n.seq} }

// refusal is the answer to a message that was not obeyed.
func refusal(in incoming, err error) errorFrame {
	p := api.ProblemOf(err)
	e := errorFrame{
		about: about{Type: "error", Task: in.TaskID}, ClientID: in.ClientID,
		Code: string(p.Code), Message: p.Detail, Field: p.Field,
	}
	if b, ok := errors.AsType[*busy](err); ok {
		e.Task = b.task.String()
	}
	if refused, ok := errors.AsType[*job.Error](err); ok {
		e.RetryAfter = math.Ceil(refused.RetryAfter.Seconds())
	}
	return e
}

// encodeFrame writes a message as JSON. Its types hold nothing that JSON cannot say.
func encodeFrame(frame any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(frame); err != nil {
		panic("chat: " + err.Error())
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
