package config

import (
	"runtime"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// The kinds of executor a queue may have.
const (
	Sim     = "sim"     // does nothing, slowly
	LLM     = "llm"     // calls a model
	Process = "process" // runs a command
)

// Queue is where jobs of one kind wait, and how they are done.
type Queue struct {
	Executor    string       `yaml:"executor"`
	Concurrency int          `yaml:"concurrency"` // jobs running at once in one server
	MaxRunning  int          `yaml:"max_running"` // jobs running at once over all servers on one database; 0 for no limit
	MaxDepth    int          `yaml:"max_depth"`   // jobs waiting; one more is refused
	MaxBytes    int64        `yaml:"max_bytes"`   // of the waiting jobs' input and files; 0 for no limit
	PerKey      PerKey       `yaml:"per_key"`
	MaxAttempts int          `yaml:"max_attempts"` // how often a job may fail
	Timeouts    job.Timeouts `yaml:"timeouts"`     // by [job.Clock.Key]; 0 turns a clock off
	Retry       Retry        `yaml:"retry"`
	Model       string       `yaml:"model"`   // llm: for jobs that name none; "" for the first of the models
	Command     []string     `yaml:"command"` // process: the program and its arguments; no shell
	Env         []string     `yaml:"env"`     // process: variables that the command is given; others it does not see
}

// PerKey is what one key may have in a queue; 0 for no limit.
type PerKey struct {
	Running int `yaml:"running"` // jobs at once; the others are parked
	Waiting int `yaml:"waiting"` // one more is refused
}

// Retry is the retry policy of a queue's jobs. The fields are those of
// [job.Retry], which a value converts to.
type Retry struct {
	Backoff     time.Duration   `yaml:"backoff_s"`
	BackoffMax  time.Duration   `yaml:"backoff_max_s"`
	For         time.Duration   `yaml:"for_s"`
	OnTimeout   bool            `yaml:"on_timeout"`
	AfterOutput job.AfterOutput `yaml:"after_output"`
}

// Policy is the queue's policy in the engine's words.
func (q Queue) Policy() job.Policy {
	r := q.Retry
	return job.Policy{
		Timeouts: q.Timeouts,
		Retry:    job.Retry{Backoff: r.Backoff, BackoffMax: r.BackoffMax, For: r.For, OnTimeout: r.OnTimeout, AfterOutput: r.AfterOutput},
	}
}

// Defaults is a queue of the given executor that was told nothing else.
func Defaults(executor string) Queue {
	q := Queue{
		Executor:    executor,
		MaxDepth:    10_000,
		MaxBytes:    1 << 30,
		PerKey:      PerKey{Waiting: 1000},
		MaxAttempts: job.DefaultMaxAttempts,
		Retry: Retry{
			Backoff:     2 * time.Second,
			BackoffMax:  time.Minute,
			For:         time.Hour,
			AfterOutput: job.RestartAfterOutput,
		},
	}
	for i, d := range q.Timeouts.All() {
		*d = job.Clocks[i].DefaultFor(executor)
	}
	switch executor {
	case Sim:
		q.Concurrency = 1000
	case Process:
		q.Concurrency = runtime.GOMAXPROCS(0)
	case LLM:
		q.Concurrency = 32
	}
	return q
}
