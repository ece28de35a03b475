//go:build unix

package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// startShell starts an attempt of a script.
func startShell(t *testing.T, script string) *exectest.Attempt {
	return exectest.Start(t, newShell(t), exectest.Task([]byte(script)))
}

// cancel stops an attempt that would run on, and waits for its end.
func cancel(t *testing.T, a *exectest.Attempt) {
	t.Helper()
	a.Stop(exec.ErrCancelled)
	if err := a.Wait(); !errors.Is(err, exec.ErrCancelled) {
		t.Errorf("the attempt ended with %v", err)
	}
}

// Output without a line end is shown while the command goes on.
func TestUnfinishedLinesAreShown(t *testing.T) {
	t.Parallel()
	for script, shown := range map[string]func(exectest.Record) bool{
		`printf 'Loading...'; sleep 1000`:               func(r exectest.Record) bool { return r.Text() == "Loading..." },
		`printf 'Loading...' >&2; sleep 1000`:           func(r exectest.Record) bool { return len(r.OfKind(job.KindLog)) == 1 },
		`printf '10%%\r20%%\r' >&2; sleep 1000`:         func(r exectest.Record) bool { return len(r.OfKind(job.KindLog)) == 1 },
		`printf 'a\377b\303'; sleep 1000`:               func(r exectest.Record) bool { return r.Text() == "a\ufffdb" },
		`printf '\303'; sleep 1000`:                     func(r exectest.Record) bool { return r.Alive > 0 },
		`exec 1>&-; printf x >&2; sleep 1000`:           func(r exectest.Record) bool { return len(r.OfKind(job.KindLog)) == 1 },
		`exec 2>&-; printf x; sleep 1000`:               exectest.HasText,
		`exec 1>&- 2>&- 0<&-; exec sleep 1000`:          func(r exectest.Record) bool { return true },
		`trap '' TERM PIPE HUP; echo x; exec sleep 0.2`: exectest.HasText,
	} {
		a := startShell(t, script)
		a.Sink.WaitUntil(shown)
		if r := a.Sink.Record(); !shown(r) {
			t.Errorf("%s: the record is %+v", script, r)
		}
		cancel(t, a)
	}
}

// A hundred megabytes without a line end are bounded as a result is.
func TestEndlessLineIsBounded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it writes 64 MiB")
	}
	if f := runFailing(t, newShell(t), `tr '\0' x < /dev/zero`); f.Code != "result_too_large" || f.Class != job.Final {
		t.Errorf("the fault is %+v", f)
	}
}

// Reads are paced: the first bytes after a quiet are read at once, and a command that prints
// without end is read a limited number of times and bytes a second.
func TestReadsArePaced(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stderr              bool
		size                int // bytes of a read
		maxReads, maxKBytes int // in a second
	}{
		"small writes":                   {false, 5, 101, 1},
		"small writes to standard error": {true, 5, 101, 1},
		"as much as it can":              {false, pieceSize, 101 * 8, 51 << 10},
		"as much to standard error":      {true, pieceSize, 101, 6500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := pipeReader{stderr: tt.stderr, exited: make(chan struct{})}
				began, reads := time.Now(), 0
				for ; time.Since(began) < time.Second; reads++ {
					r.pause(tt.size)
				}
				if kbytes := reads * tt.size >> 10; reads > tt.maxReads || kbytes > tt.maxKBytes {
					t.Errorf("%d reads of %d KiB in a second", reads, kbytes)
				}
			})
		})
	}
}

// The end of a command's output is not delayed by a pause.
func TestPauseEndsWithTheCommand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		exited := make(chan struct{})
		close(exited)
		began := time.Now()
		(&pipeReader{exited: exited}).pause(5)
		if waited := time.Since(began); waited != 0 {
			t.Errorf("it waited for %v", waited)
		}
	})
}

// A child that keeps the outputs open delays neither success nor failure, and its later output
// does not count.
func TestChildKeepsOutputsOpen(t *testing.T) {
	t.Parallel()
	e := newShell(t)
	e.timeouts.output = 50 * time.Millisecond
	for _, keep := range []string{
		`sleep 1000 &`,
		`(trap '' TERM HUP; sleep 1000) &`,
		`setsid sleep 1000 & sleep 0.05;`,
		`setsid sh -c 'while :; do echo late; sleep 1; done' & sleep 0.05;`,
	} {
		r := runSucceeding(t, e, keep+` echo done`)
		if got := strings.ReplaceAll(r.Text(), "late\n", ""); got != "done\n" {
			t.Errorf("%s: it wrote %q", keep, got)
		}
		if f := runFailing(t, e, keep+` echo failed >&2; exit 4`); f.Code != "exit_4" {
			t.Errorf("%s: the fault is %+v", keep, f)
		}
	}
}

// A program named relative to the working directory is found there.
func TestProgramIsFoundInTheWorkingDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeProgram(t, filepath.Join(dir, "tool"), "#!/bin/sh\necho found\n")
	e, err := New(Config{Command: []string{"./tool"}, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got := runSucceeding(t, e, "").Text(); got != "found\n" {
		t.Errorf("it wrote %q", got)
	}
}

func writeProgram(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

// A command that could not be started says why.
func TestStartFaultHasTheReason(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeProgram(t, filepath.Join(dir, "interpreter"), "#!/no/such/interpreter\n")
	writeProgram(t, filepath.Join(dir, "garbage"), "\x7fELF garbage")
	writeProgram(t, filepath.Join(dir, "directory-interpreter"), "#!/\n")
	for program, want := range map[string]struct{ code, reason string }{
		"interpreter":           {"command_not_started", "the interpreter in its first line"},
		"garbage":               {"command_not_started", "neither a program of this system nor a script"},
		"directory-interpreter": {"command_not_started", "does not allow it to be executed"},
		".":                     {"command_not_executable", "make it executable"},
	} {
		f := runFailing(t, newExecutor(t, dir+"/"+program), "")
		if f.Code != want.code || f.Class != job.Final || !strings.Contains(f.Message, want.reason) {
			t.Errorf("%s: %q, class %d: %s", program, f.Code, f.Class, f.Message)
		}
	}
	f := runFailing(t, newExecutor(t, "true", strings.Repeat("x", 4<<20)), "")
	if f.Code != "command_not_started" || f.Class != job.Final || !strings.Contains(f.Message, "too long") {
		t.Errorf("too many arguments: %+v", f)
	}
	for reason, err := range map[string]error{
		"too many files":   &os.PathError{Op: "pipe2", Err: syscall.EMFILE},
		"processes":        &os.PathError{Op: "fork/exec", Path: "/bin/true", Err: syscall.EAGAIN},
		"not enough memor": &os.PathError{Op: "fork/exec", Path: "/bin/true", Err: syscall.ENOMEM},
		"file busy":        &os.PathError{Op: "fork/exec", Path: "/bin/true", Err: syscall.ETXTBSY},
	} {
		f := newExecutor(t, "true").startFault(err)
		if f.Code != "command_not_started" || f.Class != job.Retryable || !strings.Contains(f.Message, reason) {
			t.Errorf("%v: %+v", err, f)
		}
	}
}

// Text of a command or of the system in a message is bounded and printable.
func TestMessagesAreBoundedAndPrintable(t *testing.T) {
	t.Parallel()
	f := newExecutor(t, "true").startFault(fmt.Errorf("a\x1b[31m\x00 reason %s", strings.Repeat("x", 1<<20)))
	if len(f.Message) > 1000 || strings.ContainsAny(f.Message, "\x1b\x00\n") {
		t.Errorf("the message of %d bytes is %.200q", len(f.Message), f.Message)
	}
	f = runFailing(t, newShell(t), `printf 'bad \033[31m\000\377 words\n' >&2; tr '\0' x < /dev/zero | head -c 3000000 >&2; exit 2`)
	if len(f.Message) > 4*maxTailRunes+100 || strings.ContainsAny(f.Message, "\x1b\x00\n") {
		t.Errorf("the message of %d bytes is %.200q", len(f.Message), f.Message)
	}
}

// A key of its environment that a command prints is removed.
func TestSecretsAreNotLogged(t *testing.T) {
	t.Setenv("OCR_API_KEY", "sk-12345678")
	t.Setenv("PLAIN", "ordinary")
	e, err := New(Config{Command: []string{"sh"}, Env: []string{"OCR_API_KEY", "PLAIN"}})
	if err != nil {
		t.Fatal(err)
	}
	a := exectest.Start(t, e, exectest.Task([]byte(`echo "refused: $OCR_API_KEY $PLAIN" >&2; exit 1`)))
	var f *job.Fault
	if err := a.Wait(); !errors.As(err, &f) || !strings.HasSuffix(f.Message, "refused: [OCR_API_KEY] ordinary") {
		t.Errorf("the attempt ended with %v", err)
	}
	if log := a.Sink.Record().OfKind(job.KindLog); len(log) != 1 || log[0] != "refused: [OCR_API_KEY] ordinary" {
		t.Errorf("the log is %q", log)
	}
}

// A key of several lines, one that begins with another, and one that the message cuts stay secret.
func TestLongSecretsAreNotLogged(t *testing.T) {
	t.Setenv("PEM_KEY", "-----BEGIN KEY-----\r\nMIIEvQIBADANBg\r\n-----END KEY-----\n")
	t.Setenv("SHORT_TOKEN", "abcdefgh")
	t.Setenv("LONG_TOKEN", "abcdefgh-0123456789")
	t.Setenv("JWT_TOKEN", strings.Repeat("s3cr3t", 500))
	e, err := New(Config{Command: []string{"sh"}, Env: []string{"PEM_KEY", "SHORT_TOKEN", "LONG_TOKEN", "JWT_TOKEN"}})
	if err != nil {
		t.Fatal(err)
	}
	a := exectest.Start(t, e, exectest.Task([]byte(`echo "$PEM_KEY" "$LONG_TOKEN" "$JWT_TOKEN" >&2; exit 1`)))
	err = a.Wait()
	said := fmt.Sprint(err, a.Sink.Record().OfKind(job.KindLog))
	for _, secret := range []string{"MIIE", "0123", "s3cr3t"} {
		if strings.Contains(said, secret) {
			t.Errorf("%s is in %q", secret, said)
		}
	}
}

// A command that has left its process group is stopped like any other.
func TestCommandOutsideItsGroupIsStopped(t *testing.T) {
	t.Parallel()
	a := exectest.Start(t, newExecutor(t, os.Args[0], "leave-group"), exectest.Task(nil))
	a.Sink.WaitUntil(exectest.HasText)
	cancel(t, a)
}

// A command that was stopped (SIGSTOP) still gets the time to end by itself.
func TestStoppedCommandSeesSIGTERM(t *testing.T) {
	t.Parallel()
	seen := filepath.Join(t.TempDir(), "seen")
	a := startShell(t, `trap 'echo > `+seen+`; exit' TERM; echo ready; kill -STOP $$; while :; do sleep 0.01; done`)
	a.Sink.WaitUntil(exectest.HasText)
	cancel(t, a)
	if _, err := os.Stat(seen); err != nil {
		t.Error(err)
	}
}
