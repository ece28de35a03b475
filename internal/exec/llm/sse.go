package llm

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	// maxEvent limits a line of a stream, and the data of one event, in bytes: an event with a
	// picture is as large as an answer may be.
	maxEvent = job.MaxOutput
	// maxStream limits all bytes of an answer. The words of the largest answer take less, with
	// any wrapping.
	maxStream = 64 * job.MaxOutput
	// maxIgnored limits how much text without an event is read before the first event.
	maxIgnored = 64 << 10
	// readBuffer is the size of the read buffer: the events of a few tokens. It is small because
	// thousands of streams may be open.
	readBuffer = 2 << 10
	// maxKeptBuffer is the size up to which the buffers of an event are kept for the next one.
	maxKeptBuffer = 64 << 10
)

// Errors of an eventReader, besides those of its stream.
var (
	errEventTooLarge = errors.New("llm: an event, or the whole answer, is too large")
	errNotStream     = errors.New("llm: the answer has no events")
)

// eventReader splits an answer into events. It reads server-sent events as the HTML standard
// defines them (section 9.2.6, "Interpreting an event stream"), and forgives what model servers
// do to them:
//
//   - An event ends with its JSON, so the blank line after it may be missing.
//   - JSON without "data:" is an event too: an error in the middle of a stream, one chunk per
//     line, or an unstreamed answer.
//   - The last line may lack its end.
//   - The stream may be packed by gzip.
//
// It skips ids and comments, which chat completions do not use.
type eventReader struct {
	// set once
	src      *bufio.Reader
	onStream func() // called once, at the first line that only a stream has

	line    []byte // the last line read
	data    []byte // data of the current event
	shape   shape  // of data
	hasData bool
	isError bool // the event is named "error"
	isRaw   bool // the event is JSON without "data:"
	afterCR bool // the last line ended with CR, so a following LF belongs to it
	started bool // the first line was read
	stream  bool // onStream was called
	total   int  // bytes read

	ignored int    // bytes of lines that are no part of a stream, before the first event
	head    []byte // the beginning of these lines
}

func newEventReader(stream io.Reader, onStream func()) *eventReader {
	return &eventReader{src: bufio.NewReaderSize(stream, readBuffer), onStream: onStream}
}

// next returns the data of the next event, which is valid until the next call. isError and isRaw
// describe it. It drops an event that is incomplete at the end of the stream. The error is io.EOF
// at a clean end, one of this package above a limit, or the error of the stream.
func (e *eventReader) next() ([]byte, error) {
	// Fill the buffer first, so that nextSimple can look at all that has arrived. An event ends
	// with its JSON, so the blank line after the last one is still there.
	for first := byte('\n'); first == '\n'; {
		peeked, err := e.src.Peek(1)
		if err != nil {
			return nil, err
		}
		if first = peeked[0]; first == '\n' && e.started {
			_, _ = e.src.Discard(1)
			e.total, e.afterCR = e.total+1, false
			continue
		}
		break
	}
	if e.total > maxStream {
		return nil, errEventTooLarge
	}
	if data, ok := e.nextSimple(); ok {
		return data, nil
	}
	e.reset()
	for {
		if err := e.readLine(); err != nil {
			return nil, err
		}
		if done, err := e.takeLine(); done || err != nil {
			return bytes.TrimSuffix(e.data, []byte("\n")), err
		}
	}
}

// waits reports whether the next event has not arrived yet.
func (e *eventReader) waits() bool {
	buffered, _ := e.src.Peek(e.src.Buffered())
	return !bytes.ContainsAny(bytes.TrimLeft(buffered, "\r\n"), "\r\n")
}

func (e *eventReader) reset() {
	if cap(e.data) > maxKeptBuffer || cap(e.line) > maxKeptBuffer {
		e.data, e.line = nil, nil
	}
	e.data, e.shape = e.data[:0], shape{}
	e.hasData, e.isError, e.isRaw = false, false, false
}

// whyNoAnswer returns why the last JSON of the answer is no completion.
func (e *eventReader) whyNoAnswer() error {
	if e.shape.open() {
		return errNotJSON
	}
	return errNoChoice
}

// nextSimple returns the data of the next event, without a copy, if the event is complete in the
// buffer, has only one data line, and ends with two LFs. This is true of nearly every event. ok
// is false for any other event.
func (e *eventReader) nextSimple() (data []byte, ok bool) {
	// The byte order mark and a pending LF are left to readLine. isError and isRaw must be
	// cleared by it.
	if e.afterCR || !e.stream || e.isError || e.isRaw {
		return nil, false
	}
	buffered, _ := e.src.Peek(e.src.Buffered())
	end := bytes.Index(buffered, []byte("\n\n"))
	line, found := bytes.CutPrefix(buffered[:max(end, 0)], []byte("data:"))
	if !found || bytes.IndexByte(line, '\n') >= 0 || bytes.IndexByte(line, '\r') >= 0 {
		return nil, false
	}
	_, _ = e.src.Discard(end + 2)
	e.total += end + 2
	return bytes.TrimPrefix(line, []byte(" ")), true
}

// takeLine adds a line to the current event. done is true at its end.
func (e *eventReader) takeLine() (done bool, err error) {
	line := e.line
	switch {
	// A value over several lines takes every line, whatever it looks like.
	case e.isRaw:
		return e.addData(line)
	case len(bytes.TrimSpace(line)) == 0:
		return e.hasData || e.isError, nil
	case !e.hasData && (bytes.TrimLeft(line, " \t")[0] == '{' || bytes.TrimLeft(line, " \t")[0] == '['):
		e.isRaw = true
		return e.addData(line)
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "data":
		e.beginStream()
		return e.addData(value)
	case "event":
		e.isError = isErrorName(string(bytes.TrimSpace(value)))
		e.beginStream()
	// Some servers have a field for it instead of a name.
	case "error":
		if value := bytes.TrimSpace(value); len(value) == 0 || value[0] != '{' {
			return false, e.ignore(line)
		}
		e.isError = true
		e.beginStream()
		return e.addData(value)
	case "", "id", "retry":
		e.beginStream()
	default:
		return false, e.ignore(line)
	}
	return false, nil
}

// isErrorName recognizes the names of events that report an error.
func isErrorName(name string) bool {
	name = strings.ToLower(name)
	return name == "error" || strings.HasSuffix(name, ".error") || strings.HasSuffix(name, "_error") || name == "exception"
}

// addData adds a piece of an event. The event is complete with the end of its JSON.
func (e *eventReader) addData(piece []byte) (complete bool, err error) {
	if len(e.data)+len(piece) >= maxEvent {
		return false, errEventTooLarge
	}
	e.hasData = true
	e.data = append(append(e.data, piece...), '\n')
	end := e.shape.scan(piece)
	return !e.shape.open() && (end > 0 || e.shape.depth < 0), nil
}

func (e *eventReader) beginStream() {
	if !e.stream {
		e.stream = true
		e.onStream()
	}
}

// ignore skips a line that is no part of a stream, such as a line of a web page.
func (e *eventReader) ignore(line []byte) error {
	if e.stream {
		return nil
	}
	if e.ignored += len(line); e.ignored > maxIgnored {
		return errNotStream
	}
	e.head = append(append(e.head, line...), '\n')
	return nil
}

// readLine reads a line and removes its line end: CR LF, LF or CR. The end of the stream ends a
// line too.
func (e *eventReader) readLine() error {
	e.line = e.line[:0]
	for ended := false; !ended; {
		if _, err := e.src.Peek(1); err != nil {
			if errors.Is(err, io.EOF) && len(e.line) > 0 {
				break
			}
			return err
		}
		if err := e.start(); err != nil {
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
		e.total += length
		if len(e.line)+len(part) > maxEvent || e.total > maxStream {
			return errEventTooLarge
		}
		e.line = append(e.line, part...)
		_, _ = e.src.Discard(length)
	}
	return nil
}

// start looks at the first bytes of the answer: a byte order mark is skipped, gzip is unpacked.
func (e *eventReader) start() error {
	if e.started {
		return nil
	}
	e.started = true
	switch first, _ := e.src.Peek(1); first[0] {
	case 0xef:
		if mark, _ := e.src.Peek(3); string(mark) == "\ufeff" {
			_, _ = e.src.Discard(3)
		}
	case 0x1f:
		if magic, _ := e.src.Peek(2); string(magic) != "\x1f\x8b" {
			return nil
		}
		unpacked, err := gzip.NewReader(e.src)
		if err != nil {
			return err
		}
		e.src = bufio.NewReaderSize(unpacked, readBuffer)
	default:
		return nil
	}
	_, err := e.src.Peek(1)
	return err
}
