package llm

// scanner reads JSON in place. It accepts only the common forms: ASCII names, numbers without
// exponents, little depth. Its methods return false for anything else and for invalid JSON;
// after that the scanner must not be used.
//
// Package strictjson, which explains every refusal, would take a fifth longer for a plain chunk
// and more than twice as long for another. It would also have to accept special forms of
// encoding/json, such as names in capitals and long numbers. encoding/json/v2 may replace both
// when it is no longer experimental.
type scanner struct{ rest []byte }

// maxSkipDepth is how deep a skipped value may be nested.
const maxSkipDepth = 8

// accept skips the byte mark if it comes next.
func (s *scanner) accept(mark byte) bool {
	s.skipSpace()
	if len(s.rest) == 0 || s.rest[0] != mark {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *scanner) skipSpace() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\n' || s.rest[0] == '\t' || s.rest[0] == '\r') {
		s.rest = s.rest[1:]
	}
}

// atEnd reports whether only white space follows.
func (s *scanner) atEnd() bool {
	s.skipSpace()
	return len(s.rest) == 0
}

// acceptWord skips true, false or null if it comes next.
func (s *scanner) acceptWord(w string) bool {
	s.skipSpace()
	if len(s.rest) < len(w) || string(s.rest[:len(w)]) != w {
		return false
	}
	s.rest = s.rest[len(w):]
	return true
}

func (s *scanner) acceptNull() bool { return s.acceptWord("null") }

// object reads an object. It calls member to read the value of each name.
func (s *scanner) object(member func(name []byte) bool) bool {
	if !s.accept('{') {
		return false
	}
	if s.accept('}') {
		return true
	}
	for {
		name, ok := s.name()
		if !ok || !s.accept(':') || !member(name) {
			return false
		}
		if s.accept('}') {
			return true
		}
		if !s.accept(',') {
			return false
		}
	}
}

// name reads a name of lower-case letters, digits and underscores. Other names are left to
// encoding/json, which ignores case.
func (s *scanner) name() ([]byte, bool) {
	quoted, ok := s.asciiString()
	if !ok {
		return nil, false
	}
	name := quoted[1 : len(quoted)-1]
	for _, b := range name {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '_' {
			return nil, false
		}
	}
	return name, true
}

// asciiString reads a string of ASCII without escapes. It returns the string with its quotes.
func (s *scanner) asciiString() ([]byte, bool) {
	s.skipSpace()
	if len(s.rest) == 0 || s.rest[0] != '"' {
		return nil, false
	}
	for i, b := range s.rest[1:] {
		switch {
		case b == '"':
			return s.advance(i + 2), true
		case b < ' ', b == '\\', b >= 0x80:
			return nil, false
		}
	}
	return nil, false
}

// anyString reads any string and returns it with its quotes. It does not check the escapes.
func (s *scanner) anyString() ([]byte, bool) {
	s.skipSpace()
	if len(s.rest) == 0 || s.rest[0] != '"' {
		return nil, false
	}
	for i := 1; i < len(s.rest); i++ {
		switch s.rest[i] {
		case '"':
			return s.advance(i + 1), true
		case '\\':
			i++
		}
	}
	return nil, false
}

// number reads a number of at most 15 digits, without an exponent.
func (s *scanner) number() bool {
	_ = s.accept('-')
	whole := s.digits()
	if whole == 0 || whole > 1 && s.rest[0] == '0' {
		return false
	}
	s.advance(whole)
	if len(s.rest) == 0 || s.rest[0] != '.' {
		return whole <= 15
	}
	s.advance(1)
	part := s.digits()
	s.advance(part)
	return part > 0 && whole+part <= 15
}

func (s *scanner) digits() int {
	for i, b := range s.rest {
		if b < '0' || b > '9' {
			return i
		}
	}
	return len(s.rest)
}

func (s *scanner) advance(n int) []byte {
	read := s.rest[:n]
	s.rest = s.rest[n:]
	return read
}

func (s *scanner) skipValue(depth int) bool {
	s.skipSpace()
	if len(s.rest) == 0 || depth == maxSkipDepth {
		return false
	}
	switch s.rest[0] {
	case '{':
		return s.object(func([]byte) bool { return s.skipValue(depth + 1) })
	case '[':
		return s.list(func() bool { return s.skipValue(depth + 1) })
	case '"':
		_, ok := s.asciiString()
		return ok
	case 't':
		return s.acceptWord("true")
	case 'f':
		return s.acceptWord("false")
	case 'n':
		return s.acceptNull()
	}
	return s.number()
}

// list reads a list. It calls item to read each item.
func (s *scanner) list(item func() bool) bool {
	if !s.accept('[') {
		return false
	}
	if s.accept(']') {
		return true
	}
	for item() {
		if s.accept(']') {
			return true
		}
		if !s.accept(',') {
			return false
		}
	}
	return false
}
