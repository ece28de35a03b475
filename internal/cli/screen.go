package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/meanwhile-run/meanwhile/client"
)

// screen is where a job's life is shown: what it says on standard output, notes
// and a progress bar on standard error. Where both are one terminal they do not
// write over each other: the bar stands only below complete lines.
type screen struct {
	// Set once.
	out, err         io.Writer
	outTerm, errTerm bool
	width            func() int // asked before each bar: windows are resized

	bar     string // what the bar says; "" when there is none
	drawn   bool   // whether it stands on the terminal now
	midLine bool   // the job's last words did not end their line
	failed  error  // of standard output; nothing is written after it
}

func newScreen(env *Env) *screen {
	return &screen{out: env.Out, err: env.Err, outTerm: env.OutTerminal, errTerm: env.ErrTerminal, width: env.width}
}

// say writes what a job says.
func (s *screen) say(text string) {
	if text == "" || s.failed != nil {
		return
	}
	s.erase()
	if s.outTerm {
		text = printable(text)
	}
	_, s.failed = io.WriteString(s.out, text)
	s.midLine = !strings.HasSuffix(text, "\n")
	s.draw()
}

// endLine ends the line that the job's words may have left open.
func (s *screen) endLine() {
	if s.midLine {
		s.say("\n")
	}
}

// note writes a line about the job.
func (s *screen) note(format string, args ...any) {
	s.erase()
	if s.outTerm {
		s.endLine()
		s.erase()
	}
	fmt.Fprintln(s.err, printable(fmt.Sprintf(format, args...)))
	s.draw()
}

// progress changes the bar.
func (s *screen) progress(p client.Progress, status client.Status) {
	if !s.errTerm {
		return
	}
	text := bar(p, status, s.width()-1)
	if text == s.bar {
		return
	}
	s.erase()
	s.bar = text
	s.draw()
}

// clear takes the bar away for good.
func (s *screen) clear() {
	s.erase()
	s.bar = ""
}

func (s *screen) draw() {
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

// bar is a progress bar on one line, at most width characters long.
func bar(p client.Progress, status client.Status, width int) string {
	percent := min(max(p.Percent, 0), 100)
	full := int(percent / 100 * barWidth)
	said := p.Status
	if said == "" || status != client.Running {
		said = string(status)
	}
	line := fmt.Sprintf("[%s%s] %.0f%% %s", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), percent, said)
	return oneLine(line, width)
}
