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

const maxInput = 32 << 20 // bytes; the largest bound that a queue may have

// inputText returns the input from the argument or from standard input.
func inputText(env *Env, args []string) ([]byte, error) {
	if len(args) == 1 && args[0] != "-" {
		return []byte(args[0]), nil
	}
	// Reading a terminal would look like a hanging command.
	if len(args) == 0 && env.InTerminal {
		return nil, usagef("an input is missing: give it as an argument, such as '{}', or on standard input")
	}
	text, err := io.ReadAll(io.LimitReader(env.In, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("standard input cannot be read: %w", err)
	}
	if len(text) > maxInput {
		return nil, usagef("the input on standard input is larger than 32 MiB")
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, usagef("the input on standard input is empty")
	}
	return text, nil
}

// inputReader builds the inputs for jobs of one queue. It asks the server for the executor
// of the queue only when the input is not a JSON object, and at most once.
type inputReader struct {
	c        *client.Client
	queue    string
	executor string // "" until it was needed
}

// parse converts text to the input of a job. It returns a JSON object unchanged. For a
// queue with the executor llm any other text is a question, sent as a chat message.
func (r *inputReader) parse(ctx context.Context, text []byte) (json.RawMessage, error) {
	trimmed := bytes.TrimSpace(text)
	valid := json.Valid(trimmed)
	// A JSON object is never a question, so the executor does not matter. Invalid
	// JSON that begins with { is a typing error and must not become a question.
	if bytes.HasPrefix(trimmed, []byte("{")) {
		if !valid {
			return nil, usagef("the input begins like a JSON object but is invalid: %v", json.Unmarshal(trimmed, new(any)))
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
		return nil, usagef("the input is not JSON, as the queue %s requires; an object looks like '{\"name\": \"value\"}'", r.queue)
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
