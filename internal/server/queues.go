package server

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/llm"
	"github.com/meanwhile-run/meanwhile/internal/exec/process"
	"github.com/meanwhile-run/meanwhile/internal/exec/sim"
	"github.com/meanwhile-run/meanwhile/internal/job"
	"github.com/meanwhile-run/meanwhile/internal/loopback"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// makeExecutors returns the executor of each queue. All llm queues share models, so that a
// model's concurrency holds over all of them. The caller must close models. commands is what the
// configurations of all commands have in common.
func makeExecutors(cfg config.Config, commands process.Config, onCall llm.CallHook, log *slog.Logger) (executors map[string]exec.Executor, models *llm.Executor, err error) {
	if models, err = makeModels(cfg, onCall, log); err != nil {
		return nil, nil, err
	}
	executors = map[string]exec.Executor{}
	for name, q := range cfg.Queues {
		if executors[name], err = makeExecutor(q, commands, models); err != nil {
			return nil, models, fmt.Errorf("the queue %s: %w", name, err)
		}
		if p, ok := executors[name].(*process.Executor); ok && p.CheckInstalled() != nil {
			log.Warn("the command of a queue cannot be run: its jobs fail until that is repaired", "queue", name, "error", p.CheckInstalled())
		}
	}
	return executors, models, nil
}

func makeExecutor(q config.Queue, commands process.Config, models *llm.Executor) (exec.Executor, error) {
	switch q.Executor {
	case config.Sim:
		return sim.Executor{}, nil
	case config.LLM:
		if q.LLM.Model == "" {
			return models, nil
		}
		return models.WithDefault(q.LLM.Model)
	case config.Process:
		commands.Command, commands.Env, commands.User = q.Process.Command, q.Process.Env, q.Process.User
		commands.Limits = process.Limits{Memory: q.Process.MaxMemory, Processes: q.Process.MaxProcesses}
		if q.Process.User != "" {
			commands.Scratch = sharedScratch(commands.Scratch)
		}
		return process.New(commands)
	}
	return nil, fmt.Errorf("there is no executor %s", q.Executor)
}

// makeModels returns the executor of all models; without models in the configuration, of
// the simulated one. It returns nil when no queue calls a model.
func makeModels(cfg config.Config, onCall llm.CallHook, log *slog.Logger) (*llm.Executor, error) {
	c := llm.Config{OnCall: onCall, Log: log}
	for _, m := range cfg.Models {
		c.Models = append(c.Models, llm.Model{
			Name: m.Name, Upstream: m.Upstream, BaseURL: m.BaseURL, Query: m.Query, APIKey: m.APIKey, APIKeyEnv: m.APIKeyEnv,
			Headers: m.Headers, Secrets: m.Secrets, Concurrency: m.Concurrency,
			Stream: m.Stream, StreamOptions: m.StreamOptions,
		})
	}
	if !hasLLMQueue(cfg.Queues) {
		return nil, nil
	}
	if len(cfg.Models) == 0 {
		simulated := simmodel.Defaults()
		log.Info("no models are configured: llm queues use the built-in simulated model", "model", simulated.Models[0])
		c.Models = []llm.Model{{Name: simulated.Models[0], BaseURL: "http://simulated.invalid/v1", Transport: loopback.Transport(simmodel.New(simulated))}}
	}
	return llm.New(c)
}

func hasLLMQueue(queues map[string]config.Queue) bool {
	for _, q := range queues {
		if q.Executor == config.LLM {
			return true
		}
	}
	return false
}

// maxInput returns the largest bound of an input over all queues.
func maxInput(queues map[string]config.Queue) int64 {
	largest := int64(job.MaxInput)
	for _, q := range queues {
		largest = max(largest, q.MaxInput)
	}
	return largest
}

// engineQueues returns the queues as the engine takes them.
func engineQueues(cfg config.Config, executors map[string]exec.Executor) []engine.Queue {
	var list []engine.Queue
	for name, q := range cfg.Queues {
		queue := engine.Queue{
			Name:        name,
			Executor:    executors[name].Kind(),
			Concurrency: q.Concurrency,
			MaxRunning:  q.MaxRunning,
			MaxDepth:    q.MaxDepth,
			MaxBytes:    q.MaxBytes,
			KeyRunning:  q.PerKey.Running,
			KeyWaiting:  q.PerKey.Waiting,
			MaxAttempts: q.MaxAttempts,
			Callback:    callbackOf(q),
			MaxInput:    int(q.MaxInput),
			Ceilings:    q.Ceilings(),
			Policy:      q.Policy(),
			Keep:        cfg.Retention.Others,
			KeepFailed:  cfg.Retention.Failed,
			Files:       executors[name].TakesFiles(),
			Check:       checkOf(executors[name]),
			Defaults:    defaultsOf(executors[name]),
		}
		if checker, ok := executors[name].(exec.FileChecker); ok {
			queue.CheckFiles = checker.CheckFiles
		}
		if limited, ok := executors[name].(exec.Limited); ok {
			queue.Resource = limited.Resource
		}
		list = append(list, queue)
	}
	return list
}

// callbackOf returns the receiver of the ends of a queue's jobs; nil for none.
func callbackOf(q config.Queue) *job.Callback {
	if q.Callback == "" {
		return nil
	}
	return &job.Callback{URL: q.Callback, Events: job.AllEvents}
}

// checkOf returns the check of an executor's jobs.
func checkOf(e exec.Executor) func(metadata map[string]string, input []byte) error {
	if k, ok := e.(exec.Kinds); ok {
		return k.CheckJob
	}
	return func(_ map[string]string, input []byte) error { return e.Check(input) }
}

// defaultsOf returns the settings of an executor's kinds; nil for an executor without kinds.
func defaultsOf(e exec.Executor) func(metadata map[string]string) (int, job.Policy, bool) {
	if k, ok := e.(exec.Kinds); ok {
		return k.Defaults
	}
	return nil
}

// withdrawTime bounds the last write of a server that stops.
const withdrawTime = 2 * time.Second

// withdrawLimits lets the other servers follow the limits of this one no longer.
func (c *components) withdrawLimits() {
	ctx, cancel := context.WithTimeout(context.Background(), withdrawTime)
	defer cancel()
	if err := c.engine.WithdrawLimits(ctx); err != nil {
		c.log.Debug("the limits of this server hold at the others for a while", "error", err)
	}
}

// processName names this server in the logs of others.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}
