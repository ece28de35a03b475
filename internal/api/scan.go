package api

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// scanner walks over JSON text (RFC 8259) and refuses what is none. Its methods
// leave pos behind what they read; after an error it is not used again.
type scanner struct {
	data  []byte
	pos   int
	depth int
}

// broken is a syntax error where the scanner is.
func (s *scanner) broken(why string) *job.Error {
	return job.Errorf(job.Invalid, "the JSON is broken at byte %d: %s", s.pos, why)
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek is the first character of the next token; 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	return s.at(s.pos)
}

func (s *scanner) at(i int) byte {
	if i < len(s.data) {
		return s.data[i]
	}
	return 0
}

// skip passes over one value of any kind, checking all of it.
func (s *scanner) skip() *job.Error {
	switch c := s.peek(); c {
	case '{':
		var names nameSet
		return s.each(func(name []byte) *job.Error {
			if !names.add(name) {
				return twice(name)
			}
			return s.skip()
		})
	case '[':
		return s.items(s.skip)
	case '"':
		_, err := s.string()
		return err
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) literal(word string) *job.Error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		return s.broken("a value is missing")
	}
	s.pos += len(word)
	return nil
}

// each walks over an object: member is called behind each name's colon and reads
// the value. An error's field gets the name before it.
func (s *scanner) each(member func(name []byte) *job.Error) *job.Error {
	return s.sequence('}', func(int) *job.Error {
		if s.peek() != '"' {
			return s.broken("a name in quotes is missing")
		}
		name, err := s.string()
		if err != nil {
			return err
		}
		if s.peek() != ':' {
			return s.broken("a colon is missing")
		}
		s.pos++
		if err := member(name); err != nil {
			return under(string(name), err)
		}
		return nil
	})
}

// items walks over an array: item reads each one.
func (s *scanner) items(item func() *job.Error) *job.Error {
	return s.sequence(']', func(i int) *job.Error {
		if err := item(); err != nil {
			return under(strconv.Itoa(i), err)
		}
		return nil
	})
}

// sequence walks over what stands between brackets, separated by commas.
func (s *scanner) sequence(end byte, one func(i int) *job.Error) *job.Error {
	if s.depth++; s.depth > job.MaxDepth {
		return job.Errorf(job.Invalid, "the JSON is nested deeper than %d levels", job.MaxDepth)
	}
	defer func() { s.depth-- }()
	s.pos++
	if s.peek() == end {
		s.pos++
		return nil
	}
	for i := 0; ; i++ {
		if err := one(i); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.pos++
		case end:
			s.pos++
			return nil
		default:
			return s.broken("a comma or " + strconv.QuoteRune(rune(end)) + " is missing")
		}
	}
}

// string reads a string. The text aliases the data unless it holds escapes.
func (s *scanner) string() ([]byte, *job.Error) {
	start := s.pos + 1
	ascii := true
	for i := start; ; i++ {
		c := s.at(i)
		switch {
		case c == '"':
			s.pos = i + 1
			return s.valid(s.data[start:i], ascii)
		case c == '\\':
			s.pos = i
			return s.escaped(start)
		case c < ' ':
			s.pos = i
			return nil, s.unended()
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
}

func (s *scanner) unended() *job.Error {
	if s.pos >= len(s.data) {
		return s.broken("a string does not end")
	}
	return s.broken("a control character in a string must be escaped")
}

func (s *scanner) valid(text []byte, ascii bool) ([]byte, *job.Error) {
	if !ascii && !utf8.Valid(text) {
		return nil, job.Errorf(job.Invalid, "the text is not valid UTF-8")
	}
	return text, nil
}

// escaped goes on from the first backslash of the string that began at start.
func (s *scanner) escaped(start int) ([]byte, *job.Error) {
	text := append(make([]byte, 0, 2*(s.pos-start)+16), s.data[start:s.pos]...)
	for {
		c := s.at(s.pos)
		switch {
		case c == '"':
			s.pos++
			return s.valid(text, false)
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
func (s *scanner) escape() (rune, *job.Error) {
	if c := s.at(s.pos + 1); c != 'u' {
		i := strings.IndexByte(`"\/bfnrt`, c)
		if i < 0 || c == 0 {
			return 0, s.broken("there is no such escape")
		}
		s.pos += 2
		return rune("\"\\/\b\f\n\r\t"[i]), nil
	}
	r, ok := s.hex(s.pos + 2)
	if !ok {
		return 0, s.broken(`\u needs four hexadecimal digits`)
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

func (s *scanner) hex(i int) (rune, bool) {
	if i+4 > len(s.data) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s.data[i:i+4]), 16, 16)
	return rune(n), err == nil
}

// number passes over a number.
func (s *scanner) number() *job.Error {
	if s.at(s.pos) == '-' {
		s.pos++
	}
	whole := s.digits()
	if whole == 0 {
		return s.broken("a value is missing")
	}
	if whole > 1 && s.data[s.pos-whole] == '0' {
		return s.broken("a number may not begin with 0")
	}
	if s.at(s.pos) == '.' {
		s.pos++
		if s.digits() == 0 {
			return s.broken("a digit is missing")
		}
	}
	if c := s.at(s.pos); c == 'e' || c == 'E' {
		s.pos++
		if c := s.at(s.pos); c == '+' || c == '-' {
			s.pos++
		}
		if s.digits() == 0 {
			return s.broken("a digit is missing")
		}
	}
	return nil
}

// digits passes over digits and counts them.
func (s *scanner) digits() int {
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

func twice(name []byte) *job.Error {
	return job.Errorf(job.Invalid, "the field %s is given twice", job.Quote(string(name)))
}

// maxPointer bounds how much of a caller's own names an error repeats.
const maxPointer = 256

// under puts a name before an error's field, as RFC 6901 escapes it.
func under(name string, err *job.Error) *job.Error {
	if len(name)+len(err.Field) < maxPointer {
		err.Field = "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name) + err.Field
	}
	return err
}
