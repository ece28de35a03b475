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

// startServer starts a server that runs script, and returns when the script has written a line.
func startServer(t *testing.T, script, pidFile string) *exec.Cmd {
	t.Helper()
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), serverScriptVar+"="+script, serverPIDFileVar+"="+pidFile, "TMPDIR="+t.TempDir())
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if n, err := stdout.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("the server did not start: %v", err)
	}
	return server
}

func killServer(server *exec.Cmd) {
	_ = server.Process.Kill()
	_ = server.Wait()
}

// When a server is killed, the kernel kills its running commands.
func TestKilledServerLeavesNoCommand(t *testing.T) {
	alive, gone := fifo(t)
	killServer(startServer(t, "exec 3>"+alive+"; echo ready; exec sleep 1000", ""))
	<-gone
}

// openPIDFile opens a PID file, which kills the leftovers of earlier attempts.
func openPIDFile(t testing.TB, path string) *PIDFile {
	t.Helper()
	n, err := OpenPIDFile(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// attemptsIn returns the attempts in a PID file.
func attemptsIn(t *testing.T, path string) []attempt {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	here, err := fileIdentity(path)
	if err != nil {
		t.Fatal(err)
	}
	return parseAttempts(text, here)
}

// leftovers are ways in which a script leaves a sleeping process.
func leftovers(t *testing.T) map[string]string {
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

// When a server was killed, the next server kills the remaining processes of its commands.
func TestNextServerKillsLeftovers(t *testing.T) {
	for what, start := range leftovers(t) {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			alive, gone := fifo(t)
			pidFile := filepath.Join(t.TempDir(), "commands")
			killServer(startServer(t, "exec 3>"+alive+"; "+start+" sleep 0.1; echo ready; exec sleep 1000", pidFile))
			select {
			case <-gone:
				t.Fatal("the script left nothing, so the test shows nothing")
			default:
			}
			openPIDFile(t, pidFile)
			<-gone
		})
	}
}

// No process of a failed attempt is running when Execute returns.
func TestFailedAttemptLeavesNoProcess(t *testing.T) {
	for what, start := range leftovers(t) {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			alive, gone := fifo(t)
			runFailing(t, newShell(t), "exec 3>"+alive+"; "+start+" exit 1")
			<-gone

			alive, gone = fifo(t)
			a := exectest.Start(t, newShell(t), exectest.Task([]byte("exec 3>"+alive+"; "+start+" echo ready; exec sleep 1000")))
			a.Sink.WaitUntil(exectest.HasText)
			a.Stop(errors.New("enough"))
			if err := a.Wait(); err == nil {
				t.Error("the attempt was not stopped")
			}
			<-gone
		})
	}
}

func TestPIDFileListsRunningAttempts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "commands")
	pidFile := openPIDFile(t, path)
	executor := func(words ...string) *Executor {
		e, err := New(Config{Command: words, PIDFile: pidFile})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for range 2 { // the second time, slots are reused
		var all []*exectest.Attempt
		for range 3 {
			a := exectest.Start(t, executor("sh"), exectest.Task([]byte("echo $$ $MEANWHILE_ATTEMPT; exec sleep 1000")))
			a.Sink.WaitUntil(exectest.HasText)
			all = append(all, a)
		}
		var running, recorded []string
		for _, a := range all {
			running = append(running, strings.TrimSpace(a.Sink.Record().Text()))
		}
		for _, a := range attemptsIn(t, path) {
			recorded = append(recorded, fmt.Sprint(a.pid, " ", a.token))
		}
		slices.Sort(running)
		slices.Sort(recorded)
		if !slices.Equal(running, recorded) {
			t.Errorf("recorded are %q, running are %q", recorded, running)
		}
		for _, a := range all {
			a.Stop(errors.New("enough"))
			_ = a.Wait()
		}
		runSucceeding(t, executor("true"), "")
		runFailing(t, executor("false"), "")
		runFailing(t, executor("/nowhere"), "")
		if left := attemptsIn(t, path); len(left) > 0 {
			t.Errorf("the entries %v are left", left)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 4*slotSize {
		t.Errorf("the file is %v, %v", info, err)
	}
}

// A command is not run if its attempt cannot be recorded.
func TestCommandIsNotRunWithoutPIDFileEntry(t *testing.T) {
	e, err := New(Config{Command: []string{"true"}, PIDFile: openPIDFile(t, filepath.Join(t.TempDir(), "missing", "commands"))})
	if err != nil {
		t.Fatal(err)
	}
	if f := runFailing(t, e, ""); f.Class != job.Retryable {
		t.Errorf("the fault is %+v", f)
	}
}

// startUnrelated starts a process that leads a group and belongs to no attempt.
func startUnrelated(t *testing.T) (process, <-chan struct{}) {
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
	p, ok := readProcess(cmd.Process.Pid)
	if !ok {
		t.Fatal("the process cannot be read")
	}
	return p, gone
}

// Entries with a reused process number, and entries of another server, kill no process.
func TestUnrelatedProcessesAreNotKilled(t *testing.T) {
	p, gone := startUnrelated(t)
	path := filepath.Join(t.TempDir(), "commands")
	const token = "0123456789abcdef0123456789abcdef"
	for _, c := range []struct{ header, entry string }{
		{"", ""}, {"here", ""}, {"here", "rubbish"}, {"here", token}, {"here", token + " -1 0 0"}, {"here", token + " 0 0 0"},
		{"here", fmt.Sprint(token, " ", p.pid, " ", p.start+1, " ", p.session)}, // the process is older
		{"here", fmt.Sprint(token, " ", p.pid, " ", p.start, " ", p.session+1)}, // the process belongs to another session
		{"here", fmt.Sprint(token, " ", p.pid, " ", p.start)},                   // the entry is incomplete
		{"1-1", fmt.Sprint(token, " ", p.pid, " ", p.start, " ", p.session)},    // the file is a copy
		{"here", fmt.Sprint(token, " ", os.Getpid(), " 0 ", p.session)},         // the number of this process
		{"before", fmt.Sprint(token, " ", p.pid, " ", p.start, " ", p.session)}, // the machine was rebooted since
	} {
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if here, err := fileIdentity(path); err != nil {
			t.Fatal(err)
		} else if c.header == "here" {
			c.header = here + " " + pidSpace()
		} else if c.header == "before" {
			c.header = here + " 0 " + strings.Repeat("x", len(pidSpace())-2)
		}
		n := &PIDFile{path: path, file: file}
		if err := errors.Join(n.writeLocked(0, c.header), n.writeLocked(1, c.entry), n.Close()); err != nil {
			t.Fatal(err)
		}
		openPIDFile(t, path)
	}
	process{pid: p.pid, start: p.start - 1}.signal(syscall.SIGKILL) // another process has the number now
	select {
	case <-gone:
		t.Fatal("an unrelated process was killed")
	case <-time.After(0):
	}

	a := attempt{token: "x", pid: p.pid, start: p.start, session: p.session}
	if found := a.processes(); len(found) != 1 || found[0] != p {
		t.Errorf("its group has %v, want %v", found, p)
	}
}

func BenchmarkAttempt(b *testing.B) {
	for name, pidFile := range map[string]*PIDFile{"without PID file": nil, "with PID file": openPIDFile(b, filepath.Join(b.TempDir(), "commands"))} {
		b.Run(name, func(b *testing.B) {
			e, err := New(Config{Command: []string{"true"}, PIDFile: pidFile})
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
