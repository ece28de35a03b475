package llm

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// plainChunk parses a chunk that only adds to one string of the first choice: to its text, or to
// its reasoning. Nearly every chunk does, so it is parsed in place, in one pass. All other chunks
// are left to [decodeChunk] and [completion.add], which give the same result for a plain chunk,
// but more slowly.
type plainChunk struct {
	scanner
	soFar      *completion
	first      *choiceBuilder // the first choice so far
	hasChoices bool           // "choices" was read
	hasDelta   bool           // "delta" was read

	// What the chunk adds, and to what.
	content []byte // the quoted text; nil before it was read
	name    []byte
	old     *mergedText
}

// parsePlain returns what a plain chunk adds to a string of the first choice, which is not
// empty, and the name and the value of that string. ok is false for any other chunk and for
// invalid JSON.
func (c *completion) parsePlain(data []byte) (name []byte, old *mergedText, text string, ok bool) {
	// The first chunks of a stream create the choice and its message, so they are not plain.
	first := c.choices[0]
	if first == nil {
		return nil, nil, "", false
	}
	p := plainChunk{scanner: scanner{data}, soFar: c, first: first}
	// Half a character waits for its other half.
	if !p.object(p.parseMember) || !p.atEnd() || p.content == nil || len(p.old.held) > 0 {
		return nil, nil, "", false
	}
	text, ok = unquote(p.content)
	return p.name, p.old, text, ok
}

// addPlain adds the text of a plain chunk to a string.
func (c *completion) addPlain(old *mergedText, s string) {
	old.WriteString(s)
	c.kept += len(s)
}

// parseMember parses a member of the chunk. The completion keeps the first value of some
// members: these are skipped only if it has a value already.
func (p *plainChunk) parseMember(name []byte) bool {
	switch string(name) {
	case "id":
		return p.soFar.id != "" && p.skipText()
	case "created":
		return p.soFar.created != 0 && p.number()
	case "model":
		return p.soFar.model != "" && p.skipText()
	case "object", "obfuscation":
		return p.skipText()
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
	return p.acceptNull() || p.acceptSame(p.soFar.others.value(name))
}

// parseChoice parses a member of the only choice.
func (p *plainChunk) parseChoice(name []byte) bool {
	switch string(name) {
	case "index":
		return p.accept('0')
	case "finish_reason", "logprobs":
		return p.acceptNull()
	case "delta":
		if p.hasDelta {
			return false
		}
		p.hasDelta = true
		return p.object(p.parseDelta)
	// A whole message instead of a delta does not occur in a stream.
	case "message", "text", "usage", "error":
		return false
	}
	return p.acceptNull() || p.acceptSame(p.first.others.value(name))
}

// parseDelta parses a member of the delta. One string may grow; other members must not change
// the message.
func (p *plainChunk) parseDelta(name []byte) bool {
	// The last of several members with the same name counts.
	if p.content != nil && bytes.Equal(name, p.name) {
		return false
	}
	if p.acceptNull() {
		return true
	}
	old, _ := p.first.message[string(name)].(*mergedText)
	if old == nil {
		return false
	}
	switch string(name) {
	case "role":
		role, ok := p.asciiString()
		return ok && bytes.Equal(role[1:len(role)-1], old.Bytes())
	case "id", "type", "name", "format": // see mergeText
		return p.acceptText([]byte(`""`))
	}
	quoted, ok := p.anyString()
	if !ok || len(quoted) == 2 {
		return ok
	}
	if p.content != nil {
		return false
	}
	p.content, p.name, p.old = quoted, name, old
	return true
}

func (p *plainChunk) skipText() bool {
	_, ok := p.asciiString()
	return ok
}

// acceptSame accepts a value that is equal to old, byte by byte.
func (p *plainChunk) acceptSame(old []byte) bool {
	p.skipSpace()
	if len(old) == 0 || !bytes.HasPrefix(p.rest, old) {
		return false
	}
	start := p.rest
	return p.skipValue(0) && len(start)-len(p.rest) == len(old)
}

// acceptText accepts a string whose quoted form equals quoted.
func (p *plainChunk) acceptText(quoted []byte) bool {
	next, ok := p.asciiString()
	return ok && bytes.Equal(next, quoted)
}

// unquote decodes a JSON string. ok is false if it is invalid or empty, or may have half a
// character.
func unquote(quoted []byte) (text string, ok bool) {
	inner := quoted[1 : len(quoted)-1]
	if isLiteral(inner) {
		return string(inner), len(inner) > 0
	}
	if !utf8.Valid(inner) || !json.Valid(quoted) {
		return "", false
	}
	decoded := decodeString(quoted)
	return string(decoded), len(decoded) > 0 && utf8.Valid(decoded)
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
