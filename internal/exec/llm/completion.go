package llm

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
)

// completion is the answer that is rebuilt from the chunks so far.
type completion struct {
	head    chunk // id, model and so on, each from the first chunk that has it
	usage   json.RawMessage
	choices map[int]*choiceBuilder
}

// choiceBuilder is one choice of a completion.
type choiceBuilder struct {
	message      any
	logprobs     any
	finishReason *string
}

// add merges a chunk into the completion.
func (c *completion) add(k chunk) {
	if c.choices == nil {
		c.choices = make(map[int]*choiceBuilder)
	}
	setFirst(&c.head.ID, k.ID)
	setFirst(&c.head.Created, k.Created)
	setFirst(&c.head.Model, k.Model)
	c.head.Fingerprint = lastNonEmpty(c.head.Fingerprint, k.Fingerprint)
	c.head.Tier = lastNonEmpty(c.head.Tier, k.Tier)
	c.usage = lastNonEmpty(c.usage, k.Usage)
	for _, choice := range k.Choices {
		b := c.choices[choice.Index]
		if b == nil {
			b = &choiceBuilder{message: mergedObject{}}
			c.choices[choice.Index] = b
		}
		b.message = mergeObject(b.message, choice.fields())
		b.logprobs = merge("logprobs", b.logprobs, choice.Logprobs)
		if choice.FinishReason != nil && *choice.FinishReason != "" {
			b.finishReason = choice.FinishReason
		}
	}
}

// allFinished reports whether there is a choice and all choices have a finish reason.
func (c *completion) allFinished() bool {
	for _, b := range c.choices {
		if b.finishReason == nil {
			return false
		}
	}
	return len(c.choices) > 0
}

// encode returns the completion object as JSON.
func (c *completion) encode() []byte {
	type encodedChoice struct {
		Index    int     `json:"index"`
		Message  any     `json:"message"`
		Logprobs any     `json:"logprobs"`
		Finish   *string `json:"finish_reason"`
	}
	var choices []encodedChoice
	for _, index := range slices.Sorted(maps.Keys(c.choices)) {
		b := c.choices[index]
		choices = append(choices, encodedChoice{index, b.encodable(), plainValue(b.logprobs), b.finishReason})
	}
	return encodeJSON(struct {
		ID          string          `json:"id"`
		Object      string          `json:"object"`
		Created     int64           `json:"created"`
		Model       string          `json:"model"`
		Choices     []encodedChoice `json:"choices"`
		Usage       json.RawMessage `json:"usage,omitempty"`
		Fingerprint json.RawMessage `json:"system_fingerprint,omitempty"`
		Tier        json.RawMessage `json:"service_tier,omitempty"`
	}{c.head.ID, "chat.completion", int64(c.head.Created), c.head.Model, choices, c.usage, c.head.Fingerprint, c.head.Tier})
}

// encodable returns the message in a form that encoding/json can write. It adds a missing role
// and content, and removes the index of tool calls, which exists only in streams.
func (b *choiceBuilder) encodable() any {
	message := plainValue(b.message).(map[string]any)
	if message["role"] == nil {
		message["role"] = "assistant"
	}
	if _, has := message["content"]; !has {
		message["content"] = nil
	}
	calls, _ := message["tool_calls"].([]any)
	for _, call := range calls {
		if fields, ok := call.(map[string]any); ok {
			delete(fields, "index")
		}
	}
	return message
}

// Values that grow while deltas are merged. Other values are kept unchanged.
type (
	mergedObject map[string]any
	mergedList   struct {
		items []any
		at    map[string]int // position of each item by its index
	}
	mergedText struct{ bytes.Buffer }
)

// merge merges a piece of the member called name into the value old. Strings, objects and lists
// grow; list items are matched by their index; other values are replaced.
func merge(name string, old any, piece json.RawMessage) any {
	if len(piece) == 0 || string(piece) == "null" {
		return old
	}
	switch piece[0] {
	case '"':
		var s string
		_ = json.Unmarshal(piece, &s)
		return mergeText(name, old, s)
	case '{':
		var fields map[string]json.RawMessage
		_ = json.Unmarshal(piece, &fields)
		return mergeObject(old, fields)
	case '[':
		var items []json.RawMessage
		_ = json.Unmarshal(piece, &items)
		return mergeList(name, old, items)
	}
	return slices.Clone(piece)
}

// mergeText appends s to a string. It replaces strings that identify something, because some
// servers repeat those in every piece.
func mergeText(name string, old any, s string) any {
	t, ok := old.(*mergedText)
	if !ok {
		t = &mergedText{}
	}
	switch name {
	case "role", "id", "type", "name", "format":
		if s == "" {
			return t
		}
		t.Reset()
	}
	t.WriteString(s)
	return t
}

func mergeObject(old any, fields map[string]json.RawMessage) any {
	o, ok := old.(mergedObject)
	if !ok {
		o = mergedObject{}
	}
	for name, piece := range fields {
		// A null in a delta changes nothing.
		if merged := merge(name, o[name], piece); merged != nil {
			o[name] = merged
		}
	}
	return o
}

func mergeList(name string, old any, items []json.RawMessage) any {
	l, ok := old.(*mergedList)
	if !ok {
		l = &mergedList{at: make(map[string]int)}
	}
	for _, item := range items {
		var indexed struct{ Index json.RawMessage }
		_ = json.Unmarshal(item, &indexed)
		index := string(indexed.Index)
		if at, known := l.at[index]; known {
			l.items[at] = merge(name, l.items[at], item)
			continue
		}
		// Items without an index are never merged with others.
		if !isEmpty(indexed.Index) {
			l.at[index] = len(l.items)
		}
		l.items = append(l.items, merge(name, nil, item))
	}
	return l
}

// plainValue converts a merged value to maps, slices and strings for encoding/json.
func plainValue(v any) any {
	switch v := v.(type) {
	case mergedObject:
		fields := make(map[string]any, len(v))
		for name, value := range v {
			fields[name] = plainValue(value)
		}
		return fields
	case *mergedList:
		items := make([]any, len(v.items))
		for i, item := range v.items {
			items[i] = plainValue(item)
		}
		return items
	case *mergedText:
		return v.String()
	}
	return v
}

// setFirst sets *kept to next unless it is set already.
func setFirst[T comparable](kept *T, next T) {
	var zero T
	if *kept == zero {
		*kept = next
	}
}

// lastNonEmpty returns next unless it is empty.
func lastNonEmpty(kept, next json.RawMessage) json.RawMessage {
	if isEmpty(next) {
		return kept
	}
	return next
}
