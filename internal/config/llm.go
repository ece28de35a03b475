package config

import (
	"slices"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// LLM is the executor that calls a model.
const LLM = "llm"

// LLMOptions are the keys of a queue whose executor is llm.
type LLMOptions struct {
	Model string `yaml:"model"` // for jobs without a model; "": the first of the configuration's models
}

func llmKind() executorKind {
	return executorKind{
		name:     LLM,
		defaults: llmDefaults,
		options:  func(q *Queue) any { return &q.LLM },
		check:    checkLLM,
	}
}

// llmDefaults gives a model as long as a run may take to begin, because a server may load the
// model first, and a call that is given up makes it begin again.
func llmDefaults(q *Queue) {
	q.Concurrency = 32
	q.MaxInput = 16 << 20 // messages may have pictures
	q.Timeouts.RunSoft, q.Timeouts.RunHard = 290*time.Second, 300*time.Second
	q.Timeouts.Request, q.Timeouts.FirstOutput = 300*time.Second, 300*time.Second
	q.Timeouts.IdleOutput = 60 * time.Second
}

func checkLLM(l *loader, q *Queue, key string, cfg *Config) {
	known := slices.ContainsFunc(cfg.Models, func(m Model) bool { return m.Name == q.LLM.Model })
	// An unreadable list of models was already reported.
	l.must(q.LLM.Model == "" || known || l.hasProblem("models"), key+".model", "there is no model %s under models", job.Quote(q.LLM.Model))
}
