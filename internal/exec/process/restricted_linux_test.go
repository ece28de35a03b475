package process

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/exec/exectest"
)

// restrictedThreads returns the number of this process's threads that may gain no privileges.
func restrictedThreads(t *testing.T) (n int) {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range threads {
		text, _ := os.ReadFile(file)
		if strings.Contains(string(text), "NoNewPrivs:\t1") {
			n++
		}
	}
	return n
}

// Only the goroutine that starts a command and waits for it has a thread of its own. When it is
// done, the thread ends, so its restrictions reach no other goroutine.
func TestCommandsRestrictionsStayOnItsThread(t *testing.T) {
	runSucceeding(t, newShell(t), "true")
	e := newExecutor(t, "true")
	if err := e.Execute(context.Background(), exectest.Task(nil), exectest.NewRecorder(t)); err != nil {
		t.Fatal(err)
	}
	if restricted := restrictedThreads(t); restricted > 1 { // the first thread of a program never ends
		t.Errorf("%d threads have no new privileges", restricted)
	}
}
