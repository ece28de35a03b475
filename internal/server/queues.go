package server

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/engine"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/llm"
	"github.com/meanwhile-run/meanwhile/internal/exec/process"
	"github.com/meanwhile-run/meanwhile/internal/exec/sim"
	"github.com/meanwhile-run/meanwhile/internal/loopback"
	"github.com/meanwhile-run/meanwhile/internal/simmodel"
)

// makeExecutors makes the executor of each queue. All llm queues share their
// models, whose bounds hold over all of them; models is to be closed at the end. In
// notes is noted which commands run.
func makeExecutors(cfg config.Config, notes *process.PIDFile, follow llm.CallHook, log *slog.Logger) (executors map[string]exec.Executor, models *llm.Executor, err error) {
	if models, err = makeModels(cfg, follow, log); err != nil {
		return nil, nil, err
	}
	executors = map[string]exec.Executor{}
	for name, q := range cfg.Queues {
		if executors[name], err = makeExecutor(q, notes, models); err != nil {
			return nil, models, fmt.Errorf("the queue %s: %w", name, err)
		}
		if p, ok := executors[name].(*process.Executor); ok && p.CheckInstalled() != nil {
			log.Warn("the command of a queue cannot be run: until that is mended its jobs fail", "queue", name, "error", p.CheckInstalled())
		}
	}
	return executors, models, nil
}

func makeExecutor(q config.Queue, notes *process.PIDFile, models *llm.Executor) (exec.Executor, error) {
	switch q.Executor {
	case config.Sim:
		return sim.Executor{}, nil
	case config.LLM:
		if q.LLM.Model == "" {
			return models, nil
		}
		return models.WithDefault(q.LLM.Model)
	case config.Process:
		return process.New(process.Config{Command: q.Process.Command, Env: q.Process.Env, PIDFile: notes})
	}
	return nil, fmt.Errorf("there is no executor %s", q.Executor)
}

// makeModels makes the executor of models; without any, of the one that pretends. Nil
// when nobody would use it.
func makeModels(cfg config.Config, follow llm.CallHook, log *slog.Logger) (*llm.Executor, error) {
	c := llm.Config{OnCall: follow, Log: log}
	for _, m := range cfg.Models {
		c.Models = append(c.Models, llm.Model{
			Name: m.Name, BaseURL: m.BaseURL, APIKey: m.APIKey, APIKeyEnv: m.APIKeyEnv, Concurrency: m.Concurrency,
		})
	}
	if !asksModels(cfg.Queues) {
		return nil, nil
	}
	if len(cfg.Models) == 0 {
		pretended := simmodel.Defaults()
		log.Info("no models are configured: llm queues use the built-in simulated model", "model", pretended.Models[0])
		c.Models = []llm.Model{{Name: pretended.Models[0], BaseURL: "http://simulated.invalid/v1", Transport: inProcess(pretended)}}
	}
	return llm.New(c)
}

func asksModels(queues map[string]config.Queue) bool {
	for _, q := range queues {
		if q.Executor == config.LLM {
			return true
		}
	}
	return false
}

// inProcess carries calls to a simulated model that lives in this process.
func inProcess(o simmodel.Options) http.RoundTripper { return loopback.Transport(simmodel.New(o)) }

// engineQueues are the queues in the engine's words.
func engineQueues(cfg config.Config, executors map[string]exec.Executor) []engine.Queue {
	var list []engine.Queue
	for name, q := range cfg.Queues {
		list = append(list, engine.Queue{
			Name:        name,
			Executor:    executors[name].Kind(),
			Concurrency: q.Concurrency,
			MaxRunning:  q.MaxRunning,
			MaxDepth:    q.MaxDepth,
			MaxBytes:    q.MaxBytes,
			KeyRunning:  q.PerKey.Running,
			KeyWaiting:  q.PerKey.Waiting,
			MaxAttempts: q.MaxAttempts,
			Policy:      q.Policy(),
			Keep:        cfg.Retention.Others,
			KeepFailed:  cfg.Retention.Failed,
			Files:       executors[name].TakesFiles(),
			Check:       executors[name].Check,
		})
	}
	return list
}
