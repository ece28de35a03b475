package meanwhile

import (
	"context"
	"fmt"
	"time"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/fn"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Handle gives the server a queue, whose jobs are done by work: so many at once, by
// as many goroutines. It is called before Run.
//
// A job's input must be JSON that fits In, without fields that In has not; where In
// has a method Validate() error it must pass that too. A submit of anything else is
// refused as invalid. What work returns becomes the job's result, as JSON; a [Result]
// stays as it is.
//
// An error, or a panic, fails the attempt, which is made again later, as often as
// [MaxAttempts] says; [Final] and [RetryAfter] say otherwise. The context ends when
// the job is cancelled, runs for too long, or the server stops: [context.Cause] says
// which of [ErrCancelled], [ErrTimeout], [ErrStopping] and [ErrLost]. Work that does
// not return then loses its slot after a grace of 10 s, and what it comes to is not
// kept.
//
// Handle panics where a mux would: when there is a queue of that name already, in the
// configuration or by Handle, when the name is none (a-z, 0-9, _ and -), when work is
// nil or an option makes no sense, and when the server runs already.
func Handle[In, Out any](s *Server, queue string, work func(context.Context, *Task, In) (Out, error), options ...QueueOption) {
	if work == nil {
		panic(fmt.Sprintf("meanwhile: the queue %q has no function: work is nil", queue))
	}
	q := config.FuncQueue()
	for _, o := range options {
		o.set(&q)
	}
	err := s.server.Add(queue, q, fn.New(func(ctx context.Context, t exec.Task, out exec.Sink, in In) (any, error) {
		task := newTask(t, out)
		defer task.close()
		value, err := work(ctx, task, in)
		if r, ok := any(value).(Result); ok {
			return job.Result(r), err
		}
		return value, err
	}))
	if err != nil {
		panic("meanwhile: " + err.Error())
	}
}

// QueueOption is how a queue differs from the usual one.
type QueueOption struct{ set func(*config.Queue) }

// Concurrency is how many jobs of the queue run at once; without it as many as Go
// runs goroutines at once (GOMAXPROCS).
func Concurrency(n int) QueueOption {
	return QueueOption{func(q *config.Queue) { q.Concurrency = n }}
}

// MaxDepth is how many jobs may wait; one more is refused. Without it 10,000.
func MaxDepth(n int) QueueOption {
	return QueueOption{func(q *config.Queue) { q.MaxDepth = n }}
}

// PerKey bounds the jobs of one key: so many run at once, the others are parked until
// it is their turn, and so many may wait, one more is refused; 0 is no bound. Without
// it a key may run as many as the queue does, and 1,000 may wait.
func PerKey(running, waiting int) QueueOption {
	return QueueOption{func(q *config.Queue) { q.PerKey.Running, q.PerKey.Waiting = running, waiting }}
}

// MaxAttempts is how often a job may fail; without it 4. Attempts that were lost,
// because the program died, are counted apart.
func MaxAttempts(n int) QueueOption {
	return QueueOption{func(q *config.Queue) { q.MaxAttempts = n }}
}

// Backoff is how long a failed job waits before its second attempt, doubled for each
// one after up to most; without it 2 s and 1 min.
func Backoff(first, most time.Duration) QueueOption {
	return QueueOption{func(q *config.Queue) { q.Retry.Backoff, q.Retry.BackoffMax = first, most }}
}

// RetryFor is how long, from its first start, a job may go on being told to wait by
// [RetryAfter]; without it 1 h.
func RetryFor(d time.Duration) QueueOption {
	return QueueOption{func(q *config.Queue) { q.Retry.For = d }}
}

// RunTimeout ends the context of an attempt that runs for longer; that is final.
// Without it an attempt may run for ever.
func RunTimeout(d time.Duration) QueueOption {
	return QueueOption{func(q *config.Queue) {
		q.Timeouts.RunSoft, q.Timeouts.RunHard = d, d+q.Timeouts.CancelGrace
	}}
}

// QueueTimeout lets a job expire that has waited for longer without having begun.
// Without it a job may wait for ever.
func QueueTimeout(d time.Duration) QueueOption {
	return QueueOption{func(q *config.Queue) { q.Timeouts.Queue = d }}
}
