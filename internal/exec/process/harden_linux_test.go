package process

import (
	"os"
	osexec "os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// A command reads neither the environment nor the memory of the server, also as root.
func TestServerIsNotReadable(t *testing.T) {
	script := `for f in environ mem maps fd/0; do cat "/proc/$PPID/$f" 2>&- && echo "$f"; done; echo end`
	server := osexec.Command(os.Args[0])
	server.Env = append(os.Environ(), serverScriptVar+"="+script, serverProtectVar+"=1", "SECRET_OF_THE_SERVER=xyzzy", "TMPDIR="+t.TempDir())
	out, err := server.Output()
	if err != nil || string(out) != "end\n" {
		t.Errorf("the command read %.500q, %v", out, err)
	}
}

// Rights that the server's programs inherit (AmbientCapabilities= of systemd) are taken too.
func TestCommandInheritsNoRightsToRead(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root has rights to give")
	}
	server := osexec.Command(os.Args[0])
	server.Env = append(os.Environ(), serverScriptVar+"=grep -E 'Cap(Inh|Eff|Amb)' /proc/self/status", "TMPDIR="+t.TempDir())
	server.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: []uintptr{unix.CAP_SYS_PTRACE}}
	out, err := server.Output()
	if err != nil {
		t.Skipf("no rights can be given: %v", err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		_, set, _ := strings.Cut(line, "\t")
		if bits, err := strconv.ParseUint(set, 16, 64); err != nil || bits&(1<<unix.CAP_SYS_PTRACE) != 0 {
			t.Errorf("it may read other processes: %q", line)
		}
	}
}

// Where the server may not trace, the limits hold a moment after the start.
func TestLimitsHoldWithoutPtrace(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENOSYS} {
		server := osexec.Command(os.Args[0])
		script := `for i in $(seq 100); do ulimit -d | grep -v unlimited && exit; sleep 0.05; done`
		server.Env = append(os.Environ(), serverScriptVar+"="+script, serverMemoryVar+"=209715200", serverFilterVar+"="+strconv.Itoa(int(errno)), "TMPDIR="+t.TempDir())
		if out, err := server.CombinedOutput(); err != nil || string(out) != "204800\n" {
			t.Errorf("%v: the limit is %q, %v", errno, out, err)
		}
	}
}

func TestCommandGainsNoPrivileges(t *testing.T) {
	t.Parallel()
	text := runSucceeding(t, newExecutor(t, "grep", "-E", "NoNewPrivs|CapBnd", "/proc/self/status"), "").Text()
	if !strings.Contains(text, "NoNewPrivs:\t1") {
		t.Errorf("its status is %q", text)
	}
	_, set, _ := strings.Cut(text, "CapBnd:\t")
	set, _, _ = strings.Cut(set, "\n")
	bits, err := strconv.ParseUint(set, 16, 64)
	if err != nil || os.Geteuid() == 0 && bits&(1<<unix.CAP_SYS_PTRACE|1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_PERFMON) != 0 {
		t.Errorf("it may read other processes: %q", text)
	}
}

// A command has no descriptor of the server but its own three, also none that the server itself
// has inherited.
func TestCommandInheritsNoDescriptors(t *testing.T) {
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	inherited, err := syscall.Dup(int(file.Fd())) // without close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(inherited)
	text := runSucceeding(t, newShell(t), `ls -l /proc/$$/fd`).Text()
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if _, target, found := strings.Cut(line, " -> "); found && !strings.HasPrefix(target, "pipe:") {
			t.Errorf("it has %q", line)
		}
	}
}

func TestLimitsHoldFromTheStart(t *testing.T) {
	t.Parallel()
	e, err := New(Config{Command: []string{"sh"}, Limits: Limits{Memory: 200 << 20, Processes: 4321}})
	if err != nil {
		t.Fatal(err)
	}
	r := runSucceeding(t, e, `sh -c 'cat /proc/self/limits' | grep -E 'Max (data size|processes)'`)
	for _, want := range []string{"209715200", "4321"} {
		if strings.Count(r.Text(), want) != 2 { // soft and hard
			t.Errorf("a child's limits are %q, want %s", r.Text(), want)
		}
	}
}

func TestMemoryIsLimited(t *testing.T) {
	t.Parallel()
	e, err := New(Config{Command: []string{"sh", "-c", `x=$(head -c 300000000 /dev/zero | tr '\0' x); echo ${#x}`}, Limits: Limits{Memory: 100 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	a := exectest.Start(t, e, exectest.Task(nil))
	if err := a.Wait(); err == nil {
		t.Errorf("it had 300 MB: %q", a.Sink.Record().Text())
	}
}

func TestLimitedCommandCanFailToStartAndBeStopped(t *testing.T) {
	t.Parallel()
	limits := Limits{Memory: 1 << 30}
	for program, code := range map[string]string{"no-such-command": "command_not_found", "false": "exit_1"} {
		e, err := New(Config{Command: []string{program}, Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		if f := runFailing(t, e, ""); f.Code != code {
			t.Errorf("%s: %+v", program, f)
		}
	}
	e, err := New(Config{Command: []string{"sh"}, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	a := exectest.Start(t, e, exectest.Task([]byte("echo ready; exec sleep 1000")))
	a.Sink.WaitUntil(exectest.HasText)
	cancel(t, a)
}

// nobody returns an executor whose scripts run as the user nobody.
func nobody(t *testing.T) *Executor {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a command as another user")
	}
	if _, err := osuser.Lookup("nobody"); err != nil {
		t.Skip("there is no user nobody")
	}
	root, err := os.MkdirTemp("", "meanwhile-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	e, err := New(Config{Command: []string{"sh"}, User: "nobody", Scratch: filepath.Join(root, "tmp"), Limits: Limits{Processes: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o711); err != nil { // another user must be able to enter it
		t.Fatal(err)
	}
	return e
}

// A command of another user has its job's files, its scratch directory and its outputs, and
// nothing that belongs to the server.
func TestCommandRunsAsAnotherUser(t *testing.T) {
	t.Parallel()
	e := nobody(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	if err := os.WriteFile(path, []byte("in a.txt"), 0o600); err != nil {
		t.Fatal(err)
	}
	task := exectest.Task([]byte(`id -un; id -Gn; cat "$MEANWHILE_FILE_1"; echo; echo ok > "$TMPDIR/x"; cat "$TMPDIR/x"
		echo changed > "$MEANWHILE_FILE_1" && echo changed; cat ` + path + ` && echo read; cat /proc/$PPID/environ && echo environ
		echo out > /dev/stdout; echo err > /dev/stderr; exit 0`))
	task.Files = []exec.File{{Path: path, File: job.File{Name: "a.txt", Size: 8}}}
	a := exectest.Start(t, e, task)
	if err := a.Wait(); err != nil {
		t.Fatal(err)
	}
	r := a.Sink.Record()
	if got := r.Text(); got != "nobody\nnogroup\nin a.txt\nok\nout\n" && got != "nobody\nnobody\nin a.txt\nok\nout\n" {
		t.Errorf("it wrote %q, and logged %q", got, r.OfKind(job.KindLog))
	}
	if left := entriesIn(t, e.config.Scratch); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
	for _, bad := range []string{"no-such-user", "0"} {
		if _, err := New(Config{Command: []string{"true"}, User: bad}); err == nil {
			t.Errorf("the user %s was accepted", bad)
		}
	}
}

// A directory that another user could change is not used for files that root copies.
func TestScratchRootOfAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	e := nobody(t)
	for name, make := range map[string]func(path string) error{
		"another's":      func(path string) error { return os.Lchown(path, int(e.user.credential.Uid), -1) },
		"for everyone":   func(path string) error { return os.Chmod(path, 0o777) },
		"a link of such": func(path string) error { return os.Rename(path, path+".real") },
	} {
		e.config.Scratch = filepath.Join(t.TempDir(), "tmp")
		if err := os.Mkdir(e.config.Scratch, 0o711); err != nil {
			t.Fatal(err)
		}
		if err := make(e.config.Scratch); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "a link") {
			if err := os.Symlink(e.config.Scratch+".real", e.config.Scratch); err != nil {
				t.Fatal(err)
			}
		}
		if f := runFailing(t, e, "true"); f.Code != "command_not_started" || !strings.Contains(f.Message, "another user can change") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
