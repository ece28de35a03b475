package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/meanwhile-run/meanwhile/client"
)

// screen prints the output of a job to standard output, and notes and a line about the job's
// state to standard error. When both are one terminal, that line is drawn only below a
// complete line, so that they do not overwrite each other.
type screen struct {
	// set once
	out, err         io.Writer
	outTerm, errTerm bool
	width            func() int // called before each drawing, because windows are resized
	now              func() time.Time
	style            style // of standard error

	mu sync.Mutex
	// guarded by mu
	hidden   bool // no line about the state is drawn
	meter    meter
	bar      string // the line as it should be; "" for none
	drawn    int    // columns of the line that is on the terminal; 0 for none
	midLine  bool   // the last output did not end with a line break
	returned bool   // the last output ended with a carriage return, which is not written yet
	words    wordWrapper
	writeErr error // first error of standard output; then output stops
}

func newScreen(env *Env) *screen {
	return &screen{
		out: env.Out, err: env.Err, outTerm: env.OutTerminal, errTerm: env.ErrTerminal,
		width: env.terminalWidth, now: env.Now, style: env.styleFor(env.ErrTerminal),
		hidden: !env.ErrTerminal || env.isDumb(), words: wordWrapper{columns: env.wrapWidth},
	}
}

// hide stops drawing the line about the job's state.
func (s *screen) hide() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eraseLocked()
	s.hidden = true
}

// failure returns the first error of standard output.
func (s *screen) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeErr
}

// write writes output of a job.
func (s *screen) write(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeLocked(text)
	s.drawLocked()
}

func (s *screen) writeLocked(text string) {
	// After the first error, such as a closed pipe, more output is useless.
	if text == "" || s.writeErr != nil {
		return
	}
	s.eraseLocked()
	if s.outTerm {
		text = s.words.wrap(printable(s.linesLocked(text)))
	}
	if text == "" {
		return
	}
	s.midLine = !strings.HasSuffix(text, "\n")
	_, s.writeErr = io.WriteString(s.out, text)
}

// linesLocked begins a line after each carriage return, so that each state of a progress bar
// is a line of its own.
func (s *screen) linesLocked(text string) string {
	var lines strings.Builder
	midLine := s.midLine
	for _, r := range text {
		if r == '\r' {
			s.returned = true
			continue
		}
		if s.returned && midLine && r != '\n' {
			lines.WriteByte('\n')
		}
		lines.WriteRune(r)
		s.returned, midLine = false, r != '\n'
	}
	return lines.String()
}

// writeExact writes a result without any change.
func (s *screen) writeExact(result []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eraseLocked()
	if s.writeErr == nil {
		_, s.writeErr = s.out.Write(result)
	}
}

// endLine ends the current line of output, if it is not empty.
func (s *screen) endLine() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLineLocked()
	s.drawLocked()
}

func (s *screen) endLineLocked() {
	if s.midLine {
		s.writeLocked("\n")
	}
}

// note writes a message about the job on its own line.
func (s *screen) note(format string, args ...any) { s.noteIn("", format, args...) }

// noteIn writes a message in a colour.
func (s *screen) noteIn(colour, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eraseLocked()
	if s.outTerm {
		s.endLineLocked()
	}
	text := printable(fmt.Sprintf(format, args...))
	if s.errTerm {
		text = wrapText(text, s.words.columns())
	}
	fmt.Fprintln(s.err, s.style.paint(colour, text))
	s.drawLocked()
}

// job updates the line from a snapshot of the job.
func (s *screen) job(j *client.Job) {
	s.change(func(m *meter) { m.setJob(j, s.now()) })
}

// progress updates the line of a running job.
func (s *screen) progress(p client.Progress) {
	s.change(func(m *meter) {
		m.status = client.Running
		m.setProgress(p)
	})
}

// place updates the line of a waiting job from an answer of the server.
func (s *screen) place(j *client.Job) {
	s.change(func(m *meter) {
		if m.status == j.Status {
			m.place = j
		}
	})
}

// tick moves the spinner and the clock on.
func (s *screen) tick() { s.change(func(m *meter) { m.frame++ }) }

// waits reports whether the line is that of a waiting job.
func (s *screen) waits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meter.status == client.Queued || s.meter.status == client.Parked
}

// change changes the meter and draws the line again if it differs.
func (s *screen) change(update func(*meter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	update(&s.meter)
	if s.hidden {
		return
	}
	text := s.meter.text(max(s.width()-3, 1), s.now()) // the terminal may add ^C
	// An unchanged line is not drawn again: it would flicker.
	if text == s.bar {
		return
	}
	s.eraseLocked()
	s.bar = text
	s.drawLocked()
}

// clear removes the line about the job's state.
func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eraseLocked()
	s.bar, s.meter = "", meter{}
}

func (s *screen) drawLocked() {
	// In the middle of a line it would overwrite the output.
	if s.hidden || s.bar == "" || s.drawn > 0 || s.outTerm && s.midLine {
		return
	}
	fmt.Fprint(s.err, paintBar(s.bar, s.style))
	s.drawn = textWidth(s.bar)
}

// eraseLocked removes the line from the terminal. If the window became narrower meanwhile,
// the terminal has wrapped the line to several.
func (s *screen) eraseLocked() {
	if s.drawn == 0 {
		return
	}
	if rows := (s.drawn - 1) / max(s.width(), 1); rows > 0 {
		fmt.Fprintf(s.err, "\r\x1b[%dA\x1b[J", rows)
	} else {
		fmt.Fprint(s.err, "\r\x1b[K")
	}
	s.drawn = 0
}
