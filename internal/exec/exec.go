// Package exec defines how a job runs: an [Executor] makes one attempt and writes its output to
// a [Sink]. Each kind of executor has its own package. Package exectest tests the promises of
// every kind.
package exec

import (
	"context"
	"errors"

	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Executor runs the jobs of a queue. Many goroutines call its methods at once.
type Executor interface {
	// Kind returns the executor's name in a configuration, such as "sim", "llm" or "process".
	Kind() string

	// TakesFiles reports whether jobs may come with files. A submit with files is refused where
	// the executor would ignore them.
	TakesFiles() bool

	// Check reports whether an attempt could process an input. It is called before the job is
	// stored. It returns nil or a *[job.Error] with the code [job.Invalid], whose Field is a
	// JSON pointer into the input. It is quick and has no side effect.
	Check(input []byte) error

	// Execute makes one attempt. It returns when the attempt is over and everything that it
	// started has ended. It writes the result to the sink. The error is the reason why there is
	// no result; it is a *[job.Fault] if the executor knows what should follow.
	//
	// When ctx ends, the work must stop at once and Execute must return soon. [context.Cause] is
	// one of [ErrCancelled], [ErrTimeout], [ErrStopping] and [ErrLost]. Work that was stopped
	// returns an error. If Execute returns nil although ctx has ended, the work is nevertheless
	// done, and the job succeeds unless it was cancelled. Execute does not use the sink after it
	// has returned.
	Execute(ctx context.Context, t Task, out Sink) error
}

// Kinds is an [Executor] with several kinds of jobs, which their metadata tells apart.
type Kinds interface {
	// CheckJob is called in place of Check and keeps its promises. The error for the input is
	// as of Check; any other has another code and a Field that begins at the request.
	CheckJob(metadata map[string]string, input []byte) error
	// Defaults returns the settings of a job that sets none; ok is false for those of the
	// queue.
	Defaults(metadata map[string]string) (maxAttempts int, policy job.Policy, ok bool)
}

// FileChecker is an executor whose inputs name files of their jobs.
type FileChecker interface {
	// CheckFiles reports whether an attempt could process an input with these files. It is
	// called before the job is stored, after Check and with its promises.
	CheckFiles(input []byte, files []job.File) error
}

// Limited is an executor whose attempts need a scarce resource besides a slot of their queue,
// such as a model. A job whose resource has no room stays in its queue, and the jobs behind it
// pass.
type Limited interface {
	Executor
	// Resource returns the name of the resource that an attempt with this input needs, the same
	// for all executors that share it; "" for none. It is called before the job is stored.
	Resource(input []byte) string
	// Resources returns the state of the executor's resources. Executors that share resources
	// return the same value, which is comparable.
	Resources() Resources
}

// Resources are the resources of an executor in this process.
type Resources interface {
	// Limits returns, for each limited resource, how many attempts may be under way at once,
	// including those that are. The caller may change the map. It is called often, so it is quick.
	Limits() map[string]int
	// OnRoom sets the function that is called when a limit may have risen for another reason than
	// the end of an attempt. The function does not block and may call Limits.
	OnRoom(func())
}

// Task is the executor's input for one attempt.
type Task struct {
	Job   job.Job // as claimed: Job.Attempt counts this attempt
	Input []byte  // must not be changed
	// Clocks are those of the queue's configuration. The job's own, in its policy, may be the
	// submitter's: they must not change what other jobs share, such as a circuit breaker.
	Clocks job.Timeouts
	// Files are the files of the job. They are read-only and stay at their paths until the
	// attempt is over.
	Files []File
}

// File is a file of a job.
type File struct {
	job.File
	Path string // absolute path
}

// Sink accepts the output of an attempt. Only one goroutine may call it at a time. It combines
// small pieces, so an executor need not. A call may block while the disk is slow. If a call
// returns an error, the attempt is over, and the executor must return that error.
type Sink interface {
	// ResetTimeouts restarts the attempt's timeouts. An executor calls it during and after a
	// wait for a scarce resource, such as a free slot of a model, so that the wait counts for no
	// timeout. Most executors never call it.
	ResetTimeouts()
	// Alive reports that the work goes on although it writes nothing now. For the timeouts of
	// first and idle output it counts as output; it stores nothing and no watcher sees it. An
	// executor calls it for each sign of life that becomes no output, such as a keep-alive
	// comment of a model server or a part of a line. It never blocks and is cheap enough for
	// every read.
	Alive()
	// Killed returns a channel that is closed when the work must end at once: its grace after a
	// stop is over, or its lease is lost. Another attempt of the job may begin then. An executor
	// that gives its work a grace of its own ends that grace. Any goroutine may call it.
	Killed() <-chan struct{}
	// Text writes a piece of text in UTF-8. A piece may end inside a character.
	Text(piece string) error
	// Event writes one JSON value, which is stored verbatim.
	Event(value []byte) error
	// Log writes one line for the operators.
	Log(line string) error
	// Progress reports the progress of the attempt. The percentage never decreases: a lower one
	// is replaced by the highest so far.
	Progress(p job.Progress) error
	// Result sets the job's result, which is used if Execute returns nil. The last call counts.
	Result(r job.Result)
	// Usage sets the cost of the work, as JSON. It is stored whether the attempt succeeds or
	// fails.
	Usage(u []byte)
}

// The causes of the end of an attempt's context.
var (
	ErrCancelled = errors.New("exec: the job was cancelled")
	ErrTimeout   = errors.New("exec: the attempt reached its time")
	ErrStopping  = errors.New("exec: the worker is stopping")
	ErrLost      = errors.New("exec: the lease was lost")
)

// ErrNoRoom is returned by Execute of a [Limited] executor if the job's resource has no room after
// all. The job goes back to its queue, and the attempt does not count.
var ErrNoRoom = errors.New("exec: the job's resource has no room")
