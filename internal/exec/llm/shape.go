package llm

import "errors"

// Limits of the JSON in one event or error body. encoding/json takes memory for each member, and
// time for each level.
const (
	maxDepth   = 64
	maxMembers = 1 << 18
)

// errShape is returned for JSON that is nested too deeply or has too many members.
var errShape = errors.New("JSON of a strange shape")

// checkShape checks the depth of a value, and its members down to some level, before it is
// decoded. It does not check that the JSON is valid.
func checkShape(data []byte, levels int) error {
	s := shape{levels: levels}
	if s.scan(data); s.tooDeep || s.members > maxMembers {
		return errShape
	}
	return nil
}

// shape follows the nesting of JSON over any number of pieces. It does not check that the JSON is
// valid. The zero value is before the first value.
type shape struct {
	// set once
	levels int  // how deep members are counted
	first  bool // scan stops at the end of the first object or list

	depth    int
	members  int
	inString bool
	escaped  bool // the last byte was a backslash in a string
	tooDeep  bool
}

// valueEnd returns the index after the end of the first object or list; 0 if none ends.
func valueEnd(data []byte) int {
	s := shape{first: true}
	return s.scan(data)
}

// open reports whether a value has begun and not ended.
func (s *shape) open() bool { return s.depth > 0 || s.inString }

// scan reads the next piece and returns the index after the end of the first object or list that
// ends in it; 0 if none does.
func (s *shape) scan(data []byte) (end int) {
	for i, b := range data {
		if s.inString {
			switch {
			case s.escaped:
				s.escaped = false
			case b == '\\':
				s.escaped = true
			case b == '"':
				s.inString = false
			}
			continue
		}
		switch b {
		case '"':
			s.inString = true
		case '{', '[':
			s.depth++
			s.tooDeep = s.tooDeep || s.depth > maxDepth
		case ',':
			if s.depth <= s.levels {
				s.members++
			}
		case '}', ']':
			s.depth--
			if s.depth == 0 && end == 0 {
				if end = i + 1; s.first {
					return end
				}
			}
		}
	}
	return end
}
