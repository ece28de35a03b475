package chat

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/api"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// incoming is a message from a client's socket, whatever its type.
type incoming struct {
	Type string `json:"type"`
	// of chat_query
	Query          string `json:"query"`
	ConversationID string `json:"conversation_id"`
	Model          string `json:"model"`
	ClientID       string `json:"client_id"` // the client's name for this question: sent again, it is the same
	// of watch and cancel
	TaskID string `json:"task_id"`
	After  int64  `json:"after"` // of watch: the last seq that was seen
}

// fieldsOf says which fields a message of a type may have; nil for no such type.
func fieldsOf(kind string) []string {
	switch kind {
	case "chat_query":
		return []string{"type", "query", "conversation_id", "model", "client_id"}
	case "watch":
		return []string{"type", "task_id", "after"}
	case "cancel":
		return []string{"type", "task_id"}
	case "heartbeat":
		return []string{"type"}
	default:
		return nil
	}
}

// parse reads a message and refuses what is none. What it could read of a refused
// one it returns, so that the refusal can say what it answers.
func parse(data []byte) (in incoming, err error) {
	var fields map[string]json.RawMessage
	if err := api.DecodeJSON(data, &fields); err != nil {
		return in, err
	}
	if err := api.DecodeJSON(data, &in); err != nil {
		return in, err
	}
	known := fieldsOf(in.Type)
	if known == nil {
		return in, invalid("/type", "there is no message %s: send chat_query, watch, cancel or heartbeat", job.Quote(in.Type))
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

// checkClientID refuses what cannot be a client's name for a question. The name is the
// question's idempotency key, and need not be ASCII: no header carries it.
func checkClientID(id string) error {
	if len(id) > job.MaxKey || !utf8.ValidString(id) || strings.ContainsFunc(id, unprintable) {
		return invalid("/client_id", "an idempotency key is printable text of at most %d bytes", job.MaxKey)
	}
	return nil
}

func unprintable(r rune) bool { return r < ' ' || r == 0x7f }
