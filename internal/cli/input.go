package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/meanwhile-run/meanwhile/client"
)

const maxInput = 1 << 20 // bytes: no server takes more

// inputText is the input as it was typed, or as standard input says it.
func inputText(env *Env, args []string) ([]byte, error) {
	if len(args) == 1 && args[0] != "-" {
		return []byte(args[0]), nil
	}
	if len(args) == 0 && env.InTerminal {
		return nil, usagef("an input is missing: give it as an argument, such as '{}', or on standard input")
	}
	text, err := io.ReadAll(io.LimitReader(env.In, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("standard input cannot be read: %w", err)
	}
	if len(text) > maxInput {
		return nil, usagef("the input on standard input is larger than 1 MiB")
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, usagef("the input on standard input is empty")
	}
	return text, nil
}

// reader makes inputs for the jobs of a queue. How the queue does its jobs it asks
// the server once, and only when it has to know.
type reader struct {
	c        *client.Client
	queue    string
	executor string // "" until it was asked for
}

// understand makes a job's input of a text: JSON as it is; for a queue that asks a
// model, any other text as the question of a conversation.
func (r *reader) understand(ctx context.Context, text []byte) (json.RawMessage, error) {
	trimmed := bytes.TrimSpace(text)
	valid := json.Valid(trimmed)
	if bytes.HasPrefix(trimmed, []byte("{")) {
		if !valid {
			return nil, usagef("the input begins like a JSON object and is none: %v", json.Unmarshal(trimmed, new(any)))
		}
		return trimmed, nil
	}
	if r.executor == "" {
		q, err := r.c.Queue(ctx, r.queue)
		if err != nil {
			return nil, err
		}
		r.executor = q.Executor
	}
	switch {
	case r.executor == "llm" && len(trimmed) == 0:
		return nil, usagef("the question is empty")
	case r.executor == "llm":
		return question(string(text))
	case !valid:
		return nil, usagef("the input is not JSON, which the queue %s takes; an object looks like '{\"name\": \"value\"}'", r.queue)
	}
	return trimmed, nil
}

func question(text string) (json.RawMessage, error) {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	return json.Marshal(map[string][]message{"messages": {{"user", strings.TrimRight(text, "\r\n")}}})
}
