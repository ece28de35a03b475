package llm

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// plainChunk parses a chunk that only adds text to the first choice. Nearly every chunk does, so
// it is parsed in place, without encoding/json. All other chunks are left to encoding/json and
// [completion.add], which give the same result for a plain chunk, but more slowly.
type plainChunk struct {
	scanner
	head       *chunk
	message    mergedObject // the first choice so far
	hasChoices bool         // "choices" was read
	content    []byte       // the quoted text; nil before it was read
}

// parsePlain returns the text of a plain chunk. The text is not empty and belongs to the first
// choice. ok is false for any other chunk and for invalid JSON.
func (c *completion) parsePlain(data []byte) (text string, ok bool) {
	// The first chunks of a stream create the choice and its message, so they are not plain.
	first := c.choices[0]
	if first == nil {
		return "", false
	}
	message, _ := first.message.(mergedObject)
	p := plainChunk{scanner: scanner{data}, head: &c.head, message: message}
	if !p.object(p.parseMember) || !p.atEnd() || p.content == nil {
		return "", false
	}
	return unquote(p.content)
}

// addText adds the text of a plain chunk to the first choice.
func (c *completion) addText(s string) {
	c.choices[0].message.(mergedObject)["content"].(*mergedText).WriteString(s)
}

// parseMember parses a member of the chunk. The completion keeps the first value of some
// members: these are skipped only if it has a value already.
func (p *plainChunk) parseMember(name []byte) bool {
	switch string(name) {
	case "id":
		return p.head.ID != "" && p.skipText()
	case "created":
		return p.head.Created != 0 && p.number()
	case "model":
		return p.head.Model != "" && p.skipText()
	case "system_fingerprint":
		return p.acceptNull() || p.acceptText(p.head.Fingerprint)
	case "service_tier":
		return p.acceptNull() || p.acceptText(p.head.Tier)
	case "usage", "error":
		return p.acceptNull()
	case "choices":
		if p.hasChoices {
			return false
		}
		p.hasChoices = true
		// Exactly one choice: a second one needs an event.
		return p.accept('[') && p.object(p.parseChoice) && p.accept(']')
	}
	return p.skipValue(0)
}

// parseChoice parses a member of the only choice.
func (p *plainChunk) parseChoice(name []byte) bool {
	switch string(name) {
	case "index":
		return p.accept('0')
	case "finish_reason", "logprobs":
		return p.acceptNull()
	case "delta":
		return p.object(p.parseDelta)
	// A whole message instead of a delta does not occur in a stream.
	case "message":
		return false
	}
	return p.skipValue(0)
}

// parseDelta parses a member of the delta. Members other than the content must not change the
// message.
func (p *plainChunk) parseDelta(name []byte) bool {
	old, _ := p.message[string(name)].(*mergedText)
	switch {
	case string(name) != "content" && p.acceptNull():
		return true
	case old == nil:
		return false
	case string(name) == "content" && p.content == nil:
		p.content, _ = p.anyString()
		return p.content != nil
	case string(name) == "role":
		role, ok := p.asciiString()
		return ok && bytes.Equal(role[1:len(role)-1], old.Bytes())
	}
	return string(name) != "content" && p.acceptText([]byte(`""`))
}

func (p *plainChunk) skipText() bool {
	_, ok := p.asciiString()
	return ok
}

// acceptText accepts a string whose quoted form equals quoted.
func (p *plainChunk) acceptText(quoted []byte) bool {
	next, ok := p.asciiString()
	return ok && bytes.Equal(next, quoted)
}

// unquote decodes a JSON string. ok is false if it is invalid or empty.
func unquote(quoted []byte) (text string, ok bool) {
	inner := quoted[1 : len(quoted)-1]
	if isLiteral(inner) {
		return string(inner), len(inner) > 0
	}
	var decoded string
	err := json.Unmarshal(quoted, &decoded)
	return decoded, err == nil && decoded != ""
}

// isLiteral reports whether a quoted string needs no decoding.
func isLiteral(inner []byte) bool {
	for _, b := range inner {
		if b < ' ' || b == '\\' {
			return false
		}
	}
	return utf8.Valid(inner)
}
