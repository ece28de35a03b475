package llm

// scan reads JSON in place, from value to value. It knows only the usual: ASCII
// names, no exponents, little depth. Its methods answer false at what is anything
// else, or wrong; then it is of no more use.
//
// Package strictjson, which says why it refuses what, would take a fifth longer for a
// plain chunk and more than twice as long for another, and would still have to be told
// what encoding/json reads in its own way: names in capitals, long numbers.
type scan struct{ rest []byte }

// deepest is how many values that nobody looks at may be inside each other.
const deepest = 8

// is steps over a mark, and says whether it is the next.
func (s *scan) is(mark byte) bool {
	s.space()
	if len(s.rest) == 0 || s.rest[0] != mark {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *scan) space() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\n' || s.rest[0] == '\t' || s.rest[0] == '\r') {
		s.rest = s.rest[1:]
	}
}

// atEnd says whether nothing follows.
func (s *scan) atEnd() bool {
	s.space()
	return len(s.rest) == 0
}

// word steps over true, false or null, and says whether it is the next.
func (s *scan) word(w string) bool {
	s.space()
	if len(s.rest) < len(w) || string(s.rest[:len(w)]) != w {
		return false
	}
	s.rest = s.rest[len(w):]
	return true
}

func (s *scan) null() bool { return s.word("null") }

// object reads an object; member reads the value of each of its names.
func (s *scan) object(member func(name []byte) bool) bool {
	if !s.is('{') {
		return false
	}
	if s.is('}') {
		return true
	}
	for {
		name, ok := s.name()
		if !ok || !s.is(':') || !member(name) {
			return false
		}
		if s.is('}') {
			return true
		}
		if !s.is(',') {
			return false
		}
	}
}

// name reads a name of small letters: encoding/json takes others for the same.
func (s *scan) name() ([]byte, bool) {
	quoted, ok := s.text()
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

// text reads a string of ASCII without escapes. It returns it as it is written.
func (s *scan) text() ([]byte, bool) {
	s.space()
	if len(s.rest) == 0 || s.rest[0] != '"' {
		return nil, false
	}
	for i, b := range s.rest[1:] {
		switch {
		case b == '"':
			return s.take(i + 2), true
		case b < ' ', b == '\\', b >= 0x80:
			return nil, false
		}
	}
	return nil, false
}

// quoted reads any string. It returns it as it is written: whether that is right
// is for whoever uses it to find out.
func (s *scan) quoted() ([]byte, bool) {
	s.space()
	if len(s.rest) == 0 || s.rest[0] != '"' {
		return nil, false
	}
	for i := 1; i < len(s.rest); i++ {
		switch s.rest[i] {
		case '"':
			return s.take(i + 1), true
		case '\\':
			i++
		}
	}
	return nil, false
}

// number reads a number of at most 15 digits, without an exponent.
func (s *scan) number() bool {
	_ = s.is('-')
	whole := s.digits()
	if whole == 0 || whole > 1 && s.rest[0] == '0' {
		return false
	}
	s.take(whole)
	if len(s.rest) == 0 || s.rest[0] != '.' {
		return whole <= 15
	}
	s.take(1)
	part := s.digits()
	s.take(part)
	return part > 0 && whole+part <= 15
}

func (s *scan) digits() int {
	for i, b := range s.rest {
		if b < '0' || b > '9' {
			return i
		}
	}
	return len(s.rest)
}

func (s *scan) take(n int) []byte {
	taken := s.rest[:n]
	s.rest = s.rest[n:]
	return taken
}

// skip steps over a value that nobody looks at.
func (s *scan) skip(depth int) bool {
	s.space()
	if len(s.rest) == 0 || depth == deepest {
		return false
	}
	switch s.rest[0] {
	case '{':
		return s.object(func([]byte) bool { return s.skip(depth + 1) })
	case '[':
		return s.list(func() bool { return s.skip(depth + 1) })
	case '"':
		_, ok := s.text()
		return ok
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.null()
	}
	return s.number()
}

// list reads a list, and each of its items.
func (s *scan) list(item func() bool) bool {
	if !s.is('[') {
		return false
	}
	if s.is(']') {
		return true
	}
	for item() {
		if s.is(']') {
			return true
		}
		if !s.is(',') {
			return false
		}
	}
	return false
}
