package llm

import (
	"bufio"
	"bytes"
	"io"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// maxEvent limits a line of a stream, and the data of one event, in bytes.
const maxEvent = 1 << 20

// readBuffer is the size of the read buffer: the events of a few tokens. It is small because
// thousands of streams may be open.
const readBuffer = 2 << 10

// eventReader splits a stream into server-sent events as the HTML standard defines them
// (section 9.2.6, "Interpreting an event stream"). It skips names, ids and comments, which
// chat completions do not use.
type eventReader struct {
	src     *bufio.Reader
	line    []byte // the last line read
	data    []byte // data of the current event
	afterCR bool   // the last line ended with CR, so a following LF belongs to it
	started bool   // the first line was read
}

func newEventReader(stream io.Reader) *eventReader {
	return &eventReader{src: bufio.NewReaderSize(stream, readBuffer)}
}

// next returns the data of the next event, which is valid until the next call. It drops an event
// that is incomplete at the end of the stream. The error is io.EOF at a clean end, a
// *[job.Fault] above a limit, or the error of the stream.
func (e *eventReader) next() ([]byte, error) {
	// Fill the buffer first, so that nextSimple can look at all that has arrived.
	if _, err := e.src.Peek(1); err != nil {
		return nil, err
	}
	if data, ok := e.nextSimple(); ok {
		return data, nil
	}
	e.data = e.data[:0]
	for hasData := false; ; {
		if err := e.readLine(); err != nil {
			return nil, err
		}
		if len(e.line) == 0 {
			if hasData {
				return bytes.TrimSuffix(e.data, []byte("\n")), nil
			}
			continue
		}
		name, value, _ := bytes.Cut(e.line, []byte(":"))
		if string(name) != "data" {
			continue
		}
		hasData = true
		e.data = append(append(e.data, bytes.TrimPrefix(value, []byte(" "))...), '\n')
		if len(e.data) > maxEvent {
			return nil, eventTooLong()
		}
	}
}

// nextSimple returns the data of the next event, without a copy, if the event is complete in the
// buffer, has only one data line, and ends with two LFs. This is true of nearly every event. ok
// is false for any other event.
func (e *eventReader) nextSimple() (data []byte, ok bool) {
	// The byte order mark and a pending LF are left to readLine.
	if e.afterCR || !e.started {
		return nil, false
	}
	buffered, _ := e.src.Peek(e.src.Buffered())
	end := bytes.Index(buffered, []byte("\n\n"))
	line, found := bytes.CutPrefix(buffered[:max(end, 0)], []byte("data:"))
	if !found || bytes.IndexByte(line, '\n') >= 0 || bytes.IndexByte(line, '\r') >= 0 {
		return nil, false
	}
	_, _ = e.src.Discard(end + 2)
	return bytes.TrimPrefix(line, []byte(" ")), true
}

// readLine reads a line and removes its line end: CR LF, LF or CR.
func (e *eventReader) readLine() error {
	e.line = e.line[:0]
	for ended := false; !ended; {
		if _, err := e.src.Peek(1); err != nil {
			return err
		}
		buffered, _ := e.src.Peek(e.src.Buffered())
		// CR LF may arrive in two reads.
		if e.afterCR && buffered[0] == '\n' {
			e.afterCR = false
			_, _ = e.src.Discard(1)
			continue
		}
		e.afterCR = false
		part, length := buffered, len(buffered)
		if end := bytes.IndexAny(buffered, "\r\n"); end >= 0 {
			part, length, ended = buffered[:end], end+1, true
			e.afterCR = buffered[end] == '\r'
		}
		if len(e.line)+len(part) > maxEvent {
			return eventTooLong()
		}
		e.line = append(e.line, part...)
		_, _ = e.src.Discard(length)
	}
	if !e.started {
		e.started = true
		e.line = bytes.TrimPrefix(e.line, []byte("\ufeff")) // the byte order mark
	}
	return nil
}

func eventTooLong() *job.Fault {
	return &job.Fault{Code: codeBadStream, Class: job.Retryable,
		Message: "the model server sent an event of more than 1 MiB"}
}
