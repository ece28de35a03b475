package llm

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// plain is a chunk that adds text to the first choice and leaves all else of the
// completion as it is. Nearly every chunk is one, so it is understood in place.
// What is in any way unusual is left to encoding/json and to [completion.add], which
// come to the same for a plain chunk too, more slowly.
type plain struct {
	scan
	head    *chunk
	message object // of the first choice
	chosen  bool   // the choices were read
	content []byte // the text, as it is written; nil before it was read
}

// plain reads a chunk that is plain. The text is not empty; it is to be added to
// the first choice. False is for any other chunk, and for what is no chunk.
func (c *completion) plain(data []byte) (text string, ok bool) {
	first := c.choices[0]
	if first == nil {
		return "", false
	}
	message, _ := first.message.(object)
	p := plain{scan: scan{data}, head: &c.head, message: message}
	if !p.object(p.member) || !p.atEnd() || p.content == nil {
		return "", false
	}
	return unquote(p.content)
}

// addText adds the text of a plain chunk.
func (c *completion) addText(s string) {
	c.choices[0].message.(object)["content"].(*text).WriteString(s)
}

// member reads a member of the chunk. Of the head the first values were kept, if
// there were any.
func (p *plain) member(name []byte) bool {
	switch string(name) {
	case "id":
		return p.head.ID != "" && p.anyText()
	case "created":
		return p.head.Created != 0 && p.number()
	case "model":
		return p.head.Model != "" && p.anyText()
	case "system_fingerprint":
		return p.null() || p.same(p.head.Fingerprint)
	case "service_tier":
		return p.null() || p.same(p.head.Tier)
	case "usage", "error":
		return p.null()
	case "choices":
		if p.chosen {
			return false
		}
		p.chosen = true
		return p.is('[') && p.object(p.choice) && p.is(']')
	}
	return p.skip(0)
}

// choice reads a member of the only choice.
func (p *plain) choice(name []byte) bool {
	switch string(name) {
	case "index":
		return p.is('0')
	case "finish_reason", "logprobs":
		return p.null()
	case "delta":
		return p.object(p.said)
	case "message":
		return false
	}
	return p.skip(0)
}

// said reads a member of the delta. But for the content nothing of the message may
// change.
func (p *plain) said(name []byte) bool {
	old, _ := p.message[string(name)].(*text)
	switch {
	case string(name) != "content" && p.null():
		return true
	case old == nil:
		return false
	case string(name) == "content" && p.content == nil:
		p.content, _ = p.quoted()
		return p.content != nil
	case string(name) == "role":
		role, ok := p.text()
		return ok && bytes.Equal(role[1:len(role)-1], old.Bytes())
	}
	return string(name) != "content" && p.same([]byte(`""`))
}

func (p *plain) anyText() bool {
	_, ok := p.text()
	return ok
}

// same reads a text that is written like that.
func (p *plain) same(written []byte) bool {
	quoted, ok := p.text()
	return ok && bytes.Equal(quoted, written)
}

// unquote is the text that a string of JSON stands for. False if that is empty, or
// there is none.
func unquote(quoted []byte) (text string, ok bool) {
	inner := quoted[1 : len(quoted)-1]
	if isPlain(inner) {
		return string(inner), len(inner) > 0
	}
	var decoded string
	err := json.Unmarshal(quoted, &decoded)
	return decoded, err == nil && decoded != ""
}

// isPlain says whether a text stands for itself in JSON.
func isPlain(inner []byte) bool {
	for _, b := range inner {
		if b < ' ' || b == '\\' {
			return false
		}
	}
	return utf8.Valid(inner)
}
