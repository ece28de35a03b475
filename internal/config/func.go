package config

import (
	"errors"
	"runtime"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Func is the executor that calls a function of the program that embeds the server. A
// configuration file cannot name it.
const Func = "func"

// FuncQueue returns a queue of a function, with its defaults.
func FuncQueue() Queue {
	q := Defaults(Func)
	q.Concurrency = runtime.GOMAXPROCS(0)
	return q
}

// CheckQueue returns the problems of a queue that a program adds.
func CheckQueue(name string, q Queue) error {
	l := loader{where: map[string]string{}}
	key := "queues." + name
	l.must(validQueueName(name), key, queueNameRule, job.MaxQueueName)
	l.must(name != job.CallbackQueue, key, "this is the queue of deliveries, which the server makes itself: give this one another name")
	for _, d := range []time.Duration{q.Retry.Backoff, q.Retry.BackoffMax, q.Retry.For} {
		l.must(0 <= d && d <= job.MaxDuration, key+".retry", "a time must be 0 to %v, not %v", job.MaxDuration, d)
	}
	q.Executor = Sim // like Func, it has no keys of its own
	l.checkQueue(q, key, &Config{})
	return errors.Join(l.problems...)
}
