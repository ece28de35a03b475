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

// Handle adds a queue to the server and the function that runs its jobs. [Concurrency]
// says how many jobs run at once, each in its own goroutine. Call Handle before
// [Server.Run].
//
// The input of a job must be JSON that decodes into In, without unknown fields. If In has
// a method Validate() error, that must return nil. The server refuses any other submission
// with [client.CodeInvalid]. The value that work returns becomes the result of the job, as
// JSON; a [Result] is stored unchanged.
//
// An error or a panic fails the attempt. The job is then retried, up to [MaxAttempts]
// failures; [Final] and [RetryAfter] change this. The context ends when the job is
// cancelled, when it reaches a timeout, and when the server stops. [context.Cause] is then
// [ErrCancelled], [ErrTimeout], [ErrStopping] or [ErrLost]. After 10 s, work that has not
// returned loses its slot, and its outcome is discarded.
//
// Handle panics when the queue exists already, when its name has characters other than
// a-z, 0-9, _ and -, when work is nil, when an option is invalid, and when the server
// runs.
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
		// A goroutine of work may outlive the attempt. Its writes must fail.
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

// QueueOption changes a setting of a queue from its default.
type QueueOption struct{ set func(*config.Queue) }

// Concurrency sets how many jobs of the queue run at once. The default is GOMAXPROCS. The
// minimum is 1.
func Concurrency(n int) QueueOption {
	return QueueOption{func(q *config.Queue) { q.Concurrency = n }}
}

// MaxDepth sets how many jobs of the queue may wait. The next submission is refused with
// [client.CodeQueueFull]. The default is 10,000.
func MaxDepth(n int) QueueOption {
	return QueueOption{func(q *config.Queue) { q.MaxDepth = n }}
}

// PerKey sets how many jobs of one key may run and wait at once; 0 means no limit. When the
// limit of running jobs is reached, further jobs of the key are parked. When the limit of
// waiting jobs is reached, the next submission is refused with [client.CodeKeyFull]. By
// default a key has no limit of running jobs, and 1,000 jobs may wait.
func PerKey(running, waiting int) QueueOption {
	return QueueOption{func(q *config.Queue) { q.PerKey.Running, q.PerKey.Waiting = running, waiting }}
}

// MaxAttempts sets how many attempts of a job may fail before the job fails. The default
// is 4. Attempts lost in a crash of the program are counted separately.
func MaxAttempts(n int) QueueOption {
	return QueueOption{func(q *config.Queue) { q.MaxAttempts = n }}
}

// Backoff sets how long a job waits before its second attempt. The wait doubles for each
// further attempt, up to longest. The defaults are 2 s and 1 min.
func Backoff(first, longest time.Duration) QueueOption {
	return QueueOption{func(q *config.Queue) { q.Retry.Backoff, q.Retry.BackoffMax = first, longest }}
}

// RetryFor sets how long after its first start a job may be delayed by [RetryAfter]. Then
// the job fails. The default is 1 h.
func RetryFor(d time.Duration) QueueOption {
	return QueueOption{func(q *config.Queue) { q.Retry.For = d }}
}

// RunTimeout sets how long an attempt may run. Then its context ends with [ErrTimeout] and
// the job fails without a retry. By default an attempt may run for any time.
func RunTimeout(d time.Duration) QueueOption {
	return QueueOption{func(q *config.Queue) {
		q.Timeouts.RunSoft, q.Timeouts.RunHard = d, d+q.Timeouts.CancelGrace
	}}
}

// QueueTimeout sets how long a job may wait for its first attempt. Then the job expires.
// By default a job may wait for any time.
func QueueTimeout(d time.Duration) QueueOption {
	return QueueOption{func(q *config.Queue) { q.Timeouts.Queue = d }}
}
