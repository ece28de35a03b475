package llm

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
)

// completion is a streamed answer as it grows.
type completion struct {
	head    chunk // id, model and the like, each from the first chunk that had it
	usage   json.RawMessage
	choices map[int]*growing
}

// growing is one choice of it.
type growing struct {
	message  any
	logprobs any
	finish   *string
}

func (c *completion) add(k chunk) {
	if c.choices == nil {
		c.choices = make(map[int]*growing)
	}
	first(&c.head.ID, k.ID)
	first(&c.head.Created, k.Created)
	first(&c.head.Model, k.Model)
	c.head.Fingerprint = latest(c.head.Fingerprint, k.Fingerprint)
	c.head.Tier = latest(c.head.Tier, k.Tier)
	c.usage = latest(c.usage, k.Usage)
	for _, choice := range k.Choices {
		g := c.choices[choice.Index]
		if g == nil {
			g = &growing{message: object{}}
			c.choices[choice.Index] = g
		}
		g.message = mergeObject(g.message, choice.said())
		g.logprobs = merge("logprobs", g.logprobs, choice.Logprobs)
		if choice.Finish != nil && *choice.Finish != "" {
			g.finish = choice.Finish
		}
	}
}

// finished says whether every choice has said why it ends.
func (c *completion) finished() bool {
	for _, g := range c.choices {
		if g.finish == nil {
			return false
		}
	}
	return len(c.choices) > 0
}

// encode writes the completion object.
func (c *completion) encode() []byte {
	type written struct {
		Index    int     `json:"index"`
		Message  any     `json:"message"`
		Logprobs any     `json:"logprobs"`
		Finish   *string `json:"finish_reason"`
	}
	var choices []written
	for _, index := range slices.Sorted(maps.Keys(c.choices)) {
		g := c.choices[index]
		choices = append(choices, written{index, g.whole(), settled(g.logprobs), g.finish})
	}
	return encode(struct {
		ID          string          `json:"id"`
		Object      string          `json:"object"`
		Created     int64           `json:"created"`
		Model       string          `json:"model"`
		Choices     []written       `json:"choices"`
		Usage       json.RawMessage `json:"usage,omitempty"`
		Fingerprint json.RawMessage `json:"system_fingerprint,omitempty"`
		Tier        json.RawMessage `json:"service_tier,omitempty"`
	}{c.head.ID, "chat.completion", int64(c.head.Created), c.head.Model, choices, c.usage, c.head.Fingerprint, c.head.Tier})
}

// whole is the message of a choice. It always has a role and a content, and its
// tool calls lose the index that only a stream needs.
func (g *growing) whole() any {
	message := settled(g.message).(map[string]any)
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

// What grows by merging: an object, a list, a text, or a value that is written as
// it came.
type (
	object map[string]any
	list   struct {
		items []any
		at    map[string]int // where the item with an index is
	}
	text struct{ bytes.Buffer }
)

// merge adds a piece of a value, as a delta carries it, to what there was of it.
// Texts grow, objects and lists too, their items told apart by their index; other
// values are replaced.
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

// mergeText lets a text grow, but for the names of things: servers send those
// whole, and some send them again with every piece.
func mergeText(name string, old any, s string) any {
	t, ok := old.(*text)
	if !ok {
		t = &text{}
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
	o, ok := old.(object)
	if !ok {
		o = object{}
	}
	for name, piece := range fields {
		if merged := merge(name, o[name], piece); merged != nil {
			o[name] = merged
		}
	}
	return o
}

func mergeList(name string, old any, items []json.RawMessage) any {
	l, ok := old.(*list)
	if !ok {
		l = &list{at: make(map[string]int)}
	}
	for _, item := range items {
		var indexed struct{ Index json.RawMessage }
		_ = json.Unmarshal(item, &indexed)
		index := string(indexed.Index)
		if at, known := l.at[index]; known {
			l.items[at] = merge(name, l.items[at], item)
			continue
		}
		if !isEmpty(indexed.Index) {
			l.at[index] = len(l.items)
		}
		l.items = append(l.items, merge(name, nil, item))
	}
	return l
}

// settled is a grown value as encoding/json writes it.
func settled(v any) any {
	switch v := v.(type) {
	case object:
		fields := make(map[string]any, len(v))
		for name, value := range v {
			fields[name] = settled(value)
		}
		return fields
	case *list:
		items := make([]any, len(v.items))
		for i, item := range v.items {
			items[i] = settled(item)
		}
		return items
	case *text:
		return v.String()
	}
	return v
}

// first keeps the first value that is one.
func first[T comparable](kept *T, next T) {
	var zero T
	if *kept == zero {
		*kept = next
	}
}

// latest keeps the last value that is one.
func latest(kept, next json.RawMessage) json.RawMessage {
	if isEmpty(next) {
		return kept
	}
	return next
}
