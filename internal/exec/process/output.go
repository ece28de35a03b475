package process

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Limits of a command's output.
const (
	maxLine        = 16 << 10 // maximum bytes of a line; a longer line is split
	maxLogBytes    = 1 << 20  // maximum bytes of an attempt's log; the rest is dropped
	maxTailRunes   = 500      // maximum characters of standard error in a fault's message
	maxStatusRunes = 200      // maximum characters of a progress report's status
	droppedLog     = "the rest of the log is dropped: it is longer than 1 MiB"
)

// output processes the output of a command. One goroutine uses it.
type output struct {
	sink exec.Sink // set once

	stdout    []byte
	binary    bool   // standard output is not UTF-8
	logBytes  int    // bytes logged so far
	stderrEnd []byte // the last part of standard error
}

// add processes a line. An error ends the attempt.
func (o *output) add(line outputLine) error {
	if line.stderr {
		return o.addLog(strings.TrimRight(strings.ToValidUTF8(string(line.data), "�"), "\r\n"))
	}
	if len(o.stdout)+len(line.data) > job.MaxResult {
		return &job.Fault{Code: "result_too_large", Class: job.Final,
			Message: fmt.Sprintf("the command wrote more than a result may hold (%d MiB)", job.MaxResult>>20)}
	}
	o.stdout = append(o.stdout, line.data...)
	// Output that is not UTF-8 cannot be shown as text, and neither can the output after it.
	if o.binary = o.binary || !utf8.Valid(line.data) || bytes.IndexByte(line.data, 0) >= 0; o.binary {
		o.sink.Alive()
		return nil
	}
	return o.sink.Text(string(line.data))
}

func (o *output) addLog(line string) error {
	if p, ok := parseProgress(line); ok {
		o.sink.Alive()
		return o.sink.Progress(p)
	}
	// The limit is in characters, each of at most four bytes.
	o.stderrEnd = append(append(o.stderrEnd, line...), '\n')
	if excess := len(o.stderrEnd) - 4*maxTailRunes; excess > 0 {
		o.stderrEnd = append(o.stderrEnd[:0], o.stderrEnd[excess:]...)
	}
	if o.logBytes > maxLogBytes {
		o.sink.Alive()
		return nil
	}
	if o.logBytes += len(line) + 1; o.logBytes > maxLogBytes {
		line = droppedLog
	}
	return o.sink.Log(line)
}

// parseProgress parses a line such as "progress 40 Reading page 2".
func parseProgress(line string) (job.Progress, bool) {
	rest, ok := strings.CutPrefix(line, "progress ")
	if !ok {
		return job.Progress{}, false
	}
	number, status, _ := strings.Cut(rest, " ")
	percent, err := strconv.ParseFloat(number, 64)
	if err != nil || !(percent >= 0 && percent <= 100) {
		return job.Progress{}, false
	}
	return job.Progress{Percent: percent, Status: truncate(strings.TrimSpace(status), maxStatusRunes)}, true
}

// stderrTail returns the end of standard error, on one line.
func (o *output) stderrTail() string {
	text := strings.ToValidUTF8(string(o.stderrEnd), "")
	words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	all := []rune(strings.Join(words, " "))
	if len(all) > maxTailRunes {
		return "…" + string(all[len(all)-maxTailRunes:])
	}
	return string(all)
}

func truncate(s string, limit int) string {
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}

// result returns all of standard output as the job's result.
func (o *output) result() job.Result {
	r := job.Result{ContentType: "text/plain; charset=utf-8", Body: o.stdout}
	start := bytes.TrimLeft(o.stdout, " \t\r\n")
	switch {
	case o.binary:
		r.ContentType = "application/octet-stream"
	case len(start) > 0 && (start[0] == '{' || start[0] == '[') && json.Valid(o.stdout):
		r.ContentType = "application/json"
	}
	return r
}

// lineReader splits a stream into lines. A line keeps its end. A long line is split between
// characters.
type lineReader struct {
	in      *bufio.Reader
	partial []byte // an incomplete character from the end of the last piece
}

func newLineReader(from io.Reader) *lineReader {
	return &lineReader{in: bufio.NewReaderSize(from, maxLine)}
}

// next returns the next line. It returns nil at the end of the stream, after a read error and
// after the deadline.
func (l *lineReader) next() []byte {
	part, err := l.in.ReadSlice('\n')
	line := append(l.partial, part...)
	l.partial = nil
	// The buffer is full and has no line end, so return a part, up to the last whole character.
	if errors.Is(err, bufio.ErrBufferFull) {
		whole := len(line) - partialRuneLen(line)
		l.partial = append(l.partial, line[whole:]...)
		return line[:whole]
	}
	if len(line) == 0 {
		return nil
	}
	return line
}

// partialRuneLen returns the length of an incomplete character at the end of b, in bytes.
func partialRuneLen(b []byte) int {
	for n := 1; n <= min(utf8.UTFMax-1, len(b)); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}
