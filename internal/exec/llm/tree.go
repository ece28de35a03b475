package llm

import (
	"bytes"
	"encoding/json"
	"iter"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// The functions of this file read JSON in place. It must be valid, and its shape checked.

// members iterates over the members of an object; over nothing if the value is no object.
func members(object []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		s := scanner{object}
		if !s.accept('{') {
			return
		}
		for {
			quoted, ok := s.anyString()
			if !ok || !s.accept(':') || !yield(string(decodeString(quoted)), s.rawValue()) || !s.accept(',') {
				return
			}
		}
	}
}

// elements iterates over the elements of a list; over nothing if the value is no list.
func elements(list []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		s := scanner{list}
		if !s.accept('[') || s.accept(']') {
			return
		}
		for yield(s.rawValue()) && s.accept(',') {
		}
	}
}

// rawValue reads any value and returns its bytes.
func (s *scanner) rawValue() []byte {
	s.skipSpace()
	if len(s.rest) == 0 {
		return nil
	}
	switch s.rest[0] {
	case '"':
		quoted, _ := s.anyString()
		return quoted
	case '{', '[':
		return s.advance(valueEnd(s.rest))
	}
	end := bytes.IndexAny(s.rest, ",]} \t\r\n")
	if end < 0 {
		end = len(s.rest)
	}
	return s.advance(end)
}

// tree decodes values into maps, lists, texts and raw scalars. budget is how many values it may
// still make; it is negative when there were too many.
type tree struct {
	scanner
	budget int
}

// text is a decoded string. It may begin or end within a character, because servers cut strings
// anywhere: see [decodeString].
type text []byte

// value reads a value: a map[string]any, a []any, a [text], a [json.RawMessage] or nil.
func (t *tree) value() any {
	t.skipSpace()
	if t.budget--; t.budget < 0 || len(t.rest) == 0 {
		return nil
	}
	switch t.rest[0] {
	case '{':
		return t.object()
	case '[':
		return t.list()
	case '"':
		quoted, _ := t.anyString()
		return text(decodeString(quoted))
	case 'n':
		t.advance(len("null"))
		return nil
	}
	return json.RawMessage(slices.Clone(t.rawValue()))
}

func (t *tree) object() map[string]any {
	fields := make(map[string]any)
	for t.accept('{'); ; {
		quoted, ok := t.anyString()
		if !ok || !t.accept(':') {
			t.accept('}')
			return fields
		}
		fields[string(decodeString(quoted))] = t.value()
		if t.budget < 0 || !t.accept(',') {
			t.accept('}')
			return fields
		}
	}
}

func (t *tree) list() []any {
	var items []any
	t.accept('[')
	if t.accept(']') {
		return items
	}
	for {
		items = append(items, t.value())
		if t.budget < 0 || !t.accept(',') {
			t.accept(']')
			return items
		}
	}
}

// decodeString decodes a quoted string. Half a surrogate pair becomes three bytes, like any
// other UTF-16 unit of its range (this form is called WTF-8), and bytes that are no UTF-8 stay:
// the other half may come with the next piece.
func decodeString(quoted []byte) []byte {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return slices.Clone(inner)
	}
	out := make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		if inner[i] != '\\' || i+1 == len(inner) {
			out = append(out, inner[i])
			continue
		}
		i++
		switch b := inner[i]; b {
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'u':
			unit := hexUnit(inner[i+1:])
			i += 4
			if rest := inner[min(i+1, len(inner)):]; utf16.IsSurrogate(unit) && len(rest) >= 6 && rest[0] == '\\' && rest[1] == 'u' {
				if pair := utf16.DecodeRune(unit, hexUnit(rest[2:])); pair != utf8.RuneError {
					unit = pair
					i += 6
				}
			}
			out = appendUnit(out, unit)
		default:
			out = append(out, b)
		}
	}
	return out
}

// hexUnit reads four hexadecimal digits.
func hexUnit(digits []byte) (unit rune) {
	for _, b := range digits[:min(4, len(digits))] {
		unit <<= 4
		switch {
		case b >= '0' && b <= '9':
			unit += rune(b - '0')
		case b >= 'a' && b <= 'f':
			unit += rune(b-'a') + 10
		case b >= 'A' && b <= 'F':
			unit += rune(b-'A') + 10
		}
	}
	return unit
}

func appendUnit(out []byte, unit rune) []byte {
	if utf16.IsSurrogate(unit) {
		return append(out, 0xe0|byte(unit>>12), 0x80|byte(unit>>6)&0x3f|0x80, 0x80|byte(unit)&0x3f)
	}
	return utf8.AppendRune(out, unit)
}

// surrogate returns the surrogate at the beginning of WTF-8; 0 for anything else.
func surrogate(b []byte) rune {
	if len(b) < 3 || b[0] != 0xed || b[1] < 0xa0 || b[1] > 0xbf || b[2]&0xc0 != 0x80 {
		return 0
	}
	return 0xd000 | rune(b[1]&0x3f)<<6 | rune(b[2]&0x3f)
}

// wholeText returns the whole characters of WTF-8, and the rest that the next piece may
// complete. What cannot become a character is replaced.
func wholeText(b []byte) (whole, rest []byte) {
	if utf8.Valid(b) {
		return b, nil
	}
	for i := 0; i < len(b); {
		if high := surrogate(b[i:]); high != 0 {
			pair := utf16.DecodeRune(high, surrogate(b[min(i+3, len(b)):]))
			switch {
			case pair != utf8.RuneError:
				whole = utf8.AppendRune(whole, pair)
				i += 6
			case high < 0xdc00 && (i+3 == len(b) || isSurrogatePrefix(b[i+3:])):
				return whole, b[i:]
			default:
				whole = append(whole, "\ufffd"...)
				i += 3
			}
			continue
		}
		if !utf8.FullRune(b[i:]) || isSurrogatePrefix(b[i:]) {
			return whole, b[i:]
		}
		r, size := utf8.DecodeRune(b[i:])
		whole = utf8.AppendRune(whole, r)
		i += size
	}
	return whole, nil
}

// isSurrogatePrefix reports whether b is the incomplete beginning of a surrogate.
func isSurrogatePrefix(b []byte) bool {
	return len(b) == 1 && b[0] == 0xed || len(b) == 2 && b[0] == 0xed && b[1] >= 0xa0 && b[1] <= 0xbf
}

// repairJSON replaces what some servers write into JSON although it does not belong there: NaN
// and Infinity by null, and control characters in strings by their escapes.
func repairJSON(data []byte) []byte {
	out := make([]byte, 0, len(data)+16)
	inString := false
	for i := 0; i < len(data); i++ {
		b := data[i]
		switch {
		case inString && b == '\\' && i+1 < len(data):
			out = append(out, b, data[i+1])
			i++
		case b == '"':
			inString = !inString
			out = append(out, b)
		case inString && b < ' ':
			const digits = "0123456789abcdef"
			out = append(out, '\\', 'u', '0', '0', digits[b>>4], digits[b&15])
		case !inString && (b == 'N' || b == 'I' || b == '-'):
			word := notNumber(data[i:])
			if word == 0 {
				out = append(out, b)
				continue
			}
			out = append(out, "null"...)
			i += word - 1
		default:
			out = append(out, b)
		}
	}
	return out
}

func notNumber(data []byte) int {
	for _, word := range []string{"NaN", "Infinity", "-Infinity", "-NaN"} {
		if bytes.HasPrefix(data, []byte(word)) {
			return len(word)
		}
	}
	return 0
}
