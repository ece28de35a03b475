package server

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec/process"
)

// openCommands removes what an earlier server's commands have left, processes and files, and
// returns what the configurations of all commands have in common. No command runs yet: a process
// that is left would run beside the next attempt of its job.
func openCommands(data *dataDir, log *slog.Logger) (process.Config, error) {
	pidFile, err := process.OpenPIDFile(data.commands(), log)
	if err != nil {
		return process.Config{}, fmt.Errorf("the processes that an earlier server's commands left running cannot be found: %w", err)
	}
	scratch, err := filepath.Abs(data.scratch())
	if err != nil {
		return process.Config{}, err
	}
	process.RemoveScratch(scratch, log)
	process.RemoveScratch(sharedScratch(scratch), log)
	return process.Config{PIDFile: pidFile, Scratch: scratch, Log: log}, nil
}

// sharedScratch is the directory for the scratch directories of commands that run as another
// user, who may not enter the data directory. Each data directory has one of its own.
func sharedScratch(scratch string) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("meanwhile-%.8x", sha256.Sum256([]byte(scratch))))
}

// guardCommands makes this process safe from the commands that it runs, for a process that is the
// server's own. The task ends when it is stopped.
func guardCommands(cfg config.Config, log *slog.Logger) *task {
	for _, q := range cfg.Queues {
		if q.Executor != config.Process {
			continue
		}
		if err := process.Protect(); err != nil {
			log.Warn("the server's process cannot be protected from its commands", "error", err)
		}
		break
	}
	return startTask(func(ctx context.Context) error { process.ReapOrphans(ctx); return nil })
}
