package chat

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// clientMessage is the JSON of a client's message of any type.
type clientMessage struct {
	Type string `json:"type"`
	// of chat_query
	Query          string `json:"query"`
	ConversationID string `json:"conversation_id"`
	Model          string `json:"model"`
	ClientID       string `json:"client_id"` // the client's idempotency key for the question
	// of watch and cancel
	TaskID string `json:"task_id"`
	After  int64  `json:"after"` // of watch: the last seq that the client has
	Token  string `json:"token"` // of token: another token of the user
}

// allowedFields returns the fields that a message of a type may have; nil for an unknown
// type.
func allowedFields(kind string) []string {
	switch kind {
	case "chat_query":
		return []string{"type", "query", "conversation_id", "model", "client_id"}
	case "watch":
		return []string{"type", "task_id", "after"}
	case "cancel":
		return []string{"type", "task_id"}
	case "token":
		return []string{"type", "token"}
	default:
		return nil
	}
}

// parseMessage decodes and checks a message. With an error it returns the fields that it
// could decode, so that the reply can name the message.
func parseMessage(data []byte) (in clientMessage, err error) {
	// Decoded twice: the map tells a field that was given from one that was not.
	var fields map[string]json.RawMessage
	if err := api.DecodeJSON(data, &fields); err != nil {
		return in, err
	}
	if string(fields["type"]) == `"heartbeat"` {
		return clientMessage{Type: "heartbeat"}, nil // whatever else it has, as over HTTP
	}
	if err := api.DecodeJSON(data, &in); err != nil {
		return in, err
	}
	known := allowedFields(in.Type)
	if known == nil {
		return in, invalid("/type", "there is no message %s: send chat_query, watch, cancel, heartbeat or token", job.Quote(in.Type))
	}
	for name := range fields {
		if !slices.Contains(known, name) {
			return in, invalid("/"+name, "a %s has no field %s", in.Type, name)
		}
	}
	if in.After < 0 {
		return in, invalid("/after", "after must not be negative")
	}
	return in, checkClientID(in.ClientID)
}

// checkClientID checks the idempotency key of a question. It may have characters beyond
// ASCII, because no header carries it.
func checkClientID(id string) error {
	if len(id) > job.MaxKey || !utf8.ValidString(id) || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return invalid("/client_id", "an idempotency key is printable text of at most %d bytes", job.MaxKey)
	}
	return nil
}
