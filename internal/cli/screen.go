package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/meanwhile-run/meanwhile/client"
)

// screen prints the output of a job to standard output, and notes and a progress bar to
// standard error. When both are one terminal, the bar is drawn only below a complete line,
// so that they do not overwrite each other.
type screen struct {
	// set once
	out, err         io.Writer
	outTerm, errTerm bool
	width            func() int // called before each bar, because windows are resized

	bar      string // text of the bar; "" for no bar
	drawn    bool   // whether the bar is on the terminal now
	midLine  bool   // the last output did not end with a line break
	writeErr error  // first error of standard output; then output stops
}

func newScreen(env *Env) *screen {
	return &screen{out: env.Out, err: env.Err, outTerm: env.OutTerminal, errTerm: env.ErrTerminal, width: env.terminalWidth}
}

// write writes output of a job.
func (s *screen) write(text string) {
	// After the first error, such as a closed pipe, more output is useless.
	if text == "" || s.writeErr != nil {
		return
	}
	s.erase()
	if s.outTerm {
		text = printable(text)
	}
	_, s.writeErr = io.WriteString(s.out, text)
	s.midLine = !strings.HasSuffix(text, "\n")
	s.draw()
}

// endLine ends the current line of output, if it is not empty.
func (s *screen) endLine() {
	if s.midLine {
		s.write("\n")
	}
}

// note writes a message about the job on its own line.
func (s *screen) note(format string, args ...any) {
	s.erase()
	if s.outTerm {
		s.endLine()
		s.erase()
	}
	fmt.Fprintln(s.err, printable(fmt.Sprintf(format, args...)))
	s.draw()
}

// progress updates the progress bar.
func (s *screen) progress(p client.Progress, status client.Status) {
	if !s.errTerm {
		return
	}
	text := bar(p, status, s.width()-1)
	// An unchanged bar is not drawn again: it would flicker.
	if text == s.bar {
		return
	}
	s.erase()
	s.bar = text
	s.draw()
}

// clear removes the progress bar.
func (s *screen) clear() {
	s.erase()
	s.bar = ""
}

func (s *screen) draw() {
	// In the middle of a line the bar would overwrite the output.
	if s.bar == "" || s.drawn || s.outTerm && s.midLine {
		return
	}
	fmt.Fprint(s.err, s.bar)
	s.drawn = true
}

func (s *screen) erase() {
	if s.drawn {
		fmt.Fprint(s.err, "\r\x1b[K")
		s.drawn = false
	}
}

const barWidth = 24 // characters between the brackets

// bar returns a progress bar of at most width characters.
func bar(p client.Progress, status client.Status, width int) string {
	percent := min(max(p.Percent, 0), 100)
	full := int(percent / 100 * barWidth)
	text := p.Status
	if text == "" || status != client.Running {
		text = string(status)
	}
	line := fmt.Sprintf("[%s%s] %.0f%% %s", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), percent, text)
	return oneLine(line, width)
}
