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

// Bounds of what a command says.
const (
	maxLine    = 16 << 10 // bytes of a line; a longer one is cut into pieces
	maxLogged  = 1 << 20  // bytes of an attempt's log; the rest is dropped
	maxTail    = 500      // characters of standard error in a fault's message
	maxStatus  = 200      // characters of a progress report's status
	droppedLog = "the rest of the log is dropped: it is longer than 1 MiB"
)

// speech is what a command has said. It is used by one goroutine.
type speech struct {
	out exec.Sink // set once

	stdout []byte
	binary bool   // standard output turned out not to be UTF-8
	logged int    // bytes
	last   []byte // the end of standard error
}

// say takes what the command wrote. An error ends the attempt.
func (s *speech) say(p piece) error {
	if p.stderr {
		return s.log(strings.TrimRight(strings.ToValidUTF8(string(p.data), "�"), "\r\n"))
	}
	if len(s.stdout)+len(p.data) > job.MaxResult {
		return &job.Fault{Code: "result_too_large", Class: job.Final,
			Message: fmt.Sprintf("the command wrote more than a result may hold (%d MiB)", job.MaxResult>>20)}
	}
	s.stdout = append(s.stdout, p.data...)
	if s.binary = s.binary || !utf8.Valid(p.data) || bytes.IndexByte(p.data, 0) >= 0; s.binary {
		return nil
	}
	return s.out.Text(string(p.data))
}

func (s *speech) log(line string) error {
	if p, ok := progress(line); ok {
		return s.out.Progress(p)
	}
	s.last = append(append(s.last, line...), '\n')
	if spare := len(s.last) - 4*maxTail; spare > 0 {
		s.last = append(s.last[:0], s.last[spare:]...)
	}
	if s.logged > maxLogged {
		return nil
	}
	if s.logged += len(line) + 1; s.logged > maxLogged {
		line = droppedLog
	}
	return s.out.Log(line)
}

// progress reads a line such as "progress 40 Reading page 2".
func progress(line string) (job.Progress, bool) {
	rest, ok := strings.CutPrefix(line, "progress ")
	if !ok {
		return job.Progress{}, false
	}
	number, status, _ := strings.Cut(rest, " ")
	percent, err := strconv.ParseFloat(number, 64)
	if err != nil || !(percent >= 0 && percent <= 100) {
		return job.Progress{}, false
	}
	return job.Progress{Percent: percent, Status: shortened(strings.TrimSpace(status), maxStatus)}, true
}

// tail is the end of standard error, on one line.
func (s *speech) tail() string {
	text := strings.ToValidUTF8(string(s.last), "")
	words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	all := []rune(strings.Join(words, " "))
	if len(all) > maxTail {
		return "…" + string(all[len(all)-maxTail:])
	}
	return string(all)
}

func shortened(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// result is all of standard output.
func (s *speech) result() job.Result {
	r := job.Result{ContentType: "text/plain; charset=utf-8", Body: s.stdout}
	start := bytes.TrimLeft(s.stdout, " \t\r\n")
	switch {
	case s.binary:
		r.ContentType = "application/octet-stream"
	case len(start) > 0 && (start[0] == '{' || start[0] == '[') && json.Valid(s.stdout):
		r.ContentType = "application/json"
	}
	return r
}

// lines cuts a stream into lines, each with its end, and long lines into pieces
// that end between characters.
type lines struct {
	in   *bufio.Reader
	kept []byte // the start of a character that was cut off the last piece
}

func newLines(from io.Reader) *lines { return &lines{in: bufio.NewReaderSize(from, maxLine)} }

// next returns the next line, or nil at the end of the stream: when it is closed,
// when it breaks, and when its time is up.
func (l *lines) next() []byte {
	part, err := l.in.ReadSlice('\n')
	line := append(l.kept, part...)
	l.kept = nil
	if errors.Is(err, bufio.ErrBufferFull) {
		whole := len(line) - startOfCharacter(line)
		l.kept = append(l.kept, line[whole:]...)
		return line[:whole]
	}
	if len(line) == 0 {
		return nil
	}
	return line
}

// startOfCharacter is how many bytes at the end of b begin a character that goes
// on after it.
func startOfCharacter(b []byte) int {
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
