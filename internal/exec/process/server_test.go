//go:build unix

package process

import (
	"context"
	"log/slog"
	"os"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// These variables make the test program a server that runs one script, for tests that kill the
// server.
const (
	serverScriptVar  = "MEANWHILE_TEST_SCRIPT"
	serverPIDFileVar = "MEANWHILE_TEST_PID_FILE"
	serverProtectVar = "MEANWHILE_TEST_PROTECT" // calls Protect and ReapOrphans
)

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
	e, _ := New(Config{Command: []string{"sh", "-c", script}, Env: []string{"PATH"}, PIDFile: pidFile})
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
