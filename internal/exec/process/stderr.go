package process

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

const (
	maxLine        = 16 << 10 // maximum bytes of a log line; a longer line is split
	lineOverhead   = 32       // bytes that each line counts in addition, because each is an entry
	maxTailRunes   = 500      // maximum characters of standard error in a fault's message
	maxStatusRunes = 200      // maximum characters of a progress report's status
)

// A line without an end is logged after a quiet, or when it has waited too long: a question, a
// row of dots, a progress bar that rewinds its line.
const (
	quietTime   = 200 * time.Millisecond
	maxLineWait = time.Second
)

// stderrLog makes log lines and progress reports of standard error.
type stderrLog struct {
	// set once
	sink    exec.Sink
	secrets *strings.Replacer // removes secrets

	left      budget
	line      []byte    // the line that has no end yet, since its last carriage return
	rewound   []byte    // what the line was before its last carriage return
	begun     bool      // an earlier part of the line is logged or reported already
	firstByte time.Time // when the first byte came that is not logged; zero for none
	lastByte  time.Time
	tail      []byte // the last part of all lines, for the fault
}

// add processes a piece of standard error.
func (l *stderrLog) add(data []byte, now time.Time) error {
	l.sink.Alive()
	full := l.left.note == ""
	for len(data) > 0 {
		// Once, after the end of the line that the last piece has begun.
		if full && len(l.line)+len(l.rewound) == 0 {
			data, full = l.skip(data), false
			continue
		}
		end := lineEnd(data)
		if end < 0 {
			return l.keep(data, now)
		}
		text, ending := data[:end], data[end]
		data = data[end+1:]
		err := l.keep(text, now)
		switch {
		case err != nil:
		case ending == '\r':
			err = l.rewind()
		default:
			err = l.endLine()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lineEnd returns the index of the first line feed or carriage return; -1 for none.
func lineEnd(data []byte) int {
	end := bytes.IndexByte(data, '\n')
	before := data
	if end >= 0 {
		before = data[:end]
	}
	if i := bytes.IndexByte(before, '\r'); i >= 0 {
		return i
	}
	return end
}

// keep adds text to the line. It logs the parts of a line that is too long.
func (l *stderrLog) keep(text []byte, now time.Time) error {
	if len(text) == 0 {
		return nil
	}
	if l.firstByte.IsZero() {
		l.firstByte = now
	}
	l.lastByte = now
	for {
		n := min(len(text), maxLine-len(l.line))
		l.line, text = append(l.line, text[:n]...), text[n:]
		if len(text) == 0 {
			return nil
		}
		if err := l.logPart(); err != nil {
			return err
		}
	}
}

// logPart logs the line as far as it has come, up to its last whole character.
func (l *stderrLog) logPart() error {
	whole := len(l.line) - partialRuneLen(l.line)
	if whole == 0 {
		return nil
	}
	err := l.log(l.line[:whole])
	l.line = append(l.line[:0], l.line[whole:]...)
	l.rewound, l.begun = l.rewound[:0], true
	return err
}

// rewind begins the line anew after a carriage return. What it was is logged only if nothing
// replaces it in time.
func (l *stderrLog) rewind() error {
	if len(l.line) == 0 {
		return nil
	}
	if p, ok := parseProgress(printable(l.line)); ok {
		l.line, l.rewound, l.begun, l.firstByte = l.line[:0], l.rewound[:0], true, time.Time{}
		return l.sink.Progress(p)
	}
	l.rewound, l.line = l.line, l.rewound[:0]
	return nil
}

// endLine reports or logs the line, which has ended.
func (l *stderrLog) endLine() error {
	text := l.line
	if len(text) == 0 {
		text = l.rewound
	}
	var err error
	if len(text) > 0 || !l.begun {
		err = l.addLine(text)
	}
	l.line, l.rewound, l.begun, l.firstByte = l.line[:0], l.rewound[:0], false, time.Time{}
	return err
}

// addLine processes a whole line.
func (l *stderrLog) addLine(line []byte) error {
	if bytes.HasPrefix(line, []byte(progressWord)) {
		if p, ok := parseProgress(printable(line)); ok {
			return l.sink.Progress(p)
		}
	}
	return l.log(line)
}

// log writes a line, as long as the log has space.
func (l *stderrLog) log(line []byte) error {
	text := l.secrets.Replace(printable(line))
	l.keepTail(text)
	if l.left.note == "" {
		return nil
	}
	if l.left.left -= len(text) + lineOverhead; l.left.left < 0 {
		return l.left.exhaust(l.sink)
	}
	return l.sink.Log(text)
}

// keepTail keeps the end of standard error, without secrets: the cut would leave a part of one.
// The limit is in characters, each of at most four bytes.
func (l *stderrLog) keepTail(lines string) {
	l.tail = append(append(l.tail, lines[max(0, len(lines)-4*maxTailRunes):]...), '\n')
	if excess := len(l.tail) - 4*maxTailRunes; excess > 0 {
		l.tail = append(l.tail[:0], l.tail[excess:]...)
	}
}

// skip returns the part of data that must be read line by line although the log is full: all of
// it if it has a progress report, else what follows the last line. A command may print without
// end.
func (l *stderrLog) skip(data []byte) []byte {
	end := bytes.LastIndexByte(data, '\n')
	if end < 0 || bytes.Contains(data, []byte(progressWord)) {
		return data
	}
	l.keepTail(l.secrets.Replace(string(data[:end])))
	l.begun = false
	return data[end+1:]
}

// flushAt returns when flush must be called; zero for never.
func (l *stderrLog) flushAt() time.Time {
	if l.firstByte.IsZero() || len(l.rewound) == 0 && mayBecomeProgress(l.line) {
		return time.Time{}
	}
	at := l.lastByte.Add(quietTime)
	if limit := l.firstByte.Add(maxLineWait); limit.Before(at) {
		return limit
	}
	return at
}

// flush logs a line that has waited long enough for its end.
func (l *stderrLog) flush(now time.Time) error {
	if at := l.flushAt(); at.IsZero() || now.Before(at) {
		return nil
	}
	// While a progress bar is drawn, its last whole state is better than the half of the next.
	if len(l.rewound) > 0 && (len(l.line) == 0 || now.Sub(l.lastByte) < quietTime) {
		err := l.log(l.rewound)
		l.rewound, l.begun = l.rewound[:0], true
		if l.firstByte = l.lastByte; len(l.line) == 0 {
			l.firstByte = time.Time{}
		}
		return err
	}
	l.firstByte = time.Time{}
	return l.logPart()
}

// end logs the last line, which has no end.
func (l *stderrLog) end() error {
	if len(l.line)+len(l.rewound) == 0 {
		return nil
	}
	return l.endLine()
}

// progressWord begins a line that reports progress.
const progressWord = "progress "

// partialReport matches the beginning of a progress report.
var partialReport = regexp.MustCompile(`^progress [0-9]+(\.[0-9]*)?( |$)`)

// mayBecomeProgress reports whether a line that has no end yet may be a progress report. Its
// parts would be no report.
func mayBecomeProgress(line []byte) bool {
	return bytes.HasPrefix([]byte(progressWord), line) || partialReport.Match(line)
}

// parseProgress parses a line such as "progress 40 Reading page 2".
func parseProgress(line string) (job.Progress, bool) {
	rest, ok := strings.CutPrefix(line, progressWord)
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

// tailText returns the end of standard error, on one line.
func (l *stderrLog) tailText() string {
	all := []rune(oneLine(strings.ToValidUTF8(string(l.tail), "")))
	if len(all) > maxTailRunes {
		return "…" + string(all[len(all)-maxTailRunes:])
	}
	return string(all)
}

// oneLine returns the printable words of a text, on one line.
func oneLine(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	return strings.Join(words, " ")
}

func truncate(s string, limit int) string {
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}
