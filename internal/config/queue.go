package config

import (
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Queue configures a queue: how its jobs wait and how they run.
type Queue struct {
	Executor    string       `yaml:"executor"`
	Concurrency int          `yaml:"concurrency"` // maximum of running jobs in one server
	MaxRunning  int          `yaml:"max_running"` // maximum of running jobs over all servers on one database; 0 for no limit
	MaxDepth    int          `yaml:"max_depth"`   // maximum of waiting jobs; further submits are refused
	MaxBytes    int64        `yaml:"max_bytes"`   // maximum of input and files of the waiting jobs; 0 for no limit
	PerKey      PerKey       `yaml:"per_key"`
	MaxAttempts int          `yaml:"max_attempts"` // how often a job may fail
	Timeouts    job.Timeouts `yaml:"timeouts"`     // by [job.Clock.Key]; 0 turns a clock off
	Retry       Retry        `yaml:"retry"`

	// The keys of each executor are keys of the queue itself, allowed for that executor
	// only.
	LLM     LLMOptions     `yaml:",inline"`
	Process ProcessOptions `yaml:",inline"`
}

// PerKey limits the jobs of one key in a queue; 0 for no limit.
type PerKey struct {
	Running int `yaml:"running"` // further jobs are parked
	Waiting int `yaml:"waiting"` // further submits are refused
}

// Retry is the retry policy of a queue's jobs; see [job.Retry].
type Retry struct {
	Backoff     time.Duration   `yaml:"backoff_s"`
	BackoffMax  time.Duration   `yaml:"backoff_max_s"`
	For         time.Duration   `yaml:"for_s"`
	OnTimeout   bool            `yaml:"on_timeout"`
	AfterOutput job.AfterOutput `yaml:"after_output"`
}

// Policy returns the policy of the queue's jobs.
func (q Queue) Policy() job.Policy {
	r := q.Retry
	return job.Policy{
		Timeouts: q.Timeouts,
		Retry:    job.Retry{Backoff: r.Backoff, BackoffMax: r.BackoffMax, For: r.For, OnTimeout: r.OnTimeout, AfterOutput: r.AfterOutput},
	}
}

// Defaults returns a queue with the executor and its defaults. An unknown executor gets the
// common defaults.
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
		*d = job.Clocks[i].Default
	}
	for _, k := range executorKinds() {
		if k.name == executor {
			k.defaults(&q)
		}
	}
	return q
}
