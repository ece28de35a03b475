package jobs

import (
	"encoding/json"
	"strconv"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const maxMessage = 64 << 10 // bytes of a message from a client

// watchMessage is what a client of /v1/watch says.
type watchMessage struct {
	Type  string `json:"type"`  // watch, unwatch, cancel
	ID    string `json:"id"`    // of the job
	After int64  `json:"after"` // of watch: the number of the last entry that was seen
	Token string `json:"token"` // a watch token of the job; "" to ask as the socket
}

// parseMessage reads a message and refuses what is none. What it could read of a
// refused one it returns, so that the refusal can say what it answers.
func parseMessage(text []byte) (watchMessage, error) {
	var m watchMessage
	if err := api.DecodeJSON(text, &m); err != nil {
		return m, err
	}
	switch {
	case m.Type != "watch" && m.Type != "unwatch" && m.Type != "cancel":
		return m, refuse("/type", "there is no message %s: send watch, unwatch or cancel", job.Quote(m.Type))
	case m.ID == "":
		return m, refuse("/id", "id is missing: it names the job")
	case m.After < 0 || m.After > 0 && m.Type != "watch":
		return m, refuse("/after", "after is the number of an output entry that a watch goes on behind, or 0")
	}
	return m, nil
}

// messages sends a job's events on a socket, a message for each. Its data and its numbers
// are those of the server-sent events.
type messages struct {
	session *session
	id      job.ID
}

// Event sends one event.
func (m *messages) Event(name string, id stream.EventID, data func([]byte) []byte) error {
	buffers := &m.session.face.buffers
	pooled := buffers.Get()
	b := appendHead(*pooled, name, m.id)
	b = strconv.AppendInt(append(b, `,"seq":`...), id.Seq, 10)
	b = append(data(append(b, `,"data":`...)), '}')
	defer buffers.Put(pooled, b)
	if !m.session.Send(b) {
		return stream.ErrClientGone
	}
	return nil
}

// Flush does nothing: a message is sent at once.
func (m *messages) Flush() error { return nil }

// Idle does nothing: sockets are pinged.
func (m *messages) Idle() error { return nil }

func appendHead(b []byte, kind string, id job.ID) []byte {
	b = appendString(append(b, `{"type":`...), kind)
	return appendString(append(b, `,"id":`...), id.String())
}

// answer is the answer to a message that was obeyed. It is no event, so it has no seq.
func answer(kind string, id job.ID, data func([]byte) []byte) []byte {
	b := appendHead(nil, kind, id)
	if data != nil {
		b = data(append(b, `,"data":`...))
	}
	return append(b, '}')
}

// refused is the answer to a message that was not obeyed, or the end of a watch that
// cannot go on.
type refused struct {
	Type       string   `json:"type"`         // error
	Of         string   `json:"of,omitempty"` // the type of the message
	ID         string   `json:"id,omitempty"`
	Code       job.Code `json:"code"`
	Message    string   `json:"message"`
	Field      string   `json:"field,omitempty"`
	RetryAfter int      `json:"retry_after_s,omitempty"`
}

func refusal(of, id string, err error) []byte {
	p := api.ProblemOf(err)
	text, jsonErr := json.Marshal(refused{"error", shown(of), shown(id), p.Code, p.Detail, p.Field, api.RetryAfter(err)})
	if jsonErr != nil {
		panic("jobs: " + jsonErr.Error())
	}
	return text
}

// shown is a client's own word, bounded.
func shown(text string) string { return text[:min(len(text), 64)] }
