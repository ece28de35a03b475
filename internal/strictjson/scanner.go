// Package strictjson walks over JSON text (RFC 8259) and is strict where encoding/json
// is not: a name given twice, invalid UTF-8, the character U+0000, half of a surrogate
// pair and nesting past [job.MaxDepth] are refused.
//
// Whoever walks checks: what was walked over to its end is good, and need not be
// looked at again before it is read.
package strictjson

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Scanner stands somewhere in a JSON text. Its methods leave it behind what they
// read; after an error it is not used again. Errors have the code [job.Invalid] and
// point to where in the text they are. A copy goes its own way.
//
// Of an object, an array, a string or a word the first character is known before it is
// read: [Scanner.Peek] has said so.
type Scanner struct {
	data  []byte
	pos   int
	depth int
}

// New stands before a text. What is read of it aliases it.
func New(data []byte) Scanner { return Scanner{data: data} }

// AtEnd says that nothing is left but white space.
func (s *Scanner) AtEnd() bool {
	s.space()
	return s.pos == len(s.data)
}

// Inside says that it stands in an object or an array.
func (s *Scanner) Nested() bool { return s.depth > 0 }

// Since is the text from where an earlier copy of the scanner stood.
func (s *Scanner) Since(earlier Scanner) []byte { return s.data[earlier.pos:s.pos:s.pos] }

// Broken is a syntax error where the scanner is.
func (s *Scanner) SyntaxError(why string) *job.Error {
	return job.Errorf(job.Invalid, "the JSON is broken at byte %d: %s", s.pos, why)
}

func (s *Scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// Peek is the first character of the next token; 0 at the end.
func (s *Scanner) Peek() byte {
	s.space()
	return s.at(s.pos)
}

func (s *Scanner) at(i int) byte {
	if i < len(s.data) {
		return s.data[i]
	}
	return 0
}

// Value passes over one value of any kind, and returns it as it is written.
func (s *Scanner) Value() ([]byte, *job.Error) {
	s.space()
	before := *s
	err := s.Skip()
	return s.Since(before), err
}

// Skip passes over one value of any kind.
func (s *Scanner) Skip() *job.Error {
	switch c := s.Peek(); c {
	case '{':
		return s.Members(func(_, _ []byte) *job.Error { return nil })
	case '[':
		return s.Array(s.Skip)
	case '"':
		_, err := s.String()
		return err
	case 't':
		return s.Literal("true")
	case 'f':
		return s.Literal("false")
	case 'n':
		return s.Literal("null")
	default:
		return s.number()
	}
}

// Literal passes over a word: true, false or null.
func (s *Scanner) Literal(word string) *job.Error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		return s.SyntaxError("a value is missing")
	}
	s.pos += len(word)
	return nil
}

// Each walks over an object: member is called behind each name's colon and reads
// the value. An error's field gets the name before it.
func (s *Scanner) Object(member func(name []byte) *job.Error) *job.Error {
	return s.sequence('}', func(int) *job.Error {
		if s.Peek() != '"' {
			return s.SyntaxError("a name in quotes is missing")
		}
		name, err := s.String()
		if err != nil {
			return err
		}
		if s.Peek() != ':' {
			return s.SyntaxError("a colon is missing")
		}
		s.pos++
		if err := member(name); err != nil {
			return under(string(name), err)
		}
		return nil
	})
}

// Members walks over an object in which no name is given twice: member gets each name
// and its value, as that is written.
func (s *Scanner) Members(member func(name, value []byte) *job.Error) *job.Error {
	var names nameSet
	return s.Object(func(name []byte) *job.Error {
		if !names.add(name) {
			return DuplicateField(name)
		}
		value, err := s.Value()
		if err != nil {
			return err
		}
		return member(name, value)
	})
}

// Items walks over an array: item reads each one.
func (s *Scanner) Array(item func() *job.Error) *job.Error {
	return s.sequence(']', func(i int) *job.Error {
		if err := item(); err != nil {
			return under(strconv.Itoa(i), err)
		}
		return nil
	})
}

// sequence walks over what stands between brackets, separated by commas.
func (s *Scanner) sequence(end byte, one func(i int) *job.Error) *job.Error {
	if s.depth++; s.depth > job.MaxDepth {
		return job.Errorf(job.Invalid, "the JSON is nested deeper than %d levels", job.MaxDepth)
	}
	defer func() { s.depth-- }()
	s.pos++
	if s.Peek() == end {
		s.pos++
		return nil
	}
	for i := 0; ; i++ {
		if err := one(i); err != nil {
			return err
		}
		switch s.Peek() {
		case ',':
			s.pos++
		case end:
			s.pos++
			return nil
		default:
			return s.SyntaxError("a comma or " + strconv.QuoteRune(rune(end)) + " is missing")
		}
	}
}

// String reads a string. The text aliases the data unless it holds escapes.
func (s *Scanner) String() ([]byte, *job.Error) {
	start := s.pos + 1
	if n := bytes.IndexByte(s.data[start:], '"'); n >= 0 && isPlain(s.data[start:start+n]) {
		s.pos = start + n + 1
		return s.data[start : start+n], nil
	}
	for i, c := range s.data[start:] {
		switch {
		case c == '"':
			s.pos = start + i + 1
			return s.valid(s.data[start : start+i])
		case c == '\\':
			s.pos = start + i
			return s.escaped(start)
		case c < ' ':
			s.pos = start + i
			return nil, s.unended()
		}
	}
	s.pos = len(s.data)
	return nil, s.unended()
}

// isPlain says that a text stands for itself: nearly all that is walked over does.
func isPlain(text []byte) bool {
	if bytes.IndexByte(text, '\\') >= 0 {
		return false
	}
	for _, c := range text {
		if c < ' ' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func (s *Scanner) unended() *job.Error {
	if s.pos >= len(s.data) {
		return s.SyntaxError("a string does not end")
	}
	return s.SyntaxError("a control character in a string must be escaped")
}

func (s *Scanner) valid(text []byte) ([]byte, *job.Error) {
	if !utf8.Valid(text) {
		return nil, job.Errorf(job.Invalid, "the text is not valid UTF-8")
	}
	return text, nil
}

// escaped goes on from the first backslash of the string that began at start.
func (s *Scanner) escaped(start int) ([]byte, *job.Error) {
	text := append(make([]byte, 0, 2*(s.pos-start)+16), s.data[start:s.pos]...)
	for {
		c := s.at(s.pos)
		switch {
		case c == '"':
			s.pos++
			return s.valid(text)
		case c < ' ':
			return nil, s.unended()
		case c != '\\':
			text = append(text, c)
			s.pos++
			continue
		}
		r, err := s.escape()
		if err != nil {
			return nil, err
		}
		text = utf8.AppendRune(text, r)
	}
}

// escape reads one escape, or the two of a surrogate pair.
func (s *Scanner) escape() (rune, *job.Error) {
	if c := s.at(s.pos + 1); c != 'u' {
		i := strings.IndexByte(`"\/bfnrt`, c)
		if i < 0 || c == 0 {
			return 0, s.SyntaxError("there is no such escape")
		}
		s.pos += 2
		return rune("\"\\/\b\f\n\r\t"[i]), nil
	}
	r, ok := s.hex(s.pos + 2)
	if !ok {
		return 0, s.SyntaxError(`\u needs four hexadecimal digits`)
	}
	s.pos += 6
	if utf16.IsSurrogate(r) {
		low, _ := s.hex(s.pos + 2)
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError || s.at(s.pos) != '\\' || s.at(s.pos+1) != 'u' {
			return 0, job.Errorf(job.Invalid, "the text holds half of a surrogate pair")
		}
		s.pos += 6
	}
	if r == 0 {
		return 0, job.Errorf(job.Invalid, `the text holds the character \u0000`)
	}
	return r, nil
}

func (s *Scanner) hex(i int) (rune, bool) {
	if i+4 > len(s.data) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s.data[i:i+4]), 16, 16)
	return rune(n), err == nil
}

// number passes over a number.
func (s *Scanner) number() *job.Error {
	if s.at(s.pos) == '-' {
		s.pos++
	}
	whole := s.digits()
	if whole == 0 {
		return s.SyntaxError("a value is missing")
	}
	if whole > 1 && s.data[s.pos-whole] == '0' {
		return s.SyntaxError("a number may not begin with 0")
	}
	if s.at(s.pos) == '.' {
		s.pos++
		if s.digits() == 0 {
			return s.SyntaxError("a digit is missing")
		}
	}
	if c := s.at(s.pos); c == 'e' || c == 'E' {
		s.pos++
		if c := s.at(s.pos); c == '+' || c == '-' {
			s.pos++
		}
		if s.digits() == 0 {
			return s.SyntaxError("a digit is missing")
		}
	}
	return nil
}

// digits passes over digits and counts them.
func (s *Scanner) digits() int {
	start := s.pos
	for isDigit(s.at(s.pos)) {
		s.pos++
	}
	return s.pos - start
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// nameSet finds an object's repeated names: by looking while they are few, by
// hashing once they are many.
type nameSet struct {
	few  [8][]byte
	n    int
	many map[string]struct{}
}

// add says whether the name is new.
func (s *nameSet) add(name []byte) bool {
	if s.many == nil {
		for _, have := range s.few[:s.n] {
			if bytes.Equal(have, name) {
				return false
			}
		}
		if s.n < len(s.few) {
			s.few[s.n] = name
			s.n++
			return true
		}
		s.many = make(map[string]struct{}, 4*len(s.few))
		for _, have := range s.few {
			s.many[string(have)] = struct{}{}
		}
	}
	before := len(s.many)
	s.many[string(name)] = struct{}{}
	return len(s.many) > before
}

// Twice refuses a name that an object has given before.
func DuplicateField(name []byte) *job.Error {
	return job.Errorf(job.Invalid, "the field %s is given twice", job.Quote(string(name)))
}

// maxPointer bounds how much of a caller's own names an error repeats.
const maxPointer = 256

// under puts a name before an error's field, as RFC 6901 escapes it.
func under(name string, err *job.Error) *job.Error {
	if len(name)+len(err.Field) < maxPointer {
		if strings.ContainsAny(name, "~/") {
			name = strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
		}
		err.Field = "/" + name + err.Field
	}
	return err
}
