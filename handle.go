package meanwhile

import (
	"context"
	"fmt"

	"github.com/meanwhile-run/meanwhile/internal/config"
	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/exec/fn"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// KindMetadata is the name in a job's metadata that has its kind, in a queue of several
// kinds. Every client sets it, and lists can be filtered by it.
const KindMetadata = fn.KindMetadata

// Handle adds a queue to the server and the function that runs its jobs. [Concurrency]
// says how many jobs run at once, each in its own goroutine. It returns the jobs of the
// queue, for submitting and reading them with their types. Call Handle before [Server.Run].
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
func Handle[In, Out any](s *Server, queue string, work func(context.Context, *Task, In) (Out, error), options ...QueueOption) *Jobs[In, Out] {
	q := configure(s.queueConfig(), options)
	e := newExecutor("", work, s.middleware, q.middleware)
	mustAdd(s.server.Add(queue, q.Queue, e))
	return JobsOf[In, Out](s.Client, queue, "")
}

// Queue is a queue with jobs of several kinds, each with its own function and types. They
// share the concurrency, the limits and the order of the queue.
type Queue struct {
	// set once
	server *Server
	name   string
	config queueConfig
	kinds  *fn.Kinds
}

// AddQueue adds a queue for jobs of several kinds. Add each kind with [HandleKind]. It panics
// as [Handle] does.
func (s *Server) AddQueue(name string, options ...QueueOption) *Queue {
	q := configure(s.queueConfig(), options)
	kinds := fn.NewKinds(name)
	mustAdd(s.server.Add(name, q.Queue, kinds))
	return &Queue{server: s, name: name, config: q, kinds: kinds}
}

// HandleKind adds a kind of jobs to a queue and the function that runs them, which is as for
// [Handle]. The options change those of the queue for jobs of the kind. The kind of a job is
// in its metadata, by the name [KindMetadata], so that every client can set it, see it and
// filter by it. The server refuses a submission without a kind of the queue with
// [client.CodeUnknownKind]. Call HandleKind before [Server.Run].
//
// HandleKind panics when the queue has the kind, when the kind is not 1 to 64 letters,
// digits, _, -, . and :, when work is nil, when an option is invalid, and when the server
// runs.
func HandleKind[In, Out any](q *Queue, kind string, work func(context.Context, *Task, In) (Out, error), options ...KindOption) *Jobs[In, Out] {
	c := configure(q.config, options)
	mustAdd(config.CheckQueue(q.name, c.Queue))
	k := fn.Kind{
		Executor:    newExecutor(kind, work, q.server.middleware, c.middleware),
		MaxAttempts: c.MaxAttempts,
		Policy:      c.Policy(),
	}
	mustAdd(q.server.server.BeforeRun(func() error { return q.kinds.Add(kind, k) }))
	return JobsOf[In, Out](q.server.Client, q.name, kind)
}

// queueConfig returns the settings of a queue without options.
func (s *Server) queueConfig() queueConfig {
	return queueConfig{Queue: config.FuncQueue(), retryAtOnce: s.retryAtOnce}
}

// configure returns the settings with options.
func configure[O QueueOption](c queueConfig, options []O) queueConfig {
	for _, o := range options {
		o.configure(&c)
	}
	if c.retryAtOnce {
		c.Retry.Backoff = 0
	}
	return c
}

// newExecutor returns the executor that calls work inside its middleware.
func newExecutor[In, Out any](kind string, work func(context.Context, *Task, In) (Out, error), middleware ...[]Middleware) exec.Executor {
	if work == nil {
		panic("meanwhile: the function of a queue or kind is nil")
	}
	return fn.New[In](func(ctx context.Context, t exec.Task, out exec.Sink) (result any, err error) {
		task := newTask(kind, t, out)
		// A goroutine of work may outlive the attempt. Its writes must fail.
		defer task.close()
		err = chain(func(ctx context.Context, task *Task) error {
			in, err := fn.Decode[In](t.Input)
			if err != nil {
				return err
			}
			value, err := work(ctx, task, in)
			if err != nil {
				return err
			}
			result = value
			if r, ok := result.(Result); ok {
				result = job.Result(r)
			}
			return nil
		}, middleware...)(ctx, task)
		return result, err
	})
}

// mustAdd panics for an error. As with patterns of a mux, a wrong queue is a defect of the
// program.
func mustAdd(err error) {
	if err != nil {
		panic(fmt.Sprintf("meanwhile: %v", err))
	}
}
