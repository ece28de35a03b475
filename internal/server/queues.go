package server

import (
	"log/slog"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/sim"
)

// makeExecutors makes the executor of each queue.
func makeExecutors(cfg config.Config, log *slog.Logger) map[string]exec.Executor {
	executors := map[string]exec.Executor{}
	for name := range cfg.Queues {
		executors[name] = sim.Executor{}
	}
	return executors
}

// engineQueues are the queues in the engine's words.
func engineQueues(cfg config.Config, executors map[string]exec.Executor) []engine.Queue {
	var list []engine.Queue
	for name, q := range cfg.Queues {
		list = append(list, engine.Queue{
			Name:        name,
			Executor:    executors[name].Kind(),
			Concurrency: q.Concurrency,
			MaxDepth:    q.MaxDepth,
			MaxAttempts: q.MaxAttempts,
			Policy:      q.Policy(),
			Keep:        cfg.Retention.Others,
			KeepFailed:  cfg.Retention.Failed,
			Check:       executors[name].Check,
		})
	}
	return list
}
