//go:build unix

package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// These variables make the test program a server that runs one script, for tests that kill the
// server.
const (
	serverScriptVar  = "MEANWHILE_TEST_SCRIPT"
	serverPIDFileVar = "MEANWHILE_TEST_PID_FILE"
	serverProtectVar = "MEANWHILE_TEST_PROTECT" // calls Protect and ReapOrphans
	serverMemoryVar  = "MEANWHILE_TEST_MEMORY"  // Limits.Memory
	serverFilterVar  = "MEANWHILE_TEST_FILTER"  // calls filterPtrace with this error number
)

// helpers make the test program, with their names as its first argument, another program.
var helpers = map[string]func(args []string){
	// It leaves its process group for its parent's.
	"leave-group": func([]string) {
		group, err := syscall.Getpgid(os.Getppid())
		if err = errors.Join(err, syscall.Setpgid(0, group)); err != nil {
			panic(err)
		}
		fmt.Println("ready")
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		<-hangup
	},
	"remove-tree": func(args []string) {
		if err := removeTree(args[0], args[1]); err != nil {
			panic(err)
		}
	},
}

func runAsServer(script string) {
	var pidFile *PIDFile
	if path := os.Getenv(serverPIDFileVar); path != "" {
		pidFile, _ = OpenPIDFile(path, slog.New(slog.DiscardHandler))
	}
	if os.Getenv(serverProtectVar) != "" {
		if err := Protect(); err != nil {
			panic(err)
		}
		go ReapOrphans(context.Background())
	}
	if errno, _ := strconv.Atoi(os.Getenv(serverFilterVar)); errno != 0 {
		filterPtrace(errno)
	}
	memory, _ := strconv.ParseInt(os.Getenv(serverMemoryVar), 10, 64)
	e, _ := New(Config{Command: []string{"sh", "-c", script}, Env: []string{"PATH"}, PIDFile: pidFile, Limits: Limits{Memory: memory}})
	_ = e.Execute(context.Background(), exec.Task{}, stdoutSink{})
	os.Exit(0)
}

// stdoutSink is a sink that writes text to standard output.
type stdoutSink struct{ exec.Sink }

func (stdoutSink) Alive()                      {}
func (stdoutSink) Log(string) error            { return nil }
func (stdoutSink) Progress(job.Progress) error { return nil }
func (stdoutSink) Result(job.Result)           {}
func (stdoutSink) Text(piece string) error     { _, err := os.Stdout.WriteString(piece); return err }
