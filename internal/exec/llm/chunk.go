package llm

import (
	"encoding/json"
	"slices"
)

// chunk is one event of a streamed answer, or a whole answer. In a streamed answer choices have
// a delta, in a whole one a message.
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
	Index        int                        `json:"index"`
	Delta        map[string]json.RawMessage `json:"delta"`
	Message      map[string]json.RawMessage `json:"message"`
	FinishReason *string                    `json:"finish_reason"`
	Logprobs     json.RawMessage            `json:"logprobs"`
}

// fields returns the choice's delta or message.
func (c choice) fields() map[string]json.RawMessage {
	if c.Delta != nil {
		return c.Delta
	}
	return c.Message
}

// text returns the choice's content if it is a string.
func (c choice) text() string {
	raw := c.fields()["content"]
	if !isString(raw) {
		return ""
	}
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}

// needsEvent reports whether the choice contains anything but a role and text of the first
// choice.
func (c choice) needsEvent() bool {
	if !isEmpty(c.Logprobs) {
		return true
	}
	for name, value := range c.fields() {
		plain := name == "role" || name == "content" && c.Index == 0 && isString(value)
		if !plain && !isEmpty(value) {
			return true
		}
	}
	return false
}

// text returns the text of the first choice.
func (c chunk) text() string {
	var all string
	for _, choice := range c.Choices {
		if choice.Index == 0 {
			all += choice.text()
		}
	}
	return all
}

func (c chunk) needsEvent() bool { return slices.ContainsFunc(c.Choices, choice.needsEvent) }

func isString(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '"' }

// isEmpty reports whether a JSON value is missing, null, or empty.
func isEmpty(raw json.RawMessage) bool {
	switch string(raw) {
	case "", "null", `""`, "[]", "{}":
		return true
	}
	return false
}
