package jobs

import (
	"encoding/json"
	"strconv"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/api/stream"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const maxMessage = 64 << 10 // bytes of a client's message

// watchMessage is the JSON of a message from a client of /v1/watch.
type watchMessage struct {
	Type  string `json:"type"`  // watch, unwatch, cancel
	ID    string `json:"id"`    // of the job
	After int64  `json:"after"` // of watch: the number of the last entry that the client has
	Token string `json:"token"` // a watch token for the job; "": as the owner of the socket
}

// parseMessage decodes and checks a message. With an error it returns the fields that it
// could decode, so that the reply can name the message.
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

// messageOutput sends a job's events on a socket, one message for each event. Data and
// numbers are those of the server-sent events.
type messageOutput struct {
	session *session
	id      job.ID
}

// Event sends one event.
func (m *messageOutput) Event(name string, id stream.EventID, data func([]byte) []byte) error {
	buffers := &m.session.api.buffers
	pooled := buffers.Get()
	b := appendMessageStart(*pooled, name, m.id)
	b = strconv.AppendInt(append(b, `,"seq":`...), id.Seq, 10)
	b = append(data(append(b, `,"data":`...)), '}')
	defer buffers.Put(pooled, b)
	if !m.session.Send(b) {
		return stream.ErrClientGone
	}
	return nil
}

// Flush does nothing, because Event sends at once.
func (m *messageOutput) Flush() error { return nil }

// Idle does nothing, because the socket sends pings.
func (m *messageOutput) Idle() error { return nil }

func appendMessageStart(b []byte, kind string, id job.ID) []byte {
	b = appendString(append(b, `{"type":`...), kind)
	return appendString(append(b, `,"id":`...), id.String())
}

// encodeReply returns the reply to a message that was handled. A reply is not an event, so
// it has no seq.
func encodeReply(kind string, id job.ID, data func([]byte) []byte) []byte {
	b := appendMessageStart(nil, kind, id)
	if data != nil {
		b = data(append(b, `,"data":`...))
	}
	return append(b, '}')
}

// errorMessage is the JSON of the reply to a message that was refused, and of the end of a
// watch that cannot continue.
type errorMessage struct {
	Type       string   `json:"type"`         // error
	Of         string   `json:"of,omitempty"` // the type of the client's message
	ID         string   `json:"id,omitempty"`
	Code       job.Code `json:"code"`
	Message    string   `json:"message"`
	Field      string   `json:"field,omitempty"`
	RetryAfter int      `json:"retry_after_s,omitempty"`
}

func errorReply(to, id string, err error) []byte {
	p := api.ProblemOf(err)
	text, jsonErr := json.Marshal(errorMessage{"error", truncate(to), truncate(id), p.Code, p.Detail, p.Field, api.RetryAfter(err)})
	if jsonErr != nil {
		panic("jobs: " + jsonErr.Error())
	}
	return text
}

// truncate shortens text from a client, so that an error repeats only 64 bytes of it.
func truncate(text string) string { return text[:min(len(text), 64)] }
