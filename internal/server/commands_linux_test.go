package server

import (
	"log/slog"
	"syscall"
	"testing"

	"github.com/meanwhile-run/meanwhile/internal/config"
)

// A stand-alone server that runs commands is not readable for them. It runs alone, because it
// changes the whole process.
func TestServerWithCommandsIsNotDumpable(t *testing.T) {
	const getDumpable, setDumpable = 3, 4
	dumpable := func(call, arg uintptr) uintptr {
		value, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, call, arg, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		return value
	}
	was := dumpable(getDumpable, 0)
	defer dumpable(setDumpable, was)
	for executor, want := range map[string]uintptr{config.Sim: was, config.Process: 0} {
		cfg := config.Config{Queues: map[string]config.Queue{"q": {Executor: executor}}}
		task := guardCommands(cfg, slog.New(slog.DiscardHandler))
		if got := dumpable(getDumpable, 0); got != want {
			t.Errorf("with a queue of %s it is %d, want %d", executor, got, want)
		}
		_ = task.stop()
		dumpable(setDumpable, was)
	}
}
