package llm

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// chunk is one event of a streamed answer, or a whole answer. Its values are parts of the
// event's data. Only what the executor needs is decoded: servers write the other members with
// varying types.
type chunk struct {
	data    []byte // the event, as valid JSON
	id      []byte
	object  string
	kind    string // its "type"
	created []byte
	model   []byte
	choices []choice
	usage   []byte
	err     []byte // its "error"
	others  []member
}

// choice has a delta in a streamed answer, and a message in a whole one.
type choice struct {
	index    int
	delta    []byte
	message  []byte
	finish   string
	logprobs []byte
	usage    []byte
	err      []byte
	others   []member
}

type member struct {
	name  string
	value []byte
}

var (
	errNotJSON  = errors.New("it is not JSON")
	errNoChoice = errors.New("it is without a choice")
	errNotChunk = errors.New("it is not an object")
)

// decodeChunk decodes an event.
func decodeChunk(data []byte) (k chunk, err error) {
	data = bytes.TrimSpace(data)
	// Before any decoding: depth costs time, and members cost memory.
	if err := checkShape(data, 4); err != nil {
		return k, err
	}
	if !json.Valid(data) {
		if data = repairJSON(data); !json.Valid(data) {
			return k, errNotJSON
		}
	}
	if data[0] != '{' {
		return k, errNotChunk
	}
	k.data = data
	for name, value := range members(data) {
		switch name {
		case "id":
			k.id = value
		case "object":
			k.object = plainText(value)
		case "type":
			k.kind = plainText(value)
		case "created":
			k.created = value
		case "model":
			k.model = value
		case "choices":
			if k.choices, err = decodeChoices(value); err != nil {
				return k, err
			}
		case "usage":
			k.usage = value
		case "error":
			k.err = value
		case "obfuscation": // random bytes
		default:
			k.others = appendMember(k.others, name, value)
		}
	}
	return k, nil
}

// maxChoices limits the choices of an answer.
const maxChoices = 1 << 10

// decodeChoices accepts a list, a single choice, and null.
func decodeChoices(value []byte) (list []choice, err error) {
	if value[0] == '{' {
		return []choice{decodeChoice(value, 0)}, nil
	}
	if value[0] != '[' && string(value) != "null" {
		return nil, errors.New("its choices are not a list")
	}
	for item := range elements(value) {
		switch {
		case item[0] == '{':
			list = append(list, decodeChoice(item, len(list)))
		case string(item) != "null":
			return nil, errors.New("a choice is not an object")
		}
		if len(list) > maxChoices {
			return nil, errShape
		}
	}
	return list, nil
}

func decodeChoice(object []byte, position int) choice {
	c := choice{index: position}
	for name, value := range members(object) {
		switch name {
		case "index":
			if n, err := strconv.ParseFloat(strings.Trim(string(value), `"`), 64); err == nil && n >= 0 && n <= maxChoices {
				c.index = int(n)
			}
		case "delta":
			c.delta = value
		case "message":
			c.message = value
		// The older completions API has the text in the choice.
		case "text":
			if value[0] == '"' && c.delta == nil && c.message == nil {
				c.delta = slices.Concat([]byte(`{"content":`), value, []byte("}"))
			}
		case "finish_reason":
			c.finish = finishReason(value)
		case "logprobs":
			c.logprobs = value
		case "usage":
			c.usage = value
		case "error":
			c.err = value
		default:
			c.others = appendMember(c.others, name, value)
		}
	}
	return c
}

// finishReason reads a finish reason, which is a string, or an object with a type.
func finishReason(value []byte) string {
	for name, inner := range members(value) {
		if name == "type" || name == "reason" {
			return plainText(inner)
		}
	}
	if isEmpty(value) || string(value) == "false" || string(value) == `"null"` {
		return ""
	}
	if value[0] == '"' {
		return plainText(value)
	}
	return string(value)
}

func appendMember(list []member, name string, value []byte) []member {
	if isEmpty(value) {
		return list
	}
	return append(list, member{name, value})
}

// fields returns the choice's delta or message.
func (c choice) fields() []byte {
	if c.hasDelta() {
		return c.delta
	}
	return c.message
}

func (c choice) hasDelta() bool { return len(c.delta) > 0 && c.delta[0] == '{' }

// isWhole reports whether the chunk is an unstreamed answer.
func (k chunk) isWhole() bool {
	return len(k.choices) > 0 && !k.choices[0].hasDelta() && k.choices[0].message != nil
}

// usageAnywhere returns the usage, which some servers put into a choice or into a member of
// their own.
func (k chunk) usageAnywhere() []byte {
	if !isEmpty(k.usage) {
		return k.usage
	}
	for _, c := range k.choices {
		if !isEmpty(c.usage) {
			return c.usage
		}
	}
	for _, other := range k.others {
		if other.name != "x_groq" {
			continue
		}
		for name, value := range members(other.value) {
			if name == "usage" && !isEmpty(value) {
				return value
			}
		}
	}
	return nil
}

// maxUsage limits the usage of a job, which is part of every list.
const maxUsage = 4 << 10

// boundUsage returns the usage if it is an object of at most maxUsage bytes. Of a larger one it
// keeps the numbers.
func boundUsage(usage []byte) []byte {
	if len(usage) == 0 || usage[0] != '{' {
		return nil
	}
	if len(usage) <= maxUsage {
		var compact bytes.Buffer
		_ = json.Compact(&compact, usage)
		return compact.Bytes()
	}
	numbers := make(map[string]json.RawMessage)
	for name, value := range members(usage) {
		if isNumber := value[0] == '-' || value[0] >= '0' && value[0] <= '9'; isNumber && len(name) <= 40 && len(value) <= 24 && len(numbers) < 32 {
			numbers[name] = value
		}
	}
	return encodeJSON(numbers)
}

// plainText returns a string in whole characters; "" for any other value.
func plainText(value []byte) string {
	if len(value) < 2 || value[0] != '"' {
		return ""
	}
	whole, _ := wholeText(decodeString(value))
	return string(whole)
}

// isEmpty reports whether a JSON value is missing, null, or empty.
func isEmpty(raw []byte) bool {
	switch string(raw) {
	case "", "null", `""`, "[]", "{}":
		return true
	}
	return false
}
