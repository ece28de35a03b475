package llm

import (
	"bufio"
	"bytes"
	"io"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// maxEvent bounds a line of a stream, and all data of one event.
const maxEvent = 1 << 20

// window is how much of a stream is looked at together: a few tokens' events.
// Thousands of streams may be open.
const window = 2 << 10

// events cuts a stream into server-sent events, as the HTML standard describes it
// (section 9.2.6, "Interpreting an event stream"). Names, ids and comments are of
// no use to us and are skipped.
type events struct {
	in   *bufio.Reader
	line []byte // the last, of an event that is not usual
	data []byte // of that event
	cr   bool   // the last line ended with a carriage return: a line feed would belong to it
	read bool   // the first line was read
}

func newEvents(stream io.Reader) *events {
	return &events{in: bufio.NewReaderSize(stream, window)}
}

// next returns the data of the next event; it is valid until the call after. An
// event that the end of the stream cuts off is not returned. The error is io.EOF
// at a clean end, a *[job.Fault] when a bound is passed, or the stream's.
func (e *events) next() ([]byte, error) {
	if _, err := e.in.Peek(1); err != nil {
		return nil, err
	}
	if data, ok := e.usual(); ok {
		return data, nil
	}
	e.data = e.data[:0]
	for some := false; ; {
		if err := e.nextLine(); err != nil {
			return nil, err
		}
		if len(e.line) == 0 {
			if some {
				return bytes.TrimSuffix(e.data, []byte("\n")), nil
			}
			continue
		}
		name, value, _ := bytes.Cut(e.line, []byte(":"))
		if string(name) != "data" {
			continue
		}
		some = true
		e.data = append(append(e.data, bytes.TrimPrefix(value, []byte(" "))...), '\n')
		if len(e.data) > maxEvent {
			return nil, tooLong()
		}
	}
}

// usual is the data of an event that is one line of data, ended by line feeds, if the
// next event is one and all of it has come. It is not copied.
func (e *events) usual() (data []byte, ok bool) {
	if e.cr || !e.read {
		return nil, false
	}
	come, _ := e.in.Peek(e.in.Buffered())
	end := bytes.Index(come, []byte("\n\n"))
	line, found := bytes.CutPrefix(come[:max(end, 0)], []byte("data:"))
	if !found || bytes.IndexByte(line, '\n') >= 0 || bytes.IndexByte(line, '\r') >= 0 {
		return nil, false
	}
	_, _ = e.in.Discard(end + 2)
	return bytes.TrimPrefix(line, []byte(" ")), true
}

// nextLine reads a line without its end, which is CR LF, LF or CR.
func (e *events) nextLine() error {
	e.line = e.line[:0]
	for ended := false; !ended; {
		if _, err := e.in.Peek(1); err != nil {
			return err
		}
		buffered, _ := e.in.Peek(e.in.Buffered())
		if e.cr && buffered[0] == '\n' {
			e.cr = false
			_, _ = e.in.Discard(1)
			continue
		}
		e.cr = false
		part, taken := buffered, len(buffered)
		if end := bytes.IndexAny(buffered, "\r\n"); end >= 0 {
			part, taken, ended = buffered[:end], end+1, true
			e.cr = buffered[end] == '\r'
		}
		if len(e.line)+len(part) > maxEvent {
			return tooLong()
		}
		e.line = append(e.line, part...)
		_, _ = e.in.Discard(taken)
	}
	if !e.read {
		e.read = true
		e.line = bytes.TrimPrefix(e.line, []byte("\ufeff"))
	}
	return nil
}

func tooLong() *job.Fault {
	return &job.Fault{Code: codeBadStream, Class: job.Retryable,
		Message: "the model server sent an event of more than 1 MiB"}
}
