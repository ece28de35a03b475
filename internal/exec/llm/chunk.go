package llm

import (
	"encoding/json"
	"slices"
)

// chunk is an event of a streamed answer, or a whole answer: their shapes differ
// only in whether a choice has a delta or a message.
type chunk struct {
	ID          string          `json:"id"`
	Created     float64         `json:"created"`
	Model       string          `json:"model"`
	Choices     []choice        `json:"choices"`
	Usage       json.RawMessage `json:"usage"`
	Fingerprint json.RawMessage `json:"system_fingerprint"`
	Tier        json.RawMessage `json:"service_tier"`
	Error       json.RawMessage `json:"error"`
}

type choice struct {
	Index    int                        `json:"index"`
	Delta    map[string]json.RawMessage `json:"delta"`
	Message  map[string]json.RawMessage `json:"message"`
	Finish   *string                    `json:"finish_reason"`
	Logprobs json.RawMessage            `json:"logprobs"`
}

// said is the choice's delta or message.
func (c choice) said() map[string]json.RawMessage {
	if c.Delta != nil {
		return c.Delta
	}
	return c.Message
}

// text is the choice's content, if that is a string.
func (c choice) text() string {
	raw := c.said()["content"]
	if !isString(raw) {
		return ""
	}
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}

// odd says whether the choice holds more than the plain text of the first one.
func (c choice) odd() bool {
	if !isEmpty(c.Logprobs) {
		return true
	}
	for name, value := range c.said() {
		plain := name == "role" || name == "content" && c.Index == 0 && isString(value)
		if !plain && !isEmpty(value) {
			return true
		}
	}
	return false
}

// text is the plain text of the first choice.
func (c chunk) text() string {
	var all string
	for _, choice := range c.Choices {
		if choice.Index == 0 {
			all += choice.text()
		}
	}
	return all
}

func (c chunk) odd() bool { return slices.ContainsFunc(c.Choices, choice.odd) }

func isString(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '"' }

// isEmpty says whether a value says nothing.
func isEmpty(raw json.RawMessage) bool {
	switch string(raw) {
	case "", "null", `""`, "[]", "{}":
		return true
	}
	return false
}
