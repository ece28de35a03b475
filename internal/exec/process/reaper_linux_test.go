package process

import (
	"os"
	osexec "os/exec"
	"strings"
	"syscall"
	"testing"
)

// As PID 1 the server waits for the orphans of its commands, and takes no exit status of a
// command.
func TestFirstProcessReapsOrphans(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a PID namespace")
	}
	// The daemons end at once. The script ends when no zombie is left, or fails after a while.
	script := `for i in 1 2 3 4 5; do setsid sh -c '(setsid true &)' ; (true &); done
		for i in $(seq 100); do
			for n in 1 2 3 4 5 6 7 8 9; do sh -c 'exit 0' || echo lost; done
			left=$(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z 1 ')
			[ "$left" = 0 ] && [ "$i" -gt 3 ] && echo reaped && exit 0
			sleep 0.1
		done; echo "$left zombies"`
	server := osexec.Command("sh", "-c", `mount -t proc proc /proc && exec "$0"`, os.Args[0])
	server.Env = append(os.Environ(), serverScriptVar+"="+script, serverProtectVar+"=1", "TMPDIR="+t.TempDir())
	server.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
	out, err := server.CombinedOutput()
	if err != nil && (strings.Contains(err.Error(), "not permitted") || strings.Contains(string(out), "mount:")) {
		t.Skipf("there is no PID namespace: %v: %s", err, out)
	}
	if err != nil || string(out) != "reaped\n" {
		t.Errorf("it wrote %q, %v", out, err)
	}
}
