//go:build unix

package process

import (
	"context"
	"log/slog"
	"os"

	"github.com/meanwhile-run/meanwhile/internal/exec"
)

// scriptOfServer is the variable that makes this test program a server which runs
// one script, for tests that kill the server.
const (
	scriptOfServer = "MEANWHILE_TEST_SCRIPT"
	notesOfServer  = "MEANWHILE_TEST_NOTES"
)

func beServer(script string) {
	var notes *PIDFile
	if path := os.Getenv(notesOfServer); path != "" {
		notes, _ = OpenPIDFile(path, slog.New(slog.DiscardHandler))
	}
	e, _ := New(Config{Command: []string{"sh", "-c", script}, Env: []string{"PATH"}, PIDFile: notes})
	_ = e.Execute(context.Background(), exec.Task{}, announcing{})
	os.Exit(0)
}

// announcing is a sink that passes text on to standard output.
type announcing struct{ exec.Sink }

func (announcing) Text(piece string) error { _, err := os.Stdout.WriteString(piece); return err }
