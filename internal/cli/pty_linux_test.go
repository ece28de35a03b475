package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// pseudoTerminal runs the program on a terminal of its own.
type pseudoTerminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	shown  string // what the program has written
}

// startOnTerminal starts the program on a terminal with a number of columns.
func startOnTerminal(t *testing.T, columns int, args ...string) *pseudoTerminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("cannot open a terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	p := &pseudoTerminal{t: t, master: master}
	var slave int
	p.control(func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		slave, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	p.resize(columns)
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", slave), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("cannot open a terminal: %v", err)
	}
	defer tty.Close()
	p.cmd = exec.Command(os.Args[0], args...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = tty, tty, tty
	p.cmd.Env = append(os.Environ(), runAsProgram+"=1", "TERM=xterm", "NO_COLOR=", "COLUMNS=")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

func (p *pseudoTerminal) control(do func(fd int) error) {
	p.t.Helper()
	conn, err := p.master.SyscallConn()
	if err == nil {
		_ = conn.Control(func(fd uintptr) { err = do(int(fd)) })
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *pseudoTerminal) resize(columns int) {
	p.t.Helper()
	p.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)})
	})
}

// waitFor reads until the program has written a text.
func (p *pseudoTerminal) waitFor(text string) {
	p.t.Helper()
	for buffer := make([]byte, 4096); !strings.Contains(p.shown, text); {
		n, err := p.master.Read(buffer)
		p.shown += string(buffer[:n])
		if err != nil { // the program has ended
			p.t.Fatalf("%q was not shown:\n%q", text, p.shown)
		}
	}
}

func (p *pseudoTerminal) press(key string) {
	p.t.Helper()
	if _, err := p.master.WriteString(key); err != nil {
		p.t.Fatal(err)
	}
}

// end reads to the end of the program and returns its exit status.
func (p *pseudoTerminal) end() int {
	buffer := make([]byte, 4096)
	for {
		n, err := p.master.Read(buffer)
		p.shown += string(buffer[:n])
		if err != nil {
			break
		}
	}
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

const ctrlC = "\x03"

// hold answers a watch with events and then nothing more, until the watcher leaves.
func (f *fakeServer) hold(events <-chan string) *fakeServer {
	f.mux.HandleFunc("GET /v1/jobs/job_1/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case e := <-events:
				_, _ = io.WriteString(w, e)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	return f
}

// A waiting job shows its place, one without progress a spinner and the time. Ctrl-C removes
// that line and prints what the user can type.
func TestTerminalShowsWaitingAndRunningJob(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a second of the clock")
	}
	t.Parallel()
	events := make(chan string, 2)
	f := newFakeServer(t).hold(events).respond("GET /v1/jobs/job_1", 200,
		`{"id":"job_1","status":"queued","queue_position":3,"estimated_time_seconds":11.2}`)
	events <- snapshot("queued", 0)
	p := startOnTerminal(t, 100, "watch", "job_1", "--server", f.URL)
	p.waitFor(" queued, 3 before it, done in about 12 s")
	events <- snapshot("running", 0)
	p.waitFor("running, 1 s")
	p.press(ctrlC)
	if code := p.end(); code != exitInterrupted {
		t.Errorf("exit status %d", code)
	}
	// What the terminal wraps between words is one command.
	if hint := strings.Join(strings.Fields(p.shown), " "); !strings.HasSuffix(hint, "The job continues. To watch it again: "+programName(os.Args[0])+" watch job_1 --server "+f.URL) {
		t.Errorf("the last words are %q", hint)
	}
}

// The bar is as wide as the terminal, also after the window was resized, and has its colours.
func TestTerminalBarIsAsWideAsTheWindow(t *testing.T) {
	t.Parallel()
	events := make(chan string, 2)
	f := newFakeServer(t).hold(events)
	events <- snapshot("running", 0) + progress(1, 50, "Half")
	p := startOnTerminal(t, 60, "watch", "job_1", "--server", f.URL)
	p.waitFor("[\x1b[32m" + bar(22, 22) + "\x1b[0m" + bar(23, 0) + "]  50% Half")
	p.resize(40)
	// The terminal has wrapped the line of 57 columns to two rows.
	p.waitFor("\r\x1b[1A\x1b[J[\x1b[32m" + bar(12, 12) + "\x1b[0m" + bar(13, 0) + "]  50% Half")
	events <- text(2, 1, "Words are not broken at the end of a line.") + done("succeeded", 2)
	if code := p.end(); code != exitOK {
		t.Errorf("exit status %d", code)
	}
	if want := "\r\x1b[KWords are not broken at the end of a \r\nline.\r\n"; !strings.HasSuffix(p.shown, want) {
		t.Errorf("the terminal got %q, want %q at its end", p.shown, want)
	}
}
