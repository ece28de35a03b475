package config

import (
	"errors"
	"runtime"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Func is the kind of executor that no file can name: a function of the Go program
// that the server lives in.
const Func = "func"

// FuncQueue is a queue of functions that was told nothing else.
func FuncQueue() Queue {
	q := Defaults(Func)
	q.Concurrency = runtime.GOMAXPROCS(0)
	return q
}

// CheckQueue says what is wrong with a queue that a program makes itself.
func CheckQueue(name string, q Queue) error {
	l := loader{where: map[string]string{}}
	key := "queues." + name
	l.must(validQueueName(name), key, "a queue's name is 1 to %d of a-z, 0-9, _ and -, and begins with a letter or digit", job.MaxQueueName)
	q.Executor = Sim // like a function it has no keys of its own
	l.checkQueue(q, key, nil)
	return errors.Join(l.problems...)
}
