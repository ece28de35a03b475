package llm

import "errors"

// Limits of the JSON in one event or error body. encoding/json takes memory for each member, and
// time for each level.
const (
	maxDepth   = 64
	maxMembers = 1 << 18
)

// errShape is returned for JSON that is nested too deeply, has too many members, or does not end
// where it should.
var errShape = errors.New("JSON of a strange shape")

// checkShape checks the depth and the number of members before a value is decoded. It does not
// check that the JSON is valid.
func checkShape(data []byte) error {
	var s shape
	if end := s.scan(data); s.depth != 0 || end < 0 {
		return errShape
	}
	return nil
}

// shape follows the nesting of JSON over any number of pieces. The zero value is at the
// beginning of a value.
type shape struct {
	depth, members int
	inString       bool
	escaped        bool // the last byte was a backslash in a string
}

// scan reads the next piece. It returns the index after the end of the outermost object or list,
// len(data) if the value goes on, or -1 above a limit.
func (s *shape) scan(data []byte) int {
	for i := 0; i < len(data); i++ {
		b := data[i]
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
			if s.depth++; s.depth > maxDepth {
				return -1
			}
			s.members++
		case ',':
			if s.members++; s.members > maxMembers {
				return -1
			}
		case '}', ']':
			s.depth--
			if s.depth <= 0 {
				return i + 1
			}
		}
	}
	return len(data)
}
