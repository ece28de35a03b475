package process

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

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
	restricted := restrictedThreads(t)
	for began := time.Now(); restricted > 1 && time.Since(began) < 10*time.Second; runtime.Gosched() { // a thread may still be ending
		restricted = restrictedThreads(t)
	}
	if restricted > 1 { // the first thread of a program never ends
		t.Errorf("%d threads have no new privileges", restricted)
	}
}
