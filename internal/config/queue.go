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
	MaxInput    int64        `yaml:"max_input_bytes"` // maximum size of a job's input
	MaxAttempts int          `yaml:"max_attempts"`    // how often a job may fail
	Callback    string       `yaml:"callback"`        // where the ends of jobs are sent that name no callback; "" for nowhere
	Timeouts    job.Timeouts `yaml:"timeouts"`        // by [job.Clock.Key]; 0 turns a clock off
	Retry       Retry        `yaml:"retry"`
	Limits      Limits       `yaml:"limits"`

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

// Limits bound what a submit may ask for; see [job.Ceilings]. 0 for no limit.
type Limits struct {
	Priority    int           `yaml:"priority"`     // the best, which is the lowest number
	MaxAttempts int           `yaml:"max_attempts"` // at most
	Backoff     time.Duration `yaml:"backoff_s"`    // at least
	RetryFor    time.Duration `yaml:"retry_for_s"`  // at most
	Delay       time.Duration `yaml:"delay_s"`      // at most, also by run_at
	Timeouts    job.Timeouts  `yaml:"timeouts"`     // at most, by [job.Clock.Key]; a clock that is off is past its limit
}

// Ceilings returns the limits as the engine takes them.
func (q Queue) Ceilings() job.Ceilings {
	l := q.Limits
	return job.Ceilings{Timeouts: l.Timeouts, Priority: l.Priority, MaxAttempts: l.MaxAttempts, Backoff: l.Backoff, RetryFor: l.RetryFor, Delay: l.Delay}
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
		MaxInput:    job.MaxInput,
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
