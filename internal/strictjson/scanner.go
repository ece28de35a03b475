// Package strictjson scans JSON text (RFC 8259). It is stricter than encoding/json: it
// refuses a name given twice, invalid UTF-8, the character U+0000, half of a surrogate pair,
// and nesting deeper than [job.MaxDepth].
//
// Scanning is also the check: a value that was scanned to its end without an error is valid
// and needs no second check before it is decoded.
package strictjson

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Scanner is a position in a JSON text. Its methods read one thing and move behind it. After
// an error the scanner must not be used again. Errors have the code [job.Invalid], and their
// Field is a JSON pointer to the faulty value. A copy of a scanner is independent.
//
// Before the methods Object, Members, Array, String and Literal the caller must know the
// first character from [Scanner.Peek].
type Scanner struct {
	data  []byte
	pos   int
	depth int
}

// New returns a scanner at the beginning of data. The values that it returns alias data.
func New(data []byte) Scanner { return Scanner{data: data} }

// AtEnd reports whether only white space is left.
func (s *Scanner) AtEnd() bool {
	s.skipSpace()
	return s.pos == len(s.data)
}

// Nested reports whether the scanner is inside an object or an array.
func (s *Scanner) Nested() bool { return s.depth > 0 }

// Since returns the text from the position of an earlier copy to that of the scanner.
func (s *Scanner) Since(earlier Scanner) []byte { return s.data[earlier.pos:s.pos:s.pos] }

// SyntaxError returns the error of invalid JSON at the scanner's position.
func (s *Scanner) SyntaxError(message string) *job.Error {
	return job.Errorf(job.Invalid, "the JSON is broken at byte %d: %s", s.pos, message)
}

func (s *Scanner) skipSpace() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// Peek returns the first character of the next token; 0 at the end.
func (s *Scanner) Peek() byte {
	s.skipSpace()
	return s.at(s.pos)
}

func (s *Scanner) at(i int) byte {
	if i < len(s.data) {
		return s.data[i]
	}
	return 0
}

// Value skips one value of any kind and returns its text.
func (s *Scanner) Value() ([]byte, *job.Error) {
	s.skipSpace()
	before := *s
	err := s.Skip()
	return s.Since(before), err
}

// Skip skips one value of any kind.
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

// Literal skips a word: true, false or null.
func (s *Scanner) Literal(word string) *job.Error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		return s.SyntaxError("a value is missing")
	}
	s.pos += len(word)
	return nil
}

// Object scans an object. It calls member after the colon of each name; member must read the
// value. Object puts the name in front of the Field of member's error. It does not refuse
// names given twice.
func (s *Scanner) Object(member func(name []byte) *job.Error) *job.Error {
	return s.elements('}', func(int) *job.Error {
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
			return addToField(string(name), err)
		}
		return nil
	})
}

// Members scans an object and calls member with each name and the text of its value. It
// refuses a name given twice.
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

// Array scans an array. item must read one element.
func (s *Scanner) Array(item func() *job.Error) *job.Error {
	return s.elements(']', func(i int) *job.Error {
		if err := item(); err != nil {
			return addToField(strconv.Itoa(i), err)
		}
		return nil
	})
}

// elements scans a list between brackets, separated by commas.
func (s *Scanner) elements(end byte, one func(i int) *job.Error) *job.Error {
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

// String reads a string. The result aliases the data unless the string has escapes.
func (s *Scanner) String() ([]byte, *job.Error) {
	start := s.pos + 1
	// The common case: printable ASCII without escapes needs one search and one check.
	if n := bytes.IndexByte(s.data[start:], '"'); n >= 0 && isPlain(s.data[start:start+n]) {
		s.pos = start + n + 1
		return s.data[start : start+n], nil
	}
	for i, c := range s.data[start:] {
		switch {
		case c == '"':
			s.pos = start + i + 1
			return s.checkUTF8(s.data[start : start+i])
		case c == '\\':
			s.pos = start + i
			return s.stringWithEscapes(start)
		case c < ' ':
			s.pos = start + i
			return nil, s.unterminated()
		}
	}
	s.pos = len(s.data)
	return nil, s.unterminated()
}

// isPlain reports whether a text is printable ASCII without escapes. Nearly every string is.
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

func (s *Scanner) unterminated() *job.Error {
	if s.pos >= len(s.data) {
		return s.SyntaxError("a string does not end")
	}
	return s.SyntaxError("a control character in a string must be escaped")
}

func (s *Scanner) checkUTF8(text []byte) ([]byte, *job.Error) {
	if !utf8.Valid(text) {
		return nil, job.Errorf(job.Invalid, "the text is not valid UTF-8")
	}
	return text, nil
}

// stringWithEscapes reads the rest of a string that began at start, from its first backslash.
func (s *Scanner) stringWithEscapes(start int) ([]byte, *job.Error) {
	text := append(make([]byte, 0, 2*(s.pos-start)+16), s.data[start:s.pos]...)
	for {
		c := s.at(s.pos)
		switch {
		case c == '"':
			s.pos++
			return s.checkUTF8(text)
		case c < ' ':
			return nil, s.unterminated()
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

// escape reads one escape, or the two escapes of a surrogate pair.
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

// number skips a number.
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

// digits skips digits and returns their number.
func (s *Scanner) digits() int {
	start := s.pos
	for c := s.at(s.pos); '0' <= c && c <= '9'; c = s.at(s.pos) {
		s.pos++
	}
	return s.pos - start
}

// nameSet finds repeated names of an object. It compares the first eight names one by one,
// without an allocation. For more it uses a map.
type nameSet struct {
	short  [8][]byte
	n      int
	hashed map[string]struct{}
}

// add adds a name and reports whether it is new.
func (s *nameSet) add(name []byte) bool {
	if s.hashed == nil {
		for _, have := range s.short[:s.n] {
			if bytes.Equal(have, name) {
				return false
			}
		}
		if s.n < len(s.short) {
			s.short[s.n] = name
			s.n++
			return true
		}
		s.hashed = make(map[string]struct{}, 4*len(s.short))
		for _, have := range s.short {
			s.hashed[string(have)] = struct{}{}
		}
	}
	before := len(s.hashed)
	s.hashed[string(name)] = struct{}{}
	return len(s.hashed) > before
}

// DuplicateField returns the error of a name that an object has twice.
func DuplicateField(name []byte) *job.Error {
	return job.Errorf(job.Invalid, "the field %s is given twice", job.Quote(string(name)))
}

// maxPointer is the longest Field of an error, in bytes. The names in it come from the client.
const maxPointer = 256

// addToField puts a name in front of an error's Field, escaped as in RFC 6901.
func addToField(name string, err *job.Error) *job.Error {
	if len(name)+len(err.Field) < maxPointer {
		if strings.ContainsAny(name, "~/") {
			name = strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
		}
		err.Field = "/" + name + err.Field
	}
	return err
}
