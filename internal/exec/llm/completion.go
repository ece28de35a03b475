package llm

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// completion is the answer that is rebuilt from the chunks so far.
type completion struct {
	// of the first chunk that has it
	id, model string
	created   int64

	usage   []byte
	others  otherMembers
	choices map[int]*choiceBuilder
	kept    int // bytes that the completion takes, about
}

// choiceBuilder is one choice of a completion.
type choiceBuilder struct {
	message  mergedObject
	logprobs logprobs
	finish   string // "" before its end
	hasDelta bool   // a chunk had a delta
	others   otherMembers
}

// bytesPerValue is about what a decoded value takes besides its text.
const bytesPerValue = 64

// added is what a chunk adds to the log.
type added struct {
	event    []byte // all but the text of the first choice, without what a reader does not need; nil for nothing
	piece    *piece // instead of the event, if it is only a piece of one string
	text     string // of the first choice
	logprobs int    // bytes of log probabilities in the event
}

// add merges a chunk into the completion. withLogprobs is whether the event contains log
// probabilities.
func (c *completion) add(k chunk, withLogprobs bool) (added, error) {
	if c.choices == nil {
		c.choices = make(map[int]*choiceBuilder)
	}
	setFirst(&c.id, textOrNumber(k.id))
	setFirst(&c.created, integer(k.created))
	setFirst(&c.model, plainText(k.model))
	if usage := boundUsage(k.usageAnywhere()); usage != nil {
		c.usage = usage
	}
	var a added
	event := map[string]any{}
	c.kept += c.others.set(k.others, event)
	delete(event, "system_fingerprint") // it is in the result, and not worth an entry of each stream
	var choices []any
	t := tree{budget: maxMembers}
	for _, choice := range k.choices {
		shown, err := c.addChoice(choice, &t, &a, withLogprobs)
		if err != nil {
			return a, err
		}
		if len(shown) > 0 {
			shown["index"] = choice.index
			choices = append(choices, shown)
		}
	}
	c.kept += (maxMembers - t.budget) * bytesPerValue
	switch {
	case len(choices) == 1 && len(event) == 0 && a.text == "":
		if a.piece = pieceOf(choices[0].(map[string]any)); a.piece != nil {
			return a, nil
		}
		fallthrough
	case len(choices)+len(event) > 0:
		event["choices"] = append([]any{}, choices...)
		a.event = encodeJSON(event)
	}
	return a, nil
}

// pieceOf returns the piece that a shown choice consists of; nil if there is more.
func pieceOf(shown map[string]any) *piece {
	delta, _ := shown["delta"].(map[string]any)
	if len(shown) != 2 || len(delta) != 1 {
		return nil
	}
	for name, value := range delta {
		if s, isString := value.(string); isString {
			return &piece{shown["index"].(int), name, []byte(s)}
		}
	}
	return nil
}

// addChoice merges a choice. It returns the members of the choice that belong into the event.
func (c *completion) addChoice(k choice, t *tree, a *added, withLogprobs bool) (map[string]any, error) {
	b := c.choices[k.index]
	isNew := b == nil
	if isNew {
		b = &choiceBuilder{message: mergedObject{}}
		c.choices[k.index] = b
	}
	shown := map[string]any{}
	c.kept += bytesPerValue + len(k.logprobs) + b.others.set(k.others, shown)
	if k.finish != "" {
		b.finish = k.finish
	}
	if n := b.logprobs.add(k.logprobs); n > 0 && withLogprobs {
		shown["logprobs"] = json.RawMessage(k.logprobs)
		a.logprobs += n
	}
	fields := k.fields()
	b.hasDelta = b.hasDelta || k.hasDelta()
	// Some servers repeat the whole message in the last chunk.
	if len(fields) == 0 || fields[0] != '{' || b.hasDelta && !k.hasDelta() {
		return shown, nil
	}
	t.rest = fields
	delta := t.object()
	if !isNew && !b.hasDelta {
		b.keepNew(delta)
	}
	if t.budget < 0 {
		return nil, errShape
	}
	c.kept += len(fields)
	_, _ = mergeObject(b.message, delta)
	delete(delta, "role")
	if k.index == 0 {
		a.text += takeText(delta)
	}
	maps.DeleteFunc(delta, func(_ string, v any) bool { return isEmptyValue(v) })
	if len(delta) > 0 {
		shown["delta"] = delta
	}
	return shown, nil
}

// keepNew removes from a message what the choice has already. Some servers have messages in place
// of deltas; each is the whole message so far, or only its next piece.
func (b *choiceBuilder) keepNew(message map[string]any) {
	for name, value := range message {
		old, hasText := b.message[name].(*mergedText)
		next, isText := value.(text)
		switch {
		case hasText && isText:
			message[name] = text(bytes.TrimPrefix(next, old.Bytes()))
		case b.message[name] != nil && !isText:
			delete(message, name)
		}
	}
}

// takeText removes the text from an added content and returns it.
func takeText(delta map[string]any) (all string) {
	switch content := delta["content"].(type) {
	case string:
		delete(delta, "content")
		return content
	case []any:
		delta["content"] = slices.DeleteFunc(content, func(item any) bool {
			part, _ := item.(map[string]any)
			s, isString := part["text"].(string)
			if !isString || len(part) > 2 || part["type"] != "text" && part["type"] != "output_text" {
				return false
			}
			all += s
			return true
		})
	}
	return all
}

func isEmptyValue(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// flush returns what is not in the log at the end of the stream: half a character, and the last
// values of members that have changed.
func (c *completion) flush() added {
	var a added
	event := map[string]any{}
	c.others.takeChanged(event)
	var choices []any
	for _, index := range slices.Sorted(maps.Keys(c.choices)) {
		b := c.choices[index]
		shown := map[string]any{}
		if b.others.takeChanged(shown); len(shown) > 0 {
			shown["index"] = index
			choices = append(choices, shown)
		}
		if t, isText := b.message["content"].(*mergedText); isText && index == 0 && len(t.held) > 0 {
			a.text, t.held = "\ufffd", nil
			t.WriteString(a.text)
		}
	}
	delete(event, "system_fingerprint")
	if len(choices)+len(event) > 0 {
		event["choices"] = append([]any{}, choices...)
		a.event = encodeJSON(event)
	}
	return a
}

// finished returns how many choices there are, and how many of them have a finish reason.
func (c *completion) finished() (finished, all int) {
	for _, b := range c.choices {
		if b.finish != "" {
			finished++
		}
	}
	return finished, len(c.choices)
}

// hasOpenCall reports whether the arguments of a tool call are incomplete.
func (c *completion) hasOpenCall() bool {
	for _, b := range c.choices {
		calls, _ := b.message["tool_calls"].(*mergedList)
		if calls == nil {
			continue
		}
		for _, item := range calls.items {
			call, _ := item.(mergedObject)
			function, _ := call["function"].(mergedObject)
			if !completeArguments(function["arguments"]) {
				return true
			}
		}
	}
	return false
}

// encode returns the completion object as JSON.
func (c *completion) encode() []byte {
	var choices []any
	for _, index := range slices.Sorted(maps.Keys(c.choices)) {
		choices = append(choices, c.choices[index].encodable(index))
	}
	head := encodeJSON(struct {
		ID      string          `json:"id"`
		Object  string          `json:"object"`
		Created int64           `json:"created"`
		Model   string          `json:"model"`
		Choices []any           `json:"choices"`
		Usage   json.RawMessage `json:"usage,omitempty"`
	}{c.id, "chat.completion", c.created, c.model, choices, c.usage})
	if len(c.others) == 0 {
		return head
	}
	// Two objects become one.
	return append(append(head[:len(head)-1], ','), encodeJSON(c.others.encodable())[1:]...)
}

// encodable returns the choice in a form that encoding/json can write. It adds a missing role
// and content, and removes the index of tool calls, which exists only in streams.
func (b *choiceBuilder) encodable(index int) map[string]any {
	message := plainValue(b.message).(map[string]any)
	if message["role"] == nil || message["role"] == "" {
		message["role"] = "assistant"
	}
	if _, has := message["content"]; !has {
		message["content"] = nil
	}
	if parts, isList := message["content"].([]any); isList {
		message["content"] = joinTexts(parts)
	}
	calls, _ := message["tool_calls"].([]any)
	for _, call := range calls {
		if fields, ok := call.(map[string]any); ok {
			delete(fields, "index")
		}
	}
	choice := map[string]any{"index": index, "message": message, "logprobs": b.logprobs.encodable(), "finish_reason": nil}
	if b.finish != "" {
		choice["finish_reason"] = b.finish
	}
	for name, value := range b.others.encodable() {
		choice[name] = value
	}
	return choice
}

// joinTexts makes a string of a content whose parts are all text, because most clients expect
// one.
func joinTexts(parts []any) any {
	content := map[string]any{"content": slices.Clone(parts)}
	if all := takeText(content); len(content["content"].([]any)) == 0 {
		return all
	}
	return parts
}

// logprobs are the log probabilities of a choice: lists that grow. They are kept as they are
// written, because they are large and nobody needs their values here.
type logprobs map[string]*bytes.Buffer

// add appends the lists of a chunk and returns their size.
func (l *logprobs) add(value []byte) (size int) {
	for name, list := range members(value) {
		inner, isList := bytes.CutPrefix(list, []byte("["))
		if inner = bytes.TrimSpace(bytes.TrimSuffix(inner, []byte("]"))); !isList || len(inner) == 0 {
			continue
		}
		if *l == nil {
			*l = make(logprobs)
		}
		b := (*l)[name]
		if b == nil {
			b = new(bytes.Buffer)
			(*l)[name] = b
		} else {
			b.WriteByte(',')
		}
		b.Write(inner)
		size += len(inner)
	}
	return size
}

func (l logprobs) encodable() any {
	if l == nil {
		return nil
	}
	lists := make(map[string]json.RawMessage, len(l))
	for name, b := range l {
		lists[name] = slices.Concat([]byte("["), b.Bytes(), []byte("]"))
	}
	return lists
}

// otherMembers are members that the executor does not know, such as citations. The last value of
// each counts.
type otherMembers map[string]*otherMember

type otherMember struct {
	value  []byte
	logged bool // the log has this value
}

// set stores members and returns the change of their size. It adds new ones to event. A value
// that changes goes into the log only at the end, because some servers count in every chunk.
func (o *otherMembers) set(list []member, event map[string]any) (grown int) {
	for _, m := range list {
		old := (*o)[m.name]
		switch {
		case old == nil:
			if *o == nil {
				*o = make(otherMembers)
			}
			value := bytes.Clone(m.value)
			(*o)[m.name] = &otherMember{value, true}
			event[m.name] = json.RawMessage(value)
			grown += len(m.name) + len(value) + bytesPerValue
		case !bytes.Equal(old.value, m.value):
			grown += len(m.value) - len(old.value)
			old.value, old.logged = append(old.value[:0:0], m.value...), false
		}
	}
	return grown
}

// takeChanged adds the members whose value the log does not have to event.
func (o otherMembers) takeChanged(event map[string]any) {
	for name, m := range o {
		if !m.logged {
			m.logged = true
			event[name] = json.RawMessage(m.value)
		}
	}
}

// value returns the value of a member; nil without it.
func (o otherMembers) value(name []byte) []byte {
	if m := o[string(name)]; m != nil {
		return m.value
	}
	return nil
}

func (o otherMembers) encodable() map[string]json.RawMessage {
	all := make(map[string]json.RawMessage, len(o))
	for name, m := range o {
		all[name] = m.value
	}
	return all
}

// textOrNumber returns a string, or a number as one.
func textOrNumber(value []byte) string {
	if len(value) > 0 && (value[0] == '-' || value[0] >= '0' && value[0] <= '9') {
		return string(value)
	}
	return plainText(value)
}

// integer returns a number, also one in a string; 0 for anything else.
func integer(value []byte) int64 {
	n, err := strconv.ParseFloat(strings.Trim(string(value), `"`), 64)
	if err != nil || n < 0 || n > 1<<53 {
		return 0
	}
	return int64(n)
}

// setFirst sets *kept to next unless it is set already.
func setFirst[T comparable](kept *T, next T) {
	var zero T
	if *kept == zero {
		*kept = next
	}
}

// maxLoggedLogprobs limits log probabilities in the log, of which the words need some room. All
// of them are in the result.
const maxLoggedLogprobs = job.MaxOutput / 2
