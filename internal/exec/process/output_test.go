//go:build unix

package process

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// feed is a stream of a command with a clock that the test moves.
type feed struct {
	t    *testing.T
	sink *exectest.Recorder
	out  output
	now  time.Time
}

func newFeed(t *testing.T, j job.Job) *feed {
	f := &feed{t: t, sink: exectest.NewRecorder(t), now: time.Unix(1000, 0)}
	f.out = newOutput(f.sink, &j, strings.NewReplacer())
	return f
}

// write sends a piece of a stream, as one read would return it.
func (f *feed) write(stderr bool, text string) {
	f.t.Helper()
	if err := f.out.add(stderr, []byte(text), f.now); err != nil {
		f.t.Fatal(err)
	}
}

// wait moves the clock, and flushes as the relay would.
func (f *feed) wait(d time.Duration) {
	f.t.Helper()
	end := f.now.Add(d)
	for at := f.out.flushAt(); !at.IsZero() && !at.After(end); at = f.out.flushAt() {
		f.now = at
		if err := f.out.flush(f.now); err != nil {
			f.t.Fatal(err)
		}
	}
	f.now = end
}

// A progress report on a line that ends with CR LF, as on Windows, is no empty line in the log.
func TestProgressWithCarriageReturnIsNoLogLine(t *testing.T) {
	t.Parallel()
	f := newFeed(t, job.Job{})
	f.write(true, "progress 40 a\r\nprogress 50 b\rprogress 60 c\r\n\r\nline\r\n")
	if log := f.log(); !slices.Equal(log, []string{"", "line"}) {
		t.Errorf("the log is %q", log)
	}
}

// log ends the output and returns the log lines.
func (f *feed) log() []string {
	f.t.Helper()
	if err := f.out.end(); err != nil {
		f.t.Fatal(err)
	}
	return f.sink.Record().OfKind(job.KindLog)
}

func (f *feed) wantLog(want ...string) {
	f.t.Helper()
	if got := f.log(); !reflect.DeepEqual(got, want) {
		f.t.Errorf("the log is %q, want %q", got, want)
	}
}

func TestStandardOutputIsShownAtOnce(t *testing.T) {
	t.Parallel()
	f := newFeed(t, job.Job{})
	f.write(false, "10%\r20%\r")
	f.write(false, "...")
	if got := f.sink.Record().Text(); got != "10%\r20%\r..." {
		t.Errorf("shown is %q", got)
	}
}

// A character that a write has cut is shown when it is whole. Bytes that are no characters are
// shown as U+FFFD, and the result has them as they are.
func TestCutAndBadCharacters(t *testing.T) {
	t.Parallel()
	f := newFeed(t, job.Job{})
	for _, piece := range []string{"\xe2\x82", "\xac and \xff", "\x00 on\xf0\x9f", "\x98\x80", "\xe2\x82"} {
		f.write(false, piece)
	}
	if got := f.sink.Record().Text(); got != "€ and \ufffd\ufffd on😀" {
		t.Errorf("shown is %q", got)
	}
	f.log()
	if got := f.sink.Record().Text(); got != "€ and \ufffd\ufffd on😀\ufffd\ufffd" {
		t.Errorf("in the end %q is shown", got)
	}
	if r := f.out.result(); string(r.Body) != "€ and \xff\x00 on😀\xe2\x82" || r.ContentType != "application/octet-stream" {
		t.Errorf("the result is %q, %s", r.Body, r.ContentType)
	}
}

func TestEveryByteIsLife(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(*feed){
		"half a character":         func(f *feed) { f.write(false, "\xe2") },
		"a dot on standard error":  func(f *feed) { f.write(true, ".") },
		"progress":                 func(f *feed) { f.write(true, "progress 4\n") },
		"output that is not shown": func(f *feed) { f.out.shown = budget{}; f.write(false, "x") },
		"a log that is full":       func(f *feed) { f.out.stderr.left = budget{}; f.write(true, "x\n") },
	} {
		f := newFeed(t, job.Job{})
		write(f)
		if f.sink.Record().Alive == 0 {
			t.Errorf("%s is no sign of life", name)
		}
	}
}

func TestLineWithoutEndIsLoggedAfterAQuiet(t *testing.T) {
	t.Parallel()
	f := newFeed(t, job.Job{})
	f.write(true, "Continue? \xe2\x82")
	f.wait(quietTime - 1)
	if got := f.sink.Record().OfKind(job.KindLog); got != nil {
		t.Errorf("%q was logged before the quiet", got)
	}
	f.wait(1)
	f.write(true, "\xac yes\n")
	f.write(true, "next\n\n")
	f.wantLog("Continue? ", "€ yes", "next", "")
}

func TestDotsAreLoggedOnceASecond(t *testing.T) {
	t.Parallel()
	f := newFeed(t, job.Job{})
	for range 25 {
		f.write(true, ".")
		f.wait(100 * time.Millisecond)
	}
	f.write(true, "\n")
	f.wantLog("..........", "..........", ".....")
}

// A progress bar rewinds its line many times. The log has one line a second, and its end.
func TestRewoundLinesAreLoggedOnceASecond(t *testing.T) {
	t.Parallel()
	for name, draw := range map[string]func(bar string) string{
		"first the bar":    func(bar string) string { return bar + "\r" },
		"first the rewind": func(bar string) string { return "\r" + bar },
	} {
		f := newFeed(t, job.Job{})
		for i := range 101 {
			f.write(true, draw(strings.Repeat("#", i/10)+" "+string(rune('0'+i%10))))
			f.wait(50 * time.Millisecond)
		}
		f.write(true, "\nend\n")
		log := f.log()
		if len(log) < 6 || len(log) > 9 || log[len(log)-1] != "end" || log[len(log)-2] != "########## 0" {
			t.Errorf("%s: the log is %q", name, log)
		}
	}
}

func TestLineEnds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"a\r\nb\r\n":                  {"a", "b"},
		"a\rb\n":                      {"b"},
		"a\r\n\r\nb":                  {"a", "", "b"},
		"\r\r\n":                      {""},
		"long\rshort\r":               {"short"},
		"progress 5\rprogress 6 x\rz": {"z"},
	} {
		for _, size := range []int{1, 2, 100} { // of the pieces in which it is read
			f := newFeed(t, job.Job{})
			for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
				f.write(true, rest[:min(size, len(rest))])
			}
			if got := f.log(); !reflect.DeepEqual(got, want) {
				t.Errorf("%q in pieces of %d is logged as %q, want %q", text, size, got, want)
			}
		}
	}
}

// A progress report that comes in parts is one report, however slowly it comes.
func TestProgressInParts(t *testing.T) {
	t.Parallel()
	f := newFeed(t, job.Job{})
	for _, part := range []string{"prog", "ress ", "4", "0.5 Reading", " page 2"} {
		f.write(true, part)
		f.wait(time.Minute)
	}
	f.write(true, "\nprogress report of today")
	f.wait(time.Minute)
	f.wantLog("progress report of today")
	if got := f.sink.Record().Progress(); len(got) != 1 || got[0] != (job.Progress{Percent: 40.5, Status: "Reading page 2"}) {
		t.Errorf("the progress is %v", got)
	}
}

func TestLongLogLinesAreSplitBetweenCharacters(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"one byte each":   strings.Repeat("x", 3*maxLine+5) + "\nend",
		"three bytes":     strings.Repeat("€", maxLine) + "\nend\n",
		"four, shifted":   "x" + strings.Repeat("😀", maxLine),
		"exactly a line":  strings.Repeat("x", maxLine) + "\n",
		"a line and more": strings.Repeat("x", maxLine+1) + "\n",
	} {
		f := newFeed(t, job.Job{})
		for rest := text; rest != ""; rest = rest[min(1000, len(rest)):] {
			f.write(true, rest[:min(1000, len(rest))])
		}
		lines := f.log()
		for _, line := range lines {
			if len(line) > maxLine || strings.Contains(line, "\ufffd") {
				t.Errorf("%s: a line of %d bytes ends with %q", name, len(line), line[len(line)-4:])
			}
		}
		if got, want := strings.Join(lines, ""), strings.ReplaceAll(text, "\n", ""); got != want {
			t.Errorf("%s: %d bytes became %d", name, len(want), len(got))
		}
	}
}

// A full log still has progress reports and the end of standard error for the fault.
func TestFullLogKeepsProgressAndTheEnd(t *testing.T) {
	t.Parallel()
	f := newFeed(t, job.Job{})
	line := strings.Repeat("y\n", pieceSize/2)
	for range 40 {
		f.write(true, line)
	}
	full := len(f.sink.Record().Entries)
	f.write(true, line+"progress 5\n"+line+"the e")
	f.write(true, line+"progress 6 x\n")
	f.write(true, "the cause\n")
	log := f.log()
	if len(log) != full || !strings.Contains(log[full-1], "the rest of the log is dropped") || full > maxLog/lineOverhead {
		t.Errorf("%d lines were logged, and %d before it was full; the last is %q", len(log), full, log[len(log)-1])
	}
	if got := f.sink.Record().Progress(); len(got) != 2 {
		t.Errorf("the progress is %v", got)
	}
	if got := f.out.stderr.tailText(); !strings.HasSuffix(got, " y the cause") || len(got) > 4*maxTailRunes {
		t.Errorf("the end is %q", got)
	}
}

// The bound of a result is the same for text and for bytes, and only the result has the part of
// a long output that is not shown.
func TestOneBoundForTextAndBytes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it writes 128 MiB")
	}
	for name, letter := range map[string]string{"text": "x", "bytes": "\xff"} {
		f := newFeed(t, job.Job{})
		piece := strings.Repeat(letter, 1<<20)
		for range job.MaxResult >> 20 {
			f.write(false, piece)
		}
		if body := f.out.result().Body; len(body) != job.MaxResult {
			t.Errorf("%s: the result has %d bytes", name, len(body))
		}
		if shown := len(f.sink.Record().Text()); shown > maxShown || shown < maxShown-3 {
			t.Errorf("%s: %d bytes are shown", name, shown)
		}
		if log := f.sink.Record().OfKind(job.KindLog); len(log) != 1 || !strings.Contains(log[0], "not shown") {
			t.Errorf("%s: the log is %q", name, log)
		}
		var fault *job.Fault
		if err := f.out.add(false, []byte(letter), f.now); !errors.As(err, &fault) || fault.Code != "result_too_large" || fault.Class != job.Final {
			t.Errorf("%s: one byte more: %v", name, err)
		}
	}
}

// The output of earlier attempts leaves a later one a share of what a job may output.
func TestLaterAttemptsShowLess(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it writes 128 MiB")
	}
	total := int64(0)
	for range 20 {
		f := newFeed(t, job.Job{OutputBytes: total})
		f.write(false, strings.Repeat("x", maxShown+1))
		for range 2 * maxLog / pieceSize {
			f.write(true, strings.Repeat("a line\n", pieceSize/7))
		}
		for _, e := range f.sink.Record().Entries {
			total += int64(len(e.Data))
		}
	}
	if total > job.MaxJobOutput {
		t.Errorf("twenty attempts output %d bytes, and a job may %d", total, job.MaxJobOutput)
	}
}

func TestSkippedLogIsCheap(t *testing.T) {
	t.Parallel()
	l := stderrLog{sink: exectest.NewRecorder(t), secrets: strings.NewReplacer()}
	for text, want := range map[string]string{
		"y\ny\ny\nrest":           "rest",
		"no end":                  "no end",
		"y\nprogress 4\ny\n":      "y\nprogress 4\ny\n",
		strings.Repeat("y\n", 99): "",
	} {
		if got := l.skip([]byte(text)); !bytes.Equal(got, []byte(want)) {
			t.Errorf("of %q %q is read line by line, want %q", text, got, want)
		}
	}
}
