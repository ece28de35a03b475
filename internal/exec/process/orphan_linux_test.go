package process

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// startServer starts a server that runs a script, and returns when that has said
// something.
func startServer(t *testing.T, script, notes string) *exec.Cmd {
	t.Helper()
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), scriptOfServer+"="+script, notesOfServer+"="+notes)
	said, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if n, err := said.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("the server did not begin: %v", err)
	}
	return server
}

func killServer(server *exec.Cmd) {
	_ = server.Process.Kill()
	_ = server.Wait()
}

// A server that is killed takes the commands it runs with it.
func TestAKilledServerLeavesNoCommand(t *testing.T) {
	alive, gone := fifo(t)
	killServer(startServer(t, "exec 3>"+alive+"; echo ready; exec sleep 1000", ""))
	<-gone
}

// openNotes opens notes, which kills what is left of earlier ones.
func openNotes(t testing.TB, path string) *PIDFile {
	t.Helper()
	n, err := OpenPIDFile(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// noted are the attempts that are noted in a file.
func noted(t *testing.T, path string) []attempt {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	here, err := identity(path)
	if err != nil {
		t.Fatal(err)
	}
	return readNotes(text, here)
}

// background are ways in which a script leaves a process, which sleeps.
func background(t *testing.T) map[string]string {
	t.Helper()
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("there is no setsid")
	}
	return map[string]string{
		"a child":                                        "sleep 1000 &",
		"one that ignores SIGTERM":                       "(trap '' TERM; sleep 1000; sleep 1000) &",
		"a grandchild whose parent is gone":              "(sleep 1000 &);",
		"one with another environment":                   "env -i sleep 1000 &",
		"one in a session of its own":                    "setsid sleep 1000 &",
		"a daemon":                                       "(setsid sh -c 'cd /; (sleep 1000 <&- >&- 2>&- &)' &);",
		"one without its environment below one that has": "setsid sh -c 'setsid env -i sleep 1000; true' &",
		"one that starts others as fast as it can":       "setsid sh -c 'for i in 1 2 3 4 5 6 7 8 9; do setsid env -i sleep 1000 & done; sleep 1000' &",
	}
}

// A server that starts where another one was killed begins with nothing of it.
func TestTheNextServerKillsWhatAKilledOneLeft(t *testing.T) {
	for what, start := range background(t) {
		t.Run(what, func(t *testing.T) {
			alive, gone := fifo(t)
			notes := filepath.Join(t.TempDir(), "commands")
			killServer(startServer(t, "exec 3>"+alive+"; "+start+" sleep 0.1; echo ready; exec sleep 1000", notes))
			select {
			case <-gone:
				t.Fatal("nothing was left: this tests nothing")
			default:
			}
			openNotes(t, notes)
			<-gone
		})
	}
}

// Nothing of a failed attempt is there when the next one begins.
func TestAFailedAttemptLeavesNothing(t *testing.T) {
	for what, start := range background(t) {
		t.Run(what, func(t *testing.T) {
			alive, gone := fifo(t)
			failing(t, shell(t), "exec 3>"+alive+"; "+start+" exit 1")
			<-gone

			alive, gone = fifo(t)
			a := exectest.Start(t, shell(t), exectest.Task([]byte("exec 3>"+alive+"; "+start+" echo ready; exec sleep 1000")))
			a.Sink.WaitUntil(exectest.HasText)
			a.Stop(errors.New("enough"))
			if err := a.Wait(); err == nil {
				t.Error("it was not cut off")
			}
			<-gone
		})
	}
}

func TestNotesAreOfAttemptsUnderWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "commands")
	notes := openNotes(t, path)
	with := func(words ...string) *Executor {
		e, err := New(Config{Command: words, PIDFile: notes})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for range 2 { // a slot is used again
		var all []*exectest.Attempt
		for range 3 {
			a := exectest.Start(t, with("sh"), exectest.Task([]byte("echo $$ $MEANWHILE_ATTEMPT; exec sleep 1000")))
			a.Sink.WaitUntil(exectest.HasText)
			all = append(all, a)
		}
		var said, want []string
		for _, a := range all {
			said = append(said, strings.TrimSpace(a.Sink.Record().Text()))
		}
		for _, a := range noted(t, path) {
			want = append(want, fmt.Sprint(a.pid, " ", a.token))
		}
		slices.Sort(said)
		slices.Sort(want)
		if !slices.Equal(said, want) {
			t.Errorf("noted are %q, there run %q", want, said)
		}
		for _, a := range all {
			a.Stop(errors.New("enough"))
			_ = a.Wait()
		}
		succeed(t, with("true"), "")
		failing(t, with("false"), "")
		failing(t, with("/nowhere"), "")
		if left := noted(t, path); len(left) > 0 {
			t.Errorf("the notes %v are left", left)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 4*slotSize {
		t.Errorf("the file is %v, %v", info, err)
	}
}

// A command whose attempt cannot be noted is not run.
func TestACommandIsNotRunWithoutItsNote(t *testing.T) {
	e, err := New(Config{Command: []string{"true"}, PIDFile: openNotes(t, filepath.Join(t.TempDir(), "missing", "commands"))})
	if err != nil {
		t.Fatal(err)
	}
	if f := failing(t, e, ""); f.Class != job.Retryable {
		t.Errorf("the fault is %+v", f)
	}
}

// stranger starts a process that leads a group, and is no attempt's.
func stranger(t *testing.T) (process, <-chan struct{}) {
	t.Helper()
	alive, gone := fifo(t)
	cmd := exec.Command("sh", "-c", "exec 3>"+alive+"; echo; exec sleep 1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = io.ReadFull(out, make([]byte, 1))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); <-gone })
	p, ok := processOf(cmd.Process.Pid)
	if !ok {
		t.Fatal("the process cannot be read")
	}
	return p, gone
}

// A number that was given to another process, and a note that is not ours, kill nobody.
func TestStrangersAreLeftAlone(t *testing.T) {
	p, gone := stranger(t)
	path := filepath.Join(t.TempDir(), "commands")
	const token = "0123456789abcdef0123456789abcdef"
	for _, c := range []struct{ header, note string }{
		{"", ""}, {"here", ""}, {"here", "rubbish"}, {"here", token}, {"here", token + " -1 0 0"}, {"here", token + " 0 0 0"},
		{"here", fmt.Sprint(token, " ", p.pid, " ", p.start+1, " ", p.session)}, // the process is older
		{"here", fmt.Sprint(token, " ", p.pid, " ", p.start, " ", p.session+1)}, // it is of another session
		{"here", fmt.Sprint(token, " ", p.pid, " ", p.start)},                   // the note was cut short
		{"1-1", fmt.Sprint(token, " ", p.pid, " ", p.start, " ", p.session)},    // the file is a copy
		{"here", fmt.Sprint(token, " ", os.Getpid(), " 0 ", p.session)},         // it is about ourselves
		{"before", fmt.Sprint(token, " ", p.pid, " ", p.start, " ", p.session)}, // the machine was started since
	} {
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if here, err := identity(path); err != nil {
			t.Fatal(err)
		} else if c.header == "here" {
			c.header = here + " " + numbering()
		} else if c.header == "before" {
			c.header = here + " 0 " + strings.Repeat("x", len(numbering())-2)
		}
		n := &PIDFile{path: path, file: file}
		if err := errors.Join(n.writeLocked(0, c.header), n.writeLocked(1, c.note), n.Close()); err != nil {
			t.Fatal(err)
		}
		openNotes(t, path)
	}
	process{pid: p.pid, start: p.start - 1}.signal(syscall.SIGKILL) // the number was given to another one since
	select {
	case <-gone:
		t.Fatal("a stranger was killed")
	case <-time.After(0):
	}

	a := attempt{token: "x", pid: p.pid, start: p.start, session: p.session}
	if found := a.processes(); len(found) != 1 || found[0] != p {
		t.Errorf("of its own group it finds %v, want %v", found, p)
	}
}

func BenchmarkAttempt(b *testing.B) {
	for name, notes := range map[string]*PIDFile{"without notes": nil, "with notes": openNotes(b, filepath.Join(b.TempDir(), "commands"))} {
		b.Run(name, func(b *testing.B) {
			e, err := New(Config{Command: []string{"true"}, PIDFile: notes})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := e.Execute(b.Context(), exectest.Task(nil), exectest.NewRecorder(b)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
