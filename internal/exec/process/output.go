package process

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Limits of an attempt's output, in bytes. A share of what the job may still output bounds them
// too: the output of earlier attempts must not fail a later one.
const (
	maxShown   = 12 << 20 // of standard output that watchers see; the result has all of it
	shownShare = 4
	maxLog     = 1 << 20 // of standard error
	logShare   = 16
)

// output processes the output of a command. One goroutine uses it.
type output struct {
	sink exec.Sink // set once

	stdout  []byte
	partial []byte // the first bytes of an incomplete character of standard output
	shown   budget // of standard output
	stderr  stderrLog
}

// budget is a number of bytes that may still be written.
type budget struct {
	left int
	note string // the log line in place of what does not fit; "" once it was written
}

func newOutput(sink exec.Sink, j *job.Job, secrets *strings.Replacer) output {
	left := max(0, job.MaxJobOutput-int(j.OutputBytes))
	return output{
		sink: sink,
		shown: budget{min(maxShown, left/shownShare),
			"the rest of standard output is not shown, because it is long; the result has all of it"},
		stderr: stderrLog{sink: sink, secrets: secrets, left: budget{min(maxLog, left/logShare),
			"the rest of the log is dropped, because it is long"}},
	}
}

// add processes a piece of one of the streams. An error ends the attempt.
func (o *output) add(stderr bool, data []byte, now time.Time) error {
	if stderr {
		return o.stderr.add(data, now)
	}
	if len(o.stdout)+len(data) > job.MaxResult {
		return &job.Fault{Code: "result_too_large", Class: job.Final,
			Message: fmt.Sprintf("the command wrote more than a result may hold (%d MiB)", job.MaxResult>>20)}
	}
	o.stdout = append(o.stdout, data...)
	if o.shown.note == "" {
		o.sink.Alive()
		return nil
	}
	// A character that is cut by the end of the piece waits for its other bytes.
	if len(o.partial) > 0 {
		data = append(o.partial, data...)
	}
	whole := len(data) - partialRuneLen(data)
	o.partial = bytes.Clone(data[whole:])
	return o.show(data[:whole])
}

// show writes standard output for watchers.
func (o *output) show(data []byte) error {
	text := printable(data)
	fits := text
	if len(fits) > o.shown.left {
		fits = fits[:o.shown.left]
		fits = fits[:len(fits)-partialRuneLen([]byte(fits[max(0, len(fits)-utf8.UTFMax):]))]
	}
	if fits == "" {
		o.sink.Alive()
	} else if err := o.sink.Text(fits); err != nil {
		return err
	}
	o.shown.left -= len(fits)
	if len(fits) < len(text) {
		return o.shown.exhaust(o.sink)
	}
	return nil
}

// exhaust ends the budget, and writes its note the first time.
func (b *budget) exhaust(sink exec.Sink) error {
	note := b.note
	if b.left, b.note = 0, ""; note == "" {
		return nil
	}
	return sink.Log(note)
}

// flushAt returns when flush must be called; zero for never.
func (o *output) flushAt() time.Time { return o.stderr.flushAt() }

// flush shows what has waited long enough for the end of its line.
func (o *output) flush(now time.Time) error { return o.stderr.flush(now) }

// end shows what is left at the end of both streams.
func (o *output) end() error {
	if len(o.partial) > 0 && o.shown.note != "" {
		if err := o.show(o.partial); err != nil {
			return err
		}
	}
	return o.stderr.end()
}

// result returns all of standard output as the job's result.
func (o *output) result() job.Result {
	r := job.Result{ContentType: "text/plain; charset=utf-8", Body: o.stdout}
	start := bytes.TrimLeft(o.stdout, " \t\r\n")
	switch {
	case !isText(o.stdout):
		r.ContentType = "application/octet-stream"
	case len(start) > 0 && (start[0] == '{' || start[0] == '[') && json.Valid(o.stdout):
		r.ContentType = "application/json"
	}
	return r
}

// isText reports whether data is UTF-8 without a zero byte, which no text has.
func isText(data []byte) bool { return utf8.Valid(data) && bytes.IndexByte(data, 0) < 0 }

// printable returns data as text, with U+FFFD for each byte that is none.
func printable(data []byte) string {
	if isText(data) {
		return string(data)
	}
	var b strings.Builder
	for _, r := range string(data) { // U+FFFD for each byte outside a character
		if r == 0 {
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
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
