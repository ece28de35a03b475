package client

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

const maxEvent = 32 << 20 // bytes of one server-sent event

var errEventTooLarge = errors.New("a server-sent event is larger than 32 MiB")

// sseEvent is one server-sent event (WHATWG HTML, section 9.2).
type sseEvent struct {
	id    string // "" when the event has none
	event string
	data  []byte
}

// sseReader reads server-sent events from a stream. It drops an event that the end of the
// stream cuts off.
type sseReader struct {
	r      *bufio.Reader
	onLine func() // called for every line, comments included
}

func newSSEReader(r io.Reader, onLine func()) *sseReader {
	return &sseReader{r: bufio.NewReaderSize(r, 16<<10), onLine: onLine}
}

// next returns the next event that has data. The error is that of the stream.
func (s *sseReader) next() (sseEvent, error) {
	var e sseEvent
	limit := maxEvent
	for {
		line, err := s.line(limit)
		if err != nil {
			return sseEvent{}, err
		}
		limit -= len(line)
		if len(line) > 0 {
			e.field(line)
			continue
		}
		if e.data != nil {
			return e, nil
		}
		e, limit = sseEvent{}, maxEvent
	}
}

// line reads one line of at most limit bytes and returns it without its line ending.
func (s *sseReader) line(limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := s.r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, errEventTooLarge
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
	s.onLine()
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), nil
}

func (e *sseEvent) field(line []byte) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "id":
		e.id = string(value)
	case "event":
		e.event = string(value)
	case "data":
		if e.data != nil {
			// Several data lines of one event are joined by line breaks.
			e.data = append(e.data, '\n')
		}
		e.data = append(e.data, value...)
		// An empty data field makes an event too.
		if e.data == nil {
			e.data = []byte{}
		}
	}
}
